"""The directory as a part of a worker: its health is followed once it was opened, and no longer than it is in force."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.config import DirectoryConfig, HealthConfig, ResilienceConfig
from gateway.errors import StoreUnavailable
from gateway.front.directory import PART, DirectoryWish, OpenedDirectory
from gateway.resilience import Resilience
from gateway.types import SystemClock


async def test_its_health_is_followed_from_when_it_is_open_until_it_is_closed(tmp_path: Path) -> None:
    patient = ResilienceConfig(health=HealthConfig(interval_s=60.0, probe_timeout_s=30.0))
    resilience = Resilience(patient, clock=SystemClock())
    wish = DirectoryWish(DirectoryConfig(url="embedded"), resilience, SystemClock())
    opened = OpenedDirectory(wish, base_dir=tmp_path, run_dir=tmp_path)
    await opened.start()
    async with asyncio.timeout(60):
        while "database" not in resilience.degradation.dependencies:
            await asyncio.sleep(0)
    await resilience.degradation.dependencies["database"].sample()
    assert resilience.state().health[0].status == "ok"
    assert resilience.state().health[0].error == ""
    await opened.stop()
    assert resilience.state().health == ()
    await resilience.stop()


@pytest.mark.parametrize("url", ["embedded", "postgresql://127.0.0.1:1/x"])
async def test_what_has_replicas_is_also_asked_in_the_way_of_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """A primary that is gone is an outage, and what replicas can tell is still asked of them."""

    async def down(_key: str) -> None:
        raise StoreUnavailable

    async def answer(_tenant: str) -> None:
        pass

    patient = ResilienceConfig(health=HealthConfig(interval_s=60.0, probe_timeout_s=30.0))
    resilience = Resilience(patient, clock=SystemClock())
    opened = OpenedDirectory(
        DirectoryWish(DirectoryConfig(url=url), resilience, SystemClock()), base_dir=tmp_path, run_dir=tmp_path
    )
    monkeypatch.setattr(opened._store, "get_tenant", answer)
    monkeypatch.setattr(opened._store, "forget_failures", down)
    await opened._watch()
    for _ in range(2):
        await resilience.degradation.dependencies["database"].sample()
    assert resilience.state().health[0].status == ("ok" if url == "embedded" else "down")
    assert await resilience.call("database", "x", lambda: asyncio.sleep(0, "asked"), part=PART) == "asked"
    await opened.stop()
    assert resilience.state().health == ()
    await resilience.stop()
