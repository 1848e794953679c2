"""Decisions in memory and in none: what each backend does of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.stores import open_decision_store
from gateway.stores.decisions import NO_EPOCH, NoDecisionStore
from gateway.stores.decisions_memory import MemoryDecisionStore


class MovedClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s


async def test_a_decision_is_found_until_its_time_is_over() -> None:
    clock = MovedClock()
    store = MemoryDecisionStore(clock=clock)
    _, epoch = await store.get_many([])
    store.put(b"a", b"allow", 10, epoch)
    clock.now_s += 9.9
    assert (await store.get_many([b"a"])).values == (b"allow",)
    clock.now_s += 0.1
    assert (await store.get_many([b"a"])).values == (None,)


async def test_the_oldest_decision_goes_where_there_is_no_room() -> None:
    store = MemoryDecisionStore(entries_max=2)
    _, epoch = await store.get_many([])
    for key in (b"a", b"b", b"a", b"c"):
        store.put(key, key, 10, epoch)
    assert (await store.get_many([b"a", b"b", b"c"])).values == (b"a", None, b"c")


async def test_no_store_holds_nothing_and_is_no_fault() -> None:
    store = NoDecisionStore()
    store.put(b"a", b"allow", 10, NO_EPOCH)
    await store.invalidate()
    assert await store.get_many([b"a", b"b"]) == ((None, None), NO_EPOCH)
    assert store.state().status == "off"
    with pytest.raises(ValueError, match="at most"):
        store.put(b"a", b"allow", 0, NO_EPOCH)
    await store.close()


def test_a_url_names_its_backend_and_connects_to_nothing(tmp_path: Path) -> None:
    for url, shared in (
        ("", "process"),
        ("memory:", "process"),
        ("redis://127.0.0.1:1/0", "network"),
        ("rediss://:secret@redis.example.com:1/0", "network"),
        ("unix:///run/redis.sock", "network"),
    ):
        assert open_decision_store(url).shared == shared
    for url in ("memory", "sqlite:x", "postgresql://x/", "redis"):
        with pytest.raises(ValueError, match="unknown kind of store"):
            open_decision_store(url)
