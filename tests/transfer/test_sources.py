"""Files as people have them: encodings, delimiters, ragged rows, and what is no table at all."""

import csv
import zipfile
from pathlib import Path

import pytest
from openpyxl import Workbook

from rowhouse.core.errors import Invalid
from rowhouse.transfer.sources import RowFault, Source, SourceRow, open_source

pytestmark = pytest.mark.no_database

TABLE = "Name;Größe\nMüller;1\nŁódź;2\n"


def written(folder: Path, content: str | bytes, *, name: str = "a.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def cells(source: Source) -> list[dict[str, str]]:
    return [row.cells for row in source.rows() if isinstance(row, SourceRow)]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_encodings_are_recognised(tmp_path, encoding):
    content = TABLE.encode("utf-16") if encoding == "utf-16" else TABLE.encode(encoding)
    source = open_source(written(tmp_path, content))
    assert source.header == ("Name", "Größe")
    assert cells(source)[1] == {"Name": "Łódź", "Größe": "2"}


def test_an_office_encoding_is_guessed_and_reported(tmp_path):
    text = "Firma,Straße\n" + "".join(f"Bäckerei Grün & Söhne {n},Königstraße {n}\n" for n in range(50))
    source = open_source(written(tmp_path, text, encoding="cp1252"))
    assert source.encoding in {"cp1252", "cp1250", "cp1254"}
    assert cells(source)[0] == {"Firma": "Bäckerei Grün & Söhne 0", "Straße": "Königstraße 0"}


def test_an_encoding_that_breaks_further_down_is_found_before_the_first_row(tmp_path):
    lines = b"Name,City\n" + b"Acme,Berlin\n" * 20_000 + "Grün,Köln\n".encode("cp1252")
    source = open_source(written(tmp_path, lines))
    assert source.encoding != "utf-8"
    assert cells(source)[-1] == {"Name": "Grün", "City": "Köln"}


def test_a_named_encoding_that_does_not_fit_is_refused(tmp_path):
    path = written(tmp_path, "Name\nGrün\n", encoding="cp1252")
    with pytest.raises(Invalid, match="not written in utf-8") as refused:
        open_source(path, encoding="utf-8")
    assert refused.value.code == "encoding_unknown"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_detected(tmp_path, delimiter):
    rows = [["Name", "Note"], ["Acme, Inc.", "a; b | c"], ["Bolt", "x,y,z"]]
    with (tmp_path / "a.csv").open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    source = open_source(tmp_path / "a.csv")
    assert source.delimiter == delimiter
    assert cells(source)[0] == {"Name": "Acme, Inc.", "Note": "a; b | c"}


def test_one_column_needs_no_delimiter(tmp_path):
    assert cells(open_source(written(tmp_path, "Name\nAcme\n"))) == [{"Name": "Acme"}]


def test_excels_separator_line_is_not_the_header(tmp_path):
    assert open_source(written(tmp_path, "sep=;\nName;City\nAcme;Berlin\n")).header == ("Name", "City")


def test_ragged_rows_are_faults_of_their_line_and_the_others_are_read(tmp_path):
    source = open_source(written(tmp_path, 'a,b\n1,2\n\n3\n4,5,6\n"7\n7",8\n9,10,,\n\0,1\n'))
    found = list(source.rows())
    faults = [(row.line, row.code) for row in found if isinstance(row, RowFault)]
    assert faults == [(4, "too_few_cells"), (5, "too_many_cells"), (9, "nul_character")]
    assert [row.line for row in found if isinstance(row, SourceRow)] == [2, 6, 8]
    assert source.total == 6


def test_rows_can_be_read_again(tmp_path):
    source = open_source(written(tmp_path, "a\n1\n2\n"))
    assert cells(source) == cells(source) == [{"a": "1"}, {"a": "2"}]


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        ("", "file_empty", "is empty"),
        ("  \n\n", "file_empty", "is empty"),
        ("a,b\n", "file_empty", "nothing to import"),
        ("1,2\n3,4\n", "header_missing", "no header"),
        ("a,b,a\n1,2,3\n", "header_duplicate", "'a' twice"),
        ('a,b\n"' + "x" * 200_000 + "\n", "cell_too_large", "quote"),
        (b"\xd0\xcf\x11\xe0 old", "not_a_table", ".xls"),
        (b"%PDF-1.7", "not_a_table", "PDF"),
        (bytes(range(32)) * 50, "not_a_table", "binary"),
        (b"PK\x03\x04broken", "not_a_table", "binary"),
    ],
)
def test_what_is_no_table_is_refused_with_the_way_out(tmp_path, content, code, says):
    with pytest.raises(Invalid, match=says) as refused:
        open_source(written(tmp_path, content))
    assert refused.value.code == code


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(Invalid, match="cannot be read"):
        open_source(tmp_path / "none.csv")


def test_a_workbook_is_read_like_a_table(tmp_path):
    book = Workbook()
    sheet = book.active
    assert sheet is not None
    for row in (["Name", "Employees", "Active", "Note"], ["Acme", 12.0, True, None], [None] * 4, ["Bolt", 1.5, False, "x"]):
        sheet.append(row)
    book.save(tmp_path / "a.xlsx")
    source = open_source(tmp_path / "a.xlsx")
    assert (source.encoding, source.total) == ("", 2)
    assert cells(source)[0] == {"Name": "Acme", "Employees": "12", "Active": "true", "Note": ""}


def test_an_archive_is_not_taken_for_a_workbook(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", "a\n1\n")
    with pytest.raises(Invalid, match="unpack it"):
        open_source(tmp_path / "a.zip")
