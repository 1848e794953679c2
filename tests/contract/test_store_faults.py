"""Whatever happens to a server or a file: each call ends within its deadline, by StoreUnavailable and nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores import (
    ORIGIN,
    Connections,
    open_audit_log,
    open_deferred_work,
    open_directory,
    open_session_store,
    open_token_store,
)
from gateway.stores.directory import Tenant
from gateway.types import SystemClock
from tests.contract.test_audit_log import event
from tests.contract.test_directory import Rot, device, group, login, passkey, totp, user
from tests.contract.test_session_store import ALICE, BOB, NOW_S, id_hash, session
from tests.contract.test_token_store import client, family, grant, sha
from tests.real.postgres import RealPostgres
from tests.real.postgres_replicas import OPTIONS
from tests.real.redis import RealRedis

CALL_S_MAX = 3.0  # the longest deadline is 2 s; the machine is busy

Calls = dict[str, Callable[[], Awaitable[Any]]]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RealRedis]:
    server = RealRedis(tmp_path)
    yield server
    server.stop()


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[RealPostgres]:
    server = RealPostgres(tmp_path, options=OPTIONS)
    yield server
    server.stop()


class Everything:
    """All stores, on one server or in one folder, and every call that there is."""

    def __init__(self, url: str, folder: Path, *, redis: bool) -> None:
        clock = SystemClock()
        # The source's sizes: so many calls at once that all wait would hide what each of them does.
        connections = Connections()
        self.sessions = open_session_store(url, folder, clock, connections=connections)
        self.grants = open_token_store(url, folder, clock, connections=connections)
        self.work = open_deferred_work(url if redis else "", folder, clock, connections=connections)
        self.audit = open_audit_log(url if redis else "", folder, "w0", connections=connections)
        self.directory = None if redis else open_directory(url, folder, Rot(), connections=connections)

    async def close(self) -> None:
        for store in (self.sessions, self.grants, self.work, self.audit, self.directory):
            if store is not None:
                await store.close()

    def calls(self) -> Calls:
        sessions, grants = self.sessions, self.grants
        found: Calls = {
            "create": lambda: sessions.create(session("new")),
            "get": lambda: sessions.get(id_hash("a")),
            "touch": lambda: sessions.touch(session("a"), time.time()),
            "replace": lambda: sessions.replace(session("a", version=2), 1),
            "rotate": lambda: sessions.rotate(session("a"), session("b")),
            "join": lambda: sessions.join(id_hash("a"), "acme", "app"),
            "revoke": lambda: sessions.revoke(id_hash("a")),
            "revoke_subject": lambda: sessions.revoke_subject(BOB, NOW_S),
            "revoke_client": lambda: sessions.revoke_client("acme", "nobody"),
            "list_of": lambda: sessions.list_of(ALICE),
            "apply": lambda: sessions.apply(session("c")),
            "apply_revoked": lambda: sessions.apply_revoked(id_hash("d"), 2, NOW_S + 100),
            "read_after": lambda: sessions.read_after(ORIGIN, 10),
            "add_client": lambda: grants.add_client(client("new")),
            "get_client": lambda: grants.get_client("acme", "app"),
            "change_client": lambda: grants.change_client(client("app"), 1),
            "remove_client": lambda: grants.remove_client("acme", "nobody"),
            "list_clients": lambda: grants.list_clients("acme"),
            "keep": lambda: grants.keep(grant("new", expires_s=int(time.time()) + 60)),
            "look": lambda: grants.look("authorization_code", sha("a")),
            "take": lambda: grants.take("authorization_code", sha("a")),
            "add_family": lambda: grants.add_family(family("new")),
            "rotate family": lambda: grants.rotate("f", sha("f-1"), sha("f-2"), time.time()),
            "revoke_code": lambda: grants.revoke_code(sha("z")),
        }
        return found | self.directory_calls() | self.other_calls()

    def other_calls(self) -> Calls:
        return {
            "put": lambda: self.work.put("k", "new", {}),
            "claim": lambda: self.work.claim(1, 1.0),
            "backlog": self.work.backlog,
            "append": lambda: self.audit.append([event(1)]),
            "verify": self.audit.verify,
        }

    def directory_calls(self) -> Calls:
        directory = self.directory
        if directory is None:
            return {}
        return {
            "put_tenant": lambda: directory.put_tenant(Tenant("acme", "Acme")),
            "add_user": lambda: directory.add_user(user("new")),
            "get_user": lambda: directory.get_user("acme", "usr_a"),
            "find_users": lambda: directory.find_users("acme"),
            "change_user": lambda: directory.change_user(user("a")),
            "remove_user": lambda: directory.remove_user("acme", "usr_z"),
            "get_password": lambda: directory.get_password("usr_a"),
            "add_passkey": lambda: directory.add_passkey(passkey("usr_a", b"new")),
            "use_passkey": lambda: directory.use_passkey(b"k", 9, 1.0),
            "add_totp": lambda: directory.add_totp(totp("usr_a", "new")),
            "use_recovery_code": lambda: directory.use_recovery_code("usr_a", b"1", 1.0),
            "add_device": lambda: directory.add_device(device("new")),
            "note_login": lambda: directory.note_login(login(1.0), keep=3),
            "logins_of": lambda: directory.logins_of("usr_a"),
            "add_group": lambda: directory.add_group(group("new")),
            "note_failure": lambda: directory.note_failure(
                "k", 1.0, window_s=60.0, block_from=3, block_s=1.0, expires_s=100.0
            ),
        }

    async def fill(self) -> None:
        await self.sessions.create(session("a"))
        await self.grants.add_client(client("app"))
        await self.grants.add_family(family("f"))
        await self.work.backlog()
        await self.audit.append([event(0)])
        if self.directory is not None:
            await self.directory.put_tenant(Tenant("acme", "Acme"))
            await self.directory.add_user(user("a"))

    async def outcomes(self, only: Callable[[str], bool] = lambda name: True) -> dict[str, str]:
        """Make every call at once; give what each raised, "ok" where it did not, and how long was too long."""

        async def make(name: str, call: Callable[[], Awaitable[Any]]) -> tuple[str, str]:
            begun_s = time.monotonic()
            try:
                await call()
                outcome = "ok"
            except StoreUnavailable:
                outcome = "unavailable"
            except Exception as error:
                outcome = repr(error)
            took_s = time.monotonic() - begun_s
            return name, outcome if took_s < CALL_S_MAX else f"{outcome} after {took_s:.1f} s"

        return dict(await asyncio.gather(*(make(*item) for item in self.calls().items() if only(item[0]))))


def on_disk(name: str) -> bool:
    """Say whether a call of this name goes to a file of its own also where there is a server."""
    return name in ("put", "claim", "backlog", "append", "verify")


async def works_again(every: Everything) -> None:
    deadline_s = time.monotonic() + 15
    while True:
        try:
            assert await every.sessions.get(id_hash("a")) is not None
            assert await every.grants.get_client("acme", "app") is not None
            await every.sessions.touch(session("a"), time.time())
            if every.directory is not None:
                assert await every.directory.find_user("acme", "a@example.com") is not None
            return
        except StoreUnavailable:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("fault", ["frozen", "killed"])
async def test_redis_that_is_gone_costs_each_call_its_deadline_and_comes_back(
    redis: RealRedis, tmp_path: Path, fault: str
) -> None:
    every = Everything(redis.url, tmp_path, redis=True)
    try:
        await every.fill()
        await asyncio.to_thread(redis.freeze if fault == "frozen" else redis.kill)
        outcomes = await every.outcomes()
        assert set(outcomes.values()) == {"unavailable"}, outcomes
        await asyncio.to_thread(redis.thaw if fault == "frozen" else redis.start)
        if fault == "killed":
            await works_again(every)
        else:
            await every.sessions.get(id_hash("a"))  # what was sent before the freeze may have taken place
    finally:
        await every.close()


@pytest.mark.parametrize("fault", ["frozen", "killed"])
async def test_postgres_that_is_gone_costs_each_call_its_deadline_and_comes_back(
    postgres: RealPostgres, tmp_path: Path, fault: str
) -> None:
    every = Everything(postgres.url, tmp_path, redis=False)
    try:
        await every.fill()
        await asyncio.to_thread(postgres.freeze if fault == "frozen" else postgres.kill)
        outcomes = await every.outcomes(lambda name: not on_disk(name))
        assert set(outcomes.values()) == {"unavailable"}, outcomes
        await asyncio.to_thread(postgres.thaw if fault == "frozen" else postgres.start)
        if fault == "killed":
            await works_again(every)
        else:
            await asyncio.sleep(0)
            deadline_s = time.monotonic() + 15
            while time.monotonic() < deadline_s:
                try:
                    await every.sessions.get(id_hash("a"))
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.05)
            else:
                raise AssertionError("it did not come back")
    finally:
        await every.close()


async def test_a_file_that_another_process_locks_costs_writes_their_deadline(tmp_path: Path) -> None:
    every = Everything("", tmp_path, redis=False)
    try:
        await every.fill()
        holders = [sqlite3.connect(path, isolation_level=None) for path in sorted(tmp_path.glob("*.sqlite3"))]
        assert len(holders) == 4
        for holder in holders:
            holder.execute("BEGIN IMMEDIATE")
        assert await every.sessions.get(id_hash("a")) is not None, "WAL: who reads waits for nobody"
        outcomes = await every.outcomes(lambda name: name in ("create", "keep", "add_user", "put"))
        assert set(outcomes.values()) == {"unavailable"}, outcomes
        for holder in holders:
            holder.execute("ROLLBACK")
            holder.close()
        await works_again(every)
    finally:
        await every.close()


async def test_a_file_that_is_no_database_or_somebody_elses_is_refused(tmp_path: Path) -> None:
    for name in ("sessions", "grants", "directory", "deferred"):
        (tmp_path / f"{name}.sqlite3").write_bytes(b"this is no database at all, and long enough to be looked at" * 50)
        (tmp_path / f"{name}.sqlite3").chmod(0o600)
    every = Everything("", tmp_path, redis=False)
    try:
        outcomes = await every.outcomes(lambda name: name not in ("append", "verify"))
        assert set(outcomes.values()) == {"unavailable"}, outcomes
    finally:
        await every.close()


async def test_a_call_that_is_cancelled_leaves_the_store_usable(redis: RealRedis, tmp_path: Path) -> None:
    every = Everything(redis.url, tmp_path, redis=True)
    try:
        await every.fill()
        for pause_s in (0.0, 0.0002, 0.0005, 0.001):
            tasks = [asyncio.create_task(every.sessions.get(id_hash("a"))) for _ in range(60)]
            await asyncio.sleep(pause_s)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        assert await every.sessions.get(id_hash("a")) == session("a")
        answers = await asyncio.gather(*(every.sessions.get(id_hash(name)) for name in ("a", "z") * 30))
        assert [answer is not None for answer in answers] == [True, False] * 30, "no answer went to another question"
    finally:
        await every.close()
