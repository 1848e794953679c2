"""How an issuer's keys live: refresh, failure, age, unknown kids; the clock is moved, nothing sleeps."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.config import IssuerConfig
from gateway.stores.fetch import Problem
from gateway.tokens import jwks
from gateway.tokens.jwks import FOREVER_S, JWKSCache, PublishedKeys
from gateway.tokens.keys import JWKS_KEYS_MAX, load_jwks
from gateway.tokens.snapshots import KeySetSnapshots
from gateway.types import Secret
from tests.unit.tokens.fakes import FakeFetcher, MovedClock, fake_load_jwks, key_set, middle

ISSUER = "https://idp.example.com"
URI = f"{ISSUER}/jwks"
OTHER = "https://other.example.com"
REMOTE = IssuerConfig(issuer=ISSUER, audiences=("api",), jwks_uri=URI)


class World:
    """One cache over a fake network, with everything that it published."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = MovedClock()
        self.fetcher = FakeFetcher()
        self.fetcher.documents[URI] = key_set(a="1")
        self.published: list[tuple[PublishedKeys, ...]] = []
        self.secrets = {"env:SECRET": b"s" * 32}
        self.cache = self.make(REMOTE)

    def make(self, *issuers: IssuerConfig, snapshots: KeySetSnapshots | None = None) -> JWKSCache:
        self.cache = JWKSCache(
            issuers,
            publish=self.published.append,
            fetcher=self.fetcher.as_fetcher,
            clock=self.clock,
            base_dir=self.folder,
            snapshots=snapshots,
            read_secret=lambda reference: Secret(self.secrets[reference]),
            load_keys=fake_load_jwks,
            uniform=middle,
        )
        return self.cache

    @property
    def keys(self) -> dict[str, list[str]]:
        """What the hot path may use now: the keys whose age bound holds."""
        return {
            part.config.issuer: [repr(handle) for handle in part.handles]
            for part in self.published[-1]
            if part.usable_until_s >= self.clock.wall_s()
        }

    @property
    def status(self) -> str:
        return self.cache.states()[0].status

    async def start(self, *issuers: IssuerConfig, snapshots: KeySetSnapshots | None = None) -> None:
        await self.make(*(issuers or (REMOTE,)), snapshots=snapshots).start()
        await self.cache.settle()

    async def pass_time(self, seconds: float) -> None:
        self.clock.move(seconds)
        self.cache.tick()
        await self.cache.settle()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.cache.stop()


async def test_start_waits_for_no_issuer(world: World) -> None:
    world.fetcher.gate = asyncio.Event()
    await world.cache.start()
    assert [part.usable_until_s for part in world.published[-1]] == [0]
    assert world.status == "starting"
    world.fetcher.gate.set()
    await world.cache.settle()
    assert world.keys == {ISSUER: ["a=1"]}
    assert world.status == "ok"


async def test_keys_are_refreshed_when_due_and_not_before(world: World) -> None:
    await world.start()
    await world.pass_time(3600 * 0.94)
    assert len(world.fetcher.asked) == 1
    await world.pass_time(3600 * 0.02)
    assert len(world.fetcher.asked) == 2


async def test_a_removed_key_is_gone_with_the_refresh(world: World) -> None:
    world.fetcher.documents[URI] = key_set(a="1", b="2")
    await world.start()
    world.fetcher.documents[URI] = key_set(b="2")
    await world.pass_time(3600)
    assert world.keys == {ISSUER: ["b=2"]}


async def test_a_key_that_stays_keeps_its_object_and_a_kid_with_a_new_key_does_not(world: World) -> None:
    world.fetcher.documents[URI] = key_set(a="1", b="2")
    await world.start()
    before = {handle.kid: handle for handle in world.published[-1][0].handles}
    world.fetcher.documents[URI] = key_set(a="1", b="3")
    await world.pass_time(3600)
    after = {handle.kid: handle for handle in world.published[-1][0].handles}
    assert after[b"a"] is before[b"a"]
    assert after[b"b"] is not before[b"b"]


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (None, "unreachable"),
        ({"keys": []}, "empty"),
        ({"keys": [{"kid": "x"}, {"kid": "y"}]}, "no_usable_key"),
        ({}, "not_a_key_set"),
        ({"keys": {}}, "not_a_key_set"),
        (key_set(**{f"k{n}": "1" for n in range(JWKS_KEYS_MAX + 1)}), "too_many_keys"),
    ],
)
async def test_a_failed_fetch_removes_nothing_until_stale_s(
    world: World, document: dict[str, Any] | None, error: str
) -> None:
    await world.start()
    if document is None:
        del world.fetcher.documents[URI]
    else:
        world.fetcher.documents[URI] = document
    await world.pass_time(3600)
    assert (world.keys, world.status, world.cache.states()[0].error) == ({ISSUER: ["a=1"]}, "stale", error)
    await world.pass_time(REMOTE.stale_s - 3600)
    assert world.keys == {ISSUER: ["a=1"]}
    await world.pass_time(2)
    assert (world.keys, world.status) == ({}, "unavailable")


async def test_a_full_set_of_keys_is_taken(world: World) -> None:
    world.fetcher.documents[URI] = key_set(**{f"k{n}": "1" for n in range(JWKS_KEYS_MAX)})
    await world.start()
    assert len(world.keys[ISSUER]) == JWKS_KEYS_MAX


async def test_one_faulty_key_does_not_spoil_the_others_and_is_named(world: World) -> None:
    world.fetcher.documents[URI] = {"keys": [{"kid": "bad"}, {"kid": "a", "x": "1"}]}
    await world.start()
    assert world.keys == {ISSUER: ["a=1"]}
    assert world.cache.states()[0].faults == ("`bad`: has no x",)


async def test_a_fault_inside_the_loader_is_a_failed_fetch(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.start()
    world.fetcher.documents[URI] = {"keys": ["not an object"]}
    with caplog.at_level(logging.CRITICAL, "gateway.tokens.jwks"):
        await world.pass_time(3600)
    assert (world.keys, world.cache.states()[0].error) == ({ISSUER: ["a=1"]}, "internal")


async def test_an_issuer_that_comes_back_is_ok_again(world: World) -> None:
    document = world.fetcher.documents.pop(URI)
    await world.start()
    assert (world.keys, world.status) == ({}, "unavailable")
    world.fetcher.documents[URI] = document
    await world.pass_time(REMOTE.min_refresh_s * 2)
    assert (world.keys, world.status, world.cache.states()[0].failures) == ({ISSUER: ["a=1"]}, "ok", 0)


async def test_failures_are_retried_with_growing_pauses(world: World) -> None:
    del world.fetcher.documents[URI]
    await world.start()
    times = []
    for _ in range(20_000):
        asked = len(world.fetcher.asked)
        await world.pass_time(0.5)
        if len(world.fetcher.asked) > asked:
            times.append(world.clock.now_s)
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses == sorted(pauses)
    assert REMOTE.min_refresh_s <= pauses[0] <= 4 * REMOTE.min_refresh_s
    assert pauses[-1] == pytest.approx(jwks.BACKOFF_MAX_S * 0.75, abs=1)


async def test_an_unknown_kid_triggers_one_refresh(world: World) -> None:
    await world.start()
    world.fetcher.documents[URI] = key_set(a="1", b="2")
    await world.pass_time(REMOTE.min_refresh_s)
    assert await world.cache.learn(ISSUER, b"b") == "again"
    assert world.keys == {ISSUER: ["a=1", "b=2"]}
    assert len(world.fetcher.asked) == 2


async def test_callers_share_the_running_fetch(world: World) -> None:
    await world.start()
    await world.pass_time(REMOTE.min_refresh_s)
    world.fetcher.documents[URI] = key_set(b="2")
    world.fetcher.gate = asyncio.Event()
    asks = [asyncio.create_task(world.cache.learn(ISSUER, b"b")) for _ in range(50)]
    await asyncio.sleep(0)
    world.fetcher.gate.set()
    assert await asyncio.gather(*asks) == ["again"] * 50
    assert len(world.fetcher.asked) == 2


async def test_more_waiters_than_the_limit_are_told_to_come_again(world: World) -> None:
    await world.start()
    await world.pass_time(REMOTE.min_refresh_s)
    world.fetcher.gate = asyncio.Event()
    asks = [asyncio.create_task(world.cache.learn(ISSUER, b"b")) for _ in range(jwks.WAITERS_MAX)]
    await asyncio.sleep(0)
    assert await world.cache.learn(ISSUER, b"b") == "keys_unavailable"
    world.fetcher.gate.set()
    assert set(await asyncio.gather(*asks)) == {"kid_unknown"}


async def test_a_cancelled_caller_does_not_end_the_fetch(world: World) -> None:
    await world.start()
    await world.pass_time(REMOTE.min_refresh_s)
    world.fetcher.documents[URI] = key_set(b="2")
    world.fetcher.gate = asyncio.Event()
    ask = asyncio.create_task(world.cache.learn(ISSUER, b"b"))
    await asyncio.sleep(0)
    ask.cancel()
    world.fetcher.gate.set()
    await world.cache.settle()
    assert world.keys == {ISSUER: ["b=2"]}


async def test_a_flood_of_unknown_kids_makes_one_fetch_per_cooldown(world: World) -> None:
    await world.start()
    for number in range(10_000):
        assert await world.cache.learn(ISSUER, b"kid-%d" % number) == "kid_unknown"
        await world.pass_time(0.01)
    assert 10 <= len(world.fetcher.asked) <= 10_000 * 0.01 / REMOTE.min_refresh_s + 1
    assert world.cache.states()[0].held_back > 9_000


async def test_a_kid_asked_for_within_the_cooldown_is_fetched_when_it_ends(world: World) -> None:
    await world.start()
    world.fetcher.documents[URI] = key_set(b="2")
    assert await world.cache.learn(ISSUER, b"b") == "kid_unknown"
    assert len(world.fetcher.asked) == 1
    await world.pass_time(REMOTE.min_refresh_s)
    assert world.keys == {ISSUER: ["b=2"]}


async def test_a_kid_that_was_not_there_is_not_asked_for_again_at_once(world: World) -> None:
    await world.start()
    await world.pass_time(REMOTE.min_refresh_s)
    assert await world.cache.learn(ISSUER, b"b") == "kid_unknown"
    for _ in range(4):
        await world.pass_time(REMOTE.min_refresh_s)
        assert await world.cache.learn(ISSUER, b"b") == "kid_unknown"
    assert len(world.fetcher.asked) == 2
    world.clock.move(jwks.ABSENT_S)
    world.fetcher.documents[URI] = key_set(b="2")
    assert await world.cache.learn(ISSUER, b"b") == "again"


async def test_the_memory_of_absent_kids_is_bounded(world: World) -> None:
    await world.start()
    for number in range(jwks.ABSENT_MAX + 10):
        world.clock.move(REMOTE.min_refresh_s)
        await world.cache.learn(ISSUER, b"%d" % number)
    entry = world.cache.find(ISSUER)
    assert entry is not None
    assert len(entry.absent) == jwks.ABSENT_MAX
    assert b"0" not in entry.absent


async def test_a_kid_beyond_the_size_limit_is_nobodys(world: World) -> None:
    await world.start()
    world.clock.move(REMOTE.min_refresh_s)
    assert await world.cache.learn(ISSUER, b"k" * (jwks.KID_BYTES_MAX + 1)) == "kid_unknown"
    assert len(world.fetcher.asked) == 1
    assert await world.cache.learn(ISSUER, b"k" * jwks.KID_BYTES_MAX) == "kid_unknown"
    assert len(world.fetcher.asked) == 2


async def test_an_unknown_kid_while_the_issuer_is_down_is_a_503_and_no_401(world: World) -> None:
    await world.start()
    del world.fetcher.documents[URI]
    await world.pass_time(REMOTE.min_refresh_s)
    assert await world.cache.learn(ISSUER, b"b") == "keys_unavailable"
    assert await world.cache.learn(ISSUER, b"b") == "keys_unavailable"
    assert len(world.fetcher.asked) == 2
    assert world.keys == {ISSUER: ["a=1"]}


async def test_unavailable_keys_are_asked_for_within_the_rate_limit(world: World) -> None:
    document = world.fetcher.documents.pop(URI)
    await world.start()
    for _ in range(10):
        assert await world.cache.learn(ISSUER, b"a") == "keys_unavailable"
    assert len(world.fetcher.asked) == 1
    world.clock.move(REMOTE.min_refresh_s)
    world.fetcher.documents[URI] = document
    assert await world.cache.learn(ISSUER, b"a") == "again"


async def test_an_issuer_that_is_not_configured_is_never_asked(world: World) -> None:
    await world.start()
    assert await world.cache.learn("https://evil.example.com", b"a") == "kid_unknown"
    assert world.fetcher.asked == [URI]


async def test_issuers_do_not_share_their_fate(world: World) -> None:
    second = IssuerConfig(issuer=OTHER, audiences=("api",), jwks_uri=f"{OTHER}/jwks")
    await world.start(REMOTE, second)
    assert world.keys == {ISSUER: ["a=1"]}
    assert [state.status for state in world.cache.states()] == ["ok", "unavailable"]


async def test_a_discovered_address_is_kept_until_it_fails(world: World) -> None:
    metadata = f"{ISSUER}/.well-known/openid-configuration"
    world.fetcher.documents[metadata] = {"issuer": ISSUER, "jwks_uri": URI}
    await world.start(IssuerConfig(issuer=ISSUER, audiences=("api",)))
    await world.pass_time(3600)
    assert world.fetcher.asked == [metadata, URI, URI]
    del world.fetcher.documents[URI]
    world.fetcher.documents[metadata] = {"issuer": ISSUER, "jwks_uri": f"{ISSUER}/moved"}
    world.fetcher.documents[f"{ISSUER}/moved"] = key_set(b="2")
    await world.pass_time(3600)
    await world.pass_time(3600)
    assert world.fetcher.asked[3:] == [URI, metadata, f"{ISSUER}/moved"]
    assert world.keys == {ISSUER: ["b=2"]}


async def test_a_wall_clock_that_is_set_does_not_move_the_age_bound(world: World) -> None:
    await world.start()
    before_s = world.published[-1][0].usable_until_s
    world.clock.offset_s += 100_000
    await world.pass_time(1)
    assert world.published[-1][0].usable_until_s == before_s + 100_000
    published = len(world.published)
    await world.pass_time(1)
    assert len(world.published) == published


# Sets on disk


async def test_a_restart_while_the_issuer_is_down_uses_the_set_on_disk(world: World) -> None:
    snapshots = KeySetSnapshots(world.folder)
    await world.start(snapshots=snapshots)
    await world.cache.stop()
    del world.fetcher.documents[URI]
    world.clock.move(1000)
    await world.start(snapshots=snapshots)
    assert (world.keys, world.status) == ({ISSUER: ["a=1"]}, "stale")
    assert world.cache.states()[0].age_s == pytest.approx(1000)
    await world.pass_time(REMOTE.stale_s - 1000)
    assert world.keys == {ISSUER: ["a=1"]}
    await world.pass_time(2)
    assert (world.keys, world.status) == ({}, "unavailable")


async def test_a_set_on_disk_beyond_its_age_is_not_used(world: World) -> None:
    snapshots = KeySetSnapshots(world.folder)
    await world.start(snapshots=snapshots)
    await world.cache.stop()
    del world.fetcher.documents[URI]
    world.clock.move(REMOTE.stale_s + 1)
    await world.start(snapshots=snapshots)
    assert (world.keys, world.status) == ({}, "unavailable")


async def test_a_set_on_disk_is_replaced_by_the_first_fetch(world: World) -> None:
    snapshots = KeySetSnapshots(world.folder)
    await world.start(snapshots=snapshots)
    await world.cache.stop()
    world.fetcher.documents[URI] = key_set(b="2")
    await world.start(snapshots=snapshots)
    assert (world.keys, world.status) == ({ISSUER: ["b=2"]}, "ok")
    stored = snapshots.load(ISSUER, URI, world.clock.wall_s())
    assert stored is not None
    assert [key["kid"] for key in stored.document["keys"]] == ["b"]


async def test_an_unchanged_set_is_not_written_again_at_once(world: World) -> None:
    snapshots = KeySetSnapshots(world.folder)
    await world.start(snapshots=snapshots)
    path = snapshots.path(ISSUER, URI)
    written = path.stat().st_ino
    await world.pass_time(REMOTE.min_refresh_s)
    await world.cache.learn(ISSUER, b"x")
    await world.cache.settle()
    assert path.stat().st_ino == written
    await world.pass_time(3600)
    assert path.stat().st_ino != written


async def test_a_disk_that_cannot_be_written_costs_only_the_restart(world: World) -> None:
    (world.folder / "file").write_text("")
    await world.start(snapshots=KeySetSnapshots(world.folder / "file"))
    assert (world.keys, world.status) == ({ISSUER: ["a=1"]}, "ok")


# Files and secrets


def write(path: Path, document: object) -> None:
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_bytes(orjson.dumps(document))
    os.utime(path, ns=(before + 1, before + 1))


@pytest.fixture
async def file_world(world: World) -> World:
    write(world.folder / "keys.json", key_set(f="1"))
    await world.start(IssuerConfig(issuer=ISSUER, audiences=("api",), jwks_file="keys.json"))
    return world


async def test_keys_of_a_file_are_there_from_the_start_and_do_not_age(file_world: World) -> None:
    assert file_world.keys == {ISSUER: ["f=1"]}
    assert file_world.published[-1][0].usable_until_s == FOREVER_S
    assert file_world.fetcher.asked == []
    published = len(file_world.published)
    await file_world.pass_time(10_000_000)
    assert (file_world.keys, file_world.status) == ({ISSUER: ["f=1"]}, "ok")
    assert len(file_world.published) == published


async def test_a_changed_file_is_read_within_seconds(file_world: World) -> None:
    write(file_world.folder / "keys.json", key_set(g="2"))
    await file_world.pass_time(2)
    assert file_world.keys == {ISSUER: ["g=2"]}


def remove(path: Path) -> None:
    path.unlink()


def damage(path: Path) -> None:
    path.write_bytes(b'{"keys": [')


def blank(path: Path) -> None:
    path.write_bytes(b'{"keys": []}')


def grow(path: Path) -> None:
    path.write_bytes(b" " * (REMOTE.jwks_bytes_max + 1))


@pytest.mark.parametrize(
    ("spoil", "problem"), [(remove, "unreadable"), (damage, "not_json"), (blank, "empty"), (grow, "too_large")]
)
async def test_a_spoilt_file_leaves_the_last_keys_until_stale_s(
    file_world: World, spoil: Callable[[Path], None], problem: Problem
) -> None:
    spoil(file_world.folder / "keys.json")
    await file_world.pass_time(2)
    state = file_world.cache.states()[0]
    assert (file_world.keys, state.status, state.error) == ({ISSUER: ["f=1"]}, "stale", problem)
    await file_world.pass_time(REMOTE.stale_s + 2)
    assert (file_world.keys, file_world.status) == ({}, "unavailable")
    write(file_world.folder / "keys.json", key_set(h="3"))
    await file_world.pass_time(2)
    assert (file_world.keys, file_world.status) == ({ISSUER: ["h=3"]}, "ok")
    assert file_world.published[-1][0].usable_until_s == FOREVER_S


async def test_a_file_that_is_missing_at_start_is_found_later(world: World) -> None:
    await world.start(IssuerConfig(issuer=ISSUER, audiences=("api",), jwks_file="keys.json"))
    assert (world.keys, world.status) == ({}, "unavailable")
    write(world.folder / "keys.json", key_set(f="1"))
    await world.pass_time(2)
    assert world.keys == {ISSUER: ["f=1"]}


async def test_a_secret_is_one_key_without_a_kid(world: World) -> None:
    documents: list[object] = []

    def load(document: Any, algorithms: Any, previous: Any = ()) -> Any:
        documents.append(document)
        return fake_load_jwks({"keys": [{"kid": "", "x": document["keys"][0]["k"]}]}, algorithms, previous)

    cache = JWKSCache(
        [IssuerConfig(issuer=ISSUER, audiences=("api",), algorithms=("HS256",), secret="env:SECRET")],
        publish=world.published.append,
        fetcher=world.fetcher.as_fetcher,
        clock=world.clock,
        read_secret=lambda reference: Secret(world.secrets[reference]),
        load_keys=load,
    )
    await cache.start()
    assert documents == [{"keys": [{"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"}]}]
    assert world.published[-1][0].usable_until_s == FOREVER_S
    assert "sss" not in repr(cache.states())
    await cache.stop()


async def test_a_symmetric_key_from_an_address_is_no_key(world: World) -> None:
    secret = {"kty": "oct", "k": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M"}
    world.fetcher.documents[URI] = {"keys": [secret]}
    write(world.folder / "keys.json", {"keys": [secret]})
    for uri, file, keys in ((URI, "", 0), ("", "keys.json", 1)):
        config = IssuerConfig(issuer=ISSUER, audiences=("api",), algorithms=("HS256",), jwks_uri=uri, jwks_file=file)
        cache = JWKSCache(
            [config],
            publish=world.published.append,
            fetcher=world.fetcher.as_fetcher,
            clock=world.clock,
            base_dir=world.folder,
            read_secret=lambda reference: Secret(world.secrets[reference]),
            load_keys=load_jwks,
        )
        await cache.start()
        await cache.settle()
        assert cache.states()[0].keys == keys
        await cache.stop()


# Reload


async def test_reload_keeps_the_keys_of_issuers_whose_keys_come_from_the_same_place(world: World) -> None:
    await world.start()
    handle = world.published[-1][0].handles[0]
    del world.fetcher.documents[URI]
    changed = IssuerConfig(issuer=ISSUER, audiences=("other",), jwks_uri=URI)
    await world.cache.reload([changed])
    assert world.published[-1][0].config is changed
    assert world.published[-1][0].handles == (handle,)
    assert world.keys == {ISSUER: ["a=1"]}


async def test_reload_asks_kept_issuers_again_within_the_rate_limit(world: World) -> None:
    await world.start()
    world.fetcher.documents[URI] = key_set(b="2")
    await world.cache.reload([REMOTE])
    await world.cache.settle()
    assert len(world.fetcher.asked) == 1
    await world.pass_time(REMOTE.min_refresh_s)
    assert world.keys == {ISSUER: ["b=2"]}


async def test_reload_fetches_a_new_issuer_before_it_is_published(world: World) -> None:
    await world.start()
    world.fetcher.documents[f"{OTHER}/jwks"] = key_set(b="2")
    second = IssuerConfig(issuer=OTHER, audiences=("api",), jwks_uri=f"{OTHER}/jwks")
    published = len(world.published)
    await world.cache.reload([second, REMOTE])
    for step in world.published[published:]:
        assert len(step) == 1 or step[0].handles
    assert world.keys == {OTHER: ["b=2"], ISSUER: ["a=1"]}


async def test_reload_with_an_issuer_that_is_down_is_not_held_up_by_it(world: World) -> None:
    await world.start()
    await world.cache.reload([REMOTE, IssuerConfig(issuer=OTHER, audiences=("api",), jwks_uri=f"{OTHER}/jwks")])
    assert world.keys == {ISSUER: ["a=1"]}
    assert [state.status for state in world.cache.states()] == ["ok", "unavailable"]


async def test_a_removed_issuer_is_gone_and_its_late_fetch_changes_nothing(world: World) -> None:
    await world.start()
    await world.pass_time(REMOTE.min_refresh_s)
    world.fetcher.gate = asyncio.Event()
    ask = asyncio.create_task(world.cache.learn(ISSUER, b"b"))
    await asyncio.sleep(0)
    await world.cache.reload([])
    world.fetcher.gate.set()
    await ask
    assert world.published[-1] == ()


async def test_another_address_does_not_inherit_the_keys_of_the_former(world: World) -> None:
    await world.start()
    await world.cache.reload([IssuerConfig(issuer=ISSUER, audiences=("api",), jwks_uri=f"{ISSUER}/new")])
    assert world.keys == {}


async def test_a_reload_whose_secret_cannot_be_read_changes_nothing(world: World) -> None:
    await world.start()
    broken = IssuerConfig(issuer=ISSUER, audiences=("api",), algorithms=("HS256",), secret="env:ABSENT")
    published = len(world.published)
    with pytest.raises(KeyError):
        await world.cache.reload([REMOTE, broken])
    assert len(world.published) == published
    assert [state.status for state in world.cache.states()] == ["ok"]


async def test_reload_reads_a_changed_secret(world: World) -> None:
    def load(document: Any, algorithms: Any, previous: Any = ()) -> Any:
        return fake_load_jwks({"keys": [{"kid": "", "x": document["keys"][0]["k"]}]}, algorithms, previous)

    config = IssuerConfig(issuer=ISSUER, audiences=("api",), algorithms=("HS256",), secret="env:SECRET")
    cache = JWKSCache(
        [config],
        publish=world.published.append,
        fetcher=world.fetcher.as_fetcher,
        clock=world.clock,
        read_secret=lambda reference: Secret(world.secrets[reference]),
        load_keys=load,
    )
    await cache.start()
    before = repr(world.published[-1][0].handles)
    world.secrets["env:SECRET"] = b"t" * 32
    await cache.reload([config])
    assert repr(world.published[-1][0].handles) != before
    await cache.stop()
