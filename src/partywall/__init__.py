"""Partywall: the wall between tenants that share one database and one deployment.

A request is placed in a tenant (`resolve`, `asgi`), the tenant travels with the work (`context`), every table says
whose it is (`tables`), a session serves one tenant for life (`guard`), and the database holds the same line on its
own (`rls`). `verify` compares the live catalogue with the declaration.
"""

from partywall.context import Tenant as Tenant
from partywall.context import current_tenant as current_tenant
from partywall.context import get_tenant_id as get_tenant_id
from partywall.context import has_tenant_context as has_tenant_context
from partywall.context import system_scope as system_scope
from partywall.context import tenant_scope as tenant_scope
from partywall.errors import GuardRefusal as GuardRefusal
from partywall.errors import NoTenant as NoTenant
from partywall.errors import PartywallError as PartywallError
from partywall.errors import ResolutionError as ResolutionError
from partywall.errors import TenantMismatch as TenantMismatch
from partywall.errors import Unclassified as Unclassified
from partywall.errors import UnsafeRole as UnsafeRole
from partywall.guard import AsyncTenantSession as AsyncTenantSession
from partywall.guard import TenantSession as TenantSession
from partywall.guard import reviewed as reviewed
from partywall.ids import uuid7 as uuid7
from partywall.tables import IdentityTable as IdentityTable
from partywall.tables import OperatorTable as OperatorTable
from partywall.tables import Shared as Shared
from partywall.tables import TableClass as TableClass
from partywall.tables import TenantScoped as TenantScoped
from partywall.tables import classify as classify
from partywall.tables import tenant_index as tenant_index
from partywall.tables import tenant_reference as tenant_reference
from partywall.tables import tenant_unique as tenant_unique
