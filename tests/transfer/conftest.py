"""A fresh workspace for each test of an import."""

from pathlib import Path

import pytest
from imports import House

from cast import TenantMaker
from rowhouse.core.db import Database
from rowhouse.core.resource import Registry


@pytest.fixture
async def house(database: Database, registry: Registry, make_tenant: TenantMaker, tmp_path: Path) -> House:
    tenant, owner = await make_tenant("import")
    return House(database, registry, tenant, owner, tmp_path)
