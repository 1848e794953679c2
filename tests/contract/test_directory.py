"""The laws of Directory, held by every backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import AlreadyExists, VersionConflict
from gateway.stores import Connections, open_directory
from gateway.stores.directory import (
    CREDENTIALS_MAX,
    LOGIN_S_MAX,
    LOGINS_MAX,
    Condition,
    Device,
    Directory,
    Group,
    Identity,
    KeptFactors,
    Member,
    Passkey,
    PasswordHash,
    PastLogin,
    Tenant,
    Throttle,
    TOTPDevice,
    User,
)
from tests.real.pools import SMALL
from tests.real.postgres import RealPostgres
from tests.real.postgres_replicas import OPTIONS, RealPostgresPair

Opener = Callable[[], Directory]


class Rot:
    """An encrypter for tests: what it seals differs from what it was, and opens in its context only."""

    def encrypt(self, plain: bytes, context: bytes) -> bytes:
        return bytes(byte ^ 0x5A for byte in plain) + b"|" + context

    def decrypt(self, sealed: bytes, context: bytes) -> bytes:
        plain, _, place = sealed.partition(b"|")
        if place != context:
            raise ValueError("sealed for something else")
        return bytes(byte ^ 0x5A for byte in plain)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPostgres]:
    server = RealPostgres(tmp_path_factory.mktemp("postgres"), options=OPTIONS)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPostgresPair]:
    servers = RealPostgresPair(tmp_path_factory.mktemp("pair"))
    yield servers
    servers.stop()


@pytest.fixture(params=["sqlite", "postgres", "pair"])
async def open_another(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Opener]:
    """Open one more handle to the same directory."""
    opened: list[Directory] = []

    def opener() -> Directory:
        url = "" if request.param == "sqlite" else request.getfixturevalue(request.param).url
        opened.append(open_directory(url, tmp_path, Rot(), connections=Connections(SMALL)))
        return opened[-1]

    if request.param != "sqlite":
        request.getfixturevalue(request.param).empty()
    yield opener
    for directory in opened:
        await directory.close()


@pytest.fixture
async def directory(open_another: Opener) -> Directory:
    made = open_another()
    await made.put_tenant(Tenant("acme", "Acme"))
    await made.put_tenant(Tenant("other", "Other"))
    return made


def user(name: str, **changes: Any) -> User:
    plain = User(
        id=f"usr_{name}",
        tenant="acme",
        user_name=f"{name}@Example.com",
        external_id=f"ext-{name}",
        emails=(f"{name}@Example.com", f"{name}@home.example"),
        attributes={"name": {"familyName": "Ünïcode", "givenName": name}, "phoneNumbers": [{"value": "1"}]},
        created_s=1000.5,
        changed_s=1000.5,
    )
    return replace(plain, **changes)


async def names(directory: Directory, *conditions: Condition, offset: int = 0, limit: int = 100) -> list[str]:
    page = await directory.find_users("acme", conditions, offset, limit)
    return [found.id.removeprefix("usr_") for found in page.users]


async def test_tenants_are_kept_and_changed(directory: Directory, open_another: Opener) -> None:
    await directory.put_tenant(Tenant("acme", "Acme Inc.", False, {"mfa": "required"}))
    other = open_another().after(directory.revision)
    assert await other.get_tenant("acme") == Tenant("acme", "Acme Inc.", False, {"mfa": "required"})
    assert await other.get_tenant("nobody") is None
    assert [tenant.id for tenant in await other.list_tenants()] == ["acme", "other"]


async def test_a_user_comes_back_as_it_was_added(directory: Directory, open_another: Opener) -> None:
    added = await directory.add_user(user("ann", version=77))
    assert added == user("ann", version=1)
    other = open_another().after(directory.revision)
    for each in (directory, other):
        assert await each.get_user("acme", "usr_ann") == added
        assert await each.find_user("acme", "ANN@exAMPLE.com") == added
        assert await each.get_user("other", "usr_ann") is None
        assert await each.find_user("other", "ann@example.com") is None


async def test_names_are_one_without_regard_to_case_width_and_composition(directory: Directory) -> None:
    await directory.add_user(user("a", user_name="Jose\u0301"))
    found = await directory.find_user("acme", "JOS\u00c9")
    assert found is not None
    assert found.user_name == "Jose\u0301"
    with pytest.raises(AlreadyExists) as refused:
        await directory.add_user(user("b", user_name="\uff2aos\u00e9"))
    assert refused.value.field == "user_name"
    await directory.add_user(user("b", user_name="jos\u00e9", tenant="other"))


async def test_an_id_is_used_once_in_all_tenants(directory: Directory) -> None:
    await directory.add_user(user("a"))
    with pytest.raises(AlreadyExists) as refused:
        await directory.add_user(user("a", tenant="other"))
    assert refused.value.field == "id"
    with pytest.raises(ValueError, match="no tenant"):
        await directory.add_user(user("b", tenant="nobody"))


@pytest.mark.parametrize(
    "changes",
    [
        {"user_name": "n" * 600},
        {"user_name": "with\0nul"},
        {"user_name": ""},
        {"emails": tuple(f"{number}@x" for number in range(40))},
        {"attributes": {"big": "x" * 70_000}},
        {"attributes": {"nul": "\0"}},
        {"attributes": {"object": object()}},
    ],
)
async def test_a_user_that_does_not_fit_is_refused(directory: Directory, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        await directory.add_user(user("a", **changes))
    assert await names(directory) == []


async def test_a_change_needs_the_version_that_is_there(directory: Directory) -> None:
    await directory.add_user(user("a"))
    changed = await directory.change_user(user("a", active=False, changed_s=2000.0, created_s=5.0), 1)
    assert changed == user("a", active=False, changed_s=2000.0, version=2)
    with pytest.raises(VersionConflict):
        await directory.change_user(user("a"), 1)
    assert await directory.get_user("acme", "usr_a") == changed
    assert await directory.change_user(user("a")) == user("a", version=3)
    assert await directory.change_user(user("z")) is None
    assert await directory.change_user(user("a", tenant="other")) is None


async def test_of_many_who_change_one_version_one_succeeds(directory: Directory, open_another: Opener) -> None:
    await directory.add_user(user("a"))
    directories = [directory, open_another(), open_another()]
    outcomes = await asyncio.gather(
        *(directories[n % 3].change_user(user("a", external_id=f"e{n}"), 1) for n in range(9)), return_exceptions=True
    )
    kept = [outcome for outcome in outcomes if isinstance(outcome, User)]
    assert len(kept) == 1
    assert sum(isinstance(outcome, VersionConflict) for outcome in outcomes) == 8
    assert await directory.get_user("acme", "usr_a") == kept[0]


async def test_of_many_who_take_one_name_one_succeeds(directory: Directory, open_another: Opener) -> None:
    directories = [directory, open_another(), open_another()]
    outcomes = await asyncio.gather(
        *(directories[n % 3].add_user(user(f"u{n}", user_name="same")) for n in range(9)), return_exceptions=True
    )
    assert sum(isinstance(outcome, User) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, AlreadyExists) for outcome in outcomes) == 8


async def test_a_name_of_somebody_else_cannot_be_taken_by_a_change(directory: Directory) -> None:
    await directory.add_user(user("a"))
    await directory.add_user(user("b"))
    with pytest.raises(AlreadyExists):
        await directory.change_user(user("b", user_name="A@EXAMPLE.COM"))
    changed = await directory.change_user(user("b", user_name="B@EXAMPLE.COM"))
    assert changed is not None


async def test_users_are_found_by_conditions_and_in_pages(directory: Directory) -> None:
    for number in range(12):
        await directory.add_user(user(f"u{number:02}", active=number % 3 != 0, changed_s=float(number)))
    await directory.add_user(user("u99", tenant="other"))
    assert await names(directory) == [f"u{number:02}" for number in range(12)]
    page = await directory.find_users("acme", (), 10, 5)
    assert ([found.id for found in page.users], page.total) == (["usr_u10", "usr_u11"], 12)
    assert (await directory.find_users("acme", (), 0, 0)).total == 12
    assert (await directory.find_users("acme", (), 50, 5)).users == ()
    assert await names(directory, Condition("active", "eq", False)) == ["u00", "u03", "u06", "u09"]
    assert await names(directory, Condition("user_name", "eq", "U03@example.COM")) == ["u03"]
    assert await names(directory, Condition("user_name", "sw", "U0"), Condition("changed_s", "ge", 8)) == ["u08", "u09"]
    assert await names(directory, Condition("user_name", "co", "1@")) == ["u01", "u11"]
    assert await names(directory, Condition("user_name", "ew", "1@EXAMPLE.com")) == ["u01", "u11"]
    assert await names(directory, Condition("email", "eq", "U05@HOME.example")) == ["u05"]
    assert await names(directory, Condition("email", "pr"), limit=1) == ["u00"]
    assert await names(directory, Condition("external_id", "eq", "ext-u07")) == ["u07"]
    assert await names(directory, Condition("external_id", "eq", "EXT-u07")) == []
    assert await names(directory, Condition("id", "eq", "usr_u02")) == ["u02"]
    assert await names(directory, Condition("changed_s", "lt", 1)) == ["u00"]
    assert await names(directory, Condition("user_name", "co", "%")) == []
    assert await names(directory, Condition("user_name", "co", "_")) == []
    for odd in (
        Condition("colour", "eq", "red"),
        Condition("active", "gt", True),
        Condition("changed_s", "eq", "now"),
        Condition("user_name", "eq", 5),
        Condition("email", "ne", "x"),
    ):
        with pytest.raises(ValueError, match="looked for"):
            await directory.find_users("acme", [odd])


async def test_a_user_who_changes_addresses_is_found_by_the_new_ones_only(directory: Directory) -> None:
    await directory.add_user(user("a"))
    await directory.change_user(user("a", emails=("new@example.com",)))
    assert await names(directory, Condition("email", "eq", "a@example.com")) == []
    assert await names(directory, Condition("email", "eq", "NEW@example.com")) == ["a"]


async def test_with_a_user_goes_all_that_was_the_users(directory: Directory) -> None:
    await directory.add_user(user("a"))
    await directory.add_user(user("b"))
    await directory.set_password(PasswordHash(user_id="usr_a", hash="$argon2id$", changed_s=1.0))
    await directory.add_passkey(passkey("usr_a", b"k"))
    await directory.add_totp(totp("usr_a", "t"))
    await directory.set_recovery_codes("usr_a", [b"1" * 32])
    await directory.add_device(device("d", "usr_a"))
    await directory.link(Identity(tenant="acme", issuer="https://idp", subject="7", user_id="usr_a", linked_s=1.0))
    members = [Member(id="usr_a"), Member(id="usr_b")]
    await directory.add_group(Group(id="grp_g", tenant="acme", display_name="G"), members)
    with pytest.raises(VersionConflict):
        await directory.remove_user("acme", "usr_a", 9)
    assert not await directory.remove_user("other", "usr_a")
    assert await directory.remove_user("acme", "usr_a", 1)
    assert not await directory.remove_user("acme", "usr_a")
    assert await directory.get_user("acme", "usr_a") is None
    assert await directory.get_password("usr_a") is None
    assert await directory.get_passkey(b"k") is None
    assert await directory.factors_of("usr_a") == KeptFactors((), 0, 0)
    assert await directory.get_device("acme", "d") is None
    assert await directory.find_linked("acme", "https://idp", "7") is None
    assert await directory.members_of("acme", "grp_g") == [Member(id="usr_b")]
    assert await names(directory, Condition("email", "eq", "a@example.com")) == []


async def test_an_identity_is_one_users(directory: Directory) -> None:
    await directory.add_user(user("a"))
    await directory.add_user(user("b"))
    identity = Identity(tenant="acme", issuer="https://idp", subject="7", user_id="usr_a", linked_s=1.0)
    await directory.link(identity)
    await directory.link(identity)
    with pytest.raises(AlreadyExists):
        await directory.link(replace(identity, user_id="usr_b"))
    with pytest.raises(ValueError, match="no such user"):
        await directory.link(replace(identity, tenant="other", subject="8"))
    assert await directory.find_linked("acme", "https://idp", "7") == user("a")
    assert await directory.find_linked("acme", "https://other", "7") is None
    assert await directory.find_linked("other", "https://idp", "7") is None
    assert await directory.identities_of("acme", "usr_a") == [identity]
    assert await directory.unlink("acme", "https://idp", "7")
    assert not await directory.unlink("acme", "https://idp", "7")
    assert await directory.find_linked("acme", "https://idp", "7") is None


async def test_a_password_is_put_and_replaced_only_where_it_is_the_one(directory: Directory) -> None:
    await directory.add_user(user("a"))
    first = PasswordHash(user_id="usr_a", hash="$first", changed_s=1.0, must_change=True)
    second = PasswordHash(user_id="usr_a", hash="$second", changed_s=2.0)
    assert await directory.get_password("usr_a") is None
    assert not await directory.set_password(second, replaces="$first")
    assert await directory.set_password(first)
    assert await directory.get_password("usr_a") == first
    assert await directory.set_password(second, replaces="$first")
    assert not await directory.set_password(first, replaces="$first")
    assert await directory.get_password("usr_a") == second
    assert await directory.set_password(first)
    assert await directory.get_password("usr_a") == first
    with pytest.raises(ValueError, match="no such user"):
        await directory.set_password(replace(first, user_id="usr_z"))
    assert await directory.remove_password("usr_a")
    assert not await directory.remove_password("usr_a")


def passkey(user_id: str, credential_id: bytes, **changes: Any) -> Passkey:
    plain = Passkey(
        credential_id=credential_id,
        user_id=user_id,
        public_key=b"\x00\xff cose",
        sign_count=5,
        name="phone",
        transports=("internal", "hybrid"),
        aaguid="a" * 36,
        discoverable=True,
        backed_up=True,
        created_s=3.0,
    )
    return replace(plain, **changes)


async def test_a_passkey_is_one_users_and_its_counter_only_rises(directory: Directory) -> None:
    await directory.add_user(user("a"))
    await directory.add_user(user("b"))
    await directory.add_passkey(passkey("usr_a", b"\x00k"))
    with pytest.raises(AlreadyExists):
        await directory.add_passkey(passkey("usr_b", b"\x00k"))
    await directory.add_passkey(passkey("usr_a", b"zero", sign_count=0, created_s=4.0))
    assert await directory.passkeys_of("usr_a") == [
        passkey("usr_a", b"\x00k"),
        passkey("usr_a", b"zero", sign_count=0, created_s=4.0),
    ]
    assert not await directory.use_passkey(b"\x00k", 5, 9.0)
    assert not await directory.use_passkey(b"\x00k", 0, 9.0)
    assert await directory.use_passkey(b"\x00k", 6, 9.0)
    assert await directory.get_passkey(b"\x00k") == passkey("usr_a", b"\x00k", sign_count=6, used_s=9.0)
    assert await directory.use_passkey(b"zero", 0, 9.0)
    assert await directory.use_passkey(b"zero", 0, 10.0)
    assert await directory.use_passkey(b"zero", 3, 11.0)
    assert not await directory.use_passkey(b"zero", 0, 12.0)
    assert not await directory.use_passkey(b"unknown", 9, 12.0)
    assert await directory.rename_passkey("usr_a", b"zero", "key ring")
    assert not await directory.rename_passkey("usr_b", b"zero", "mine")
    assert not await directory.remove_passkey("usr_b", b"zero")
    assert await directory.remove_passkey("usr_a", b"zero")
    assert [found.credential_id for found in await directory.passkeys_of("usr_a")] == [b"\x00k"]


async def test_a_user_has_a_bounded_number_of_passkeys(directory: Directory) -> None:
    await directory.add_user(user("a"))
    for number in range(CREDENTIALS_MAX):
        await directory.add_passkey(passkey("usr_a", bytes([number])))
    with pytest.raises(ValueError, match="at most"):
        await directory.add_passkey(passkey("usr_a", b"more"))


def totp(user_id: str, identifier: str) -> TOTPDevice:
    return TOTPDevice(id=identifier, user_id=user_id, secret=b"12345678901234567890", name="app", created_s=1.0)


async def test_a_totp_secret_is_sealed_and_no_step_counts_twice(directory: Directory, open_another: Opener) -> None:
    await directory.add_user(user("a"))
    await directory.add_totp(totp("usr_a", "t"))
    assert await directory.totps_of("usr_a") == [totp("usr_a", "t")]
    directories = [directory, open_another(), open_another()]
    outcomes = await asyncio.gather(*(directories[n % 3].use_totp("usr_a", "t", 1000) for n in range(9)))
    assert sum(outcomes) == 1
    assert not await directory.use_totp("usr_a", "t", 999)
    assert not await directory.use_totp("usr_b", "t", 2000)
    assert await directory.use_totp("usr_a", "t", 1001)
    assert await directory.totps_of("usr_a") == [replace(totp("usr_a", "t"), confirmed=True, last_step=1001)]
    assert not await directory.remove_totp("usr_b", "t")
    assert await directory.remove_totp("usr_a", "t")


async def test_all_that_may_be_shown_beside_a_password_is_given_at_once(directory: Directory) -> None:
    for name in ("a", "b"):
        await directory.add_user(user(name))
    assert await directory.factors_of("usr_a") == KeptFactors((), 0, 0)
    await directory.add_totp(totp("usr_a", "t"))
    await directory.add_passkey(passkey("usr_a", b"one"))
    await directory.add_passkey(passkey("usr_a", b"two"))
    await directory.set_recovery_codes("usr_a", [bytes([number]) * 32 for number in range(3)])
    assert await directory.use_recovery_code("usr_a", bytes(32), 5.0)
    assert await directory.factors_of("usr_a") == KeptFactors((totp("usr_a", "t"),), 2, 2)
    assert await directory.factors_of("usr_b") == KeptFactors((), 0, 0)


async def test_a_recovery_code_is_taken_once(directory: Directory, open_another: Opener) -> None:
    await directory.add_user(user("a"))
    await directory.set_recovery_codes("usr_a", [bytes([number]) * 32 for number in range(10)])
    directories = [directory, open_another(), open_another()]
    outcomes = await asyncio.gather(
        *(directories[n % 3].use_recovery_code("usr_a", b"\x03" * 32, 5.0) for n in range(9))
    )
    assert sum(outcomes) == 1
    assert (await directory.factors_of("usr_a")).recovery_codes == 9
    assert not await directory.use_recovery_code("usr_a", b"\x99" * 32, 5.0)
    assert not await directory.use_recovery_code("usr_b", b"\x04" * 32, 5.0)
    await directory.set_recovery_codes("usr_a", [b"\x03" * 32])
    assert (await directory.factors_of("usr_a")).recovery_codes == 1
    with pytest.raises(ValueError, match="at most"):
        await directory.set_recovery_codes("usr_a", [bytes([number]) for number in range(CREDENTIALS_MAX + 1)])


def device(identifier: str, user_id: str = "usr_a", **changes: Any) -> Device:
    plain = Device(
        id=identifier, tenant="acme", user_id=user_id, secret_hash=b"\x00" * 32, public_key="{}", name="laptop",
        created_s=1.0, seen_s=1.0, expires_s=1e9,
    )  # fmt: skip
    return replace(plain, **changes)


async def test_devices_are_remembered_seen_and_forgotten(directory: Directory) -> None:
    await directory.add_user(user("a"))
    await directory.add_device(device("d1"))
    await directory.add_device(device("d2", seen_s=2.0, expires_s=50.0))
    with pytest.raises(AlreadyExists):
        await directory.add_device(device("d1"))
    assert await directory.get_device("acme", "d1") == device("d1")
    assert await directory.get_device("other", "d1") is None
    assert [found.id for found in await directory.devices_of("acme", "usr_a")] == ["d2", "d1"]
    assert await directory.touch_device("acme", "d1", 9.0)
    assert [found.id for found in await directory.devices_of("acme", "usr_a")] == ["d1", "d2"]
    assert not await directory.touch_device("other", "d1", 9.0)
    assert await directory.purge(60.0) == 1
    assert not await directory.remove_device("acme", "usr_b", "d1")
    assert await directory.remove_device("acme", "usr_a", "d1")
    await directory.add_device(device("d3"))
    assert await directory.remove_devices("acme", "usr_a") == 1
    with pytest.raises(ValueError, match="no such user"):
        await directory.add_device(device("d4", tenant="other"))


async def test_beyond_the_limit_the_device_that_was_seen_longest_ago_gives_way(directory: Directory) -> None:
    await directory.add_user(user("a"))
    for number in range(CREDENTIALS_MAX + 2):
        await directory.add_device(device(f"d{number}", seen_s=float(number)))
    found = await directory.devices_of("acme", "usr_a")
    assert len(found) == CREDENTIALS_MAX
    assert [found[0].id, found[-1].id] == [f"d{CREDENTIALS_MAX + 1}", "d2"]


def login(at_s: float, user_id: str = "usr_a", **changes: Any) -> PastLogin:
    plain = PastLogin(
        user_id=user_id, at_s=at_s, network=b"n" * 16, country="DE", latitude=52.5, longitude=13.4
    )  # fmt: skip
    return replace(plain, **changes)


async def test_the_last_log_ins_of_a_user_are_kept_each_once(directory: Directory, open_another: Opener) -> None:
    await directory.add_user(user("a"))
    await directory.add_user(user("b"))
    assert await directory.note_login(login(1.25), keep=3)
    assert not await directory.note_login(login(1.25, country="FR"), keep=3)
    assert list(await directory.logins_of("usr_a")) == [login(1.25)]
    nowhere = login(2.0, network=b"", country="", latitude=None, longitude=None)
    assert await directory.note_login(nowhere, keep=3)
    assert await directory.note_login(login(9.0, "usr_b"), keep=3)
    for at_s in (5.0, 3.0, 4.0):
        assert await directory.note_login(login(at_s), keep=3)
    assert [each.at_s for each in await directory.logins_of("usr_a")] == [5.0, 4.0, 3.0]
    await directory.note_login(login(0.5), keep=3)  # one that comes late is none of the last
    assert [each.at_s for each in await directory.logins_of("usr_a")] == [5.0, 4.0, 3.0]
    assert list(await directory.logins_of("usr_b")) == [login(9.0, "usr_b")]
    others = [open_another(), open_another()]
    await asyncio.gather(*(others[n % 2].note_login(login(10.0 + n), keep=3) for n in range(8)))
    await directory.note_login(login(20.0), keep=3)
    assert [each.at_s for each in await directory.logins_of("usr_a")] == [20.0, 17.0, 16.0]


async def test_log_ins_are_forgotten_with_their_user_and_when_they_are_old(directory: Directory) -> None:
    await directory.add_user(user("a"))
    assert not await directory.note_login(login(1.0, "usr_nobody"), keep=3)
    for keep in (0, LOGINS_MAX + 1):
        with pytest.raises(ValueError, match="are kept"):
            await directory.note_login(login(1.0), keep=keep)
    await directory.note_login(login(1.0), keep=3)
    await directory.note_login(login(100.0), keep=3)
    assert await directory.purge(LOGIN_S_MAX + 50.0) == 1
    assert [each.at_s for each in await directory.logins_of("usr_a")] == [100.0]
    assert await directory.remove_user("acme", "usr_a")
    await directory.add_user(user("a"))
    assert list(await directory.logins_of("usr_a")) == []


def group(name: str, **changes: Any) -> Group:
    return replace(Group(id=f"grp_{name}", tenant="acme", display_name=name.title(), created_s=1.0), **changes)


async def test_groups_have_members_of_their_tenant(directory: Directory) -> None:
    for name in ("a", "b", "c"):
        await directory.add_user(user(name))
    await directory.add_user(user("o", tenant="other"))
    added = await directory.add_group(group("staff"), [Member(id="usr_a"), Member(id="usr_b"), Member(id="usr_a")])
    assert await directory.get_group("acme", "grp_staff") == added == group("staff", version=1)
    assert await directory.get_group("other", "grp_staff") is None
    assert await directory.members_of("acme", "grp_staff") == [Member(id="usr_a"), Member(id="usr_b")]
    assert await directory.members_of("other", "grp_staff") == []
    for stranger in (Member(id="usr_o"), Member(id="usr_z"), Member(id="grp_staff", kind="group")):
        with pytest.raises(ValueError, match=r"there is no|no member of itself"):
            await directory.change_members("acme", "grp_staff", [Member(id="usr_c"), stranger])
    assert await directory.members_of("acme", "grp_staff") == [Member(id="usr_a"), Member(id="usr_b")]
    changed = await directory.change_members("acme", "grp_staff", [Member(id="usr_c")], [Member(id="usr_a")], 1)
    assert changed == group("staff", version=2)
    with pytest.raises(VersionConflict):
        await directory.change_members("acme", "grp_staff", [], [Member(id="usr_b")], 1)
    assert [member.id for member in await directory.members_of("acme", "grp_staff")] == ["usr_b", "usr_c"]
    await directory.add_group(group("all"), [Member(id="grp_staff", kind="group"), Member(id="usr_c")])
    assert [found.id for found in await directory.groups_of("acme", "usr_c")] == ["grp_all", "grp_staff"]
    assert [found.id for found in await directory.groups_of("acme", "grp_staff")] == ["grp_all"]
    assert await names(directory, Condition("group", "eq", "grp_staff")) == ["b", "c"]
    conditions = [Condition("member", "eq", "usr_c"), Condition("display_name", "sw", "A")]
    page = await directory.find_groups("acme", conditions)
    assert [found.id for found in page.groups] == ["grp_all"]
    changed = await directory.change_group(group("staff", display_name="Crew"), 2, [Member(id="usr_a")])
    assert changed == group("staff", display_name="Crew", version=3)
    assert await directory.members_of("acme", "grp_staff") == [Member(id="usr_a")]
    with pytest.raises(AlreadyExists):
        await directory.change_group(group("staff", display_name="ALL"))
    assert await directory.remove_group("acme", "grp_staff", 3)
    assert not await directory.remove_group("acme", "grp_staff")
    assert await directory.members_of("acme", "grp_all") == [Member(id="usr_c")]


async def test_a_group_of_many_members_is_made_in_one_call(directory: Directory) -> None:
    for number in range(40):
        await directory.add_user(user(f"u{number}"))
    members = [Member(id=f"usr_u{number}") for number in range(40)]
    await directory.add_group(group("g"), members)
    assert len(await directory.members_of("acme", "grp_g")) == 40
    with pytest.raises(AlreadyExists) as refused:
        await directory.add_group(group("h", display_name="G"))
    assert refused.value.field == "display_name"


async def test_failures_are_counted_in_windows_and_block_for_longer_each_time(directory: Directory) -> None:
    async def fail(now_s: float) -> Throttle:
        return await directory.note_failure(
            "account:a", now_s, window_s=600.0, block_from=3, block_s=10.0, expires_s=now_s + 3600
        )

    assert await fail(1000.0) == Throttle(1, 1000.0, 0.0)
    assert await fail(1001.0) == Throttle(2, 1000.0, 0.0)
    assert await fail(1002.0) == Throttle(3, 1000.0, 1012.0)
    assert await fail(1003.0) == Throttle(4, 1000.0, 1023.0)
    for _ in range(20):
        last = await fail(1004.0)
    assert last == Throttle(24, 1000.0, 1604.0)
    assert await directory.get_throttles(["account:a", "account:b"]) == {"account:a": last}
    assert await fail(1700.0) == Throttle(1, 1700.0, 1604.0)
    assert await directory.get_throttles(["x", "y", "account:a"]) == {"account:a": Throttle(1, 1700.0, 1604.0)}
    assert await directory.get_throttles([]) == {}
    await directory.forget_failures("account:a")
    assert await directory.get_throttles(["account:a"]) == {}


async def test_no_failure_is_lost_when_many_happen_at_once(directory: Directory, open_another: Opener) -> None:
    directories = [directory, open_another(), open_another()]
    await asyncio.gather(
        *(
            directories[n % 3].note_failure("k", 5.0, window_s=60.0, block_from=99, block_s=1.0, expires_s=100.0)
            for n in range(24)
        )
    )
    assert (await directory.get_throttles(["k"]))["k"].count == 24
    assert await directory.purge(200.0) == 1


async def test_what_one_worker_wrote_another_reads_by_its_revision(directory: Directory, open_another: Opener) -> None:
    other = open_another()
    for number in range(20):
        await directory.add_user(user(f"u{number}"))
        assert await other.after(directory.revision).get_user("acme", f"usr_u{number}") is not None
        assert await directory.get_user("acme", f"usr_u{number}") is not None
