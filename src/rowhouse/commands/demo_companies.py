"""The people and companies of the demo: members, exchange rates, accounts in groups, and whom one talks to there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from random import Random
from typing import Any

from rowhouse.commands.demo_names import COMPETITORS, LOCALES, PARTNERS, Locale, Word
from rowhouse.commands.demo_plans import HISTORY_DAYS, AccountPlan, Calendar, ContactPlan, MemberPlan, RatePlan
from rowhouse.values.money import minor_digits

# Dollars for one unit, about; only their proportions matter here.
USD_VALUE = {"USD": 1.0, "EUR": 1.09, "GBP": 1.27, "CHF": 1.13, "SEK": 0.095, "JPY": 0.0067, "KRW": 0.00073, "KWD": 3.25}
_TITLES = (
    "Head of Operations",
    "Fleet Manager",
    "Plant Manager",
    "Chief Financial Officer",
    "Procurement Lead",
    "IT Manager",
    "Maintenance Supervisor",
    "Quality Manager",
    "Managing Director",
    "Logistics Coordinator",
)
_DEPARTMENTS = (
    "Operations",
    "Operations",
    "Production",
    "Finance",
    "Purchasing",
    "IT",
    "Maintenance",
    "Quality",
    "Management",
    "Logistics",
)
_SOURCES = ("WEBSITE", "REFERRAL", "LINKEDIN", "COLD_CALL", "COLD_EMAIL", "EVENT", "PARTNER", "INBOUND", "OUTBOUND")
_MEMBER_LOCALES = {"central": (0, 0, 0, 5, 13, 1), "east": (2, 7, 9, 8, 6, 4), "west": (1, 0, 10, 15, 12, 11)}
# How many companies of each locale a workspace is likelier to sell to than the others.
_HOME = {"central": {0, 5, 13}, "east": {2, 3, 4, 5, 6, 7, 8, 9}, "west": {1, 10, 11, 12, 14, 15, 16}}


@dataclass(frozen=True, slots=True)
class Company:
    """A company as all three workspaces know it. parent: index of the company above it."""

    name: str
    domain: str
    industry: str
    locale: int
    city: Word
    employees: int
    founded: int
    level: int
    parent: int | None


def companies(rng: Random) -> list[Company]:
    """Return the same companies for every workspace: groups of up to three levels, parents first."""
    found: list[Company] = []
    for index, locale in enumerate(LOCALES):
        for word, industry in locale.roots:
            domain = f"{word.ascii}.example"
            size = int(min(9_000, rng.lognormvariate(5.2, 1.3))) + 3
            root = Company(word.text, domain, industry, index, rng.choice(locale.cities), size, rng.randint(1898, 2016), 1, None)
            found.append(root)
            if word.text not in COMPETITORS:
                found.extend(_branches(rng, locale, root, len(found) - 1))
    return found


def _branches(rng: Random, locale: Locale, root: Company, at: int) -> Iterator[Company]:
    count = rng.choices((0, 1, 2, 3), weights=(59, 19, 14, 8))[0]
    number = at
    for city in rng.sample([city for city in locale.cities if city != root.city], k=min(count, len(locale.cities) - 1)):
        number += 1
        name = locale.branch.format(root=root.name, city=city.text)
        branch = Company(name, root.domain, root.industry, root.locale, city, root.employees // 4 + 2, root.founded + 8, 2, at)
        yield branch
        if rng.random() < 0.34:
            parent = number
            number += 1
            unit = f"{name} · {rng.choice(locale.units)}"
            yield Company(
                unit, root.domain, root.industry, root.locale, city, branch.employees // 3 + 1, branch.founded + 4, 3, parent
            )


def members(rng: Random, slug: str, count: int) -> tuple[MemberPlan, ...]:
    """Return the people of a workspace: an owner, two administrators, sellers, a reader."""
    found: dict[str, MemberPlan] = {}
    while len(found) < count:
        locale = LOCALES[rng.choice(_MEMBER_LOCALES[slug])]
        given, family = rng.choice(locale.given), rng.choice(locale.family)
        email = f"{given.ascii}.{family.ascii}@{slug}.example"
        place = len(found)
        role = "OWNER" if place == 0 else "ADMIN" if place < 3 else "VIEWER" if place == count - 1 else "MEMBER"
        title = {"OWNER": "Managing Director", "ADMIN": "Sales Director", "VIEWER": "Controller"}.get(role, "Account Executive")
        plan = MemberPlan(
            name=f"{given.text} {family.text}",
            email=email,
            role=role,
            title=title,
            sells=role in {"ADMIN", "MEMBER"},
            win_rate=round(rng.uniform(0.26, 0.39), 3),
            pace=round(rng.uniform(0.75, 1.3), 3),
        )
        found.setdefault(email, plan)
    return tuple(found.values())


def rates(rng: Random, currency: str, calendar: Calendar) -> tuple[RatePlan, ...]:
    """Return a rate per month and foreign currency, wandering a little, from before the first deal on."""
    found: list[RatePlan] = []
    for foreign, dollars in USD_VALUE.items():
        value = dollars / USD_VALUE[currency]
        for month in _months(calendar) if foreign != currency else ():
            value *= rng.uniform(0.985, 1.016)
            found.append(RatePlan(foreign, month, Decimal(f"{value:.6g}")))
    return tuple(found)


def _months(calendar: Calendar) -> Iterator[date]:
    month = (calendar.first - timedelta(days=31)).replace(day=1)
    while month <= calendar.today:
        yield month
        month = (month + timedelta(days=32)).replace(day=1)


def accounts(
    rng: Random, slug: str, known: Sequence[Company], *, calendar: Calendar, sellers: Sequence[int]
) -> list[AccountPlan]:
    """Return the workspace's own account of each company; its owner, telephone and turnover are its own."""
    found: list[AccountPlan] = []
    for number, company in enumerate(known):
        parent = None if company.parent is None else found[company.parent]
        owner = rng.choice(sellers) if parent is None or rng.random() < 0.3 else parent.owner
        created = calendar.office_hour(rng, calendar.first + timedelta(days=int(HISTORY_DAYS * rng.random() ** 1.6 * 0.98)))
        found.append(
            AccountPlan(
                external_id=f"demo-account-{number + 1}",
                created_at=created,
                owner=owner,
                parent=parent.external_id if parent else None,
                level=company.level,
                locale=company.locale,
                domain=company.domain,
                values=_account_values(rng, company, slug),
            )
        )
    return found


def _account_values(rng: Random, company: Company, slug: str) -> dict[str, Any]:
    locale = LOCALES[company.locale]
    kind = "COMPETITOR" if company.name in COMPETITORS else "PARTNER" if company.name in PARTNERS else "PROSPECT"
    turnover_usd = company.employees * rng.uniform(90_000, 260_000)
    street = f"{rng.choice(locale.family).text} {rng.randint(1, 140)}"
    return {
        "name": company.name,
        "type": kind,
        "website": f"https://www.{company.domain}",
        "phone": f"{locale.dial} {rng.randint(200, 899)} {rng.randint(1000, 9999)}",
        "industry": company.industry,
        "employee_count": company.employees,
        "annual_revenue_minor": minor(turnover_usd, locale.currency),
        "currency": locale.currency,
        "billing_address": {"street": street, "city": company.city.text, "country": locale.country},
        "founded_year": min(2022, company.founded),
        "tags": rng.sample(("key account", "cold chain", "multi-site", "public tender", "pilot", slug), k=rng.randint(0, 2)),
    }


def minor(usd: float, currency: str) -> int:
    """Return dollars as a round amount of minor units of a currency: yen have none, Kuwaiti dinars three digits."""
    units = usd / USD_VALUE[currency]
    step = 10 ** max(0, len(str(int(units))) - 3)
    digits = minor_digits(currency)
    rounded = round(units / step) * step if units >= 100 else round(units, min(digits, 1))
    return int(Decimal(str(rounded)).scaleb(digits))


def contacts(rng: Random, known: Sequence[AccountPlan], *, calendar: Calendar, most: int) -> list[ContactPlan]:
    """Return the people of the accounts, each account's first one its primary; at most `most`."""
    found: list[ContactPlan] = []
    addresses: set[str] = set()
    for account in known:
        if account.values["type"] == "COMPETITOR":
            continue
        for place in range(rng.choices((1, 2, 3, 4, 5), weights=(8, 24, 32, 22, 14))[0]):
            values = _contact_values(rng, account, place)
            if values["email"] in addresses or len(found) >= most:
                continue
            addresses.add(values["email"])
            created = min(calendar.end - timedelta(days=1), calendar.later(rng, account.created_at, rng.expovariate(1 / 40)))
            number = len(found) + 1
            consent = {"consent_email": True, "consent_at": created, "consent_source": "web form"} if rng.random() < 0.55 else {}
            found.append(
                ContactPlan(
                    external_id=f"demo-contact-{number}",
                    created_at=max(created, account.created_at),
                    owner=account.owner,
                    account=account.external_id,
                    values={**values, **consent},
                )
            )
    return found


def _contact_values(rng: Random, account: AccountPlan, place: int) -> dict[str, Any]:
    locale = LOCALES[account.locale]
    given, family = rng.choice(locale.given), rng.choice(locale.family)
    job = rng.randrange(len(_TITLES))
    return {
        "first_name": given.text,
        "last_name": family.text,
        "email": f"{given.ascii}.{family.ascii}@{account.domain}",
        "phone": f"{locale.dial} {rng.randint(200, 899)} {rng.randint(1000, 9999)}",
        "job_title": _TITLES[job],
        "department": _DEPARTMENTS[job],
        "is_primary": place == 0,
        "lifecycle": rng.choices(("LEAD", "MQL", "SQL"), weights=(60, 25, 15))[0],
        "lead_source": rng.choice(_SOURCES),
        "do_not_contact": rng.random() < 0.02,
        "address": {"city": str(account.values["billing_address"]["city"]), "country": locale.country},
    }


def closeness(slug: str, account: AccountPlan) -> float:
    """Return how likely a workspace is to sell to an account, relative to others."""
    if account.values["type"] == "COMPETITOR":
        return 0.0
    home = 3.0 if account.locale in _HOME[slug] else 1.0
    return home * (1.0 + min(3.0, float(account.values["employee_count"]) / 400))
