"""The directory as a part of a worker: its health is followed once it was opened, and no longer than it is in force."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.config import Config, DirectoryConfig, HealthConfig, ResilienceConfig
from gateway.errors import StoreUnavailable
from gateway.front.directory import DirectoryWish, OpenedDirectory
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


@pytest.mark.parametrize(
    ("url", "asked"), [("embedded", "get_tenant"), ("postgresql://127.0.0.1/x", "forget_failures")]
)
async def test_what_has_replicas_is_asked_in_the_way_of_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, asked: str
) -> None:
    resilience = Resilience(Config().resilience, clock=SystemClock())
    opened = OpenedDirectory(
        DirectoryWish(DirectoryConfig(url=url), resilience, SystemClock()), base_dir=tmp_path, run_dir=tmp_path
    )
    calls: list[str] = []

    async def down(_what: str) -> None:
        calls.append(asked)
        raise StoreUnavailable

    monkeypatch.setattr(opened._store, asked, down)
    with pytest.raises(StoreUnavailable):
        await opened._probe()
    assert calls == [asked]
    await opened.stop()
    await resilience.stop()
