"""What the server sends for a request, taken from the database's log, and the same as scripts for pgbench."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from bench.cluster import Cluster, Statement
from bench.load_runs import Ask
from bench.places import BenchError

# pgbench takes 128 scripts at most; each is one workspace.
MOST_SCRIPTS = 100
_FRAME = re.compile(r"\s*(;|$|BEGIN|COMMIT|ROLLBACK|SET|START|SAVEPOINT|RELEASE|DEALLOCATE|DISCARD)", re.IGNORECASE)
# What pgbench would take for a variable: a colon before a letter or digit, which no cast has.
_AMBIGUOUS = re.compile(r"(?<!:):(?=\w)")
_LITERAL = re.compile(r"'(?:[^'\\]|'')*'")


@dataclass(frozen=True, slots=True)
class Heard:
    """The statements of one request, with its caller remembered and not: what is sent in each case."""

    warm: list[Statement]
    cold: list[Statement]


def listen(cluster: Cluster, database: str, port: int, ask: Ask) -> Heard:
    """Send a request several times and return what reached the database: for the first, and the least of the others.

    The first is that of a caller the server does not know yet only if it never asked this server before.
    """
    with cluster.listen() as listening:
        listening.forget()
        _send(port, ask)
        cold = _settled(lambda: listening.heard(database))
        best: list[Statement] | None = None
        for _ in range(8):
            # Two web processes remember apart; the one that answered least had the caller in memory.
            _send(port, ask)
            listening.forget()
            _send(port, ask)
            heard = _settled(lambda: listening.heard(database))
            if best is None or len(heard) < len(best):
                best = heard
    return Heard(best or [], cold)


def counted(heard: Sequence[Statement]) -> int:
    """Return how many statements read or write, what frames a transaction left out."""
    return sum(1 for statement in heard if not _FRAME.match(statement.text))


def only(heard: Sequence[Statement], table: str) -> Statement:
    """Return the one statement that names a table.  Raises BenchError when there is not exactly one."""
    found = [s for s in heard if not _FRAME.match(s.text) and re.search(rf"\b{table}\b", s.text)]
    if len(found) != 1:
        seen = "; ".join(s.text[:80] for s in heard)
        raise BenchError(f"expected one statement on {table} in a request, found {len(found)}: {seen}")
    return found[0]


@dataclass(frozen=True, slots=True)
class Scripts:
    """Scripts for pgbench, one per workspace, and the values they bind."""

    texts: list[str]
    variables: dict[str, str]


def scripts(
    statement: Statement,
    swaps: Sequence[Mapping[str, str]],
    *,
    tenants: Sequence[str],
    framed: bool = True,
    pipelined: bool = False,
) -> Scripts:
    """Return a statement as one script per workspace, its values bound as parameters as the server binds them.

    swaps: per workspace, what replaces the listened-to values; a replacement in parentheses is SQL, not a value.
    framed: BEGIN, SET LOCAL and COMMIT around it.  pipelined: all four sent at once.
    """
    texts: list[str] = []
    variables: dict[str, str] = {}
    for number, (tenant, swap) in enumerate(zip(tenants, swaps, strict=True)):
        body = _bound(statement, swap, f"v{number}", variables)
        lines = ["BEGIN;", f"SET LOCAL app.tenant_id = '{tenant}';", f"{body};", "COMMIT;"] if framed else [f"{body};"]
        if pipelined:
            lines = ["\\startpipeline", *lines, "\\endpipeline"]
        texts.append("\n".join(lines) + "\n")
    return Scripts(texts, variables)


def _bound(statement: Statement, swap: Mapping[str, str], prefix: str, variables: dict[str, str]) -> str:
    text = statement.text.rstrip("; \n")
    for old, new in swap.items():
        text = text.replace(old, new)
    text = _LITERAL.sub(_without_colons, text)
    if _AMBIGUOUS.search(text):
        raise BenchError(f"pgbench would take a part of this statement for a variable: {text[:200]}")

    def replace(found: re.Match[str]) -> str:
        value = statement.values[int(found[1]) - 1]
        value = swap.get(value, value) if value is not None else None
        if value is None:
            return "NULL"
        if value.startswith("("):
            return value
        if value == "":
            return "''"
        name = f"{prefix}_{found[1]}"
        variables[name] = value
        return f":{name}"

    return re.sub(r"\$(\d+)", replace, text)


def _without_colons(literal: re.Match[str]) -> str:
    text = _AMBIGUOUS.sub(r"\\x3A", literal[0])
    return literal[0] if text == literal[0] else f"E{text}"


def _send(port: int, ask: Ask) -> None:
    headers = {"Host": ask.host, "Authorization": ask.authorization, "Content-Type": "application/json"}
    body = ask.body.replace("@N", str(time.monotonic_ns())).encode() if ask.body else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{ask.path}", headers=headers, method=ask.method, data=body)
    with urllib.request.urlopen(request, timeout=30) as answer:
        answer.read()


def _settled(hear: Callable[[], list[Statement]]) -> list[Statement]:
    """Return what was heard once nothing more comes."""
    last: list[Statement] = []
    for _ in range(40):
        time.sleep(0.05)
        heard = hear()
        if heard and len(heard) == len(last):
            return heard
        last = heard
    return last
