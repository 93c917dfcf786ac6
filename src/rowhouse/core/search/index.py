"""The index of words beside the records: its two tables, and the unit of work that keeps them true.

Both are tenants' tables like any other, so guard, policies and keys hold for them. What reads them is `core/search/query.py`;
why they are as they are: docs/decisions/0009-search.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    SmallInteger,
    String,
    Text,
    Uuid,
    bindparam,
    column,
    delete,
    event,
    func,
    inspect,
    select,
    tuple_,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Mapped, PassiveFlag, mapped_column
from sqlalchemy.orm.attributes import get_history

from partywall import TenantScoped, reviewed, uuid7
from rowhouse.core.db import Base, CallSession
from rowhouse.core.resource import Resource
from rowhouse.values.words import LONGEST, head, is_spelt, tokens_of, variants

TITLE, OTHER, LONG = 3, 2, 1
_LONG_TEXT = 500
_MOST_TOKENS = 200
_MOST_KNOWN = 50_000
_FEW = 20


class SearchPosting(TenantScoped, Base):
    """One word of one record. entity: its table, with "~" behind it when the record is archived.  weight: 3 for a title.

    The key is the index: read backwards, a word's records come heaviest and newest first. No foreign key leads to the
    tenant, since it would be checked for every word; the record has one.
    """

    __tablename__ = "search_posting"
    __tenant_key__: ClassVar[str] = ""

    token: Mapped[str] = mapped_column(String(LONGEST, collation="C"), primary_key=True)
    entity: Mapped[str] = mapped_column(String(64, collation="C"), primary_key=True)
    weight: Mapped[int] = mapped_column(SmallInteger, primary_key=True, autoincrement=False)
    id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=1)


class SearchWord(TenantScoped, Base):
    """A word the tenant has used, under each of its variants. The id lets two calls learn a word without waiting."""

    __tablename__ = "search_word"
    __tenant_key__: ClassVar[str] = ""

    variant: Mapped[str] = mapped_column(String(LONGEST, collation="C"), primary_key=True)
    word: Mapped[str] = mapped_column(String(LONGEST, collation="C"), primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, sort_order=1)


# (token, entity, weight, record id)
Posting = tuple[str, str, int, UUID]
_COLUMNS = ("token", "entity", "weight", "id")
_known: dict[tuple[UUID, str], None] = {}


@dataclass(frozen=True, slots=True)
class Indexed:
    """What of a resource's rows is searched. columns: each with its weight, heaviest first.  prefix: of its numbers, or ""."""

    entity: str
    columns: tuple[tuple[str, int], ...]
    prefix: str
    names: frozenset[str]

    def postings(self, values: Mapping[str, Any]) -> set[Posting]:
        """Return the postings of a row; at most 200, those of the title first."""
        entity = self.entity if values.get("archived_at") is None else archived(self.entity)
        found: dict[str, int] = {}
        if self.prefix and values.get("number") is not None:
            found = dict.fromkeys((str(values["number"]), f"{self.prefix}-{values['number']}"), TITLE)
        for name, weight in self.columns:
            for token in tokens_of(values.get(name) or ""):
                found.setdefault(token, TITLE if "@" in token else weight)
        row_id = values["id"]
        return {(token, entity, weight, row_id) for token, weight in list(found.items())[:_MOST_TOKENS]}


@cache
def indexed(resource: Resource) -> Indexed | None:
    """Return what of a resource's rows is searched; None when nothing is."""
    if not resource.search:
        return None
    weights = {column.key: LONG if _is_long(column) else OTHER for column in resource.search}
    weights[resource.search[0].key] = TITLE
    prefix = resource.singular[:3] if "number" in resource.table.columns else ""
    ordered = tuple(sorted(weights.items(), key=lambda pair: -pair[1]))
    return Indexed(resource.singular, ordered, prefix, frozenset({"archived_at", "number", *weights}))


def archived(entity: str) -> str:
    """Return the entity under which archived records stand, so that a search of live ones never meets them."""
    return f"{entity}~"


def _is_long(column: Any) -> bool:
    length = column.property.columns[0].type.length
    return length is None or length > _LONG_TEXT


@event.listens_for(CallSession, "before_flush")
def _note_parts(session: CallSession, _context: Any, _instances: Any) -> None:
    # The database removes the parts of a removed row by itself, so the unit of work never sees them.
    if session.deleted and "call" in session.info:
        registry, gone = session.info["call"].registry, session.info.setdefault("search_gone", set())
        for row in session.deleted:
            resource = registry.of_table(row.__table__.name)
            for part in registry.parts_of(resource) if resource is not None else ():
                source = indexed(part)
                if source is not None:
                    gone.update(*(_before(source, r) for r in session.scalars(select(part.model).where(part.parent == row.id))))


@event.listens_for(CallSession, "after_flush")
def _keep_index(session: CallSession, _context: Any) -> None:
    if "call" not in session.info:
        return
    old: set[Posting] = session.info.pop("search_gone", set())
    new: set[Posting] = set()
    for rows, was, stays in ((session.new, False, True), (session.dirty, True, True), (session.deleted, True, False)):
        for row in rows:
            resource = session.info["call"].registry.of_table(row.__table__.name)
            source = indexed(resource) if resource is not None else None
            if source is None or (was and stays and source.names.isdisjoint(inspect(row).committed_state)):
                continue
            old |= _before(source, row) if was else set()
            new |= source.postings(inspect(row).dict) if stays else set()
    remove_postings(session, old - new)
    add_postings(session, new - old)


def postings_to_add(session: CallSession) -> list[dict[str, Any]] | None:
    """Return the postings of a session's new rows, ids as text; None when one of their words is new to this process."""
    found: set[Posting] = set()
    for row in session.new:
        resource = session.info["call"].registry.of_table(row.__table__.name)
        source = indexed(resource) if resource is not None else None
        found |= source.postings(inspect(row).dict) if source is not None else set()
    if any(is_spelt(token) and (session.tenant_id, token) not in _known for token, *_ in found):
        return None
    texts = {row_id: str(row_id) for *_, row_id in found}  # a row has many words, and writing an id takes long
    return [
        {"tenant_id": str(session.tenant_id), "token": token, "entity": entity, "weight": weight, "id": texts[row_id]}
        for token, entity, weight, row_id in sorted(found)
    ]


def _before(source: Indexed, row: Any) -> set[Posting]:
    values, changed = dict(inspect(row).dict), inspect(row).committed_state
    for name in source.names.intersection(changed):
        values[name] = next(iter(get_history(row, name, PassiveFlag.PASSIVE_NO_INITIALIZE).deleted or ()), None)
    return source.postings(values)


def add_postings(session: CallSession, postings: Iterable[Posting]) -> None:
    """Write postings, some of which may be there, and learn their words."""
    rows = sorted(postings)
    if rows:
        _insert(session, SearchPosting, [dict(zip(_COLUMNS, row, strict=True)) for row in rows])
        _learn(session, {token for token, *_ in rows if is_spelt(token)})


def _insert(session: CallSession, model: type[SearchPosting | SearchWord], rows: list[dict[str, Any]]) -> None:
    many, few = _inserts(model)
    session.execute(few if len(rows) <= _FEW else many, [{"tenant_id": session.tenant_id, **row} for row in rows])


@cache
def _inserts(model: type[SearchPosting | SearchWord]) -> tuple[Any, Any]:
    """Return how many rows are inserted, and how a few are: what is returned makes those one statement; nobody reads it."""
    # The table instead of the class: an insert of the ORM's costs twice as much, and this runs in every create.
    table: Any = model.__table__
    reason = "every row carries the session's tenant; what is there already stays"
    many = reviewed(insert(table).on_conflict_do_nothing(), reason=reason)
    return many, many.returning(table.c.tenant_id)


def remove_postings(session: CallSession, postings: Iterable[Posting]) -> None:
    """Remove postings by their keys, in one statement."""
    rows = sorted(postings)
    if rows:
        session.execute(_GONE, {f"gone_{n}": list(v) for n, v in zip(_COLUMNS, zip(*rows, strict=True), strict=True)})


def _learn(session: CallSession, words: set[str]) -> None:
    """Add words to the tenant's vocabulary; what this process has seen there costs nothing."""
    new = sorted(word for word in words if (session.tenant_id, word) not in _known)
    if not new:
        return
    known = set(session.scalars(_THERE, {"filed_variant": [head(word) for word in new], "filed_word": new}))
    forms = [(form, word) for word in new if word not in known for form in sorted(variants(word))]
    if forms:
        _insert(session, SearchWord, [{"variant": form, "word": word, "id": uuid7()} for form, word in forms])
    session.info.setdefault("learnt", set()).update(new)


def forget_words() -> None:
    """Let this process look again which words are known; for whoever removes some."""
    _known.clear()


@event.listens_for(CallSession, "after_commit")
def _remember(session: CallSession) -> None:
    if not session.in_nested_transaction():
        if len(_known) > _MOST_KNOWN:
            _known.clear()
        _known.update(dict.fromkeys((session.tenant_id, word) for word in session.info.pop("learnt", ())))


@event.listens_for(CallSession, "after_soft_rollback")
def _forget(session: CallSession, _transaction: Any) -> None:
    session.info.pop("learnt", None)
    session.info.pop("search_gone", None)


def bound(name: str, kind: Any) -> Any:
    """Return a bound array."""
    return bindparam(name, type_=ARRAY(kind))


def bound_table(name: str, **columns: Any) -> Any:
    """Return a table made of bound arrays, one for each column, each named `name_column`."""
    arrays = [bound(f"{name}_{key}", kind) for key, kind in columns.items()]
    return func.unnest(*arrays).table_valued(*(column(key, kind) for key, kind in columns.items())).render_derived(name=name)


_KEY = tuple_(SearchPosting.token, SearchPosting.entity, SearchPosting.weight, SearchPosting.id)
_ROWS = bound_table("gone", token=Text(), entity=Text(), weight=SmallInteger(), id=Uuid())
_GONE = delete(SearchPosting).where(_KEY.in_(select(*_ROWS.c))).execution_options(synchronize_session=False)
_FILED = bound_table("filed", variant=Text(), word=Text())
_THERE = select(SearchWord.word).where(tuple_(SearchWord.variant, SearchWord.word).in_(select(*_FILED.c)))
