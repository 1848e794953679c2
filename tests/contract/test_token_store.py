"""The laws of TokenStore, held by every backend."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest

from gateway.errors import AlreadyExists, VersionConflict
from gateway.stores import Connections, open_token_store
from gateway.stores.grants import LIFETIME_S_MAX, Client, Grant, GrantKind, RefreshFamily, TokenStore
from gateway.types import Subject
from tests.contract.test_session_store import NOW_S, ManualClock
from tests.real.pools import SMALL
from tests.real.postgres import RealPostgres
from tests.real.postgres_replicas import OPTIONS

Opener = Callable[[], TokenStore]

ALICE = Subject("acme", "usr_alice")


def sha(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


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
    """Open one more handle to the same store; the memory backend has but one."""
    opened: list[TokenStore] = []
    urls = {"memory": "memory:", "sqlite": ""}

    def opener() -> TokenStore:
        if request.param == "memory" and opened:
            return opened[0]
        url = urls[request.param] if request.param in urls else request.getfixturevalue(request.param).url
        opened.append(open_token_store(url, tmp_path, clock, connections=Connections(SMALL)))
        return opened[-1]

    if request.param == "postgres":
        request.getfixturevalue("postgres").empty()
    elif request.param not in urls:
        request.getfixturevalue(request.param).forget()
    yield opener
    for store in opened:
        await store.close()


@pytest.fixture
def store(open_another: Opener) -> TokenStore:
    return open_another()


def client(client_id: str, **changes: Any) -> Client:
    plain = Client(
        tenant="acme",
        client_id=client_id,
        name=client_id.title(),
        secret_hashes=(sha("one"), sha("two")),
        redirect_uris=("https://app.example/back",),
        grant_types=("authorization_code", "refresh_token"),
        scopes=("openid", "mail"),
        auth_method="client_secret_basic",
        metadata={"logo_uri": "https://app.example/logo", "require_par": True},
        created_s=5.0,
    )
    return replace(plain, **changes)


async def test_a_client_is_kept_changed_and_removed_for_good(store: TokenStore, open_another: Opener) -> None:
    other = open_another()
    await store.add_client(client("app"))
    assert await other.get_client("acme", "app") == client("app")
    assert await other.get_client("other", "app") is None
    with pytest.raises(AlreadyExists):
        await other.add_client(client("app", name="Another"))
    changed = await other.change_client(client("app", active=False), 1)
    assert changed == client("app", active=False, version=2)
    assert await store.get_client("acme", "app") == changed
    with pytest.raises(VersionConflict):
        await store.change_client(client("app"), 1)
    assert await store.change_client(client("nobody"), 1) is None
    await store.add_client(client("app", tenant="other"))
    await store.add_client(client("zoo"))
    assert [found.client_id for found in await store.list_clients("acme")] == ["app", "zoo"]
    await store.add_family(family("f", client_id="app"))
    assert await store.remove_client("acme", "app")
    assert not await store.remove_client("acme", "app")
    assert await store.get_client("acme", "app") is None
    assert await store.get_family("f") is None
    assert [found.client_id for found in await store.list_clients("acme")] == ["zoo"]
    with pytest.raises(AlreadyExists):
        await store.add_client(client("app"))
    assert await store.get_client("other", "app") is not None


def grant(name: str, kind: GrantKind = "authorization_code", **changes: Any) -> Grant:
    plain = Grant(
        kind=kind,
        key=sha(name),
        tenant="acme",
        expires_s=NOW_S + 60,
        subject=ALICE,
        client_id="app",
        session=sha("session"),
        body={"redirect_uri": "https://app.example/back", "raw": b"\x00\xff", "authenticated_s": NOW_S},
    )
    return replace(plain, **changes)


@pytest.mark.parametrize("kind", get_args(GrantKind))
async def test_a_grant_is_looked_at_and_taken_once(store: TokenStore, kind: GrantKind) -> None:
    await store.keep(grant("a", kind))
    assert await store.look(kind, sha("a")) == grant("a", kind)
    taken = await store.take(kind, sha("a"))
    assert (taken.found, taken.grant) == ("first", grant("a", kind))
    again = await store.take(kind, sha("a"))
    assert (again.found, again.grant) == ("spent", None)
    assert await store.look(kind, sha("a")) is None
    assert (await store.take(kind, sha("b"))).found == "absent"
    with pytest.raises(AlreadyExists):
        await store.keep(grant("a", kind))
    other: GrantKind = "challenge" if kind != "challenge" else "sso_state"
    assert (await store.take(other, sha("a"))).found == "absent", "kinds do not mix"


async def test_of_many_who_take_a_grant_one_is_the_first(open_another: Opener) -> None:
    stores = [open_another() for _ in range(3)]
    for number in range(5):
        await stores[0].keep(grant(f"g{number}"))
        taken = await asyncio.gather(*(stores[n % 3].take("authorization_code", sha(f"g{number}")) for n in range(12)))
        assert sorted(each.found for each in taken) == ["first"] + ["spent"] * 11


async def test_a_grant_ends_with_its_time(store: TokenStore, clock: ManualClock) -> None:
    await store.keep(grant("a"))
    await store.keep(grant("b"))
    clock.now_s += 59.9
    assert (await store.take("authorization_code", sha("a"))).found == "first"
    clock.now_s += 0.1
    assert (await store.take("authorization_code", sha("b"))).found == "absent"
    assert await store.look("authorization_code", sha("b")) is None
    with pytest.raises(ValueError, match="at most"):
        await store.keep(grant("c", expires_s=NOW_S + LIFETIME_S_MAX + 100))
    with pytest.raises(ValueError, match="SHA-256"):
        await store.keep(grant("c", key=b"the code itself"))
    with pytest.raises(ValueError, match="bytes"):
        await store.keep(grant("c", body={"big": "x" * 50_000}))
    with pytest.raises(ValueError, match="JSON"):
        await store.keep(grant("c", body={"object": object()}))


async def test_a_device_code_is_approved_and_then_taken(store: TokenStore, open_another: Opener) -> None:
    waiting = grant("d", "device_code", subject=None, session=b"", body={"state": "pending"})
    await store.keep(waiting)
    approved = replace(waiting, subject=ALICE, version=2, body={"state": "approved"})
    assert await open_another().change(approved, 1)
    assert not await open_another().change(replace(approved, body={"state": "denied"}), 1)
    assert (await store.take("device_code", sha("d"))).grant == approved
    assert not await store.change(replace(approved, version=3), 2)


def family(name: str, **changes: Any) -> RefreshFamily:
    plain = RefreshFamily(
        id=name,
        tenant="acme",
        subject=ALICE,
        client_id="app",
        current=sha(f"{name}-1"),
        session=sha("session"),
        code=sha(f"code-{name}"),
        scopes=("openid", "offline_access"),
        resources=("https://api.example",),
        authenticated_s=NOW_S,
        created_s=float(NOW_S),
        expires_s=NOW_S + 86_400,
        idle_timeout_s=3600,
        body={"jkt": "abc", "raw": b"\x00"},
    )
    return replace(plain, **changes)


async def refresh(store: TokenStore, name: str, number: int, now_s: float = NOW_S + 5.0, grace_s: float = 0.0) -> str:
    rotation = await store.rotate(name, sha(f"{name}-{number}"), sha(f"{name}-{number + 1}"), now_s, grace_s=grace_s)
    return rotation.outcome


async def test_a_family_goes_from_token_to_token(store: TokenStore, open_another: Opener) -> None:
    await store.add_family(family("f"))
    assert await store.get_family("f") == family("f")
    with pytest.raises(AlreadyExists):
        await store.add_family(family("f", client_id="other"))
    first = await store.rotate("f", sha("f-1"), sha("f-2"), NOW_S + 5.0, sealed=b"sealed", body={"jkt": "def"})
    assert first.outcome == "rotated"
    expected = family(
        "f", current=sha("f-2"), previous=sha("f-1"), rotated_s=NOW_S + 5.0, generation=2, sealed=b"sealed",
        body={"jkt": "def"}, version=2,
    )  # fmt: skip
    assert first.family == expected
    assert await open_another().get_family("f") == expected
    assert await refresh(open_another(), "f", 2) == "rotated"
    assert await refresh(store, "f", 3) == "rotated"
    assert (await store.rotate("nobody", sha("x"), sha("y"), NOW_S)).outcome == "unknown"


async def test_a_token_that_was_used_up_ends_the_family(store: TokenStore, open_another: Opener) -> None:
    for old in (1, 2):
        name = f"f{old}"
        await store.add_family(family(name))
        await store.keep(grant(f"at-{name}", "access_token", family=name))
        assert await refresh(store, name, 1) == "rotated"
        assert await refresh(store, name, 2) == "rotated"
        assert await refresh(open_another(), name, old, NOW_S + 7.0) == "reused"
        assert await refresh(store, name, 3) == "unknown"
        assert await store.get_family(name) is None
        assert await store.look("access_token", sha(f"at-{name}")) is None
        with pytest.raises(AlreadyExists):
            await store.add_family(family(name))


async def test_a_token_that_never_was_ends_the_family_too(store: TokenStore) -> None:
    await store.add_family(family("f"))
    assert (await store.rotate("f", sha("guess"), sha("f-2"), NOW_S + 5.0)).outcome == "reused"
    assert await store.get_family("f") is None


async def test_within_the_grace_the_former_token_gives_what_it_gave(store: TokenStore) -> None:
    await store.add_family(family("f"))
    first = await store.rotate("f", sha("f-1"), sha("f-2"), NOW_S + 5.0, grace_s=10.0, sealed=b"two")
    beside = await store.rotate("f", sha("f-1"), sha("other"), NOW_S + 14.9, grace_s=10.0, sealed=b"other")
    assert (first.outcome, beside.outcome) == ("rotated", "grace")
    assert beside.family == first.family
    assert beside.family is not None
    assert beside.family.sealed == b"two"
    late = await store.rotate("f", sha("f-1"), sha("other"), NOW_S + 15.0, grace_s=10.0)
    assert late.outcome == "reused"


async def test_a_former_token_is_not_renewed_by_naming_its_successor(store: TokenStore) -> None:
    await store.add_family(family("f"))
    assert await refresh(store, "f", 1, NOW_S + 5.0) == "rotated"
    assert await refresh(store, "f", 1, NOW_S + 5.0) == "rotated", "the same call once more"
    assert await refresh(store, "f", 1, NOW_S + 6.0) == "reused"


async def test_the_grace_ends_when_the_successor_was_used(store: TokenStore) -> None:
    await store.add_family(family("f"))
    assert await refresh(store, "f", 1, NOW_S + 5.0, 30.0) == "rotated"
    assert await refresh(store, "f", 2, NOW_S + 6.0, 30.0) == "rotated"
    assert await refresh(store, "f", 1, NOW_S + 7.0, 30.0) == "reused"


async def test_of_fifty_refreshes_at_once_one_rotates(open_another: Opener) -> None:
    stores = [open_another() for _ in range(3)]
    await stores[0].add_family(family("f"))
    with_grace = await asyncio.gather(
        *(
            stores[n % 3].rotate("f", sha("f-1"), sha(f"next-{n}"), NOW_S + 5.0 + n / 100, grace_s=10.0)
            for n in range(50)
        )
    )
    assert sorted(each.outcome for each in with_grace) == ["grace"] * 49 + ["rotated"]
    current = {each.family.current for each in with_grace if each.family is not None}
    assert len(current) == 1
    await stores[0].add_family(family("g"))
    without = await asyncio.gather(
        *(stores[n % 3].rotate("g", sha("g-1"), sha(f"next-{n}"), NOW_S + 5.0 + n / 100) for n in range(50))
    )
    outcomes = [each.outcome for each in without]
    assert outcomes.count("rotated") == 1
    assert set(outcomes) <= {"rotated", "reused", "unknown"}
    assert await stores[1].get_family("g") is None


async def test_a_family_ends_when_it_is_idle_and_at_its_end(store: TokenStore) -> None:
    await store.add_family(family("f"))
    assert await refresh(store, "f", 1, NOW_S + 3599.0) == "rotated"
    assert await refresh(store, "f", 2, NOW_S + 3599.0 + 3600.0) == "unknown"
    await store.add_family(family("g", idle_timeout_s=0))
    assert await refresh(store, "g", 1, NOW_S + 86_399.0) == "rotated"
    assert await refresh(store, "g", 2, NOW_S + 86_400.0) == "unknown"


async def test_all_that_a_subject_was_given_ends_at_once(store: TokenStore, open_another: Opener) -> None:
    bob = Subject("acme", "usr_bob")
    await store.add_family(family("f"))
    await store.add_family(family("g", client_id="other"))
    await store.add_family(family("b", subject=bob))
    await store.keep(grant("code"))
    await store.keep(grant("state", "sso_state", subject=None, body={}))
    assert {found.id for found in await store.families_of(ALICE)} == {"f", "g"}
    assert await open_another().revoke_subject(ALICE, NOW_S + 1) == 3
    assert await store.families_of(ALICE) == []
    assert await refresh(store, "f", 1) == "unknown"
    assert (await store.take("authorization_code", sha("code"))).found == "spent"
    assert await store.get_family("b") is not None
    assert (await store.take("sso_state", sha("state"))).found == "first"
    with pytest.raises(AlreadyExists):
        await store.add_family(family("h"))
    with pytest.raises(AlreadyExists):
        await store.keep(grant("later"))
    await store.add_family(family("i", authenticated_s=NOW_S + 1))
    assert [found.id for found in await store.families_of(ALICE)] == ["i"]


async def test_what_was_given_in_a_session_or_to_a_client_ends_with_it(store: TokenStore) -> None:
    await store.add_family(family("f"))
    await store.add_family(family("g", session=sha("elsewhere")))
    await store.add_family(family("h", client_id="other", session=sha("elsewhere")))
    await store.keep(grant("at", "access_token"))
    assert await store.revoke_session(sha("session")) == 2
    assert await store.get_family("f") is None
    assert await store.look("access_token", sha("at")) is None
    assert await store.revoke_client("acme", "app") == 1
    assert [found.id for found in await store.families_of(ALICE)] == ["h"]
    assert await store.revoke_family("h")
    assert not await store.revoke_family("h")


async def test_a_code_that_is_presented_twice_ends_what_came_and_what_would_come_of_it(store: TokenStore) -> None:
    await store.add_family(family("f", code=sha("code")))
    assert await store.revoke_code(sha("code")) == 1
    assert await store.get_family("f") is None
    with pytest.raises(AlreadyExists):
        await store.add_family(family("g", code=sha("code")))
    await store.add_family(family("h", code=sha("another")))


async def test_what_is_over_is_forgotten(store: TokenStore) -> None:
    await store.keep(grant("a"))
    await store.add_family(family("f"))
    await store.add_client(client("app"))
    await store.purge(NOW_S + 1000)
    assert await store.get_family("f") is not None
    assert await store.get_client("acme", "app") is not None
