"""What is always true of accounts, people, deals and stages: pure functions of values, no session and no clock."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from typing import TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from rowhouse.modules.crm.states import EmployeeBand, Lifecycle, Recurrence, StageChange, StageType
from rowhouse.values.money import minor_digits

DEEPEST_HIERARCHY = 10
# The columns of a deal that a stage may ask for.
REQUIRABLE = (
    "account_id",
    "amount_minor",
    "competitor_account_id",
    "description",
    "expected_close_date",
    "lead_source",
    "next_step",
    "next_step_due_on",
    "owner_user_id",
)
MOVES: dict[tuple[StageType, StageType], StageChange] = {
    (StageType.OPEN, StageType.OPEN): StageChange.MOVED,
    (StageType.OPEN, StageType.WON): StageChange.WON,
    (StageType.OPEN, StageType.LOST): StageChange.LOST,
    (StageType.WON, StageType.OPEN): StageChange.REOPENED,
    (StageType.LOST, StageType.OPEN): StageChange.REOPENED,
    # A correction of the outcome; an administrator's, because reports already counted the first one.
    (StageType.WON, StageType.LOST): StageChange.LOST,
    (StageType.LOST, StageType.WON): StageChange.WON,
}
_BANDS = (
    (1, EmployeeBand.SOLO),
    (9, EmployeeBand.MICRO),
    (49, EmployeeBand.SMALL),
    (249, EmployeeBand.MEDIUM),
    (999, EmployeeBand.LARGE),
)
_LEGAL_FORMS_TEXT = (
    "ab ag as asa bv co company corp corporation gmbh gbr inc incorporated kft kg kk limited llc llp ltd ltda nv oy oyj plc "
    "pte pty pvt sa sarl sas se sl spa srl sro ug"
)
_LEGAL_FORMS = frozenset(_LEGAL_FORMS_TEXT.split())
_MONTHS_PER_PERIOD = {Recurrence.MONTHLY: 1, Recurrence.QUARTERLY: 3, Recurrence.YEARLY: 12}
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_STEP_WIDTH = 6
# Digits enough for the product of any two columns; Python's own 28 are not.
_EXACT = 60
_LIKENESS = {"domain": 1.0, "email": 1.0, "name": 0.9, "name_and_account": 0.8, "phone": 0.8}
_T = TypeVar("_T")


def name_norm(name: str) -> str:
    """Return a name for comparison: lower case, no accents, punctuation or trailing legal form ("Acme, Inc." is "acme")."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name.casefold()) if not unicodedata.combining(c))
    # "S.A." and "L.L.C." are one word each, whatever other punctuation separates.
    words = re.sub(r"[^\w]+", " ", re.sub(r"(?<=\b\w)\.(?=\w\b|\s|$)", "", plain)).replace("_", " ").split()
    while len(words) > 1 and words[-1] in _LEGAL_FORMS:
        words.pop()
    return " ".join(words)[:200]


def email_norm(email: str) -> str:
    """Return an address for comparison: trimmed, lower case, its domain in ASCII form.

    Raises ValueError for what cannot be an address.
    """
    local, at, domain = email.strip().rpartition("@")
    if not at or not local or re.search(r"\s", local + domain) or "." not in domain:
        raise ValueError("write it as name@example.com")
    return f"{local.lower()}@{_ascii_host(domain)}"


def domain_norm(website: str) -> str:
    """Return the host of a web address without "www.", in ASCII form.

    Raises ValueError unless it is an http(s) address, scheme optional, without credentials.
    """
    text = website.strip()
    parts = urlsplit(text if "://" in text else f"https://{text}")
    if parts.scheme not in {"http", "https"} or parts.username is not None or not parts.hostname or "." not in parts.hostname:
        raise ValueError("write it as https://example.com, without a user name")
    return _ascii_host(parts.hostname).removeprefix("www.")


def phone_norm(phone: str | None) -> str | None:
    """Return the digits of a telephone number, its international prefix as digits; None with fewer than seven."""
    digits = re.sub(r"\D", "", phone or "")
    return digits.removeprefix("00")[:50] if len(digits) >= 7 else None


def tags_norm(tags: Iterable[str]) -> list[str]:
    """Return tags trimmed, in lower case, each once, in the order given."""
    return list(dict.fromkeys(tag.strip().lower() for tag in tags if tag.strip()))


def employee_band(count: int) -> EmployeeBand:
    """Return the size band of a head count."""
    return next((band for most, band in _BANDS if count <= most), EmployeeBand.ENTERPRISE)


def is_forward(before: str, after: str) -> bool:
    """Return whether a lifecycle change goes forward; to CHURNED and out of it always needs a person's reason."""
    order = list(Lifecycle)
    if Lifecycle.CHURNED in (Lifecycle(before), Lifecycle(after)):
        return False
    return order.index(Lifecycle(after)) > order.index(Lifecycle(before))


def move_kind(before: str, after: str) -> StageChange | None:
    """Return what a move between two statuses is called, None when there is no such move."""
    return MOVES.get((StageType(before), StageType(after)))


def weighted_minor(amount_minor: int | None, probability_pct: int) -> int:
    """Return the expected value of a deal in minor units, rounded down; 0 without an amount.

    probability_pct: 0 to 100.
    """
    return (amount_minor or 0) * probability_pct // 100


def net_minor(quantity: Decimal, unit_price_minor: int, *, discount_percent: Decimal, discount_minor: int) -> int:
    """Return the price of a line after its discounts, the percentage first, rounded half to even.

    Raises ValueError when the discount is more than the price.
    """
    with localcontext(prec=_EXACT):
        price = quantity * unit_price_minor * (100 - discount_percent) / 100
        net = int(price.quantize(Decimal(1), ROUND_HALF_EVEN)) - discount_minor
    if net < 0:
        raise ValueError("the discount is more than the price")
    return net


def term_total_minor(net: int, recurrence: str, term_months: int | None) -> int:
    """Return what a line brings over its whole term; a begun period counts in full.

    Raises ValueError for a recurring line without a term.
    """
    months = _MONTHS_PER_PERIOD.get(Recurrence(recurrence))
    if months is None:
        return net
    if term_months is None:
        raise ValueError("a recurring line needs term_months")
    return net * -(-term_months // months)


def convert_minor(amount_minor: int, rate: Decimal, *, currency: str, into: str) -> int:
    """Return an amount in another currency's minor units, rounded half to even.

    rate: units of `into` for one unit of `currency`.
    """
    scale = minor_digits(into) - minor_digits(currency)
    with localcontext(prec=_EXACT):
        return int((amount_minor * rate).scaleb(scale).quantize(Decimal(1), ROUND_HALF_EVEN))


def rate_on(rates: Sequence[tuple[date, Decimal]], day: date) -> Decimal | None:
    """Return the latest rate that held on a day; None when the first begins later.

    rates: (first day, rate), earliest first.
    """
    return next((rate for as_of, rate in reversed(rates) if as_of <= day), None)


def rank_between(before: str | None, after: str | None) -> str:
    """Return a rank that sorts strictly between two; None stands for the beginning or the end.

    Ranks are base-36 fractions without trailing zeros, so they compare as plain text. Adding at an end counts up or
    down by a small step and stays short; only squeezing between neighbours adds digits.
    Raises ValueError when `before` does not sort before `after`.
    """
    if before is not None and after is not None:
        if before >= after:
            raise ValueError("the first rank must sort before the second")
        return _midpoint(before, after)
    if before is None and after is None:
        return "i"
    stepped = _digits_at(before or after or "", _STEP_WIDTH) + (1 if after is None else -1)
    if 0 < stepped < 36**_STEP_WIDTH:
        return _rank(stepped, _STEP_WIDTH)
    return _midpoint(before or "", after)


def month_starts(first: date, count: int) -> list[date]:
    """Return the first days of `count` months, beginning with the month of `first`."""
    return [add_months(first.replace(day=1), offset) for offset in range(count)]


def add_months(first: date, months: int) -> date:
    """Return the first day of the month that lies `months` after the month of `first`."""
    years, month = divmod(first.year * 12 + first.month - 1 + months, 12)
    return date(years, month + 1, 1)


def day_start(day: date, zone: str) -> datetime:
    """Return the moment, in UTC, at which a day begins in a time zone."""
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)


def ratio(part: int, whole: int) -> float | None:
    """Return part / whole to four digits; None when there is nothing to divide."""
    return round(part / whole, 4) if whole else None


def win_rate(won: int, lost: int) -> float | None:
    """Return the share of closed deals (or of their value) that was won; None when none was closed."""
    return ratio(won, won + lost)


def forecast_total_minor(*, closed_minor: int, commit_minor: int, weighted_minor: int) -> int:
    """Return the forecast of a month: what is won, plus commitments in full, plus the weighted rest."""
    return closed_minor + commit_minor + weighted_minor


def stage_durations(entries: Sequence[tuple[_T, datetime]], end: datetime) -> list[tuple[_T, timedelta]]:
    """Return how long each stay in a stage lasted, in order; together they last from the first entry to `end`.

    entries: (stage, when it was entered), earliest first.
    """
    leaves = [moment for _, moment in entries[1:]] + [end]
    return [(stage, left - entered) for (stage, entered), left in zip(entries, leaves, strict=True)]


def likeness(reasons: Sequence[str]) -> float:
    """Return how surely two records are the same, 0 to 1: the strongest reason counts."""
    return max((_LIKENESS[reason] for reason in reasons), default=0.0)


def is_stale(last_touched_at: datetime, rotten_days: int | None, now: datetime) -> bool:
    """Return whether a deal has been left alone for longer than its stage allows; never where none is set."""
    return rotten_days is not None and last_touched_at < now - timedelta(days=rotten_days)


def missing_fields(required: Iterable[str], values: dict[str, object]) -> list[str]:
    """Return the required fields that are empty; zero is a value."""
    return [name for name in required if values.get(name) is None or values.get(name) == ""]


def _ascii_host(host: str) -> str:
    try:
        return host.lower().rstrip(".").encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ValueError("the domain is not a valid host name") from error


def _midpoint(before: str, after: str | None) -> str:
    width = 1
    while True:
        low = _digits_at(before, width)
        high = 36**width if after is None else _digits_at(after, width)
        middle = (low + high) // 2
        if low < middle < high:
            return _rank(middle, width)
        width += 1


def _digits_at(rank: str, width: int) -> int:
    return int(rank[:width].ljust(width, "0"), 36)


def _rank(number: int, width: int) -> str:
    digits = ""
    for _ in range(width):
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
    return digits.rstrip("0")
