"""Reading a CSV or XLSX file as rows of text, in bounded memory, with what was detected and what is wrong by line.

A file is read once before its first row is handed out: a fault that spoils the file as a whole (another encoding further
down, a quote that never closes) is told before anything is imported, and the number of rows is known for a progress bar.
"""

from __future__ import annotations

import codecs
import csv
import unicodedata
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from charset_normalizer import from_bytes
from openpyxl import load_workbook

from rowhouse.core.errors import Invalid

LONGEST_CELL = 131_072
_SAMPLE_BYTES = 64 * 1024
_LARGEST_WORKBOOK_BYTES = 1024**3
_DELIMITERS = (",", ";", "\t", "|")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# What files of people's offices are written in; a free guess takes short German text for Chinese.
_ENCODINGS = [
    *("cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256"),
    *("cp932", "gb18030", "big5", "cp949", "euc_jp", "koi8_r"),
]
_NOT_TABLES = (
    (b"\xd0\xcf\x11\xe0", "an old Excel file (.xls)"),
    (b"%PDF", "a PDF"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"\x1f\x8b", "a gzip archive"),
)


@dataclass(frozen=True, slots=True)
class RowFault:
    """One thing wrong with one row. line: in the file, from 1, the header included.  field: "" for the row as a whole."""

    line: int
    field: str
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row: its line in the file and its text by header."""

    line: int
    cells: dict[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """An opened table. encoding: "" for a workbook.  delimiter: "" for a workbook.  total: rows below the header."""

    path: Path
    header: tuple[str, ...]
    encoding: str
    delimiter: str
    total: int

    def rows(self) -> Iterator[SourceRow | RowFault]:
        """Yield the rows from the start; blank ones are skipped, ragged ones come as faults."""
        found = _sheet_rows(self.path) if not self.encoding else _text_rows(self.path, self.encoding, self.delimiter)
        next(found)
        for line, cells in found:
            row = _row(self.header, line, cells)
            if row is not None:
                yield row


def open_source(path: Path, *, encoding: str = "", delimiter: str = "") -> Source:
    """Return a file as a table; what is not said is detected.

    Raises Invalid (file_unreadable, file_empty, not_a_table, header_missing, header_duplicate, encoding_unknown,
    cell_too_large) saying what and the way out.
    """
    sample = _first_bytes(path)
    if zipfile.is_zipfile(path):
        _check_workbook(path)
        return _measured(path, "", "", _sheet_rows(path))
    _refuse_binary(path, sample)
    encoding = _known_encoding(encoding) if encoding else _encoding_of(path, sample)
    delimiter = delimiter or _delimiter_of(path, encoding)
    if len(delimiter) != 1:
        raise _refused("A delimiter is one character.", "not_a_table")
    found = _measured(path, encoding, delimiter, _text_rows(path, encoding, delimiter))
    _refuse_open_quote(path, encoding, delimiter)
    return found


def _refuse_open_quote(path: Path, encoding: str, delimiter: str) -> None:
    # Read leniently, a quote that never closes swallows every row below it into one cell.
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        line = 1
        try:
            for _ in reader:
                line = reader.line_num + 1
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                raise _refused(
                    f"{path.name}: a quote opened in the row at line {line} never closes; close it, or double it.", "quote_open"
                ) from error


def _measured(path: Path, encoding: str, delimiter: str, rows: Iterator[tuple[int, list[str]]]) -> Source:
    try:
        line, first = next(rows, (0, []))
        header = _header(path, first, line)
        total = sum(1 for _, cells in rows if any(cell.strip() for cell in cells))
    except UnicodeError as error:
        raise _refused(
            f"{path.name} is not written in {encoding} throughout; save it as CSV UTF-8, or name its encoding.",
            "encoding_unknown",
        ) from error
    if not total:
        raise _refused(f"{path.name} has a header and no rows below it; there is nothing to import.", "file_empty")
    return Source(path, header, encoding, delimiter, total)


def _row(header: tuple[str, ...], line: int, cells: list[str]) -> SourceRow | RowFault | None:
    if not any(cell.strip() for cell in cells):
        return None
    if len(cells) < len(header):
        return RowFault(line, "", "too_few_cells", f"The row has {len(cells)} cells, the header {len(header)}.")
    if any(cell.strip() for cell in cells[len(header) :]):
        return RowFault(
            line,
            "",
            "too_many_cells",
            f"The row has {len(cells)} cells, the header {len(header)}; quote text with delimiters in it.",
        )
    for name, cell in zip(header, cells, strict=False):
        if "\0" in cell:
            return RowFault(line, name, "nul_character", "The cell holds a NUL character; remove it.")
    return SourceRow(line, {name: cell.strip() for name, cell in zip(header, cells, strict=False)})


def _header(path: Path, cells: list[str], line: int) -> tuple[str, ...]:
    names = [unicodedata.normalize("NFC", cell).strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise _refused(f"{path.name} is empty; its first row must name the columns.", "file_empty")
    if all(_is_number(name) for name in names if name):
        raise _refused(
            f"{path.name} has no header: line {line} holds numbers only; put a row of column names first.", "header_missing"
        )
    twice = [name for name, count in Counter(name for name in names if name).items() if count > 1]
    if twice:
        raise _refused(f"{path.name} names the column {twice[0]!r} twice; rename one of them.", "header_duplicate")
    return tuple(name or f"column {index}" for index, name in enumerate(names, start=1))


def _is_number(text: str) -> bool:
    return text.replace(".", "").replace(",", "").replace("-", "").isdigit()


def _text_rows(path: Path, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line on which the row starts, its cells), from the header on; blank lines before it are skipped."""
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        begun = False
        while True:
            line = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                raise _refused(
                    f"{path.name}, line {line}: {error}; most often a quote was opened and not closed, "
                    f"and no cell may be longer than {LONGEST_CELL:,} characters.",
                    "cell_too_large",
                ) from error
            if cells is None:
                return
            if not begun and (not any(cell.strip() for cell in cells) or _is_sep_line(line, cells)):
                continue
            begun = True
            yield line, cells


def _is_sep_line(line: int, cells: list[str]) -> bool:
    # Excel writes "sep=;" above the header for itself.
    return line == 1 and bool(cells) and cells[0].lower().startswith("sep=") and not any(cells[1:])


def _sheet_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except (KeyError, ValueError, OSError, SyntaxError, TypeError, zipfile.BadZipFile) as error:
        raise _refused(f"{path.name} is not a workbook this program can read; save it as .xlsx or CSV.", "not_a_table") from error
    try:
        width = 0
        for line, values in enumerate(book.worksheets[0].iter_rows(values_only=True), start=1):
            cells = [_cell_text(value) for value in values]
            if not width and not any(cell.strip() for cell in cells):
                continue
            width = width or len(cells)
            # A workbook does not store the empty cells at the end of a row.
            yield line, cells + [""] * (width - len(cells))
    finally:
        book.close()


def _cell_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)


def _first_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            sample = file.read(_SAMPLE_BYTES)
    except OSError as error:
        raise _refused(f"{path} cannot be read: {error.strerror}.", "file_unreadable") from error
    if not sample.strip():
        raise _refused(f"{path.name} is empty; export it again, with a row of column names first.", "file_empty")
    return sample


def _refuse_binary(path: Path, sample: bytes) -> None:
    for magic, kind in _NOT_TABLES:
        if sample.startswith(magic):
            raise _refused(f"{path.name} is {kind}, not a table; save it as .xlsx or CSV.", "not_a_table")
    if any(sample.startswith(bom) for bom, _ in _BOMS) or _plain_utf16(sample):
        return
    controls = sum(byte < 32 and byte not in b"\t\n\r\f\x1a\x1b" for byte in sample)
    if controls * 8 > len(sample):
        raise _refused(f"{path.name} is a binary file, not a table; save it as .xlsx or CSV.", "not_a_table")


def _check_workbook(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    if not any(part.filename == "xl/workbook.xml" for part in parts):
        raise _refused(f"{path.name} is an archive, not a table; unpack it, or save it as .xlsx or CSV.", "not_a_table")
    if sum(part.file_size for part in parts) > _LARGEST_WORKBOOK_BYTES:
        raise _refused(f"{path.name} unpacks to more than 1 GiB; save it as CSV.", "not_a_table")


def _known_encoding(name: str) -> str:
    try:
        found = codecs.lookup(name)
        "".encode(found.name).decode(found.name)
        return found.name
    except (LookupError, UnicodeError) as error:
        raise _refused(f"{name!r} is no encoding this program knows; try utf-8 or cp1252.", "encoding_unknown") from error


def _encoding_of(path: Path, sample: bytes) -> str:
    for bom, name in _BOMS:
        if sample.startswith(bom):
            return name
    wide = _plain_utf16(sample)
    if wide:
        return wide
    bad = _first_non_utf8(path)
    if bad is None:
        return "utf-8"
    with path.open("rb") as file:
        file.seek(max(0, bad - _SAMPLE_BYTES // 2))
        best = from_bytes(file.read(_SAMPLE_BYTES), cp_isolation=_ENCODINGS).best()
    return best.encoding if best is not None else "cp1252"


def _plain_utf16(sample: bytes) -> str:
    """Return the name of UTF-16 without a mark, which shows in zero bytes at every other place; else ""."""
    half = len(sample) // 2
    if half and sample[1::2].count(0) * 2 > half and sample[::2].count(0) * 10 < half:
        return "utf-16-le"
    if half and sample[::2].count(0) * 2 > half and sample[1::2].count(0) * 10 < half:
        return "utf-16-be"
    return ""


def _first_non_utf8(path: Path) -> int | None:
    decoder, position = codecs.getincrementaldecoder("utf-8")(), 0
    with path.open("rb") as file:
        while chunk := file.read(1024 * 1024):
            try:
                decoder.decode(chunk)
            except UnicodeDecodeError as error:
                return position + error.start
            position += len(chunk)
    return None


def _delimiter_of(path: Path, encoding: str) -> str:
    """Return the delimiter that splits the first rows into the most columns, alike in all of them."""
    try:
        with path.open(encoding=encoding, newline="") as file:
            lines = [line for _, line in zip(range(50), file, strict=False) if line.strip()]
    except UnicodeError:
        return ","
    if lines and lines[0].lower().startswith("sep=") and len(lines[0].strip()) == 5:
        return lines[0].strip()[-1]
    return max(_DELIMITERS, key=lambda delimiter: _fit(lines, delimiter))


def _fit(lines: Iterable[str], delimiter: str) -> float:
    try:
        widths = [len(cells) for cells in csv.reader(lines, delimiter=delimiter)]
    except csv.Error:
        return 0
    if not widths or widths[0] < 2:
        return 0
    return widths[0] * sum(width == widths[0] for width in widths) / len(widths)


def _refused(message: str, code: str) -> Invalid:
    return Invalid(message, code=code, field="file")
