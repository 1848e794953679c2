"""What the hot path asks is learned in the pool of token validation, and refused with a reason where that is full."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import msgspec
import pytest

from gateway._native.front import DOORS, REASONS
from gateway._native.metrics import MetricsBlock
from gateway.config import Config, PoolsConfig
from gateway.front.learning import ControlLearner
from gateway.observability.catalogue import Layout, catalogue
from gateway.observability.metrics import Metrics, create_map
from gateway.resilience import Resilience
from gateway.tokens.control import TokenControl
from gateway.types import SystemClock

LAYOUT = Layout(catalogue(DOORS, REASONS))


class Control:
    """A control plane that answers when it is let."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.asked = 0

    async def ask(self, _reason: str, _issuer_index: int, _token: bytes) -> str | None:
        self.asked += 1
        await self.gate.wait()
        return None


@pytest.fixture
def metrics(tmp_path: Path) -> Iterator[Metrics]:
    create_map(tmp_path / "metrics", LAYOUT, 1)
    with closing(Metrics(tmp_path / "metrics", LAYOUT, MetricsBlock)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("reason", "refusal"),
    [
        ("opaque", "introspection_unavailable"),
        ("kid_unknown", "keys_unavailable"),
        ("keys_unavailable", "keys_unavailable"),
    ],
)
async def test_a_full_pool_refuses_for_now_and_never_as_a_verdict(metrics: Metrics, reason: str, refusal: str) -> None:
    config = msgspec.structs.replace(Config().resilience, pools=PoolsConfig(token_validation=10))
    resilience, control = Resilience(config, clock=SystemClock()), Control()
    learner = ControlLearner(lambda: cast(TokenControl, control), metrics, SystemClock(), resilience)
    asks = [asyncio.create_task(learner.ask(reason, 0, b"t")) for _ in range(9)]
    while control.asked < 9:
        await asyncio.sleep(0)
    assert await learner.ask(reason, 0, b"t") == refusal
    assert control.asked == 9
    control.gate.set()
    assert await asyncio.gather(*asks) == [None] * 9
    assert await learner.ask(reason, 0, b"t") is None
    await resilience.stop()
