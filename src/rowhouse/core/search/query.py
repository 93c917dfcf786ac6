"""The one search path: which records of a tenant hold every word of a query.

Each word is looked up in the index (`core/search/index.py`) by equality, its beginnings by range, its likely spellings in
the tenant's own vocabulary. Frequent words are read newest first and cut short; where that finds too little they are gone
through as a whole. Nothing is counted or ranked by what another tenant has: docs/decisions/0009-search.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    SmallInteger,
    Text,
    Uuid,
    and_,
    any_,
    bindparam,
    cast,
    exists,
    false,
    func,
    intersect,
    literal,
    null,
    select,
    true,
    union_all,
)

from rowhouse.core.call import Call
from rowhouse.core.errors import Invalid
from rowhouse.core.permissions import allows
from rowhouse.core.resource import Resource
from rowhouse.core.search.index import LONG, OTHER, TITLE, SearchPosting, SearchWord, archived, bound, bound_table
from rowhouse.exchange import Ask
from rowhouse.values.text import clean_text
from rowhouse.values.words import LONGEST_QUERY, Asked, asked, is_spelt, meant, variants

_EXACT, _BEGUN_ONLY, _TYPO = range(3)
_MOST_SPELLINGS = 8
# Where a count stops, and how many records of the rarest word are looked at before all are.
_FEW = 1000
# So many among those, and a page of a list is not far.
_DENSE = 50


@dataclass(frozen=True, slots=True)
class Hit:
    """A record that was found. subtitle: its next searched column that is not empty.  parent_id: of a part."""

    resource: str
    id: UUID
    title: str
    subtitle: str
    number: int | None
    parent_id: UUID | None


@dataclass(frozen=True, slots=True)
class _Group:
    """What one word of a query may be. kinds: token to how it is one.  counts: by entity and token, up to 1,001."""

    kinds: Mapping[str, int]
    counts: Mapping[tuple[str, str], int]

    def total(self, *entities: str) -> int:
        return sum(self.counts.get((entity, token), 0) for entity in entities for token in self.kinds)


# entity, id, the weakest kind of match, the sum of the weights
_Found = tuple[str, UUID, int, int]


async def find(call: Call, resources: Iterable[Resource], q: str, *, limit: int) -> list[Hit]:
    """Return live records that hold every word of a query, best first; at most `limit` of each resource.

    The last word may be the beginning of one; a word nobody used stands for those one typing error away. Exact ones come
    before begun and misspelt ones, then the heavier, then the newer. Resources the caller may not list are left out.
    Raises Invalid (invalid_value).
    """
    searched = {r.singular: r for r in resources if r.search and allows(call.principal, r.permission("list"), reads=True)}
    groups = await _groups(call, list(searched), _read(q)) if searched else []
    alive = [entity for entity in searched if groups and all(group.total(entity) for group in groups)]
    found = await _best(call, groups, alive, limit) if alive else []
    ranks = {key[:2]: rank for rank, key in enumerate(sorted(found, key=_rank))}
    (rows,) = await call.fetch(_shown(searched, list(ranks))) if ranks else ([],)
    return [Hit(searched[row[0]].name, *row[1:]) for row in sorted(rows, key=lambda row: ranks[row[0], row[1]])]


def _rank(found: _Found) -> tuple[int, int, int]:
    return found[2], -found[3], -found[1].int


async def narrow(call: Call, resource: Resource, q: str) -> ColumnElement[bool]:
    """Return the condition that a row, live or archived, holds every word of a query, as `find` understands it.

    A query of punctuation alone matches nothing, one of blanks everything.  Raises Invalid (not_searchable, invalid_value).
    """
    if not resource.search:
        raise Invalid(f"{resource.name} cannot be searched by text.", code="not_searchable", field="q")
    entities, identity = [resource.singular, archived(resource.singular)], resource.model.id
    groups = await _groups(call, entities, _read(q))
    if not groups or not all(group.total(*entities) for group in groups):
        return false() if q.strip() else true()
    found = await _few(call, groups, entities)
    if found is not None:
        return identity == any_(literal([row_id for _, row_id, *_ in found], ARRAY(Uuid)))
    places = any_(literal(entities, ARRAY(Text)))
    held = (_in(places, any_(literal(list(group.kinds), ARRAY(Text)))) for group in groups)
    # The id stands behind the weight in the key, so that a look-up names every weight.
    weight = SearchPosting.weight == any_(literal(_FIXED["weights_weight"], ARRAY(SmallInteger)))
    return and_(*(exists().where(*own, weight, SearchPosting.id == identity) for own in held))


def _read(q: str) -> list[Asked]:
    try:
        return asked(clean_text(q[:LONGEST_QUERY]))
    except ValueError as error:
        raise Invalid(str(error), code="invalid_value", field="q") from error


async def _groups(call: Call, entities: list[str], words: list[Asked]) -> list[_Group]:
    """Return what each word may be; a whole that is nowhere gives way to its words, a word to its likely spellings."""
    if not words:
        return []
    last = words[-1].whole[0]
    # In collation C nothing that begins so comes after the highest character.
    begun = [token for (token,) in await _read_rows(call, _begun, str, entities=entities, begun=last, end=f"{last}\U0010ffff")]
    counts = await _counts(call, entities, {*begun, *(token for word in words for token in (*word.whole, *word.words))})
    groups: list[_Group] = []
    for word in words:
        kinds = dict.fromkeys(begun, _BEGUN_ONLY) if word is words[-1] else {}
        whole = _Group({**kinds, **dict.fromkeys(word.whole, _EXACT)}, counts)
        is_used = whole.total(*entities) or not word.words
        groups += [whole] if is_used else [_Group({part: _EXACT}, counts) for part in word.words]
    # What is looked up with the fewest words comes first, and spares the rest where it fails.
    return sorted(await _spelt(call, entities, groups), key=lambda group: len(group.kinds))


async def _spelt(call: Call, entities: list[str], groups: list[_Group]) -> list[_Group]:
    """Return the groups, a word that is nowhere replaced by the words of the tenant that are one error away."""
    missing = {word for group in groups if not group.total(*entities) for word in group.kinds if is_spelt(word)}
    if not missing:
        return groups
    forms = sorted({form for word in missing for form in variants(word)})
    known = [word for (word,) in await _read_rows(call, _near, str, forms=forms)]
    near = {word: meant(word, known) for word in missing}
    counts = await _counts(call, entities, {token for tokens in near.values() for token in tokens})
    # A word that stands only in what the caller may not list is as good as none.
    used = {token for _, token in counts}
    spellings = {word: [token for token in tokens if token in used][:_MOST_SPELLINGS] for word, tokens in near.items()}

    def replaced(group: _Group) -> _Group:
        return _Group({token: _TYPO for word in group.kinds for token in spellings.get(word, ())}, counts)

    return [group if group.total(*entities) else replaced(group) for group in groups]


async def _counts(call: Call, entities: list[str], tokens: set[str]) -> dict[tuple[str, str], int]:
    given = {"places_entity": entities, "tokens_token": sorted(tokens)}
    rows = await _read_rows(call, _counted, str, str, int, **given)
    return {(entity, token): count for entity, token, count in rows if count}


async def _best(call: Call, groups: list[_Group], entities: list[str], limit: int) -> list[_Found]:
    if len(groups) == 1:
        kinds = groups[0].kinds
        given = {"words_token": list(kinds), "words_kind": list(kinds.values()), "most": limit}
        return await _read_rows(call, _of_one, str, UUID, int, int, places_entity=entities, **given)
    found, lacking = await _probed(call, groups, entities, limit)
    # What was cut short is gone through as a whole, so that the answer is right either way.
    whole = sorted(await _all(call, groups, lacking, _FEW), key=_rank) if lacking else []
    best = [[f for f in whole if f[0] == entity][:limit] for entity in lacking]
    return [f for f in found if f[0] not in lacking] + [f for some in best for f in some]


async def _few(call: Call, groups: list[_Group], entities: list[str]) -> list[_Found] | None:
    """Return all that match, or None when they are many: then the list's own order finds a page of them soon."""
    if min(group.total(*entities) for group in groups) <= _FEW:
        return await _best(call, groups, entities, _FEW)
    if len(groups) == 1:
        return None
    _, lacking = await _probed(call, groups, entities, _DENSE)
    found = await _all(call, groups, entities, 2 * _FEW) if lacking else None
    return found if found is not None and len(found) < 2 * _FEW else None


async def _probed(call: Call, groups: list[_Group], entities: list[str], limit: int) -> tuple[list[_Found], list[str]]:
    """Return what the newest records of the rarest word give, and the entities where that was cut short with too little."""
    # A look-up costs as much as the words it looks for are many, so it is not rarity alone that makes a good lead.
    size = sum(len(group.kinds) for group in groups)
    rarest = {e: min(groups, key=lambda group: group.total(e) * (size - len(group.kinds))) for e in entities}
    leads = [(entity, token) for entity, group in rarest.items() for token in group.kinds if (entity, token) in group.counts]
    if not leads:
        return [], []
    cap = max(limit, _FEW // len(leads))
    given = {"leads_entity": [e for e, _ in leads], "leads_token": [t for _, t in leads], "cap": cap, "most": limit}
    found = await _looked_up(call, groups, _newest_of_rarest, **given)
    cut = {entity for entity, token in leads if rarest[entity].counts[entity, token] > cap}
    return found, [e for e in entities if e in cut and sum(f[0] == e for f in found) < limit]


async def _all(call: Call, groups: list[_Group], entities: list[str], limit: int) -> list[_Found]:
    """Return the newest records that hold every word, at most `limit` of each entity, however frequent the words are."""
    return await _looked_up(call, groups, _newest_of_all, leads_entity=entities, cap=limit, most=limit)


async def _looked_up(call: Call, groups: list[_Group], newest: Newest, **given: Any) -> list[_Found]:
    held = {f"group{place}": list(group.kinds) for place, group in enumerate(groups)}
    kinds: tuple[Any, ...] = (str, UUID, *((str, int) * len(groups)))
    rows = await _read_rows(call, partial(_with_words, newest, len(groups)), *kinds, **given, **held)
    return list({(row[0], row[1]): _ranked(row, groups) for row in rows}.values())


def _ranked(row: Sequence[Any], groups: list[_Group]) -> _Found:
    kinds = [group.kinds[token] for group, token in zip(groups, row[2::2], strict=True)]
    return row[0], row[1], max(kinds), sum(row[3::2])


async def _read_rows(call: Call, build: Callable[[], Select[Any]], *kinds: Callable[[str], Any], **given: Any) -> list[Any]:
    """Return the rows of a statement whose every value is a named parameter; kinds: how each column is read."""
    values = {**_FIXED, **given}
    shape = (getattr(build, "func", build), *getattr(build, "args", ()), *kinds, *sorted(given))
    (lines,) = await call.read(Ask(shape, lambda: build().params(values), values))
    return [tuple(kind((value or b"").decode()) for kind, value in zip(kinds, line, strict=True)) for line in lines]


def _shown(searched: Mapping[str, Resource], keys: list[tuple[str, UUID]]) -> Any:
    """Return the statement of the live records among those found; whatever the index says, they are read here."""
    found: list[Any] = []
    for entity in sorted({entity for entity, _ in keys}):
        resource = searched[entity]
        title, *others = resource.search
        model: Any = resource.model
        statement = select(
            literal(entity, Text()).label("entity"),
            model.id,
            func.coalesce(title, "").label("title"),
            func.coalesce(*(func.nullif(other, "") for other in others), "").label("subtitle"),
            cast(getattr(model, "number", null()), BigInteger).label("number"),
            cast(resource.parent if resource.parent is not None else null(), Uuid).label("parent_id"),
        ).where(model.id == any_(literal([row_id for name, row_id in keys if name == entity], ARRAY(Uuid))))
        is_live = getattr(model, "archived_at", None)
        found.append(statement.where(is_live.is_(None)) if is_live is not None else statement)
    return select(union_all(*found).subquery())


def _number(name: str) -> Any:
    return bindparam(name, type_=Integer())


# Values that never vary are parameters too, so that each statement is compiled once.
_FIXED = {"one": 1, "counted": _FEW + 1, "completions": 30, "near": 2000, "weights_weight": [TITLE, OTHER, LONG]}
_PLACES = bound_table("places", entity=Text())
_NEWEST = (SearchPosting.weight.desc(), SearchPosting.id.desc())


def _in(entity: Any, token: Any) -> tuple[ColumnElement[bool], ...]:
    return SearchPosting.entity == entity, SearchPosting.token == token


@cache
def _near() -> Select[Any]:
    words = select(SearchWord.word).distinct().where(SearchWord.variant == any_(bound("forms", Text())))
    return words.limit(_number("near"))


@cache
def _begun() -> Select[Any]:
    # One step in the index for each word that begins so, however many records it has.
    token, end = SearchPosting.token, bindparam("end", type_=Text())
    first = select(token).where(SearchPosting.entity == any_(bound("entities", Text())), token < end).order_by(token)
    first = first.limit(_number("one"))
    words = select(first.where(token >= bindparam("begun", type_=Text())).subquery().c.token).cte("words", recursive=True)
    following = first.where(token > words.c.token).correlate(words).scalar_subquery()
    words = words.union_all(select(following).where(words.c.token.is_not(None)))
    return select(words.c.token).where(words.c.token.is_not(None)).limit(_number("completions"))


@cache
def _counted() -> Select[Any]:
    words = bound_table("tokens", token=Text())
    some = select(SearchPosting.id).where(*_in(_PLACES.c.entity, words.c.token)).limit(_number("counted"))
    count = select(func.count().label("count")).select_from(some.correlate(_PLACES, words).lateral())
    here = count.correlate(_PLACES, words).lateral()
    return select(_PLACES.c.entity, words.c.token, here.c.count).select_from(_PLACES.join(words, true()).join(here, true()))


@cache
def _of_one() -> Select[Any]:
    words = bound_table("words", token=Text(), kind=SmallInteger())
    one = select(SearchPosting.id, SearchPosting.weight).where(*_in(_PLACES.c.entity, words.c.token)).order_by(*_NEWEST)
    each = one.limit(_number("most")).correlate(_PLACES, words).lateral()
    best = select(each.c.id, words.c.kind, each.c.weight).select_from(words.join(each, true())).correlate(_PLACES)
    some = best.order_by(words.c.kind, each.c.weight.desc(), each.c.id.desc()).limit(_number("most")).lateral()
    return select(_PLACES.c.entity, some.c.id, some.c.kind, some.c.weight).select_from(_PLACES.join(some, true()))


# A table of entities, and the records of each that are to be looked up under every word.
Newest = Callable[[int], tuple[Any, Any]]


def _newest_of_rarest(_size: int) -> tuple[Any, Any]:
    leads = bound_table("leads", entity=Text(), token=Text())
    newest = select(SearchPosting.id).where(*_in(leads.c.entity, leads.c.token)).order_by(*_NEWEST)
    return leads, newest.limit(_number("cap")).correlate(leads).lateral()


def _newest_of_all(size: int) -> tuple[Any, Any]:
    leads = bound_table("leads", entity=Text())
    each = [select(SearchPosting.id).where(*_in(leads.c.entity, _any_of_group(place))) for place in range(size)]
    both = intersect(*(held.correlate(leads) for held in each)).lateral()
    return leads, select(both.c.id).order_by(both.c.id.desc()).limit(_number("cap")).correlate(leads).lateral()


def _any_of_group(place: int) -> Any:
    return any_(bound(f"group{place}", Text()))


@cache
def _with_words(newest: Newest, size: int) -> Select[Any]:
    """Return the statement that looks up records under every word, by key, until it has enough of those that hold all."""
    leads, row = newest(size)
    joined: Any = row
    held: list[Any] = []
    for place in range(size):
        # Heaviest first without sorting: before version 17 an ordered scan would leave the id out of the key.
        weights = bound_table("weights", weight=SmallInteger())
        own = (*_in(leads.c.entity, _any_of_group(place)), SearchPosting.weight == weights.c.weight, SearchPosting.id == row.c.id)
        found = select(SearchPosting.token, SearchPosting.weight).where(*own).correlate(leads, row, weights).lateral()
        best = select(found.c.token, found.c.weight).select_from(weights.join(found, true())).limit(_number("one"))
        match = best.correlate(leads, row).lateral()
        joined = joined.join(match, true())
        held += [match.c.token.label(f"token{place}"), match.c.weight.label(f"weight{place}")]
    some = select(row.c.id, *held).select_from(joined).limit(_number("most")).correlate(leads).lateral()
    return select(leads.c.entity, *some.c).select_from(leads.join(some, true()))
