"""The control plane, as the doors ask it."""

from __future__ import annotations

from collections.abc import Callable

from gateway._native.front import Engine
from gateway.errors import BulkheadFullError, OverloadedError
from gateway.observability.catalogue import ASK_KINDS
from gateway.observability.metrics import Metrics
from gateway.resilience import Resilience
from gateway.tokens.control import TokenControl
from gateway.types import Clock

HOLD_S = 1  # after a key was looked for in vain, unknown `kid`s of its issuer are refused at once for this long


class ControlLearner:
    """Hand the doors' questions to the control plane of the moment, and count them."""

    def __init__(
        self, control: Callable[[], TokenControl], metrics: Metrics, clock: Clock, resilience: Resilience
    ) -> None:
        self._resilience = resilience
        self._control = control
        self._clock = clock
        self._asks = {kind: metrics.counter("asks_total", kind=kind) for kind in ASK_KINDS}
        self._in_flight = metrics.gauge("requests_in_flight")

    async def ask(self, reason: str, issuer_index: int, token: bytes, engine: Engine | None = None) -> str | None:
        """Learn what is missing to judge `token`; give None for "judge again", or the reason to refuse."""
        self._asks[reason].add()
        self._in_flight.add(1)
        try:
            async with self._resilience.bulkheads.pool("token_validation"):
                refusal = await self._ask(reason, issuer_index, token)
        except (BulkheadFullError, OverloadedError):
            return "introspection_unavailable" if reason == "opaque" else "keys_unavailable"
        finally:
            self._in_flight.add(-1)
        if refusal == "kid_unknown" and engine is not None:
            engine.hold(issuer_index, int(self._clock.wall_s()) + HOLD_S)
        return refusal

    async def _ask(self, reason: str, issuer_index: int, token: bytes) -> str | None:
        control = self._control()
        refusal = await control.ask(reason, issuer_index, token)
        if control is not self._control():  # a reload: what was learned, or ended, was the former one's
            refusal = await self._control().ask(reason, issuer_index, token)
        return refusal
