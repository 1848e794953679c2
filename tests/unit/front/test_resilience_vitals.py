"""What `/readyz` and `/metrics` say of pools, permits, breakers and levels."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gateway._native.front import DOORS, REASONS
from gateway._native.metrics import MetricsBlock
from gateway.config import Config
from gateway.errors import StoreUnavailable
from gateway.flows.oauth.parties import GRANT_TYPES
from gateway.front.resilience_vitals import (
    ResilienceFigures,
    health_dependencies,
    probe_policies,
    resilience_detail,
)
from gateway.observability.catalogue import (
    BREAKER_STATES,
    BREAKERS,
    DEPENDENCIES,
    POOLS,
    RESOURCES,
    SHARES,
    TOKEN_GRANTS,
    Layout,
    catalogue,
)
from gateway.observability.exposition import exposition
from gateway.observability.metrics import Metrics, create_map
from gateway.resilience import assembly, circuit_breaker, health, permits, pools
from gateway.resilience.assembly import Resilience
from tests.virtual_time import LoopClock, run_virtual

LAYOUT = Layout(catalogue(DOORS, REASONS))
Reading = Callable[[str], str | None]


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    create_map(tmp_path / "metrics", LAYOUT, 1)
    with closing(Metrics(tmp_path / "metrics", LAYOUT, MetricsBlock)) as opened:
        yield opened


def reading(metrics: Metrics) -> Reading:
    lines = exposition(metrics.map, {}).splitlines()

    def value(series: str) -> str | None:
        return next((line.rpartition(" ")[2] for line in lines if line.rpartition(" ")[0] == series), None)

    return value


async def down() -> None:
    raise StoreUnavailable


def test_the_catalogue_has_the_names_that_the_parts_have() -> None:
    assert set(POOLS) == set(pools.POOLS)
    assert set(SHARES) == {*pools.POOLS, pools.BACKGROUND}
    assert set(RESOURCES) == set(permits.RESOURCES)
    assert set(BREAKERS) == set(assembly.BREAKERS)
    assert set(BREAKER_STATES) == set(circuit_breaker.STATES)
    assert set(DEPENDENCIES) == set(health.DEPENDENCIES)
    assert set(TOKEN_GRANTS) == {*GRANT_TYPES, "other"}


def test_figures_are_those_of_the_parts(metrics: Metrics) -> None:
    async def main() -> Reading:
        resilience = Resilience(Config().resilience, clock=LoopClock())
        figures = ResilienceFigures(metrics, resilience)
        resilience.watch("database", down)
        resilience.start()
        await asyncio.sleep(2.0)
        for _ in range(12):
            await asyncio.gather(resilience.call("cache", "get", down), return_exceptions=True)
        figures()  # totals are followed, not counted twice
        async with resilience.bulkheads.pool("scim_provisioning"), resilience.permits.guard("db_connections"):
            figures()
        await resilience.stop()
        return reading(metrics)

    value = run_virtual(main())
    assert value('portcullis_pool_running{pool="scim_provisioning"}') == "1"
    assert value('portcullis_pool_size{pool="scim_provisioning"}') == "30"
    assert value('portcullis_pool_entered_total{pool="scim_provisioning"}') == "1"
    assert value('portcullis_pool_refused_total{pool="user_auth",reason="full"}') == "0"
    assert value('portcullis_permits_in_use{resource="db_connections",pool="scim_provisioning"}') == "1"
    assert value('portcullis_permits{resource="db_connections",pool="scim_provisioning"}') == "5"
    assert value('portcullis_breakers{dependency="cache",state="open"}') == "1"
    assert value('portcullis_breaker_transitions_total{dependency="cache",state="open"}') == "1"
    assert value('portcullis_breaker_refused_total{dependency="cache"}') == "2"
    assert value('portcullis_dependency_down{dependency="database"}') == "1"
    assert value("portcullis_degradation_level") == "2"


class Followed:
    """What the probe asks of relations, and of a prefetcher."""

    def __init__(self, trusted: bool) -> None:
        self.trusted = trusted
        self.prefetcher = self


@pytest.mark.parametrize("relations", [None, True, False])
@pytest.mark.parametrize("sources", [None, True, False])
async def test_policies_are_down_while_what_they_rest_on_is_not_followed(
    relations: bool | None, sources: bool | None
) -> None:
    parts: list[Any] = [None if trusted is None else Followed(trusted) for trusted in (relations, sources)]
    if relations is False or sources is False:
        with pytest.raises(StoreUnavailable, match="not followed"):
            await probe_policies(*parts)
    else:
        await probe_policies(*parts)


def test_a_worker_stays_ready_at_every_level_and_says_which_it_is() -> None:
    async def main() -> None:
        resilience = Resilience(Config().resilience, clock=LoopClock())
        resilience.watch("database", down)
        resilience.watch("cache", down)
        resilience.start()
        await asyncio.sleep(2.0)
        for _ in range(10):
            await asyncio.gather(resilience.call("external_idp", "token", down, tenant="acme"), return_exceptions=True)
        state = resilience.state()
        shown = health_dependencies(state)
        assert {name: (each.state, each.ready) for name, each in shown.items()} == {
            "database": ("unavailable", True),
            "cache": ("unavailable", True),
        }
        assert shown["database"].detail["error"] == "store_unavailable"
        detail: dict[str, Any] = dict(resilience_detail(state))
        assert detail["degradation"] == {"level": 3, "reasons": ["database down", "cache down"]}
        (breaker,) = detail["breakers"]
        assert (breaker["dependency"], breaker["tenant"], breaker["state"]) == ("external_idp", "acme", "open")
        assert detail["pools"]["admin_auth"] == {"running": 0, "waiting": 0, "size": 20, "refused": 0}
        await resilience.stop()

    run_virtual(main())
