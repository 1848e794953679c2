"""The world of SCIM for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.flows.scim.world import ScimWorld


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ScimWorld]:
    made = ScimWorld(tmp_path)
    yield made
    await made.close()
