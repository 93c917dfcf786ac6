"""Who is calling, and which workspaces they may reach: the look-ups behind every request.

Answers are remembered for less than half a second, each under the whole of what was asked, so that a revoked log-in,
key or membership and a suspended workspace stop within a second in every process.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http.cookies import CookieError, SimpleCookie
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from partywall import Tenant
from partywall.errors import ResolutionError, TenantMismatch
from partywall.resolve import Credential, Member
from rowhouse.core import clock
from rowhouse.core.db import Database
from rowhouse.core.permissions import Capability, Principal, Role
from rowhouse.identity.models import (
    ApiKey,
    Membership,
    ServiceKey,
    ServiceKeyGrant,
    TenantRow,
    User,
    UserSession,
    UserStatus,
    VerifiedDomain,
)
from rowhouse.identity.people import SERVED, tenant_of
from rowhouse.identity.remembered import Remembered
from rowhouse.identity.tokens import COOKIE, KeyText, is_cookie_value, read_key, same, secret_hash
from rowhouse.settings import Settings
