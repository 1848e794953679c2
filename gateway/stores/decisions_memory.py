"""Decisions that live in this process alone: for tests, and where all workers are one."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Final

from gateway.stores.decisions import (
    DecisionsFound,
    DecisionStoreState,
    Epoch,
    check_keys,
    check_value,
)
from gateway.types import Clock, SystemClock

ENTRIES_MAX: Final = 10_000  # then the oldest goes


class MemoryDecisionStore:
    """A DecisionStore in a dict."""

    shared = "process"

    def __init__(self, *, clock: Clock | None = None, entries_max: int = ENTRIES_MAX) -> None:
        self._clock = clock or SystemClock()
        self._entries_max = entries_max
        self._epoch: Epoch = secrets.token_hex(8)
        self._held: dict[bytes, tuple[float, bytes]] = {}  # of this epoch: until when (monotonic) and what

    async def get_many(self, keys: Sequence[bytes]) -> DecisionsFound:
        check_keys(keys)
        now_s = self._clock.monotonic_s()
        found = (self._held.get(key) for key in keys)
        return DecisionsFound(
            tuple(pair[1] if pair is not None and now_s < pair[0] else None for pair in found), self._epoch
        )

    def put(self, key: bytes, value: bytes, ttl_s: float, epoch: Epoch) -> None:
        check_value(key, value, ttl_s)
        if epoch != self._epoch:
            return
        self._held.pop(key, None)  # to the end: the first is the oldest
        self._held[key] = (self._clock.monotonic_s() + ttl_s, value)
        if len(self._held) > self._entries_max:
            del self._held[next(iter(self._held))]

    async def invalidate(self) -> None:
        self._epoch = secrets.token_hex(8)
        self._held.clear()

    def state(self) -> DecisionStoreState:
        return DecisionStoreState("ok", "", self.shared, 0, 0)

    async def close(self) -> None:
        self._held.clear()
