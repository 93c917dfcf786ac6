"""Headers to fields: the guess, what overrides it, and mapping files."""

from pathlib import Path

import pytest

from rowhouse.core.errors import Invalid
from rowhouse.transfer.guesses import guess_fields
from rowhouse.transfer.mapping import Plan, load_mapping, plan_by_guess, plan_of
from rowhouse.transfer.sources import SourceRow

pytestmark = pytest.mark.no_database

ACCOUNT = (
    "name",
    "industry",
    "employee_count",
    "annual_revenue_minor",
    "parent_account_id",
    "owner_user_id",
    "external_id",
    "website",
)
DEAL = ("name", "account_id", "amount_minor", "stage_id", "owner_user_id", "expected_close_date", "external_id", "lines.name")


@pytest.mark.parametrize(
    ("header", "fields", "singular", "field"),
    [
        ("name", ACCOUNT, "account", "name"),
        ("Account Name", ACCOUNT, "account", "name"),
        ("Company", ACCOUNT, "account", "name"),
        ("SECTOR", ACCOUNT, "account", "industry"),
        ("subsidiary_of", ACCOUNT, "account", "parent_account_id"),
        ("annual_revenue_minor", ACCOUNT, "account", "annual_revenue_minor"),
        ("Annual Revenue", ACCOUNT, "account", "annual_revenue_minor"),
        ("External-ID", ACCOUNT, "account", "external_id"),
        ("Account", DEAL, "opportunity", "account_id"),
        ("Owner", DEAL, "opportunity", "owner_user_id"),
        ("Stage", DEAL, "opportunity", "stage_id"),
        ("Betrag", DEAL, "opportunity", None),
    ],
)
def test_headers_are_guessed(header, fields, singular, field):
    assert guess_fields([header], fields, singular=singular).get(header) == field


def test_the_surer_header_wins_a_field():
    assert guess_fields(["Company", "Name"], ACCOUNT, singular="account") == {"Name": "name"}


def test_what_is_named_overrides_the_guess():
    plan = plan_by_guess(
        ["Name", "Sector", "X"],
        ACCOUNT,
        singular="account",
        columns={"X": "external_id", "Sector": ""},
        defaults={"website": "a.example"},
    )
    assert plan.columns == {"Name": ("name",), "X": ("external_id",)}
    assert plan.ignored == ("Sector",)
    assert plan.texts(SourceRow(2, {"Name": "Acme", "Sector": "s", "X": "1"})) == {
        "website": "a.example",
        "name": "Acme",
        "external_id": "1",
    }


@pytest.mark.parametrize(
    ("columns", "code"),
    [({"Nme": "name"}, "unknown_header"), ({"Name": "nme"}, "unknown_field"), ({"Name": "tenant_id"}, "unknown_field")],
)
def test_an_unknown_header_or_field_is_refused_by_name(columns, code):
    with pytest.raises(Invalid) as refused:
        plan_by_guess(["Name"], ACCOUNT, singular="account", columns=columns)
    assert refused.value.code == code


def test_units_are_minor_under_the_fields_own_name_and_major_under_any_other():
    own = Plan(columns={"annual_revenue_minor": ("annual_revenue_minor",)})
    other = Plan(columns={"Revenue": ("annual_revenue_minor",)})
    assert (own.unit_of("annual_revenue_minor"), other.unit_of("annual_revenue_minor")) == ("minor", "major")


def test_cells_escaped_by_an_export_are_read_as_they_were():
    assert Plan(columns={"Name": ("name",)}).texts(SourceRow(2, {"Name": "'=1+1"})) == {"name": "=1+1"}


MAPPING = """
resource = "opportunities"
match = "external_id"
[columns]
id = "external_id"
deal = "name"
price = ["amount_minor"]
[values.product]
GTXPro = "GTX Pro"
[values.value]
0 = ""
[lookups.list_price]
file = "products.csv"
key = "product"
match = "product"
value = "sales price"
[only]
office = "{{office}}"
[templates]
deal = ["{product} – {account}", "{product}"]
price = ["{value}", "{list_price}"]
"""


@pytest.fixture
def deals(tmp_path: Path) -> Plan:
    (tmp_path / "m.toml").write_text(MAPPING, encoding="utf-8")
    (tmp_path / "products.csv").write_text("product,sales price\nGTX Pro,4821\nMG,55\n")
    mapping = load_mapping(tmp_path / "m.toml", variables={"office": "Central"})
    return plan_of(mapping, ["id", "product", "account", "value", "office", "spare"], DEAL, folder=tmp_path)


@pytest.mark.parametrize(
    ("row", "fields"),
    [
        (("1", "GTXPro", "Acme", "10", "Central"), {"external_id": "1", "name": "GTX Pro – Acme", "amount_minor": "10"}),
        (("2", "MG", "", "0", "Central"), {"external_id": "2", "name": "MG", "amount_minor": "55"}),
        (("3", "Unknown", "", "", "Central"), {"external_id": "3", "name": "Unknown", "amount_minor": ""}),
        (("4", "MG", "", "", "East"), None),
    ],
)
def test_a_mapping_cleans_looks_up_composes_and_filters(deals, row, fields):
    cells = dict(zip(("id", "product", "account", "value", "office"), row, strict=True)) | {"spare": ""}
    assert deals.texts(SourceRow(2, cells)) == fields
    assert deals.ignored == ("spare",)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("resource = ", "mapping_invalid"),
        ("resource = 'x'", "invalid"),
        ("resource = 'x'\nfoo = 1\n[columns]\na = 'b'", "invalid"),
        ("resource = 'x'\n[columns]\na = '{{office}}'", "variable_missing"),
        (
            "resource = 'x'\n[columns]\na = 'b'\n[lookups.l]\nfile = '../secret.csv'\nkey = 'a'\nmatch = 'a'\nvalue = 'a'",
            "invalid",
        ),
    ],
)
def test_a_faulty_mapping_file_says_what_is_wrong(tmp_path, text, code):
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(Invalid) as refused:
        load_mapping(tmp_path / "m.toml")
    assert refused.value.code == code


def test_a_mapping_for_other_headers_is_refused(tmp_path, deals):
    mapping = load_mapping(tmp_path / "m.toml", variables={"office": "Central"})
    with pytest.raises(Invalid, match="product"):
        plan_of(mapping, ["id", "account", "value", "office"], DEAL, folder=tmp_path)
