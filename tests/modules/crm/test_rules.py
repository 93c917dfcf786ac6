"""The CRM's rules, as tables of cases and as properties."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rowhouse.modules.crm import rules
from rowhouse.modules.crm.states import EmployeeBand, Lifecycle, StageChange, StageType

RANKS = st.text("0123456789abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=12).map(lambda s: s.rstrip("0")).filter(bool)


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("Acme, Inc.", "acme"),
        ("ACME Corporation", "acme"),
        ("Müller & Söhne GmbH", "muller sohne"),
        ("Banco Real S.A.", "banco real"),
        ("Foo Co Ltd", "foo"),
        ("Co", "co"),
        ("Zoë's  Bakery", "zoe s bakery"),
        ("株式会社", "株式会社"),
    ],
)
def test_names_are_compared_without_case_accents_and_legal_form(name: str, norm: str) -> None:
    assert rules.name_norm(name) == norm


@pytest.mark.parametrize(
    ("email", "norm"),
    [(" Ann.Lee@Example.COM ", "ann.lee@example.com"), ("jö@müller.de", "jö@xn--mller-kva.de"), ("a@b@c.org", "a@b@c.org")],
)
def test_addresses_are_compared_in_lower_case_and_ascii(email: str, norm: str) -> None:
    assert rules.email_norm(email) == norm


@pytest.mark.parametrize("email", ["", "ann", "@example.com", "ann@", "ann@localhost", "an n@example.com"])
def test_what_cannot_be_an_address_is_refused(email: str) -> None:
    with pytest.raises(ValueError, match="name@example"):
        rules.email_norm(email)


@pytest.mark.parametrize(
    ("website", "domain"),
    [
        ("https://www.Example.com/path?q=1", "example.com"),
        ("example.com", "example.com"),
        ("http://shop.example.com:8080", "shop.example.com"),
        ("https://müller.de.", "xn--mller-kva.de"),
    ],
)
def test_websites_are_compared_by_host(website: str, domain: str) -> None:
    assert rules.domain_norm(website) == domain


@pytest.mark.parametrize(
    "website", ["javascript://example.com", "https://user:pw@example.com", "ftp://example.com", "https://", "x"]
)
def test_other_than_plain_web_addresses_are_refused(website: str) -> None:
    with pytest.raises(ValueError, match="https"):
        rules.domain_norm(website)


@pytest.mark.parametrize(
    ("phone", "norm"),
    [("+49 (30) 123-4567", "49301234567"), ("0049 30 1234567", "49301234567"), ("12345", None), (None, None), ("", None)],
)
def test_telephone_numbers_are_compared_by_digits(phone: str | None, norm: str | None) -> None:
    assert rules.phone_norm(phone) == norm


def test_tags_are_lower_case_and_unique_in_the_order_given() -> None:
    assert rules.tags_norm(["VIP", " eu ", "vip", " "]) == ["vip", "eu"]


@pytest.mark.parametrize(
    ("count", "band"),
    [(0, "SOLO"), (1, "SOLO"), (2, "MICRO"), (9, "MICRO"), (10, "SMALL"), (249, "MEDIUM"), (999, "LARGE"), (1000, "ENTERPRISE")],
)
def test_a_head_count_has_one_size_band(count: int, band: str) -> None:
    assert rules.employee_band(count) is EmployeeBand(band)


@pytest.mark.parametrize(
    ("before", "after", "forward"),
    [
        ("LEAD", "MQL", True),
        ("LEAD", "CUSTOMER", True),
        ("CUSTOMER", "LEAD", False),
        ("SQL", "SQL", False),
        ("CUSTOMER", "CHURNED", False),
        ("CHURNED", "CUSTOMER", False),
    ],
)
def test_the_lifecycle_has_an_order(before: str, after: str, forward: bool) -> None:
    assert rules.is_forward(before, after) is forward


@given(st.sampled_from(Lifecycle), st.sampled_from(Lifecycle))
def test_no_lifecycle_change_is_forward_in_both_directions(one: Lifecycle, other: Lifecycle) -> None:
    assert not (rules.is_forward(one, other) and rules.is_forward(other, one))


@pytest.mark.parametrize(
    ("before", "after", "kind"),
    [
        ("OPEN", "OPEN", StageChange.MOVED),
        ("OPEN", "WON", StageChange.WON),
        ("OPEN", "LOST", StageChange.LOST),
        ("WON", "OPEN", StageChange.REOPENED),
        ("LOST", "OPEN", StageChange.REOPENED),
        ("WON", "LOST", StageChange.LOST),
        ("LOST", "WON", StageChange.WON),
        ("WON", "WON", None),
        ("LOST", "LOST", None),
    ],
)
def test_each_move_between_statuses_has_its_kind(before: str, after: str, kind: StageChange | None) -> None:
    assert rules.move_kind(before, after) is kind


def test_every_status_can_be_left() -> None:
    assert {before for before, _ in rules.MOVES} == set(StageType)


@pytest.mark.parametrize(
    ("amount", "probability", "weighted"),
    [(10_000, 25, 2500), (99, 50, 49), (1, 99, 0), (None, 50, 0), (500, 0, 0), (500, 100, 500)],
)
def test_the_weighted_value_is_rounded_down(amount: int | None, probability: int, weighted: int) -> None:
    assert rules.weighted_minor(amount, probability) == weighted


@pytest.mark.parametrize(
    ("quantity", "price", "percent", "minor", "net"),
    [
        ("1", 1000, "0", 0, 1000),
        ("2.5", 333, "0", 0, 832),  # 832.5 rounds to the even neighbour
        ("1.5", 333, "0", 0, 500),  # 499.5 as well
        ("3", 1000, "10", 0, 2700),
        ("3", 1000, "10", 700, 2000),
        ("1", 1000, "100", 0, 0),
    ],
)
def test_a_line_is_quantity_times_price_less_discounts(quantity: str, price: int, percent: str, minor: int, net: int) -> None:
    assert rules.net_minor(Decimal(quantity), price, discount_percent=Decimal(percent), discount_minor=minor) == net


def test_a_discount_cannot_exceed_the_price() -> None:
    with pytest.raises(ValueError, match="more than the price"):
        rules.net_minor(Decimal(1), 100, discount_percent=Decimal(50), discount_minor=51)


@pytest.mark.parametrize(
    ("recurrence", "months", "total"),
    [
        ("ONE_TIME", None, 100),
        ("ONE_TIME", 12, 100),
        ("MONTHLY", 12, 1200),
        ("QUARTERLY", 12, 400),
        ("YEARLY", 36, 300),
        ("YEARLY", 13, 200),
    ],
)
def test_a_recurring_line_counts_every_begun_period(recurrence: str, months: int | None, total: int) -> None:
    assert rules.term_total_minor(100, recurrence, months) == total


def test_a_recurring_line_needs_a_term() -> None:
    with pytest.raises(ValueError, match="term_months"):
        rules.term_total_minor(100, "MONTHLY", None)


@pytest.mark.parametrize(
    ("amount", "rate", "currency", "into", "converted"),
    [
        (10_000, "1.1", "EUR", "USD", 11_000),
        (10_000, "0.0067", "JPY", "USD", 6700),
        (6700, "149.25", "USD", "JPY", 10_000),
        (1000, "3.25", "KWD", "USD", 325),
        (5, "0.5", "EUR", "USD", 2),
    ],
)
def test_amounts_are_converted_between_minor_units(amount: int, rate: str, currency: str, into: str, converted: int) -> None:
    assert rules.convert_minor(amount, Decimal(rate), currency=currency, into=into) == converted


@pytest.mark.parametrize(("day", "rate"), [(1, None), (2, "1"), (4, "1"), (5, "2"), (9, "2")])
def test_the_latest_rate_that_held_on_the_day_counts(day: int, rate: str | None) -> None:
    rates = [(date(2026, 1, 2), Decimal(1)), (date(2026, 1, 5), Decimal(2))]
    assert rules.rate_on(rates, date(2026, 1, day)) == (Decimal(rate) if rate else None)


@given(RANKS, RANKS)
def test_a_rank_lies_strictly_between_its_neighbours(one: str, other: str) -> None:
    assume(one != other)
    low, high = sorted((one, other))
    middle = rules.rank_between(low, high)
    assert low < middle < high
    assert not middle.endswith("0")


@given(RANKS)
def test_there_is_always_room_at_both_ends(rank: str) -> None:
    before, after = rules.rank_between(None, rank), rules.rank_between(rank, None)
    assert before < rank < after
    assert not (before + after[-1]).endswith("0")


def test_ranks_added_at_the_end_stay_short() -> None:
    rank = rules.rank_between(None, None)
    for _ in range(5000):
        rank = rules.rank_between(rank, None)
    assert len(rank) <= 6


def test_neighbours_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValueError, match="sort before"):
        rules.rank_between("b", "a")


@pytest.mark.parametrize(
    ("first", "months", "result"),
    [
        (date(2026, 11, 23), 0, date(2026, 11, 1)),
        (date(2026, 11, 23), 2, date(2027, 1, 1)),
        (date(2026, 1, 1), -1, date(2025, 12, 1)),
    ],
)
def test_months_are_counted_across_years(first: date, months: int, result: date) -> None:
    assert rules.add_months(first, months) == result


def test_month_buckets_leave_no_gap() -> None:
    starts = rules.month_starts(date(2026, 11, 30), 3)
    assert starts == [date(2026, 11, 1), date(2026, 12, 1), date(2027, 1, 1)]


def test_a_day_begins_when_it_begins_in_the_tenants_zone() -> None:
    assert rules.day_start(date(2026, 7, 1), "America/New_York") == datetime(2026, 7, 1, 4, tzinfo=UTC)
    assert rules.day_start(date(2026, 1, 1), "Asia/Tokyo") == datetime(2025, 12, 31, 15, tzinfo=UTC)


@pytest.mark.parametrize(("won", "lost", "rate"), [(1, 1, 0.5), (1, 2, 0.3333), (0, 4, 0.0), (0, 0, None)])
def test_the_win_rate_is_unknown_when_nothing_was_closed(won: int, lost: int, rate: float | None) -> None:
    assert rules.win_rate(won, lost) == rate


def test_a_forecast_counts_commitments_in_full_and_the_rest_weighted() -> None:
    assert rules.forecast_total_minor(closed_minor=100, commit_minor=50, weighted_minor=7) == 157


@given(st.lists(st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(2030, 1, 1)), min_size=1, max_size=20))
def test_stage_durations_sum_to_the_age_of_the_deal(moments: list[datetime]) -> None:
    *entered, end = sorted([*moments, datetime(2030, 1, 2)])
    stays = rules.stage_durations(list(enumerate(entered)), end)
    assert sum((stay for _, stay in stays), timedelta()) == end - entered[0]
    assert all(stay >= timedelta() for _, stay in stays)


@pytest.mark.parametrize(("reasons", "score"), [(["phone", "domain"], 1.0), (["name"], 0.9), (["phone"], 0.8), ([], 0.0)])
def test_the_strongest_sign_says_how_alike_two_records_are(reasons: list[str], score: float) -> None:
    assert rules.likeness(reasons) == score


@pytest.mark.parametrize(("idle_days", "rotten_days", "stale"), [(8, 7, True), (7, 7, False), (99, None, False)])
def test_a_deal_is_stale_only_past_its_stages_limit(idle_days: int, rotten_days: int | None, stale: bool) -> None:
    now = datetime(2026, 11, 23, tzinfo=UTC)
    assert rules.is_stale(now - timedelta(days=idle_days), rotten_days, now) is stale


def test_zero_is_a_value_and_an_empty_text_is_none() -> None:
    values = {"amount_minor": 0, "next_step": "", "account_id": None}
    assert rules.missing_fields(["amount_minor", "next_step", "account_id", "lead_source"], values) == [
        "next_step",
        "account_id",
        "lead_source",
    ]
