"""The same work on the same contacts: Rowhouse beside BottleCRM."""

from __future__ import annotations

import json

from bench import peer
from bench.cluster import Cluster
from bench.datasets import BASE, Caller, callers, remove_created
from bench.load_runs import Ask, is_answered
from bench.peer import Peer
from bench.results import Row, compared
from bench.rounds import Contender
from bench.session import Bench, Outcome

# Global search is a second kind of search; it is measured when there is time.
_GLOBAL_ABOVE = 3
_GOALS = {"list": 100.0, "create": 20.0, "search": 50.0}
_NOTE = (
    f"BottleCRM {peer.VERSION} from its wheel, gunicorn with 2 workers, DEBUG off, its own policies on; Rowhouse with 2 web"
    " processes; both on one PostgreSQL with the same settings, one workspace with the very same 5,000 contacts. Rowhouse is"
    " asked on 16 connections, BottleCRM on four, which its two processes cannot keep up with, in turns of twice the length."
    " List: 50 contacts with all fields each answers by default. Search: the list's search for a name. Neither has a background"
    " worker running."
)
_FIRST, _WORDS = "SELECT id FROM crm_contact ORDER BY id LIMIT 2000", "SELECT first_name FROM crm_contact ORDER BY id LIMIT 40"


def run(bench: Bench) -> Outcome:
    """Measure list, get, create, update and search of contacts."""
    bench.ensure(BASE)
    caller = callers(bench.cluster, BASE, "peer")[0]
    other = peer.start(bench.cluster, bench.processes, bench.say)
    ours = bench.serve(BASE.database, caller)
    theirs_by_verb = _theirs(other, _column(bench.cluster, _WORDS))
    ours_by_verb = _ours(bench.cluster, caller)
    searches = _global_searches(bench.cluster, caller)
    if bench.rounds > _GLOBAL_ABOVE and is_answered(ours.port, searches[0]):
        ours_by_verb["global search"] = searches
    rows: list[Row] = []
    for verb, asks in ours_by_verb.items():
        turns = bench.turns(
            {
                f"{verb}: Rowhouse": bench.over_http(f"ours-{verb}", ours.port, asks),
                f"{verb}: BottleCRM": _patiently(bench, f"theirs-{verb}", other, theirs_by_verb[verb]),
            },
            seconds=max(3.0, bench.seconds),
        )
        rows.append(
            compared(
                f"bottlecrm.{verb.replace(' ', '_')}",
                f"{verb.capitalize()} of contacts",
                turns.rate(f"{verb}: Rowhouse"),
                "requests/s",
                against="BottleCRM",
                other=turns.rate(f"{verb}: BottleCRM"),
                ratio=turns.ratio(f"{verb}: Rowhouse", f"{verb}: BottleCRM"),
                goal=_GOALS.get(verb),
            )
        )
    bench.processes.end_all()
    remove_created(bench.cluster, BASE.database)
    return Outcome(rows, [_NOTE])


def _patiently(bench: Bench, name: str, other: Peer, asks: list[Ask]) -> Contender:
    """Return a contender that is given twice the time, since a list takes it a good part of a second.

    Four connections keep its two processes busy; more would only wait, and be cut off at the end of a turn.
    """
    asked = bench.over_http(name, other.port, asks, connections=4)
    return lambda seconds: asked(2 * seconds)


def _ours(cluster: Cluster, caller: Caller) -> dict[str, list[Ask]]:
    base = "/api/v1/contacts"
    person = {"first_name": "Bench", "last_name": "No@N", "email": "bench@N@x.example", "phone": "+4930@N", "job_title": "Clerk"}
    ids = _column(cluster, _FIRST)
    return {
        "list": [caller.ask(f"{base}?limit=50")],
        "get": [caller.ask(f"{base}/{found}") for found in ids],
        "create": [caller.ask(base, method="POST", body=json.dumps(person))],
        "update": [caller.ask(f"{base}/{found}", method="PATCH", body='{"job_title": "Clerk @N"}') for found in ids],
        "search": [caller.ask(f"{base}?q={word}&limit=50") for word in _column(cluster, _WORDS)],
    }


def _global_searches(cluster: Cluster, caller: Caller) -> list[Ask]:
    return [caller.ask(f"/api/v1/search?q={word}") for word in _column(cluster, _WORDS)]


def _theirs(other: Peer, words: list[str]) -> dict[str, list[Ask]]:
    base = "/api/contacts/"
    person = {"first_name": "Bench", "last_name": "No@N", "email": "bench@N@x.example", "phone": "+4930@N", "title": "Clerk"}

    def ask(path: str, method: str = "GET", body: str = "") -> Ask:
        return Ask(path, "127.0.0.1", other.authorization, method, body)

    return {
        "list": [ask(f"{base}?limit=50")],
        "get": [ask(f"{base}{found}/") for found in other.contact_ids],
        "create": [ask(base, "POST", json.dumps(person))],
        "update": [ask(f"{base}{found}/", "PATCH", '{"title": "Clerk @N"}') for found in other.contact_ids],
        "search": [ask(f"{base}?search={word}&limit=50") for word in words],
        "global search": [ask(f"/api/search/?q={word}") for word in words],
    }


def _column(cluster: Cluster, statement: str) -> list[str]:
    with cluster.connect(BASE.database) as connection:
        return [str(row[0]) for row in connection.execute(statement)]
