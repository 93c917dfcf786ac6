"""A contender: the same server with its isolation taken away, from the outside. The product has no such setting.

What is off, all of it stated on the page: the policies (row-level security disabled on every tenant table of a copy of
the database), SET LOCAL in every transaction, the guard's proofs and comparisons of statements and rows. What stays:
placing the request (host, key, membership), permissions, and `WHERE tenant_id = …`, which any program with several
tenants in one table needs for a right answer; here it is added by the plainest means.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.orm import ORMExecuteState

from bench.cluster import Cluster
from bench.datasets import Dataset
from bench.serve_build import serve
from partywall import TenantScoped, guard
from rowhouse import app as product
from rowhouse import pipeline

OFF = (
    "Without isolation: row-level security disabled on every tenant table of a copy of the database, no SET LOCAL, no proof or"
    " comparison by the guard; placing the request, permissions and WHERE tenant_id stay."
)


def open_copy(cluster: Cluster, dataset: Dataset) -> str:
    """Make a copy of a dataset's database without policies and return its name."""
    name = f"{dataset.database}_open"
    mark = f"{cluster.marked(dataset.database)} open"
    if cluster.marked(name) != mark:
        cluster.create(name, template=dataset.database)
        with cluster.connect(name) as connection:
            for (table,) in connection.execute(_PROTECTED).fetchall():
                connection.execute(f'ALTER TABLE "{table}" DISABLE ROW LEVEL SECURITY')
            connection.execute("VACUUM (ANALYZE)")
        cluster.mark(name, mark)
    return name


def make_app() -> Any:
    """Return the application with its isolation taken away."""
    _take_away_from_sessions()
    _take_away_from_pipeline()
    return product.make_app()


def _take_away_from_sessions() -> None:
    session = guard.TenantSession
    event.remove(session, "after_begin", guard._set_tenant)
    event.remove(session, "do_orm_execute", guard._scope_statement)
    event.remove(session, "before_flush", guard._check_flush)
    event.remove(session, "before_attach", guard._check_attach)
    event.listen(session, "do_orm_execute", _filter_plainly)
    event.listen(session, "before_flush", _stamp)
    session.check_scope = lambda self: None  # type: ignore[method-assign]


def _take_away_from_pipeline() -> None:
    # The pipeline sends nothing for an empty text; the stage listens to the server to be sure of it.
    pipeline.set_tenant_sql = lambda _tenant_id: ""


def _filter_plainly(state: ORMExecuteState) -> None:
    statement: Any = state.statement
    if not state.is_orm_statement or state.is_insert or state.is_relationship_load:
        return
    if state.is_select:
        named = {found["entity"] for found in statement.column_descriptions if found.get("entity") is not None}
    else:
        named = {statement.entity_description["entity"]}
    tenant_id = state.session.tenant_id  # type: ignore[attr-defined]
    state.statement = statement.where(*(one.tenant_id == tenant_id for one in named if _is_scoped(one)))


def _is_scoped(entity: Any) -> bool:
    return isinstance(entity, type) and issubclass(entity, TenantScoped)


def _stamp(session: guard.TenantSession, _context: object, _instances: object) -> None:
    for row in session.new:
        if getattr(row, "tenant_id", None) is None:
            row.tenant_id = session.tenant_id


_PROTECTED = "SELECT relname FROM pg_class WHERE relrowsecurity AND relnamespace = 'public'::regnamespace ORDER BY relname"


if __name__ == "__main__":
    serve("bench.without_isolation:make_app")
