"""Sending what a call adds together with its commit, in one exchange, when nothing else needs the transaction.

The listeners of the unit of work run as for any flush: guard, stamps, audit. What cannot wait is flushed as ever.
"""

from __future__ import annotations

from partywall import TenantMismatch
from rowhouse.core.db import CallSession, Database
from rowhouse.core.search.index import SearchPosting, postings_to_add
from rowhouse.inserts import inserts_of, reads_of


def may_wait(session: CallSession) -> bool:
    """Return whether a session holds new rows alone, none of which need an ordinary flush, and has sent nothing yet."""
    if session.has_begun or session.dirty or session.deleted:
        return False
    return all(type(row) not in CallSession.flushed_apart for row in session.new)


async def send(database: Database, session: CallSession) -> bool:
    """Write the new rows of a session in one transaction, and commit it.

    Returns False, having sent nothing, when the rows need an ordinary flush after all.  Raises what a flush and a
    commit would raise.
    """
    postings = postings_to_add(session)
    if postings is None:
        return False
    session.dispatch.before_flush(session, None, None)
    if session.has_begun or session.dirty or session.deleted:
        raise AssertionError("a listener of the flush has sent or changed something while new rows were waiting")
    found = inserts_of(list(session.new))
    for _, rows in found:
        for row in rows:
            if row["tenant_id"] != session.tenant_id:
                raise TenantMismatch("a row of another tenant cannot be written by this session")
    statements = [read for table, rows in found for read in reads_of(table, rows)]
    statements += reads_of(SearchPosting.__table__, postings)  # type: ignore[arg-type]  # a mapped class has a Table
    session.check_scope()
    await database.reads.run(session.tenant_id, statements, writes=True)
    session.expunge_all()
    return True
