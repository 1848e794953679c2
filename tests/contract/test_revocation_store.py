"""The laws of RevocationStore, held by every backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from gateway.stores import ORIGIN, RevocationRow, RevocationStore, open_store
from gateway.stores.base import PURGE_SLACK_S, UNTIL_S_MAX, VALUE_BYTES_MAX, Revision, RevocationKind

NOW_S = 1_700_000_000
FAR_S = NOW_S + 1_000_000

Opener = Callable[[], RevocationStore]


def row(name: str, until_s: int = FAR_S) -> RevocationRow:
    return RevocationRow("jti", b"https://idp.example.com", name.encode(), until_s)


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def open_another(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Open one more handle to the same log; the memory backend has but one."""
    opened: list[RevocationStore] = []

    def opener() -> RevocationStore:
        if request.param == "memory" and opened:
            return opened[0]
        if request.param == "redis":
            url = request.getfixturevalue("redis").url
        else:
            url = "memory:" if request.param == "memory" else ""
        opened.append(open_store(url, tmp_path, poll_ms=50))
        return opened[-1]

    if request.param == "redis":
        request.getfixturevalue("redis").forget()
    yield opener
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_another: Opener) -> RevocationStore:
    return open_another()


async def read_all(store: RevocationStore, limit: int = 100, revision: Revision = ORIGIN) -> list[str]:
    names: list[str] = []
    more = True
    while more:
        batch = await store.read_after(revision, limit)
        assert len(batch.rows) <= limit
        names += [row.value.decode() for row in batch.rows]
        revision, more = batch.revision, batch.more
    return names


async def test_an_empty_log_has_no_rows(store: RevocationStore) -> None:
    batch = await store.read_after(ORIGIN, 10)
    assert (batch.rows, batch.more, batch.restarted, batch.damaged) == ((), False, False, 0)
    assert (await store.read_after(batch.revision, 10)).rows == ()


@pytest.mark.parametrize("kind", ["jti", "sub", "sid"])
async def test_a_row_comes_back_as_it_was(open_another: Opener, kind: RevocationKind) -> None:
    value = bytes(range(256)) * 4
    written = RevocationRow(kind, "https://ïdp.example.com".encode(), value, UNTIL_S_MAX, NOW_S)
    await open_another().append([written])
    assert (await open_another().read_after(ORIGIN, 10)).rows == (written,)


async def test_rows_come_in_the_order_of_their_appending(open_another: Opener) -> None:
    first, second = open_another(), open_another()
    for number in range(20):
        await (first, second)[number % 2].append([row(str(number))])
    expected = [str(number) for number in range(20)]
    assert await read_all(first) == await read_all(second) == expected


@pytest.mark.parametrize("limit", [1, 3, 7, 8])
async def test_pages_lose_and_repeat_nothing(store: RevocationStore, limit: int) -> None:
    names = [str(number) for number in range(7)]
    await store.append([row(name) for name in names])
    assert await read_all(store, limit) == names


async def test_append_returns_the_place_after_its_rows(store: RevocationStore) -> None:
    await store.append([row("a")])
    revision = await store.append([row("b"), row("c")])
    assert await read_all(store, revision=revision) == []
    await store.append([row("d")])
    assert await read_all(store, revision=revision) == ["d"]


async def test_appending_nothing_adds_nothing(store: RevocationStore) -> None:
    await store.append([])
    await store.append([row("a")])
    await store.append([])
    assert await read_all(store) == ["a"]


async def test_the_same_row_may_be_appended_again(store: RevocationStore) -> None:
    await store.append([row("a")])
    await store.append([row("a")])
    assert set(await read_all(store)) == {"a"}


async def test_concurrent_appends_all_arrive_and_no_reader_misses_one(open_another: Opener) -> None:
    stores = [open_another() for _ in range(3)]
    seen: list[str] = []

    async def write(number: int) -> None:
        for part in range(10):
            await stores[number % 3].append([row(f"{number}.{part}")])

    async def read() -> None:
        revision = ORIGIN
        while len(seen) < 60:
            batch = await stores[0].read_after(revision, 7)
            seen.extend(row.value.decode() for row in batch.rows)
            revision = batch.revision
            await asyncio.sleep(0.001)

    await asyncio.wait_for(asyncio.gather(read(), *(write(number) for number in range(6))), 30)
    assert seen == await read_all(stores[1])
    assert len(set(seen)) == 60


async def test_wait_ends_soon_after_an_append_elsewhere(open_another: Opener) -> None:
    reader, writer = open_another(), open_another()
    revision = await writer.append([row("a")])
    await reader.read_after(revision, 10)  # connected, so that only the wait is measured
    waiting = asyncio.create_task(reader.wait(revision, 1.0))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    started = time.monotonic()
    await writer.append([row("b")])
    await waiting
    assert time.monotonic() - started < 0.5


async def test_wait_ends_at_once_where_there_is_news_already(open_another: Opener) -> None:
    reader, writer = open_another(), open_another()
    for who in (reader, writer):
        revision = (await reader.read_after(ORIGIN, 10)).revision
        await who.append([row("a")])
        started = time.monotonic()
        await reader.wait(revision, 1.0)
        assert time.monotonic() - started < 0.5
        await reader.wait(ORIGIN, 1.0)
        assert time.monotonic() - started < 0.5
    revision = await reader.append([row("b")])
    await reader.wait(revision, 0.05)  # nothing yet
    await reader.append([row("c")])
    started = time.monotonic()
    await reader.wait(revision, 1.0)
    assert time.monotonic() - started < 0.5


async def test_wait_ends_at_its_timeout(store: RevocationStore) -> None:
    revision = await store.append([row("a")])
    for _ in range(2):
        started = time.monotonic()
        await store.wait(revision, 0.2)
        assert 0.15 <= time.monotonic() - started < 0.7


async def test_purge_takes_what_is_over_and_leaves_what_holds(store: RevocationStore) -> None:
    slack = int(PURGE_SLACK_S)
    await store.append(
        [
            row("long"),
            row("over", NOW_S - slack - 1),
            row("barely", NOW_S - slack),
            row("over too", 1),
            row("now", NOW_S),
        ]
    )
    assert await store.purge(NOW_S) == 2
    assert await read_all(store) == ["long", "barely", "now"]
    assert await store.purge(NOW_S) == 0


async def test_a_reader_in_the_middle_loses_nothing_by_a_purge(store: RevocationStore) -> None:
    revision = await store.append([row("a", 1), row("b", 1)])
    await store.append([row("c"), row("d", 1), row("e")])
    await store.purge(NOW_S)
    assert await read_all(store, revision=revision) == ["c", "e"]


async def test_a_purge_of_everything_does_not_start_the_log_anew(store: RevocationStore) -> None:
    revision = await store.append([row("a", 1), row("b", 1)])
    assert await store.purge(NOW_S) == 2
    batch = await store.read_after(revision, 10)
    assert (batch.rows, batch.restarted) == ((), False)
    started = time.monotonic()
    await store.wait(batch.revision, 0.2)
    assert time.monotonic() - started >= 0.15
    await store.append([row("c")])
    assert await read_all(store, revision=revision) == ["c"]


async def test_a_revision_of_another_log_reads_from_the_origin(store: RevocationStore) -> None:
    await store.append([row("a")])
    batch = await store.read_after("f00d:1-1" if "-" in (await store.append([row("b")])) else "f00d:1", 10)
    assert [row.value for row in batch.rows] == [b"a", b"b"]
    assert batch.restarted
    assert not (await store.read_after(batch.revision, 10)).restarted


async def test_cancelling_a_call_leaves_the_store_usable(store: RevocationStore) -> None:
    revision = await store.append([row("a")])
    for call in (store.wait(revision, 1.0), store.read_after(ORIGIN, 10), store.append([row("a")])):
        task = asyncio.ensure_future(call)
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await store.append([row("b")])
    assert {"a", "b"} == set(await read_all(store))


async def test_closing_twice_or_unused_is_harmless(open_another: Opener) -> None:
    store = open_another()
    await store.close()
    await store.close()


def test_a_row_that_could_never_be_honoured_is_not_made() -> None:
    RevocationRow("jti", b"i" * VALUE_BYTES_MAX, b"v" * VALUE_BYTES_MAX, 1)
    for kind, issuer, value, until_s, before_s in (
        ("aud", b"i", b"v", FAR_S, 0),
        ("jti", b"", b"v", FAR_S, 0),
        ("jti", b"i", b"", FAR_S, 0),
        ("jti", b"i" * (VALUE_BYTES_MAX + 1), b"v", FAR_S, 0),
        ("jti", b"i", b"v" * (VALUE_BYTES_MAX + 1), FAR_S, 0),
        ("jti", b"i", b"v", 0, 0),
        ("jti", b"i", b"v", UNTIL_S_MAX + 1, 0),
        ("jti", b"i", b"v", FAR_S, -1),
    ):
        with pytest.raises(ValueError, match=r"revocation"):
            RevocationRow(kind, issuer, value, until_s, before_s)  # type: ignore[arg-type]
