"""The resources of the running program, gathered once for every composition root."""

from __future__ import annotations

from rowhouse.api import idempotency  # noqa: F401  # a table that is no resource
from rowhouse.core import events, numbers  # noqa: F401  # tables of the machine that are no resources
from rowhouse.core.audit import AUDIT
from rowhouse.core.jobs import JOBS
from rowhouse.core.resource import Registry
from rowhouse.core.search import index  # noqa: F401  # its tables
from rowhouse.identity.resources import RESOURCES as IDENTITY
from rowhouse.modules.crm.resources import RESOURCES as CRM
from rowhouse.transfer.batches import IMPORTS


def build_registry() -> Registry:
    """Return every resource."""
    return Registry([*IDENTITY, *CRM, IMPORTS, JOBS, AUDIT])
