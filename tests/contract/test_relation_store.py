"""The laws of RelationStore, held by every backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from gateway._native.uid import EntityUid
from gateway.errors import StoreUnavailable
from gateway.stores import ORIGIN, Revision, open_relation_store
from gateway.stores.base import PURGE_SLACK_S, UNTIL_S_MAX, covers
from gateway.stores.relations import (
    Relation,
    RelationChange,
    RelationStore,
    Userset,
)
from gateway.stores.rows import CHANGES_MAX, TEXT_BYTES_MAX
from tests.real.postgres import RealPostgres

NOW_S = 1_700_000_000
LONG_AGO_S = 1e12  # as what was logged in this test counts, seen from `now_s` + this

Opener = Callable[[], RelationStore]


def doc(name: str) -> EntityUid:
    return EntityUid("Doc", name)


def relation(name: str, subject: str = "alice", expires_at_s: int | None = None) -> Relation:
    return Relation(doc(name), "viewers", EntityUid("User", subject), expires_at_s)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPostgres]:
    server = RealPostgres(tmp_path_factory.mktemp("postgres"))
    yield server
    server.stop()


@pytest.fixture(params=["memory", "sqlite", "redis", "postgres"])
async def open_another(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Open one more handle to the same relations; the memory backend has but one."""
    opened: list[RelationStore] = []
    urls = {"memory": "memory:", "sqlite": ""}

    def opener() -> RelationStore:
        if request.param == "memory" and opened:
            return opened[0]
        url = urls[request.param] if request.param in urls else request.getfixturevalue(request.param).url
        opened.append(open_relation_store(url, tmp_path, poll_ms=50))
        return opened[-1]

    if request.param not in urls:
        request.getfixturevalue(request.param).forget()
    yield opener
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_another: Opener) -> RelationStore:
    return open_another()


async def changes_of(store: RelationStore, limit: int = 100, revision: Revision = ORIGIN) -> list[RelationChange]:
    changes: list[RelationChange] = []
    more = True
    while more:
        batch = await store.read_after(revision, limit)
        assert not batch.lost
        assert batch.damaged == 0
        assert len(batch.changes) <= limit
        changes += batch.changes
        revision, more = batch.revision, batch.more
    return changes


async def names_after(store: RelationStore, revision: Revision = ORIGIN, limit: int = 100) -> list[str]:
    return [
        f"{'-' if change.removed else '+'}{change.relation.object.id}"
        for change in await changes_of(store, limit, revision)
    ]


async def all_of(store: RelationStore, limit: int = 100) -> set[Relation]:
    found: set[Relation] = set()
    cursor, begun = "", True
    while begun or cursor:
        page = await store.read_all(cursor, limit)
        assert page.damaged == 0
        found |= set(page.relations)
        cursor, begun = page.cursor, False
    return found


async def test_an_empty_store_has_neither_relations_nor_changes(store: RelationStore) -> None:
    page = await store.read_all("", 10)
    assert (page.relations, page.cursor, page.damaged) == ((), "", 0)
    batch = await store.read_after(page.revision, 10)
    assert (batch.changes, batch.more, batch.lost, batch.damaged) == ((), False, False, 0)
    assert not (await store.read_after(ORIGIN, 10)).lost


@pytest.mark.parametrize(
    "written",
    [
        Relation(doc("1"), "viewers", EntityUid("User", "alice")),
        Relation(doc("1"), "viewers", EntityUid("User", "alice"), UNTIL_S_MAX),
        Relation(doc("1"), "viewers", Userset(EntityUid("Org::Team", "eng"), "members"), NOW_S),
        Relation(EntityUid("Doc", ""), "v", EntityUid("User", "")),
        Relation(EntityUid("Ünï", 'ü "\\\n\t\x01\u2028🦜'), "_r2", EntityUid("User", "%_'; --")),
        Relation(doc("x" * TEXT_BYTES_MAX), "r" * 64, EntityUid("User", "é" * (TEXT_BYTES_MAX // 2))),
    ],
)
async def test_a_relation_comes_back_as_it_was(open_another: Opener, written: Relation) -> None:
    await open_another().write([written])
    other = open_another()
    assert await all_of(other) == {written}
    assert await changes_of(other) == [RelationChange(written)]


async def test_an_entity_and_those_who_stand_in_a_relation_to_it_are_different_subjects(store: RelationStore) -> None:
    team = EntityUid("Team", "eng")
    await store.write([Relation(doc("1"), "viewers", team), Relation(doc("1"), "viewers", Userset(team, "members"))])
    await store.write([], [Relation(doc("1"), "viewers", team)])
    assert await all_of(store) == {Relation(doc("1"), "viewers", Userset(team, "members"))}


async def test_removals_come_before_additions_and_all_are_logged_in_order(open_another: Opener) -> None:
    first, second = open_another(), open_another()
    await first.write([relation("a"), relation("b")])
    await second.write([relation("c"), relation("a")], [relation("a"), relation("b"), relation("never there")])
    assert await all_of(first) == {relation("a"), relation("c")}
    expected = ["+a", "+b", "-a", "-b", "-never there", "+c", "+a"]
    assert await names_after(first) == await names_after(second) == expected


async def test_the_last_addition_says_when_a_relation_expires(store: RelationStore) -> None:
    await store.write([relation("a", expires_at_s=NOW_S), relation("b")])
    await store.write([relation("a"), relation("b", expires_at_s=NOW_S)])
    assert await all_of(store) == {relation("a"), relation("b", expires_at_s=NOW_S)}
    await store.write([relation("a", expires_at_s=NOW_S + 1), relation("a", expires_at_s=NOW_S + 2)])
    assert relation("a", expires_at_s=NOW_S + 2) in await all_of(store)
    await store.write([], [relation("a", expires_at_s=5)])  # only the key counts
    assert await all_of(store) == {relation("b", expires_at_s=NOW_S)}
    assert (await changes_of(store))[-1].removed


@pytest.mark.parametrize("limit", [1, 3, 7, 8])
async def test_pages_of_changes_lose_and_repeat_nothing(store: RelationStore, limit: int) -> None:
    await store.write([relation(str(number)) for number in range(7)])
    assert await names_after(store, limit=limit) == [f"+{number}" for number in range(7)]


async def test_pages_of_relations_lose_nothing(store: RelationStore) -> None:
    written = [relation(str(number), subject) for number in range(400) for subject in ("alice", "bob")]
    await store.write(written)
    for limit in (1000, 799, 100):
        assert await all_of(store, limit) == set(written)


async def test_pages_and_the_changes_after_them_give_the_state(open_another: Opener) -> None:
    reader, writer = open_another(), open_another()
    expected = {relation(str(number)).key for number in range(600)}
    await writer.write([relation(str(number)) for number in range(600)])
    state = set()
    cursor, revision, number = "", None, 0
    while revision is None or cursor:
        page = await reader.read_all(cursor, 50)
        revision, cursor = revision or page.revision, page.cursor
        assert page.revision == revision
        state |= {one.key for one in page.relations}
        added, removed = relation(f"new {number}"), relation(str((number * 37) % 600))
        await writer.write([added], [removed])
        expected = expected - {removed.key} | {added.key}
        number += 1
    for change in await changes_of(reader, revision=revision):
        state = state - {change.relation.key} if change.removed else state | {change.relation.key}
    assert state == expected


async def test_write_returns_the_place_after_its_changes(store: RelationStore) -> None:
    await store.write([relation("a")])
    revision = await store.write([relation("b")], [relation("a")])
    assert await names_after(store, revision) == []
    later = await store.write([relation("c")])
    assert await names_after(store, revision) == ["+c"]
    assert covers(later, revision)
    assert not covers(revision, later)


async def test_the_first_page_says_where_the_changes_after_it_begin(store: RelationStore) -> None:
    await store.write([relation("a")])
    revision = (await store.read_all("", 10)).revision
    await store.write([relation("b")])
    assert await names_after(store, revision) == ["+b"]


async def test_writing_nothing_changes_nothing(store: RelationStore) -> None:
    empty = await store.write([])
    await store.write([relation("a")])
    assert await store.write([], []) != empty
    assert await names_after(store) == ["+a"]


async def test_a_write_that_is_too_large_is_refused_whole(store: RelationStore) -> None:
    many = [relation(str(number)) for number in range(CHANGES_MAX)]
    with pytest.raises(ValueError, match="changes in one write"):
        await store.write(many, [relation("one more")])
    assert await all_of(store) == set()
    await store.write(many)
    assert len(await all_of(store, 2000)) == CHANGES_MAX


async def test_concurrent_writes_all_arrive_and_no_reader_misses_one(open_another: Opener) -> None:
    stores = [open_another() for _ in range(3)]
    seen: list[str] = []

    async def write(number: int) -> None:
        for part in range(10):
            await stores[number % 3].write([relation(f"{number}.{part}"), relation(f"{number}.{part}", "bob")])

    async def read() -> None:
        revision = ORIGIN
        while len(seen) < 120:
            batch = await stores[0].read_after(revision, 7)
            seen.extend(f"{change.relation.object.id} {change.relation.subject}" for change in batch.changes)
            revision = batch.revision
            await asyncio.sleep(0.001)

    await asyncio.wait_for(asyncio.gather(read(), *(write(number) for number in range(6))), 30)
    assert seen == [f"{change.relation.object.id} {change.relation.subject}" for change in await changes_of(stores[1])]
    assert len(set(seen)) == 120
    # The changes of one write stand together.
    assert all(seen[at].split()[0] == seen[at + 1].split()[0] for at in range(0, 120, 2))


async def test_wait_ends_soon_after_a_write_elsewhere(open_another: Opener) -> None:
    reader, writer = open_another(), open_another()
    revision = await writer.write([relation("a")])
    for _ in range(2):  # connected, so that only the wait is measured
        await reader.wait(revision, 0.1)
    waiting = asyncio.create_task(reader.wait(revision, 0.9))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    started = time.monotonic()
    await writer.write([relation("b")])
    await waiting
    assert time.monotonic() - started < 0.5


async def test_wait_ends_at_once_where_there_is_news_already(open_another: Opener) -> None:
    reader, writer = open_another(), open_another()
    for who in (reader, writer):
        revision = (await reader.read_all("", 10)).revision
        await who.write([relation("a")])
        for begin in (revision, ORIGIN):
            started = time.monotonic()
            await reader.wait(begin, 1.0)
            assert time.monotonic() - started < 0.5


async def test_wait_ends_at_its_timeout(store: RelationStore) -> None:
    revision = await store.write([relation("a")])
    await store.wait(revision, 0.1)  # may return early: it has just begun to listen
    for _ in range(2):
        started = time.monotonic()
        await store.wait(revision, 0.2)
        assert 0.15 <= time.monotonic() - started < 0.7


async def test_purge_takes_what_has_expired_and_leaves_what_holds(store: RelationStore) -> None:
    slack = int(PURGE_SLACK_S)
    kept = {relation("for ever"), relation("barely", expires_at_s=NOW_S - slack), relation("now", expires_at_s=NOW_S)}
    await store.write([relation("over", expires_at_s=NOW_S - slack - 1), relation("over too", expires_at_s=1), *kept])
    await store.write([relation("put off", expires_at_s=1)])
    await store.write([relation("put off")])
    assert await store.purge(NOW_S) == 2
    assert await all_of(store) == kept | {relation("put off")}
    assert await store.purge(NOW_S) == 0
    assert len(await changes_of(store)) == 7


async def test_a_log_that_was_purged_is_lost_to_who_is_behind_it_alone(store: RelationStore) -> None:
    early = await store.write([relation("a")])
    last = await store.write([relation("b")])
    await store.purge(time.time() + 1000, log_kept_s=0)
    for revision in (ORIGIN, early):
        batch = await store.read_after(revision, 10)
        assert (batch.lost, batch.changes) == (True, ())
    assert await names_after(store, last) == []
    await store.write([relation("c")])
    assert await names_after(store, last) == ["+c"]
    page = await store.read_all("", 10)
    assert set(page.relations) == {relation("a"), relation("b"), relation("c")}
    assert not (await store.read_after(page.revision, 10)).lost


async def test_what_was_logged_lately_is_kept(store: RelationStore) -> None:
    await store.write([relation("a")])
    await store.purge(time.time(), log_kept_s=1000)
    assert await names_after(store) == ["+a"]


async def test_a_revision_of_another_log_is_lost(store: RelationStore) -> None:
    revision = await store.write([relation("a")])
    log, _, place = revision.rpartition(":")
    assert (await store.read_after(f"f00d{log[4:]}:{place}", 10)).lost
    future = "99999999999999-0" if "-" in place else "1000"
    assert (await store.read_after(f"{log}:{future}", 10)).lost


async def test_a_cursor_of_another_log_is_refused(store: RelationStore) -> None:
    await store.write([relation(str(number)) for number in range(700)])
    cursor = (await store.read_all("", 10)).cursor
    revision = (await store.read_all("", 10)).revision
    log = revision.split(":")[0]
    assert log in cursor
    with pytest.raises(StoreUnavailable):
        await store.read_all(cursor.replace(log, "f00d"), 10)


async def test_cancelling_a_call_leaves_the_store_usable(store: RelationStore) -> None:
    revision = await store.write([relation("a")])
    for _ in range(3):
        for call in (
            store.wait(revision, 1.0),
            store.read_after(ORIGIN, 10),
            store.read_all("", 10),
            store.write([relation("a")]),
            store.purge(1.0),
        ):
            task = asyncio.ensure_future(call)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
    await store.write([relation("b")])
    assert await all_of(store) == {relation("a"), relation("b")}


async def test_closing_twice_or_unused_is_harmless(open_another: Opener) -> None:
    store = open_another()
    await store.close()
    await store.close()


def test_a_relation_that_not_every_backend_can_keep_is_not_made() -> None:
    user = EntityUid("User", "alice")
    for object_, name, subject, expires_at_s in (
        (EntityUid("Doc", "a\0b"), "viewers", user, None),
        (doc("x" * (TEXT_BYTES_MAX + 1)), "viewers", user, None),
        (doc("1"), "", user, None),
        (doc("1"), "view-ers", user, None),
        (doc("1"), "a#b", user, None),
        (doc("1"), "viewers", Userset(user, ""), None),
        (doc("1"), "viewers", EntityUid("User", "é" * TEXT_BYTES_MAX), None),
        (doc("1"), "viewers", user, 0),
        (doc("1"), "viewers", user, UNTIL_S_MAX + 1),
    ):
        with pytest.raises(ValueError, match=r"relation"):
            Relation(object_, name, subject, expires_at_s)


@pytest.mark.parametrize(
    ("have", "want", "expected"),
    [
        ("a:5", "a:5", True),
        ("a:5", "a:4", True),
        ("a:4", "a:5", False),
        ("a:10", "a:9", True),
        ("a:5-2", "a:5-1", True),
        ("a:5-2", "a:5-10", False),
        ("a:5", "b:4", False),
        ("a:b:5", "a:b:5", True),
        ("a:b:5", "a:c:5", False),
        ("", "a:1", False),
        ("a:5", "", True),
        ("", "", True),
        ("a:5", "a:", False),
        ("a:5", "a:x", False),
        ("a:5", "nonsense", False),
    ],
)
def test_revisions_of_one_log_are_ordered(have: str, want: str, expected: bool) -> None:
    assert covers(have, want) is expected
