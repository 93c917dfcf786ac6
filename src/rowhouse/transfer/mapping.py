"""Which header of a file fills which field, and how cells are cleaned on the way: guessed, overridden, or from a TOML file."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rowhouse.core.errors import Invalid
from rowhouse.core.operations import invalid_input
from rowhouse.transfer.guesses import guess_fields
from rowhouse.transfer.sources import SourceRow, open_source
from rowhouse.values.csv_lines import unescape_formula

_VARIABLE = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_PLACEHOLDER = re.compile(r"\{([^{}|]+)(?:\|(slug|lower|upper))?\}")
_MOST_LOOKUP_ROWS = 100_000
Unit = Literal["minor", "major", "thousands", "millions"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid")


class LookUp(_Table):
    """A further column, read from a second file that stands beside the imported one.

    key: header here.  match: column there that equals it.  value: column there that is taken.
    """

    file: str = Field(pattern=r"^[^/\\]+$")
    key: str
    match: str
    value: str


class Formats(_Table):
    """How cells are written. blank: what an empty cell does to a record that exists already."""

    date: str = ""
    decimal: Literal[".", ","] = "."
    list: str = Field(";", min_length=1, max_length=3)
    blank: Literal["keep", "clear"] = "keep"


class MappingFile(_Table):
    """A mapping as written in TOML; docs/guide/import.md explains each table."""

    resource: str
    match: str | list[str] = ""
    columns: dict[str, str | list[str]]
    values: dict[str, dict[str, str]] = Field(default_factory=dict)
    lookups: dict[str, LookUp] = Field(default_factory=dict)
    only: dict[str, str | list[str]] = Field(default_factory=dict)
    templates: dict[str, str | list[str]] = Field(default_factory=dict)
    defaults: dict[str, str] = Field(default_factory=dict)
    units: dict[str, Unit] = Field(default_factory=dict)
    formats: Formats = Field(default_factory=Formats)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the rows of one file become fields of one resource.

    columns: header to fields.  tables: lookups, as (new header, key header, found by text).  ignored: headers that fill
    no field.  match: fields that recognise an existing record, () to take the resource's own import key.
    """

    columns: Mapping[str, tuple[str, ...]]
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tables: tuple[tuple[str, str, Mapping[str, str]], ...] = ()
    only: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    templates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    defaults: Mapping[str, str] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    formats: Formats = field(default_factory=Formats)
    match: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """Return every field the plan can fill."""
        return tuple(dict.fromkeys([*(name for names in self.columns.values() for name in names), *self.defaults]))

    def texts(self, row: SourceRow) -> dict[str, str] | None:
        """Return the cleaned text of each field, empty ones included; None for a row that `only` leaves out."""
        cells = {name: self._cleaned(name, unescape_formula(text)) for name, text in row.cells.items()}
        for name, key, table in self.tables:
            cells[name] = self._cleaned(name, table.get(cells[key], ""))
        if any(cells[name] not in wanted for name, wanted in self.only.items()):
            return None
        for name, forms in self.templates.items():
            cells[name] = self._cleaned(name, fill(forms, cells))
        found = dict(self.defaults)
        for header, names in self.columns.items():
            for name in names:
                found[name] = cells[header] or found.get(name, "")
        return found

    def unit_of(self, name: str) -> str:
        """Return the unit of a money field: as declared, else minor under the field's own name and major under any other."""
        for header, names in self.columns.items():
            if name in names:
                return self.units.get(header) or ("minor" if header == name else "major")
        return self.units.get(name, "minor")

    def _cleaned(self, header: str, text: str) -> str:
        return self.values[header].get(text, text) if header in self.values else text


def fill(forms: Iterable[str], cells: Mapping[str, str]) -> str:
    """Return the first form whose placeholders are all filled, with their texts; "" when there is none."""
    for form in forms:
        if all(cells[name] for name, _ in _PLACEHOLDER.findall(form)):
            return _PLACEHOLDER.sub(lambda found: _styled(cells[found[1]], found[2] or ""), form)
    return ""


def plan_by_guess(
    header: Iterable[str],
    fields: Iterable[str],
    *,
    singular: str,
    columns: Mapping[str, str] | None = None,
    defaults: Mapping[str, str] | None = None,
) -> Plan:
    """Return a plan from what the headers look like.

    columns: header to field, over the guess; "" leaves the header out.  defaults: field to text.
    Raises Invalid (unknown_header, unknown_field).
    """
    header, fields, given = tuple(header), tuple(fields), dict(columns or {})
    _known(given, header, "unknown_header", "header of the file")
    free = [name for name in fields if name not in given.values()]
    guessed = guess_fields([name for name in header if name not in given], free, singular=singular)
    chosen = {name: found for name, found in (guessed | given).items() if found}
    twice = next((name for name in chosen.values() if list(chosen.values()).count(name) > 1), "")
    if twice:
        raise _refused(f"Two headers fill {twice}; give one of them another field, or none: --map 'header='.", "unknown_field")
    return checked(Plan(columns={name: (found,) for name, found in chosen.items()}, defaults=defaults or {}), header, fields)


def load_mapping(path: Path, *, variables: Mapping[str, str] | None = None) -> MappingFile:
    """Return a mapping file with its {{variables}} filled.

    Raises Invalid naming a TOML fault with its line, an unknown key, a wrong type, or the variable that was not given.
    """
    try:
        with path.open("rb") as file:
            found = tomllib.load(file)
        return MappingFile.model_validate(_filled(found, variables or {}))
    except OSError as error:
        raise _refused(f"{path} cannot be read: {error.strerror}.", "file_unreadable") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _refused(f"{path.name} is not valid TOML: {error}.", "mapping_invalid") from error
    except ValidationError as error:
        raise invalid_input(error) from error


def plan_of(
    mapping: MappingFile, header: Iterable[str], fields: Iterable[str], *, folder: Path, overrides: Plan | None = None
) -> Plan:
    """Return the plan of a mapping file for one file's header; its lookups are read from `folder`.

    overrides: columns and defaults that win over the file's.  Raises Invalid (unknown_header, unknown_field).
    """
    more = overrides or Plan(columns={})
    tables = tuple((name, found.key, _lookup(found, folder)) for name, found in mapping.lookups.items())
    plan = Plan(
        columns={
            name: names
            for name, names in ({k: _several(v) for k, v in mapping.columns.items()} | dict(more.columns)).items()
            if names
        },
        values=mapping.values,
        tables=tables,
        only={name: _several(wanted) for name, wanted in mapping.only.items()},
        templates={name: _several(forms) for name, forms in mapping.templates.items()},
        defaults=mapping.defaults | dict(more.defaults),
        units=mapping.units,
        formats=mapping.formats,
        match=_several(mapping.match),
    )
    return checked(plan, header, fields)


def checked(plan: Plan, header: Iterable[str], fields: Iterable[str]) -> Plan:
    """Return a plan with its ignored headers.  Raises Invalid for a header or a field that is not there."""
    known, used = list(header), set(plan.columns)
    for name, key, _ in plan.tables:
        _known([key], known, "unknown_header", f"header (key of the lookup {name})")
        used.add(key)
        known.append(name)
    for forms in plan.templates.values():
        used.update(name for form in forms for name, _ in _PLACEHOLDER.findall(form))
    known += plan.templates
    _known([*used, *plan.values, *plan.only], known, "unknown_header", "header of the file, lookup or template")
    _known([*plan.fields, *plan.match], [*fields, "id"], "unknown_field", "field")
    if not plan.columns:
        raise _refused("No column fills a field; name at least one: --map 'header=field'.", "nothing_mapped")
    return replace(plan, ignored=tuple(name for name in header if name not in used | set(plan.only)))


def _lookup(found: LookUp, folder: Path) -> dict[str, str]:
    source = open_source(folder / found.file)
    _known([found.match, found.value], source.header, "unknown_header", f"header of {found.file}")
    if source.total > _MOST_LOOKUP_ROWS:
        raise _refused(f"{found.file} has more than {_MOST_LOOKUP_ROWS:,} rows; a lookup is kept in memory.", "lookup_too_large")
    rows = (row.cells for row in source.rows() if isinstance(row, SourceRow))
    return {cells[found.match]: cells[found.value] for cells in rows}


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {_filled(name, variables): _filled(inner, variables) for name, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner, variables) for inner in value]
    if not isinstance(value, str):
        return value
    missing = [name for name in _VARIABLE.findall(value) if name not in variables]
    if missing:
        raise _refused(f"The mapping asks for a variable: --var {missing[0]}=…", "variable_missing")
    return _VARIABLE.sub(lambda found: variables[found[1]], value)


def _known(names: Iterable[str], among: Iterable[str], code: str, what: str) -> None:
    allowed = list(among)
    unknown = [name for name in names if name not in allowed]
    if unknown:
        raise _refused(f"There is no {what} {unknown[0]!r}; there are: {', '.join(allowed)}.", code)


def _several(value: str | list[str]) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list) else (value,) if value else ()


def _styled(text: str, style: str) -> str:
    if style == "slug":
        return re.sub(r"[^a-z0-9]+", ".", text.casefold()).strip(".")
    return {"lower": text.lower(), "upper": text.upper()}.get(style, text)


def _refused(message: str, code: str) -> Invalid:
    return Invalid(message, code=code, field="mapping")
