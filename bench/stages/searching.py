"""Search in one workspace of 500,000 rows, by kind of question."""

from __future__ import annotations

import random
from urllib.parse import quote

from bench.cluster import Cluster
from bench.datasets import SEARCH, callers
from bench.load_runs import is_answered
from bench.results import Row, plain
from bench.session import Bench, Outcome

_ASKED = 40
_LOAD = 0.25
_NOTE = (
    "Search: GET /api/v1/search in a workspace of 300,000 accounts and 200,000 contacts (20 others beside it), words as uneven"
    " as a language's, two ending words on half and a quarter of the accounts; 40 questions of each kind, requests at random"
    " moments at a quarter of what two web processes reach with the mix."
)


def run(bench: Bench) -> Outcome:
    """Measure the 95th percentile of each kind of question and of their mix."""
    bench.ensure(SEARCH)
    caller = callers(bench.cluster, SEARCH, "s")[0]
    server = bench.serve(SEARCH.database, caller, path="/api/v1/accounts?limit=1&fields=id")
    if not is_answered(server.port, caller.ask("/api/v1/search?q=bench")):
        return Outcome([], ["This version has no GET /api/v1/search yet."])
    kinds = questions(bench.cluster)
    asks = {kind: [caller.ask(f"/api/v1/search?q={quote(q)}") for q in found] for kind, found in kinds.items()}
    mix = [ask for found in asks.values() for ask in found]
    per_second = _LOAD * bench.capacity(bench.over_http("search", server.port, mix)).per_second
    rows: list[Row] = []
    for kind, found in {"mixed": mix, **asks}.items():
        paced = bench.paced(kind.replace(" ", "-"), server.port, found, per_second=per_second)
        turns = bench.turns({kind: paced}, seconds=1.5 * bench.seconds, rounds=1)
        key = f"search.{kind.replace(' ', '_')}"
        rows.append(plain(f"{key}.95th", f"Search, {kind}, 95th percentile", turns.p95(kind), "ms", goal=20))
        rows.append(plain(f"{key}.median", f"Search, {kind}, median", turns.p50(kind), "ms"))
    return Outcome(rows, [_NOTE])


def questions(cluster: Cluster) -> dict[str, list[str]]:
    """Return what is asked, by kind, made of the names and addresses that are there."""
    chooser = random.Random(7)
    with cluster.connect(SEARCH.database) as connection:
        connection.execute("SELECT setseed(0.7)")
        names = [row[0] for row in connection.execute(_NAMES, [1_000]).fetchall()]
        people = [row[0] for row in connection.execute(_PEOPLE, [_ASKED]).fetchall()]
        phones = [row[0] for row in connection.execute(_PHONES, [_ASKED]).fetchall()]
        often = [row[0] for row in connection.execute(_OFTEN).fetchall()]
        seldom = [row[0] for row in connection.execute(_SELDOM, [_ASKED]).fetchall()]
    two_often = [f"{first} {second}" for first in often[:8] for second in ("group", "ltd", "works", "prospect", often[9])]
    return {
        "rare word": seldom,
        "frequent word": ["group", "ltd", *often[:10]],
        "two frequent words": two_often[:_ASKED],
        "whole name": names[:_ASKED],
        "prefix": [name[: chooser.choice((3, 4))] for name in chooser.sample(names, _ASKED)],
        "typo": [_misspelt(word, chooser) for word in seldom if len(word) > 5],
        "e-mail": people,
        "number": phones,
    }


def _misspelt(word: str, chooser: random.Random) -> str:
    at = chooser.randrange(1, len(word) - 2)
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


_OF_S = "tenant_id = (SELECT id FROM tenant WHERE slug = 's00000')"
_NAMES = f"SELECT name FROM (SELECT name FROM account WHERE {_OF_S}) x ORDER BY random() LIMIT %s"
_PEOPLE = f"SELECT email FROM (SELECT email FROM crm_contact WHERE {_OF_S}) x ORDER BY random() LIMIT %s"
_PHONES = f"SELECT right(phone_norm, 7) FROM account WHERE {_OF_S} ORDER BY random() LIMIT %s"
_WORDS = f"SELECT split_part(name_norm, ' ', 1) AS word, count(*) AS n FROM account WHERE {_OF_S} GROUP BY 1"
_OFTEN = f"SELECT word FROM ({_WORDS}) x ORDER BY n DESC, word LIMIT 10"
_SELDOM = f"SELECT word FROM ({_WORDS}) x WHERE n < 30 ORDER BY random() LIMIT %s"
