"""The declarative base, the mixins of the five kinds, column helpers, and the engines of the four roles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    Index,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    event,
    inspect,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DataError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedColumn,
    Mapper,
    Session,
    declared_attr,
    foreign,
    mapped_column,
    relationship,
    remote,
)
from sqlalchemy.orm.exc import StaleDataError

from partywall import AsyncTenantSession, Tenant, TenantScoped, TenantSession, tenant_index, uuid7
from partywall.context import current_system_scope
from partywall.rls import Roles, assert_role
from rowhouse.core.errors import Conflict, Invalid, ReferenceNotFound, RowhouseError, StaleVersion
from rowhouse.pipeline import Pipeline, conninfo_of

_Row = TypeVar("_Row", bound=TenantScoped)

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    """Base of every table."""

    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[Any]: JSONB(none_as_null=True),
        list[str]: ARRAY(Text),
    }
    __tenant_key__: ClassVar[str] = "tenant.id"


class Journal(TenantScoped):
    """Rows appended by the system and never changed."""

    __append_only__ = True

    created_at: Mapped[datetime] = mapped_column(sort_order=900)
    created_by_id: Mapped[UUID | None] = mapped_column(sort_order=901)


class Audited(TenantScoped):
    """Rows whose every change is written to the audit log in the same transaction.

    The actor columns hold a person's id or a key's; they are no foreign keys, since the audit log must outlive both.
    """

    created_at: Mapped[datetime] = mapped_column(sort_order=900)
    created_by_id: Mapped[UUID | None] = mapped_column(sort_order=901)
    updated_at: Mapped[datetime] = mapped_column(sort_order=902)
    updated_by_id: Mapped[UUID | None] = mapped_column(sort_order=903)
    version: Mapped[int] = mapped_column(default=1, sort_order=904)

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:
        return {"version_id_col": cls.version}


class Part(Audited):
    """Rows that live in a parent and are removed with it."""


class Record(Audited):
    """Rows people make and change; archived rather than deleted."""

    archived_at: Mapped[datetime | None] = mapped_column(sort_order=905)
    archived_by_id: Mapped[UUID | None] = mapped_column(sort_order=906)


def short_text(length: int, **options: Any) -> MappedColumn[Any]:
    """Return a text column of at most `length` characters."""
    return mapped_column(String(length), **options)


def choice(name: str, values: type[StrEnum], **options: Any) -> MappedColumn[Any]:
    """Return a text column limited by CHECK to the values of an enumeration; `name` is the column's name."""
    listed = ", ".join(f"'{value}'" for value in values)
    return mapped_column(
        String(40), CheckConstraint(f"{name} IN ({listed})", name=f"{name}_choice"), info={"choices": values}, **options
    )


def money(name: str, **options: Any) -> MappedColumn[Any]:
    """Return a column of whole minor units, never negative; `name` ends in _minor and is the column's name."""
    return mapped_column(
        BigInteger,
        CheckConstraint(f"{name} >= 0", name=f"{name}_range"),
        info={"minimum": 0, "unit": "minor"},
        **options,
    )


def percent(name: str, **options: Any) -> MappedColumn[Any]:
    """Return a column of whole percent, 0 to 100; `name` is the column's name."""
    return mapped_column(
        SmallInteger,
        CheckConstraint(f"{name} BETWEEN 0 AND 100", name=f"{name}_range"),
        info={"minimum": 0, "maximum": 100},
        **options,
    )


def currency(**options: Any) -> MappedColumn[Any]:
    """Return a column for an ISO 4217 code, three upper-case letters."""
    return mapped_column(String(3), info={"pattern": r"^[A-Z]{3}$"}, **options)


def orders(table: str, *columns: str) -> tuple[Index, ...]:
    """Return the indexes that lists of a table are read along, forwards or backwards, one for each column."""
    return tuple(tenant_index(f"ix_{table}_{column}_order", column, "id") for column in columns)


class CallSession(TenantSession):
    """The tenant session of one operation call; the audit listeners are bound to this class.

    moments: under what pending changes were made, by the state of their row; the audit log takes it from here.
    written: how many changes it has recorded so far.  has_begun: whether a statement was sent.
    flushed_apart: classes whose rows are never sent together with the commit, since a listener follows their flush.
    """

    flushed_apart: ClassVar[set[type]] = set()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.moments: dict[Any, Any] = {}
        self.written = 0
        self.has_begun = False

    def known_row(self, model: type[_Row], row_id: UUID) -> _Row | None:
        """Return a row this session has loaded or added, without a statement; else None."""
        mapper: Mapper[_Row] = inspect(model)
        loaded = self.identity_map.get(mapper.identity_key_from_primary_key((self.tenant_id, row_id)))
        return loaded if loaded is not None else self.info.get("added", {}).get((model, row_id))


class AsyncCallSession(AsyncTenantSession):
    """The asyncio form of `CallSession`."""

    sync_session_class = CallSession
    sync_session: CallSession


@event.listens_for(CallSession, "after_begin")
def _note_begin(session: CallSession, _transaction: Any, _connection: Connection) -> None:
    session.has_begun = True


@event.listens_for(CallSession, "after_attach")
def _number_row(session: CallSession, row: Any) -> None:
    # The id is needed before the flush: for references from other new rows, for events and for the answer.
    if isinstance(row, TenantScoped) and inspect(row).key is None:
        if row.id is None:
            row.id = uuid7()
        session.info.setdefault("added", {})[(type(row), row.id)] = row
        if "call" in session.info:
            session.moments[inspect(row)] = session.info["call"].moment


@event.listens_for(CallSession, "after_flush")
def _forget_added(session: CallSession, _context: Any) -> None:
    session.info.pop("added", None)
    session.moments.clear()


@event.listens_for(Mapper, "before_configured")
def _parents_first() -> None:
    """Tell the unit of work which table refers to which, so that one flush writes parents before their children.

    It learns that from relationships alone; these are never loaded, set or cascaded.
    """
    classes = {str(mapper.local_table): mapper.class_ for mapper in Base.registry.mappers}
    for mapper in list(Base.registry.mappers):
        for key in mapper.local_table.foreign_key_constraints if isinstance(mapper.local_table, Table) else ():
            column, target = key.elements[-1].parent, key.elements[-1].target_fullname.rpartition(".")
            name = f"_after_{column.name}"
            if column.name == "tenant_id" or target[2] != "id" or target[0] not in classes or mapper.has_property(name):
                continue
            parent = classes[target[0]]
            if parent is not mapper.class_:
                joined = foreign(column) == remote(inspect(parent).local_table.c.id)
                order = relationship(parent, primaryjoin=joined, lazy="raise", cascade="", passive_deletes="all", overlaps="*")
                mapper.add_property(name, order)


@contextmanager
def write_failures() -> Iterator[None]:
    """Turn the database's refusals into answers: which field, which rule, never another row's values."""
    try:
        yield
    except StaleDataError as error:
        raise StaleVersion from error
    except IntegrityError as error:
        raise _answer(getattr(error.orig, "diag", None)) from error
    except DataError as error:
        raise Invalid("A value is out of the range its column can hold.", code="out_of_range") from error


def _answer(diagnosis: Any) -> RowhouseError:
    name = getattr(diagnosis, "constraint_name", None) or ""
    fields = constraint_fields(name)
    field = fields[0] if fields else ""
    if name.startswith(("uq_", "ex_")):
        return Conflict(f"Another record already has this {' and '.join(fields)}.", code="duplicate", field=field)
    if name.startswith("fk_"):
        return ReferenceNotFound(field)
    return Invalid("A value breaks a rule of this record.", code="rule_broken", field=field)


def constraint_fields(name: str) -> tuple[str, ...]:
    """Return the columns of a named constraint or unique index, the tenant left out; empty when unknown."""
    for table in Base.metadata.tables.values():
        rules: list[Any] = [*table.constraints, *table.indexes]
        for rule in rules:
            if rule.name == name:
                return tuple(column.name for column in rule.columns if column.name != "tenant_id")
            if isinstance(rule, CheckConstraint) and f"ck_{table.name}_{rule.name}" == name:
                return (str(rule.name).rsplit("_", 1)[0],)
    return ()


class SystemSession(Session):
    """A session of the operator role; it works only inside `partywall.system_scope`."""


class AsyncSystemSession(AsyncSession):
    """The asyncio form of `SystemSession`."""

    sync_session_class = SystemSession


@event.listens_for(SystemSession, "after_begin")
def _need_system_scope(_session: SystemSession, _transaction: Any, _connection: Connection) -> None:
    current_system_scope()


@dataclass(frozen=True, slots=True)
class Database:
    """The engines of the running program, one per role. Migrations use a connection of their own.

    reads: what tenants' lists and records are read through.  replica: the same, from a copy that may lag behind.
    look_ups: what people, sessions and keys are read through before a tenant is known, by the identity role.
    """

    app: AsyncEngine
    identity: AsyncEngine
    operator: AsyncEngine
    roles: Roles
    reads: Pipeline
    look_ups: Pipeline
    replica: Pipeline | None = None

    @asynccontextmanager
    async def tenant(self, tenant: Tenant) -> AsyncIterator[AsyncCallSession]:
        """Open a transaction of one tenant; committed at the end, rolled back on any error."""
        async with AsyncCallSession(self.app, tenant=tenant) as session, session.begin():
            yield session

    @asynccontextmanager
    async def people(self) -> AsyncIterator[AsyncSession]:
        """Open a transaction of the identity role: people, sessions, domains, memberships."""
        async with AsyncSession(self.identity, expire_on_commit=False, autoflush=False) as session, session.begin():
            yield session

    @asynccontextmanager
    async def system(self) -> AsyncIterator[AsyncSystemSession]:
        """Open a transaction of the operator role.  Raises NoTenant outside `system_scope(reason=…)`."""
        current_system_scope()
        async with (
            AsyncSystemSession(self.operator, expire_on_commit=False, autoflush=False) as session,
            session.begin(),
        ):
            yield session

    async def check_roles(self) -> None:
        """Raise UnsafeRole unless each engine is connected as its own, policy-bound role."""
        for engine, role in (
            (self.app, self.roles.app),
            (self.identity, self.roles.identity),
            (self.operator, self.roles.operator),
        ):
            async with engine.connect() as connection:
                await connection.run_sync(assert_role, role)

    async def close(self) -> None:
        """Close every pool."""
        for pipeline in (self.reads, self.look_ups, self.replica):
            if pipeline is not None:
                await pipeline.close()
        for engine in (self.app, self.identity, self.operator):
            await engine.dispose()


def open_database(
    urls: dict[str, str], roles: Roles, *, pool_size: int = 10, prepare: bool = True, replica: str | None = None
) -> Database:
    """Return the engines for three URLs, keyed "app", "identity", "operator".

    pool_size: connections of the app role, for reads and for writes each; the other two keep fewer.
    prepare: False where the URLs lead to a pooler in transaction mode.  replica: URL of a copy for reads, app role.
    """

    def engine(name: str, size: int) -> AsyncEngine:
        # An error's text would otherwise carry the values of the statement into the log.
        return create_async_engine(
            urls[name],
            pool_size=size,
            max_overflow=size,
            pool_pre_ping=True,
            hide_parameters=True,
            connect_args={"prepare_threshold": None},
        )

    def pipeline(url: str, role: str, **options: Any) -> Pipeline:
        return Pipeline(conninfo_of(url), role=role, prepare=prepare, **options)

    others = max(2, pool_size // 2)
    return Database(
        app=engine("app", pool_size),
        identity=engine("identity", others),
        operator=engine("operator", 2),
        roles=roles,
        reads=pipeline(urls["app"], roles.app, size=pool_size),
        look_ups=pipeline(urls["identity"], roles.identity, size=others, of_tenants=False),
        replica=pipeline(replica, roles.app, size=pool_size) if replica is not None else None,
    )
