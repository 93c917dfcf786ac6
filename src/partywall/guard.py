"""The ORM guard: a session that belongs to one tenant for life.

Every statement it sends is filtered by that tenant, every row it writes is stamped with it or refused, and the running
context must name the same tenant each time. What the guard cannot prove to be scoped (text, Core tables, bulk writes
that skip the unit of work, the raw connection) it refuses; a reviewed statement says why and carries the tenant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Uuid, bindparam, event
from sqlalchemy.dialects.postgresql import Insert as PostgresInsert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import (
    ORMExecuteState,
    RelationshipProperty,
    Session,
    SessionTransaction,
    UOWTransaction,
    attributes,
    with_loader_criteria,
)
from sqlalchemy.sql import Executable
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ClauseElement, ColumnClause, Extract, TextClause
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.sql.selectable import AliasedReturnsRows, ScalarSelect, Select, SelectBase, TableClause, TextualSelect
from sqlalchemy.sql.visitors import HasTraverseInternals

from partywall.context import Tenant, current_tenant, get_tenant_id
from partywall.errors import GuardRefusal, TenantMismatch
from partywall.rls import set_tenant_sql
from partywall.tables import TENANT_COLUMN, TenantScoped

_REVIEWED = "partywall_reviewed"
# What `scoped` filters by; whoever executes the statement passes the running tenant.
TENANT_PARAMETER = "partywall_tenant_id"
# Statements of equal cache key compile to equal SQL, so one that was found provable need not be walked again.
_MOST_PROVEN = 5_000
_proven: set[Any] = set()
_HARMLESS_LITERALS = frozenset({"*", "1"})  # SQLAlchemy writes these two itself, for EXISTS and count.
_RAW_PARTS = ("_prefixes", "_suffixes", "_statement_hints", "_hints")  # where SQL is taken as it is written
_OPERATOR = re.compile(r"(?!.*(--|/\*))[-+*/<>=~!@#%^&|`?]+")
# Functions that run SQL given as text, read tables by name, or leave the database.
_RUNS_SQL = re.compile(
    r"(query|table|cursor|schema|database)_to_xml.*|ts_stat|ts_rewrite|crosstab.*|connectby|xpath_table|dblink.*|set_config"
    r"|lo_.*|pg_(read|stat)_.*file|pg_ls_.*"
)
_TEXT = (
    "text SQL cannot be proven to be scoped; write it with mapped classes, or pass it through "
    "partywall.reviewed(statement, reason=...) with a tenant_id parameter"
)
_E = TypeVar("_E", bound=Executable)


def reviewed(statement: _E, *, reason: str) -> _E:
    """Return a statement the guard lets through although it cannot prove its scope.

    The statement must carry a parameter named `tenant_id`, and it must equal the session's tenant; the database policy
    still applies.  reason: why it is safe, at least ten characters.  Raises ValueError without one.
    """
    if len(reason.strip()) < 10:
        raise ValueError("a reviewed statement needs a reason of at least ten characters")
    return statement.execution_options(**{_REVIEWED: reason})


def scoped(statement: Select[*tuple[Any, ...]]) -> Select[*tuple[Any, ...]]:
    """Return a SELECT with each tenant class in it filtered by the parameter TENANT_PARAMETER, for execution outside a session.

    Raises GuardRefusal for what a session would refuse, and for anything that is not a SELECT.
    """
    if not isinstance(statement, Select):
        raise GuardRefusal("only a SELECT is read outside a session")
    _check_level(statement)
    tenant = bindparam(TENANT_PARAMETER, None, Uuid())
    return statement.options(with_loader_criteria(TenantScoped, lambda cls: cls.tenant_id == tenant, include_aliases=True))


class TenantSession(Session):
    """A SQLAlchemy session bound to one tenant when it is made; it never serves another.

    tenant: the tenant to bind, by default that of the active scope.  Autoflush is off.
    Raises NoTenant outside every scope, TenantMismatch when the scope names another tenant.
    """

    def __init__(self, bind: Any = None, *, tenant: Tenant | None = None, **options: Any) -> None:
        options.setdefault("autoflush", False)
        options.setdefault("expire_on_commit", False)
        super().__init__(bind, **options)
        self.tenant_id: UUID = (tenant or current_tenant()).id
        self.check_scope()

    def check_scope(self) -> None:
        """Raise NoTenant or TenantMismatch unless the running context names this session's tenant."""
        if get_tenant_id() != self.tenant_id:
            raise TenantMismatch(
                f"session of tenant {self.tenant_id} used in a scope of tenant {get_tenant_id()}; open a session per scope"
            )

    def connection(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: statements on the raw connection would skip the guard."""
        raise GuardRefusal("session.connection() skips the guard; execute the statement on the session")

    def _refuse_bulk(self, *_: Any, **__: Any) -> NoReturn:
        raise GuardRefusal("the legacy bulk methods skip the guard; use session.add_all, or load the rows and change them")

    bulk_save_objects = bulk_insert_mappings = bulk_update_mappings = _refuse_bulk

    def _get_impl(self, *arguments: Any, **options: Any) -> Any:
        # The identity map answers get() without a statement, which is where the scope is checked otherwise.
        self.check_scope()
        return super()._get_impl(*arguments, **options)


class AsyncTenantSession(AsyncSession):
    """The asyncio form of `TenantSession`, with the same arguments and refusals."""

    sync_session_class = TenantSession

    @property
    def tenant_id(self) -> UUID:
        """Return the tenant this session is bound to."""
        bound: UUID = self.sync_session.tenant_id  # type: ignore[attr-defined]
        return bound


@event.listens_for(TenantSession, "after_begin")
def _set_tenant(session: TenantSession, transaction: SessionTransaction, connection: Connection) -> None:
    session.check_scope()
    if not transaction.nested:
        connection.exec_driver_sql(set_tenant_sql(session.tenant_id))


@event.listens_for(TenantSession, "do_orm_execute")
def _scope_statement(state: ORMExecuteState) -> None:
    session = state.session
    if not isinstance(session, TenantSession):
        return
    session.check_scope()
    reason = state.execution_options.get(_REVIEWED)
    if reason:
        _check_reviewed(state, session.tenant_id)
    elif not state.is_relationship_load:
        _prove(state)
        _check_writes(state, session.tenant_id)
    tenant_id = session.tenant_id
    state.statement = (
        state.statement.options(with_loader_criteria(TenantScoped, lambda cls: cls.tenant_id == tenant_id, include_aliases=True))
        if state.is_orm_statement and not state.is_insert
        else state.statement
    )


def _check_reviewed(state: ORMExecuteState, tenant_id: UUID) -> None:
    rows: Any = state.parameters
    for row in rows if isinstance(rows, Sequence) else [rows or {}]:
        if row.get(TENANT_COLUMN) != tenant_id:
            raise GuardRefusal("a reviewed statement must carry the parameter tenant_id of its session")


def _prove(state: ORMExecuteState) -> None:
    found = state.statement._generate_cache_key()  # type: ignore[attr-defined]
    key = (found.key, state.is_orm_statement) if found is not None else None
    if key is None or key not in _proven:
        _refuse_unprovable(state)
        if len(_proven) >= _MOST_PROVEN:
            _proven.clear()
        _proven.add(key)


def _refuse_unprovable(state: ORMExecuteState) -> None:
    statement: Any = state.statement
    if isinstance(statement, TextClause | TextualSelect):
        raise GuardRefusal(_TEXT)
    if isinstance(statement, UpdateBase) and state.is_orm_statement:
        # An UPDATE or DELETE through a class filters that class alone, so no other table may stand beside it.
        _check_level(statement, covered={statement.table}, closed=True)
    else:
        _check_level(statement)


def _check_level(statement: Any, *, covered: Iterable[Any] = (), closed: bool = False) -> None:
    """Check one SELECT, or one write, and each one nested in it.

    The loader criteria reach what is named through a mapped class; a bare table or column is fine only beside its own
    class in the same SELECT, which is how the ORM itself writes look-ups by key.
    """
    named: set[Any] = set(covered)
    bare: set[Any] = set()
    nested: list[Any] = []
    _refuse_text(statement)
    for element in _elements(statement, nested):
        _refuse_text(element)
        source = element.table if isinstance(element, ColumnClause) else element
        if isinstance(source, TableClause | AliasedReturnsRows):
            mapped = not closed and (_is_mapped(element) or _is_mapped(source))
            (named if mapped else bare).add(source)
    stray = [table for table in bare if table not in named and isinstance(getattr(table, "element", table), TableClause)]
    if stray:
        raise GuardRefusal(f"table {stray[0]} is used without its mapped class here; select the class instead")
    for select in nested:
        _check_level(select)


def _refuse_text(element: Any) -> None:
    raw = isinstance(element, TextClause | TextualSelect) or any(getattr(element, part, None) for part in _RAW_PARTS)
    literal = isinstance(element, ColumnClause) and element.is_literal and element.name not in _HARMLESS_LITERALS
    field = isinstance(element, Extract) and not element.field.isidentifier()
    if raw or literal or field:
        raise GuardRefusal(_TEXT)
    for operator in (getattr(element, "operator", None), getattr(element, "modifier", None)):
        if isinstance(operator, custom_op) and not _OPERATOR.fullmatch(operator.opstring):
            raise GuardRefusal(f"operator {operator.opstring!r} is not one of symbols alone; {_TEXT}")
    if isinstance(element, FunctionElement) and _RUNS_SQL.fullmatch(str(getattr(element, "name", "")).lower()):
        raise GuardRefusal(f"function {element.name} can reach past the statement's tables; {_TEXT}")


def _is_mapped(element: ClauseElement) -> bool:
    return "parententity" in element._annotations or "parentmapper" in element._annotations


def _elements(statement: Any, nested: list[Any]) -> Iterator[ClauseElement]:
    """Yield the elements of one level; the SELECTs below it are put into `nested`."""
    seen: set[int] = set()
    stack = _children(statement)
    while stack:
        element = stack.pop()
        if id(element) in seen:
            continue
        seen.add(id(element))
        if isinstance(element, SelectBase) and not isinstance(element, ScalarSelect):
            nested.append(element)
            continue
        if isinstance(element, UpdateBase):
            raise GuardRefusal("a write inside another statement skips the filter; execute it by itself")
        yield element
        if isinstance(element, ColumnClause):
            # A column does not list its table among its children, so a sub-select would stay unseen.
            if isinstance(element.table, AliasedReturnsRows):
                stack.append(element.table)
        elif isinstance(element, AliasedReturnsRows):
            if not isinstance(element.element, TableClause):
                stack.append(element.element)
        elif not isinstance(element, TableClause):
            stack.extend(_children(element))


def _children(element: Any) -> list[Any]:
    if isinstance(element, Select):
        # Its own get_children() adds the bare tables behind each mapped column, which nobody wrote.
        parts = HasTraverseInternals.get_children(element, omit_attrs=("_correlate", "_correlate_except", "_setup_joins"))
        return [*parts, *(part for join in element._setup_joins for part in _join_parts(join))]
    return list(element.get_children())


def _join_parts(join: tuple[Any, ...]) -> Iterator[Any]:
    for part in join[:3]:
        if isinstance(getattr(part, "property", None), RelationshipProperty):
            # The ORM writes this condition, over a secondary table too; the criteria reach the class it leads to.
            yield from part._extra_criteria
        elif part is not None:
            yield part


def _check_writes(state: ORMExecuteState, tenant_id: UUID) -> None:
    statement: Any = state.statement
    if state.is_insert:
        _check_insert(state, tenant_id)
    elif state.is_update:
        if state.parameters:
            raise GuardRefusal("a bulk update by primary key skips the filter; load the rows and change them")
        assigned = statement._values or ()
        if any(getattr(column, "key", column) == TENANT_COLUMN for column in assigned):
            raise GuardRefusal("tenant_id cannot be updated; a row stays with its tenant")


def _check_insert(state: ORMExecuteState, tenant_id: UUID) -> None:
    statement: Any = state.statement
    if statement.select is not None or statement._values or statement._multi_values:
        raise GuardRefusal("pass the rows of an insert as parameters, each with its tenant_id; or use session.add_all")
    if isinstance(statement, PostgresInsert) and statement._post_values_clause is not None:
        raise GuardRefusal("ON CONFLICT needs partywall.reviewed(statement, reason=...) with a tenant_id parameter")
    _check_rows(state.parameters, tenant_id)


def _check_rows(rows: Any, tenant_id: UUID) -> None:
    for row in rows if isinstance(rows, Sequence) else [rows or {}]:
        if row.get(TENANT_COLUMN) != tenant_id:
            raise TenantMismatch("each inserted row must carry the tenant_id of its session")


@event.listens_for(TenantSession, "before_flush")
def _check_flush(session: TenantSession, _context: UOWTransaction, _instances: Any) -> None:
    session.check_scope()
    for row in session.new:
        if isinstance(row, TenantScoped):
            if row.tenant_id is None:
                row.tenant_id = session.tenant_id
            _must_own(session, row)
        else:
            raise GuardRefusal(f"{type(row).__name__} is not a tenant's table; write it through its own service")
    for row in (*session.dirty, *session.deleted):
        if isinstance(row, TenantScoped):
            _must_own(session, row)


@event.listens_for(TenantSession, "before_attach")
def _check_attach(session: TenantSession, row: Any) -> None:
    if isinstance(row, TenantScoped) and attributes.instance_state(row).key is not None:
        _must_own(session, row)


def _must_own(session: TenantSession, row: TenantScoped) -> None:
    # The identity key is what the database row was loaded under; the attribute may have been changed since.
    state = attributes.instance_state(row)
    loaded = state.key[1][0] if state.key is not None else session.tenant_id
    if row.tenant_id != session.tenant_id or loaded != session.tenant_id:
        raise TenantMismatch(f"a {type(row).__name__} of another tenant cannot be written by this session")
