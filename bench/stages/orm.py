"""The product's list beside the same list as an ordinary ORM program answers it."""

from __future__ import annotations

from bench.datasets import BASE, callers
from bench.results import compared
from bench.session import Bench, Outcome, list_asks

_NOTE = (
    "ORM path: the same edge, tenancy, session, guard and policies, but the route selects 51 whole Account objects and answers"
    " them through a Pydantic class (bench/orm_path.py), two web processes each."
)


def run(bench: Bench) -> Outcome:
    """Measure the list of 50 accounts both ways."""
    bench.ensure(BASE)
    found = callers(bench.cluster, BASE)
    product = bench.serve(BASE.database, found[0])
    other = bench.serve(BASE.database, found[0], module="bench.orm_path")
    asks = list_asks(found)
    turns = bench.turns(
        {
            "Rowhouse": bench.over_http("product", product.port, asks),
            "ORM": bench.over_http("orm", other.port, asks),
        }
    )
    row = compared(
        "list.orm",
        "List 50 through the whole stack",
        turns.rate("Rowhouse"),
        "requests/s",
        against="the same through ORM objects and Pydantic",
        other=turns.rate("ORM"),
        ratio=turns.ratio("Rowhouse", "ORM"),
    )
    return Outcome([row], [_NOTE])
