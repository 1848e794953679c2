"""The laws of FollowedSource, held by every backend."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gateway._native.uid import EntityUid
from gateway.errors import StoreUnavailable
from gateway.stores import ORIGIN, Revision, open_attribute_source
from gateway.stores.attributes import (
    BODY_BYTES_MAX,
    READ_MAX,
    WRITE_BYTES_MAX,
    FollowedSource,
)
from gateway.stores.rows import CHANGES_MAX, TEXT_BYTES_MAX
from tests.real.postgres import RealPostgres

Opener = Callable[[], FollowedSource]

EMPTY = b"{}"


def user(name: str) -> EntityUid:
    return EntityUid("User", name)


def body(level: int, *parents: str) -> bytes:
    return json.dumps(
        {"attrs": {"level": level}, "parents": [{"type": "Team", "id": name} for name in parents]}
    ).encode()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPostgres]:
    server = RealPostgres(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres"])
async def open_another(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Open one more handle to the same entities; the memory backend has but one."""
    opened: list[FollowedSource] = []
    urls = {"memory": "memory:", "sqlite": ""}

    def opener() -> FollowedSource:
        if request.param == "memory" and opened:
            return opened[0]
        url = urls[request.param] if request.param in urls else request.getfixturevalue(request.param).url
        source = open_attribute_source(url, tmp_path, name="people", poll_ms=50)
        assert isinstance(source, FollowedSource)
        opened.append(source)
        return source

    if request.param not in urls:
        request.getfixturevalue(request.param).forget()
    yield opener
    for source in opened:
        await source.close()


@pytest.fixture
def source(open_another: Opener) -> FollowedSource:
    return open_another()


async def names_after(source: FollowedSource, revision: Revision = ORIGIN, limit: int = 100) -> list[str]:
    found: list[str] = []
    more = True
    while more:
        batch = await source.read_after(revision, limit)
        assert not batch.lost
        assert batch.damaged == 0
        assert len(batch.uids) <= limit
        found += [uid.id for uid in batch.uids]
        revision, more = batch.revision, batch.more
    return found


async def all_of(source: FollowedSource, limit: int = 100) -> dict[EntityUid, bytes]:
    found: dict[EntityUid, bytes] = {}
    cursor, begun = "", True
    while begun or cursor:
        page = await source.read_all(cursor, limit)
        assert page.damaged == 0
        found |= dict(page.entities)
        cursor, begun = page.cursor, False
    return found


async def test_an_empty_source_knows_nobody_and_has_no_changes(source: FollowedSource) -> None:
    assert dict((await source.read([user("alice")])).found) == {}
    page = await source.read_all("", 10)
    assert (page.entities, page.cursor, page.damaged) == ((), "", 0)
    batch = await source.read_after(page.revision, 10)
    assert (batch.uids, batch.more, batch.lost, batch.damaged) == ((), False, False, 0)
    assert not (await source.read_after(ORIGIN, 10)).lost


def test_a_source_is_told_from_one_without_a_log_and_says_its_name(source: FollowedSource) -> None:
    assert isinstance(source, FollowedSource)
    assert source.name == "people"


@pytest.mark.parametrize(
    ("uid", "written"),
    [
        (user("alice"), body(3, "eng", "ops")),
        (user("alice"), EMPTY),
        (EntityUid("User", ""), b' { "attrs" : { } }\n'),
        (EntityUid("Ünï::Ty", 'ü "\\\n\t\x01\u2028🦜'), '{"tags":{"ü":"\\u0000 🦜 %_\';--"}}'.encode()),
        (EntityUid("T" * TEXT_BYTES_MAX, "é" * (TEXT_BYTES_MAX // 2)), EMPTY),
        (user("large"), b'{"attrs":{"x":"' + b"x" * (BODY_BYTES_MAX - 18) + b'"}}'),
    ],
)
async def test_an_entity_comes_back_as_it_was_byte_by_byte(
    open_another: Opener, uid: EntityUid, written: bytes
) -> None:
    await open_another().write([(uid, written)])
    other = open_another()
    assert dict((await other.read([uid])).found) == {uid: written}
    assert await all_of(other) == {uid: written}
    assert (await other.read_after(ORIGIN, 10)).uids == (uid,)


async def test_a_read_gives_those_that_are_there_however_often_they_were_asked_for(source: FollowedSource) -> None:
    await source.write([(user(str(number)), body(number)) for number in range(5)])
    asked = [user("3"), user("none"), user("1"), user("3"), EntityUid("Doc", "1")]
    assert dict((await source.read(asked)).found) == {user("1"): body(1), user("3"): body(3)}
    assert dict((await source.read([])).found) == {}


async def test_a_uid_that_nothing_can_be_kept_under_is_nobody(source: FollowedSource) -> None:
    await source.write([(user("alice"), EMPTY)])
    hostile = [user("a\0b"), user("x" * (TEXT_BYTES_MAX + 1)), EntityUid("", "alice"), user("alice")]
    assert dict((await source.read(hostile)).found) == {user("alice"): EMPTY}


async def test_a_read_of_too_many_is_refused(source: FollowedSource) -> None:
    many = [user(str(number)) for number in range(READ_MAX)]
    await source.write([(uid, EMPTY) for uid in many])
    assert len((await source.read(many)).found) == READ_MAX
    with pytest.raises(ValueError, match="entities in one read"):
        await source.read([*many, user("one more")])


async def test_a_read_says_up_to_where_it_shows_the_log(open_another: Opener) -> None:
    reader, writer = open_another(), open_another()
    await writer.write([(user("a"), body(1))])
    revision = (await reader.read([user("a"), user("b")])).revision
    assert await names_after(reader, revision) == []
    await writer.write([(user("b"), body(1))])
    assert await names_after(reader, revision) == ["b"]


async def test_removals_come_before_upserts_and_all_are_logged_in_order(open_another: Opener) -> None:
    first, second = open_another(), open_another()
    await first.write([(user("a"), body(1)), (user("b"), body(1))])
    await second.write([(user("c"), body(2)), (user("a"), body(2))], [user("a"), user("b"), user("never there")])
    assert await all_of(first) == {user("a"): body(2), user("c"): body(2)}
    expected = ["a", "b", "a", "b", "never there", "c", "a"]
    assert await names_after(first) == await names_after(second) == expected


async def test_the_last_body_in_a_write_is_the_one_that_counts(source: FollowedSource) -> None:
    await source.write([(user("a"), body(1)), (user("a"), body(2))])
    await source.write([(user("b"), body(1))])
    await source.write([(user("b"), body(3))])
    assert await all_of(source) == {user("a"): body(2), user("b"): body(3)}


@pytest.mark.parametrize("limit", [1, 3, 7, 8])
async def test_pages_of_changes_lose_and_repeat_nothing(source: FollowedSource, limit: int) -> None:
    await source.write([(user(str(number)), EMPTY) for number in range(7)])
    assert await names_after(source, limit=limit) == [str(number) for number in range(7)]


async def test_pages_of_entities_lose_nothing(source: FollowedSource) -> None:
    written = {user(str(number)): body(number) for number in range(800)}
    await source.write(list(written.items()))
    for limit in (1000, 799, 100):
        assert await all_of(source, limit) == written


async def test_pages_and_the_changes_after_them_give_the_state(open_another: Opener) -> None:
    reader, writer = open_another(), open_another()
    expected = {str(number) for number in range(600)}
    await writer.write([(user(name), EMPTY) for name in expected])
    state = set()
    cursor, revision, number = "", None, 0
    while revision is None or cursor:
        page = await reader.read_all(cursor, 50)
        revision, cursor = revision or page.revision, page.cursor
        assert page.revision == revision
        state |= {uid.id for uid, _ in page.entities}
        added, removed = f"new {number}", str((number * 37) % 600)
        await writer.write([(user(added), EMPTY)], [user(removed)])
        expected = expected - {removed} | {added}
        number += 1
    changed = await names_after(reader, revision)
    now = {uid.id for uid in (await reader.read([user(name) for name in set(changed)])).found}
    assert (state - set(changed)) | now == expected


async def test_write_returns_the_place_after_its_changes(source: FollowedSource) -> None:
    await source.write([(user("a"), EMPTY)])
    revision = await source.write([(user("b"), EMPTY)], [user("a")])
    assert await names_after(source, revision) == []
    await source.write([(user("c"), EMPTY)])
    assert await names_after(source, revision) == ["c"]


async def test_writing_nothing_changes_nothing(source: FollowedSource) -> None:
    await source.write([])
    await source.write([(user("a"), EMPTY)])
    await source.write([], [])
    assert await names_after(source) == ["a"]


async def test_a_write_that_is_too_large_or_wrong_is_refused_whole(source: FollowedSource) -> None:
    many = [(user(str(number)), EMPTY) for number in range(CHANGES_MAX)]
    heavy = [(user(str(number)), b'{"attrs":{"x":"' + b"x" * 200_000 + b'"}}') for number in range(30)]
    assert sum(len(text) for _, text in heavy) > WRITE_BYTES_MAX
    for upserts, removals, reason in (
        (many, [user("one more")], "changes in one write"),
        (heavy, [], "bytes in one write"),
        ([(user("a"), b"{" + b" " * BODY_BYTES_MAX + b"}")], [], "more than"),
        ([(user("good"), EMPTY), (user("a"), b"{")], [], "no JSON"),
        ([(user("good"), EMPTY), (user("a"), b"\xff{}")], [], "no JSON"),
        ([(user("good"), EMPTY), (user("a"), b"[" * 100_000)], [], "no JSON"),
        ([(user("good"), EMPTY), (user("a"), b'{"attrs":{},"attrs":{}}')], [], "stands twice"),
        ([(user("good"), EMPTY), (user("a"), b'{"attrs":{"a":NaN}}')], [], "no number"),
        ([(user("good"), EMPTY), (user("a"), b"[]")], [], "no object"),
        ([(user("good"), EMPTY), (user("a"), b'{"attributes":{}}')], [], "no object"),
        ([(user("good"), EMPTY), (user("a\0b"), EMPTY)], [], "NUL"),
        ([(user("good"), EMPTY), (EntityUid("", "a"), EMPTY)], [], "type"),
        ([(user("good"), EMPTY)], [user("x" * (TEXT_BYTES_MAX + 1))], "at most"),
    ):
        with pytest.raises(ValueError, match=reason):
            await source.write(upserts, removals)
    assert await all_of(source) == {}
    assert await names_after(source) == []
    await source.write(many)
    assert len(await all_of(source, 2000)) == CHANGES_MAX


async def test_concurrent_writes_all_arrive_and_no_reader_misses_one(open_another: Opener) -> None:
    sources = [open_another() for _ in range(3)]
    seen: list[str] = []

    async def write(number: int) -> None:
        for part in range(10):
            await sources[number % 3].write([(user(f"{number}.{part}"), EMPTY), (user(f"{number}.{part}'"), EMPTY)])

    async def read() -> None:
        revision = ORIGIN
        while len(seen) < 120:
            batch = await sources[0].read_after(revision, 7)
            seen.extend(uid.id for uid in batch.uids)
            revision = batch.revision
            await asyncio.sleep(0.001)

    await asyncio.wait_for(asyncio.gather(read(), *(write(number) for number in range(6))), 30)
    assert seen == await names_after(sources[1])
    assert len(set(seen)) == 120
    assert all(seen[at] + "'" == seen[at + 1] for at in range(0, 120, 2))  # those of one write stand together


async def test_many_calls_at_once_wait_for_each_other(source: FollowedSource) -> None:
    names = [str(number) for number in range(60)]
    await asyncio.gather(*(source.write([(user(name), body(int(name)))]) for name in names))
    batches = await asyncio.gather(*(source.read([user(name)]) for name in names))
    assert [each.found for each in batches] == [{user(name): body(int(name))} for name in names]


async def test_wait_ends_soon_after_a_write_elsewhere(open_another: Opener) -> None:
    reader, writer = open_another(), open_another()
    revision = await writer.write([(user("a"), EMPTY)])
    for _ in range(2):  # connected, so that only the wait is measured
        await reader.wait(revision, 0.1)
    waiting = asyncio.create_task(reader.wait(revision, 0.9))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    started = time.monotonic()
    await writer.write([(user("b"), EMPTY)])
    await waiting
    assert time.monotonic() - started < 0.5


async def test_a_log_that_was_purged_is_lost_to_who_is_behind_it_alone(source: FollowedSource) -> None:
    early = await source.write([(user("a"), EMPTY)])
    last = await source.write([(user("b"), EMPTY)])
    assert await source.purge(time.time() + 1000, log_kept_s=0) == 0
    for revision in (ORIGIN, early):
        batch = await source.read_after(revision, 10)
        assert (batch.lost, batch.uids) == (True, ())
    assert await names_after(source, last) == []
    await source.write([(user("c"), EMPTY)])
    assert await names_after(source, last) == ["c"]
    assert set(await all_of(source)) == {user("a"), user("b"), user("c")}


async def test_no_entity_goes_by_itself(source: FollowedSource) -> None:
    await source.write([(user("a"), EMPTY)])
    assert await source.purge(1e11) == 0
    assert set(await all_of(source)) == {user("a")}


async def test_a_revision_of_another_log_is_lost(source: FollowedSource) -> None:
    revision = await source.write([(user("a"), EMPTY)])
    log, _, place = revision.rpartition(":")
    assert (await source.read_after(f"f00d{log[4:]}:{place}", 10)).lost
    future = "99999999999999-0" if "-" in place else "1000"
    assert (await source.read_after(f"{log}:{future}", 10)).lost


async def test_a_cursor_of_another_log_is_refused(source: FollowedSource) -> None:
    await source.write([(user(str(number)), EMPTY) for number in range(700)])
    page = await source.read_all("", 10)
    log = page.revision.split(":")[0]
    assert log in page.cursor
    with pytest.raises(StoreUnavailable):
        await source.read_all(page.cursor.replace(log, "f00d"), 10)


async def test_cancelling_a_call_leaves_the_source_usable(source: FollowedSource) -> None:
    revision = await source.write([(user("a"), EMPTY)])
    for _ in range(3):
        for call in (
            source.wait(revision, 1.0),
            source.read([user("a")]),
            source.read_after(ORIGIN, 10),
            source.read_all("", 10),
            source.write([(user("a"), EMPTY)]),
            source.purge(1.0),
        ):
            task = asyncio.ensure_future(call)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    await source.write([(user("b"), body(1))])
    assert await all_of(source) == {user("a"): EMPTY, user("b"): body(1)}


async def test_closing_twice_or_unused_is_harmless(open_another: Opener) -> None:
    source = open_another()
    await source.close()
    await source.close()
