"""The laws of DecisionStore, held by every backend that holds anything."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

import pytest

from gateway.stores.decisions import (
    KEY_BYTES_MAX,
    KEYS_MAX,
    NO_EPOCH,
    TTL_S_MAX,
    VALUE_BYTES_MAX,
    DecisionStore,
)
from gateway.stores.decisions_memory import MemoryDecisionStore
from gateway.stores.decisions_redis import RedisDecisionStore

Opener = Callable[[], DecisionStore]


@pytest.fixture(params=["memory", "redis"])
async def open_another(request: pytest.FixtureRequest) -> AsyncIterator[Opener]:
    """Open one more handle to the same decisions; the memory backend has but one."""
    opened: list[DecisionStore] = []

    def opener() -> DecisionStore:
        if request.param == "memory" and opened:
            return opened[0]
        if request.param == "memory":
            opened.append(MemoryDecisionStore())
        else:  # with a deadline that a busy machine keeps: what a fault costs is told elsewhere
            opened.append(RedisDecisionStore(request.getfixturevalue("redis").url, call_s=2))
        return opened[-1]

    if request.param == "redis":
        request.getfixturevalue("redis").forget()
    yield opener
    for store in opened:
        await store.close()


async def ready(store: DecisionStore) -> str:
    """Wait until the store is there; give its epoch."""
    async with asyncio.timeout(10):
        while (await store.get_many([])).epoch == NO_EPOCH:
            await asyncio.sleep(0.005)
    return (await store.get_many([])).epoch


async def appears(store: DecisionStore, key: bytes) -> bytes:
    async with asyncio.timeout(5):
        while True:
            (value,), _ = await store.get_many([key])
            if value is not None:
                return value
            await asyncio.sleep(0.002)


@pytest.fixture
async def store(open_another: Opener) -> DecisionStore:
    store = open_another()
    await ready(store)
    return store


async def test_what_is_put_is_found_by_all_who_share_the_store(open_another: Opener) -> None:
    first, second = open_another(), open_another()
    await ready(first)
    epoch = await ready(second)
    assert await ready(first) == epoch
    for key, value in ((b"a", b"allow"), (b"\0\xff: *\n", b"\0\xff\n"), (b"", b"")):
        first.put(key, value, 60, epoch)
        assert await appears(second, key) == value


async def test_values_come_in_the_order_of_their_keys_and_none_for_each_that_is_not_there(store: DecisionStore) -> None:
    epoch = await ready(store)
    for key in (b"a", b"b", b"c"):
        store.put(key, key * 2, 60, epoch)
        await appears(store, key)
    assert await store.get_many([b"c", b"x", b"a", b"c"]) == ((b"cc", None, b"aa", b"cc"), epoch)
    assert await store.get_many([]) == ((), epoch)


async def test_the_last_value_put_is_the_one_that_is_found(store: DecisionStore) -> None:
    epoch = await ready(store)
    store.put(b"a", b"old", 60, epoch)
    store.put(b"a", b"new", 60, epoch)
    store.put(b"end", b"", 60, epoch)
    await appears(store, b"end")
    assert (await store.get_many([b"a"])).values == (b"new",)


async def test_another_epoch_ends_what_was_put_before_it_for_all(open_another: Opener) -> None:
    first, second = open_another(), open_another()
    epoch = await ready(first)
    await ready(second)
    epoch = await ready(first)
    first.put(b"a", b"allow", 60, epoch)
    await appears(second, b"a")
    await second.invalidate()
    for store in (first, second):
        assert (await store.get_many([b"a"])).values == (None,)
        assert await ready(store) != epoch


async def test_what_was_computed_before_another_epoch_lands_where_nobody_looks(open_another: Opener) -> None:
    first, second = open_another(), open_another()
    await ready(first)
    await ready(second)
    epoch = await ready(first)
    await second.invalidate()
    first.put(b"a", b"allow", 60, epoch)  # decided by what was read before the change
    fresh = await ready(first)
    first.put(b"end", b"", 60, fresh)
    await appears(second, b"end")
    for store in (first, second):
        assert (await store.get_many([b"a"])).values == (None,)


async def test_from_the_moment_that_another_epoch_is_asked_for_nothing_of_the_old_one_is_found(
    store: DecisionStore,
) -> None:
    for number in range(30):
        epoch = await ready(store)
        store.put(b"a", b"allow", 60, epoch)
        await appears(store, b"a")
        early = asyncio.create_task(store.get_many([b"a"]))  # on its way; it may find either
        for _ in range(number % 10):
            await asyncio.sleep(0)
        invalidating = asyncio.create_task(store.invalidate())
        await asyncio.sleep(0)
        late = [asyncio.create_task(store.get_many([b"a"])) for _ in range(3)]
        await invalidating
        for found in await asyncio.gather(*late):
            assert found.values == (None,)
        await early


async def test_nothing_is_kept_without_an_epoch(store: DecisionStore) -> None:
    epoch = await ready(store)
    store.put(b"a", b"allow", 60, NO_EPOCH)
    store.put(b"a", b"allow", 60, "another")
    store.put(b"end", b"", 60, epoch)
    await appears(store, b"end")
    assert (await store.get_many([b"a"])).values == (None,)


async def test_what_is_too_large_or_too_long_is_refused(store: DecisionStore) -> None:
    epoch = await ready(store)
    store.put(b"k" * KEY_BYTES_MAX, b"v" * VALUE_BYTES_MAX, TTL_S_MAX, epoch)
    assert await appears(store, b"k" * KEY_BYTES_MAX) == b"v" * VALUE_BYTES_MAX
    for key, value, ttl_s in (
        (b"k" * (KEY_BYTES_MAX + 1), b"", 1.0),
        (b"k", b"v" * (VALUE_BYTES_MAX + 1), 1.0),
        (b"k", b"", 0.0),
        (b"k", b"", -1.0),
        (b"k", b"", float("nan")),
        (b"k", b"", TTL_S_MAX * 2),
    ):
        with pytest.raises(ValueError, match=r"has at most|is kept for"):
            store.put(key, value, ttl_s, epoch)
    assert len((await store.get_many([b"x"] * KEYS_MAX)).values) == KEYS_MAX
    with pytest.raises(ValueError, match="a question has at most"):
        await store.get_many([b"x"] * (KEYS_MAX + 1))


async def test_many_questions_at_once_all_get_their_own_answers(store: DecisionStore) -> None:
    epoch = await ready(store)
    for number in range(50):
        store.put(b"%d" % number, b"value %d" % number, 60, epoch)
    await appears(store, b"49")
    questions = [[b"%d" % ((number + part) % 60) for part in range(number % 7)] for number in range(200)]
    started = time.monotonic()
    answers = await asyncio.gather(*(store.get_many(keys) for keys in questions))
    assert time.monotonic() - started < 2
    for keys, (values, seen) in zip(questions, answers, strict=True):
        assert seen == epoch
        assert values == tuple(b"value %s" % key if int(key) < 50 else None for key in keys)


async def test_cancelling_a_call_leaves_the_store_usable(store: DecisionStore) -> None:
    for _ in range(5):
        for call in (store.get_many([b"a"]), store.invalidate()):
            task = asyncio.ensure_future(call)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    epoch = await ready(store)
    store.put(b"a", b"allow", 60, epoch)
    assert await appears(store, b"a") == b"allow"


async def test_a_store_says_that_it_is_well(store: DecisionStore) -> None:
    await ready(store)
    state = store.state()
    assert (state.status, state.error, state.faults) == ("ok", "", 0)


async def test_closing_twice_or_unused_is_harmless(open_another: Opener) -> None:
    store = open_another()
    await store.close()
    await store.close()
    assert (await store.get_many([b"a"])).values == (None,)
