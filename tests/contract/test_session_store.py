"""The laws of SessionStore, held by every backend."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import AlreadyExists
from gateway.stores import ORIGIN, Connections, open_session_store
from gateway.stores.sessions import LIFETIME_S_MAX, SessionStore
from gateway.types import Session, Subject
from tests.real.pools import SMALL
from tests.real.postgres import RealPostgres
from tests.real.postgres_replicas import OPTIONS

NOW_S = int(time.time())  # servers forget by their own clocks

Opener = Callable[[], SessionStore]


class ManualClock:
    def __init__(self) -> None:
        self.now_s = float(NOW_S)

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s


def id_hash(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


ALICE = Subject("acme", "usr_alice")
BOB = Subject("acme", "usr_bob")


def session(name: str, subject: Subject = ALICE, **changes: Any) -> Session:
    plain = Session(
        id_hash=id_hash(name),
        subject=subject,
        home_region="eu",
        created_s=NOW_S,
        last_seen_s=NOW_S,
        idle_timeout_s=1800,
        expires_s=NOW_S + 12 * 3600,
        authenticated_s=NOW_S,
        csrf_secret=b"s" * 32,
        amr=("pwd", "otp"),
        acr="aal2",
        device_id="dev_1",
        attributes={"address": "192.0.2.7", "agent": "Firefox on Linux"},
    )
    return replace(plain, **changes)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPostgres]:
    server = RealPostgres(tmp_path_factory.mktemp("postgres"), options=OPTIONS)
    yield server
    server.stop()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=["memory", "sqlite", "postgres", "redis", "cluster"])
async def open_another(request: pytest.FixtureRequest, tmp_path: Path, clock: ManualClock) -> AsyncIterator[Opener]:
    """Open one more handle to the same sessions; the memory backend has but one."""
    opened: list[SessionStore] = []
    urls = {"memory": "memory:", "sqlite": ""}

    def opener() -> SessionStore:
        if request.param == "memory" and opened:
            return opened[0]
        url = urls[request.param] if request.param in urls else request.getfixturevalue(request.param).url
        opened.append(open_session_store(url, tmp_path, clock, connections=Connections(SMALL)))
        return opened[-1]

    if request.param == "postgres":
        request.getfixturevalue("postgres").empty()
    elif request.param not in urls:
        request.getfixturevalue(request.param).forget()
    yield opener
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_another: Opener) -> SessionStore:
    return open_another()


async def test_a_session_comes_back_as_it_was_kept(store: SessionStore, open_another: Opener) -> None:
    kept = session("a", version=7, requires_reauth=True, provisional=True)
    await store.create(kept)
    assert await store.get(kept.id_hash) == kept
    assert await open_another().get(kept.id_hash) == kept
    assert await store.get(id_hash("b")) is None


async def test_making_the_same_session_again_is_harmless_and_another_under_its_id_is_refused(
    store: SessionStore,
) -> None:
    await store.create(session("a"))
    await store.create(session("a"))
    with pytest.raises(AlreadyExists):
        await store.create(session("a", BOB))
    assert (await store.list_of(BOB)) == []


async def test_a_session_that_would_outlive_its_tombstone_is_refused(store: SessionStore) -> None:
    with pytest.raises(ValueError, match="at most"):
        await store.create(session("a", expires_s=NOW_S + LIFETIME_S_MAX + 1))


async def test_a_session_ends_when_it_is_idle_and_at_its_absolute_end(store: SessionStore, clock: ManualClock) -> None:
    kept = session("a", idle_timeout_s=100, expires_s=NOW_S + 250)
    await store.create(kept)
    clock.now_s += 90
    seen = await store.touch(kept, clock.now_s)
    assert seen is not None
    assert (seen.last_seen_s, seen.version) == (NOW_S + 90, kept.version)
    clock.now_s += 90
    seen = await store.touch(seen, clock.now_s)
    assert seen is not None
    clock.now_s += 69.5
    assert await store.get(kept.id_hash) is not None
    clock.now_s += 0.5
    assert await store.get(kept.id_hash) is None
    assert await store.touch(seen, clock.now_s) is None
    other = session("b", idle_timeout_s=100, last_seen_s=int(clock.now_s) - 100, expires_s=NOW_S + 10_000)
    await store.create(other)
    assert await store.get(other.id_hash) is None
    assert await store.list_of(ALICE) == []


async def test_what_was_seen_late_does_not_go_back(store: SessionStore) -> None:
    await store.create(session("a"))
    await store.touch(session("a"), NOW_S + 50)
    seen = await store.touch(session("a"), NOW_S + 10)
    assert seen is not None
    assert seen.last_seen_s == NOW_S + 50


async def test_a_replacement_needs_the_version_that_is_there(store: SessionStore) -> None:
    await store.create(session("a"))
    assert await store.replace(session("a", version=2, acr="aal3"), 1)
    assert await store.replace(session("a", version=2, acr="aal3"), 1), "the same once more, as after a lost answer"
    assert not await store.replace(session("a", version=2, acr="aal1"), 1)
    assert not await store.replace(session("a", version=3), 1)
    assert not await store.replace(session("b", version=2), 1)
    found = await store.get(id_hash("a"))
    assert found is not None
    assert (found.version, found.acr) == (2, "aal3")


async def test_of_many_who_replace_one_version_one_succeeds(open_another: Opener) -> None:
    stores = [open_another() for _ in range(3)]
    await stores[0].create(session("a"))
    outcomes = await asyncio.gather(
        *(stores[n % 3].replace(session("a", version=2, acr=f"acr{n}"), 1) for n in range(12))
    )
    assert sum(outcomes) == 1
    found = await stores[0].get(id_hash("a"))
    assert found is not None
    assert found.acr == f"acr{outcomes.index(True)}"


async def test_a_rotation_ends_the_old_id_and_goes_on_under_the_new(store: SessionStore) -> None:
    await store.create(session("old"))
    assert await store.rotate(session("old"), session("new", acr="aal3"))
    assert await store.get(id_hash("old")) is None
    found = await store.get(id_hash("new"))
    assert found is not None
    assert found.acr == "aal3"
    assert [each.id_hash for each in await store.list_of(ALICE)] == [id_hash("new")]
    with pytest.raises(AlreadyExists):
        await store.create(session("old", acr="other"))


async def test_of_many_who_rotate_one_session_one_succeeds(open_another: Opener) -> None:
    stores = [open_another() for _ in range(3)]
    await stores[0].create(session("old"))
    outcomes = await asyncio.gather(*(stores[n % 3].rotate(session("old"), session(f"new{n}")) for n in range(9)))
    assert sum(outcomes) == 1
    assert [each.id_hash for each in await stores[0].list_of(ALICE)] == [id_hash(f"new{outcomes.index(True)}")]


async def test_a_session_that_was_revoked_or_changed_is_not_rotated(store: SessionStore) -> None:
    await store.create(session("a"))
    await store.revoke(id_hash("a"))
    assert not await store.rotate(session("a"), session("b"))
    await store.create(session("c"))
    await store.replace(session("c", version=2), 1)
    assert not await store.rotate(session("c"), session("d"))
    assert await store.get(id_hash("b")) is None
    assert await store.get(id_hash("d")) is None
    assert await store.get(id_hash("c")) is not None


async def test_a_revoked_session_is_gone_for_everybody_and_for_good(store: SessionStore, open_another: Opener) -> None:
    other = open_another()
    kept = session("a")
    await store.create(kept)
    assert await other.get(kept.id_hash) == kept
    assert await store.revoke(kept.id_hash) == kept
    assert await other.get(kept.id_hash) is None
    assert await other.revoke(kept.id_hash) is None
    assert await other.touch(kept, NOW_S + 5) is None
    assert not await other.replace(replace(kept, version=9), 1)
    assert not await other.apply(replace(kept, version=9))
    assert not await other.join(kept.id_hash, "acme", "app")
    with pytest.raises(AlreadyExists):
        await other.create(kept)
    assert await store.get(kept.id_hash) is None
    assert await store.list_of(ALICE) == []


async def test_revoking_what_nobody_knows_leaves_nothing(store: SessionStore) -> None:
    assert await store.revoke(id_hash("a")) is None
    await store.create(session("a"))
    assert await store.get(id_hash("a")) is not None


async def test_all_sessions_of_a_subject_end_at_once_and_old_proofs_start_none(
    store: SessionStore, open_another: Opener
) -> None:
    for name in ("a", "b", "c"):
        await store.create(session(name))
    await store.create(session("d", BOB))
    other_tenant = Subject("other", "usr_alice")
    await store.create(session("e", other_tenant))
    await store.revoke(id_hash("c"))
    assert await open_another().revoke_subject(ALICE, NOW_S + 1) == 2
    assert await store.list_of(ALICE) == []
    assert [await store.get(id_hash(name)) for name in ("a", "b", "c")] == [None, None, None]
    assert len(await store.list_of(BOB)) == len(await store.list_of(other_tenant)) == 1
    with pytest.raises(AlreadyExists):
        await store.create(session("f", authenticated_s=NOW_S))
    assert not await store.apply(session("g", authenticated_s=NOW_S))
    assert await store.get(id_hash("g")) is None
    await store.create(session("h", authenticated_s=NOW_S + 1))
    assert [each.id_hash for each in await store.list_of(ALICE)] == [id_hash("h")]
    assert await store.revoke_subject(ALICE, NOW_S - 100) == 1, "an earlier bar ends what is there"
    with pytest.raises(AlreadyExists):
        await store.create(session("i", authenticated_s=NOW_S))


async def test_logins_while_all_is_revoked_are_revoked_or_refused_or_later(open_another: Opener) -> None:
    stores = [open_another() for _ in range(3)]

    async def log_in(number: int) -> None:
        try:
            await stores[number % 3].create(session(f"s{number}", authenticated_s=NOW_S - 1))
        except AlreadyExists:
            return

    work = [log_in(number) for number in range(30)]
    work.insert(15, stores[0].revoke_subject(ALICE, NOW_S))  # type: ignore[arg-type]
    await asyncio.gather(*work)
    assert await stores[1].list_of(ALICE) == []
    assert [await stores[2].get(id_hash(f"s{number}")) for number in range(30)] == [None] * 30


async def test_sessions_of_a_client_end_with_it(store: SessionStore) -> None:
    await store.create(session("a"))
    await store.create(session("b", BOB))
    await store.create(session("c", BOB))
    assert await store.join(id_hash("a"), "acme", "app")
    assert await store.join(id_hash("b"), "acme", "app")
    assert await store.join(id_hash("c"), "other", "app")
    assert not await store.join(id_hash("z"), "acme", "app")
    assert await store.revoke_client("acme", "app") == 2
    assert await store.get(id_hash("a")) is None
    assert [each.id_hash for each in await store.list_of(BOB)] == [id_hash("c")]
    assert await store.revoke_client("acme", "app") == 0


async def test_sessions_of_a_subject_are_listed_latest_first(store: SessionStore) -> None:
    for number in range(250):
        await store.create(session(f"s{number}", last_seen_s=NOW_S + number - 1000))
    listed = await store.list_of(ALICE)
    assert [each.id_hash for each in listed] == [id_hash(f"s{number}") for number in reversed(range(250))]


async def test_no_order_of_messages_revives_a_session(store: SessionStore) -> None:
    """Every order of up to five messages, with a repeated one: two versions, a late creation, the revocation."""
    first, second = session("x"), session("x", version=2, acr="aal3")
    messages = ("first", "second", "revoked", "first", "seen")
    for number, order in enumerate(sorted(set(itertools.permutations(messages)))):
        key = id_hash(f"x{number}")
        for message in order:
            match message:
                case "first":
                    await store.apply(replace(first, id_hash=key))
                case "second":
                    await store.apply(replace(second, id_hash=key))
                case "seen":
                    await store.touch(replace(second, id_hash=key), NOW_S + 1)
                case _:
                    await store.apply_revoked(key, 3, first.expires_s)
        assert await store.get(key) is None, order
    assert await store.list_of(ALICE) == []


async def test_without_a_revocation_the_higher_version_stays(store: SessionStore) -> None:
    versions = [session("x", version=number, acr=f"acr{number}") for number in (1, 2, 3)]
    for number, order in enumerate(itertools.permutations(versions)):
        key = id_hash(f"x{number}")
        for said in order:
            await store.apply(replace(said, id_hash=key))
        found = await store.get(key)
        assert found is not None
        assert found.acr == "acr3"
        assert await store.apply(replace(versions[2], id_hash=key)), "once more: it is what is there"
        assert not await store.apply(replace(versions[0], id_hash=key))


async def test_a_revocation_is_in_the_log_when_it_has_returned(store: SessionStore, open_another: Opener) -> None:
    other = open_another()
    place = (await other.read_after(ORIGIN, 10)).revision
    await store.create(session("a"))
    await store.create(session("b"))
    await store.create(session("c"))
    assert (await other.read_after(place, 10)).changes == ()
    await store.replace(session("b", version=2), 1)
    await store.revoke(id_hash("a"))
    await store.rotate(session("c"), session("d"))
    batch = await other.read_after(place, 2)
    assert [(each.id_hash, each.revoked) for each in batch.changes] == [(id_hash("b"), False), (id_hash("a"), True)]
    assert batch.more
    rest = await other.read_after(batch.revision, 10)
    assert [(each.id_hash, each.revoked) for each in rest.changes] == [(id_hash("c"), True)]
    assert not rest.more
    assert not rest.lost
    await store.revoke_subject(ALICE, NOW_S)
    last = await other.read_after(rest.revision, 10)
    assert {each.id_hash for each in last.changes if each.revoked} >= {id_hash("b"), id_hash("d")}


async def test_who_waits_hears_of_a_revocation_within_a_second(store: SessionStore, open_another: Opener) -> None:
    other = open_another()
    place = (await other.read_after(ORIGIN, 10)).revision
    await store.create(session("a"))
    begun_s = time.monotonic()

    async def hear() -> float:
        while not (await other.read_after(place, 10)).changes:
            await other.wait(place, 5.0)
        return time.monotonic()

    hearing = asyncio.create_task(hear())
    await asyncio.wait({hearing}, timeout=0.05)
    await store.revoke(id_hash("a"))
    assert await hearing - begun_s < 1.0


async def test_a_place_of_another_log_is_lost(store: SessionStore) -> None:
    await store.create(session("a"))
    await store.revoke(id_hash("a"))
    batch = await store.read_after("elsewhere:12-3", 10)
    assert (batch.changes, batch.lost) == ((), True)
    assert not (await store.read_after(batch.revision, 10)).lost


async def test_what_is_over_is_forgotten(store: SessionStore, clock: ManualClock) -> None:
    await store.create(session("a", expires_s=NOW_S + 10))
    await store.create(session("b"))
    assert await store.purge(NOW_S + 10) == 0
    await store.purge(NOW_S + 1000)
    assert await store.get(id_hash("b")) is not None
