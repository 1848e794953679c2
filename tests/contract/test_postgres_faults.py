"""What PostgreSQL's directory promises while servers die, stop, are cut off and take over, told by a ledger."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import AlreadyExists, GatewayError, StoreUnavailable
from gateway.stores import Connections, open_directory
from gateway.stores.directory import Directory, Tenant, User
from gateway.stores.pools import POSTGRES_PRIMARY, PoolLimits
from gateway.stores.postgres_server import PostgresServer
from gateway.stores.sql_postgres import LAG_S_MAX, PostgresDatabase, _commit, _nothing
from tests.contract.test_directory import Rot
from tests.real.pools import SMALL
from tests.real.postgres_replicas import RealPostgresPair
from tests.real.process import wait_until

CALL_S_MAX = 2.5  # the deadline of a call is 2 s; the machine is busy
RESUME_S_MAX = 2.0  # after the promotion; measured 0.0 to 1.0 s
WRITERS = 4


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[RealPostgresPair]:
    servers = RealPostgresPair(tmp_path, synchronous=True)
    yield servers
    servers.stop()


@pytest.fixture
async def directory(pair: RealPostgresPair, tmp_path: Path) -> AsyncIterator[Directory]:
    opened = open_directory(pair.url, tmp_path, Rot(), connections=Connections(SMALL))
    await opened.put_tenant(Tenant("acme", "Acme"))
    yield opened
    await opened.close()


def user(name: str) -> User:
    return User(id=f"usr_{name}", tenant="acme", user_name=name)


async def took_place(directory: Directory, name: str) -> bool:
    """Write, and say whether it is there now; an earlier attempt may have done it."""
    try:
        await directory.add_user(user(name))
    except StoreUnavailable:
        return False
    except AlreadyExists:
        return True
    return True


class Ledger:
    """What was acknowledged, of what nobody knows, and when each of the writers succeeded."""

    def __init__(self) -> None:
        self.acknowledged: set[str] = set()
        self.unknown: set[str] = set()
        self.good_s: list[float] = []
        self.longest_s = 0.0

    def resumed_after(self, at_s: float) -> float:
        return min((each for each in self.good_s if each > at_s), default=float("inf")) - at_s


async def write(directory: Directory, ledger: Ledger, writer: int, running: asyncio.Event) -> None:
    number = 0
    while running.is_set():
        number += 1
        name = f"w{writer}-{number}"
        begun_s = time.monotonic()
        try:
            await directory.add_user(user(name))
            ledger.acknowledged.add(name)
            ledger.good_s.append(time.monotonic())
        except StoreUnavailable:
            ledger.unknown.add(name)
        ledger.longest_s = max(ledger.longest_s, time.monotonic() - begun_s)
        await asyncio.sleep(0.005)


async def fail_over(
    pair: RealPostgresPair, directory: Directory, strike: Callable[[], None], mend: Callable[[], None]
) -> tuple[Ledger, float]:
    """Write while the primary fails and the replica takes over; give the ledger, and how long after that it went on."""
    ledger = Ledger()
    running = asyncio.Event()
    running.set()
    writers = [asyncio.create_task(write(directory, ledger, number, running)) for number in range(WRITERS)]
    while len(ledger.acknowledged) < 100:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(strike)
    await asyncio.sleep(0.5)  # what detects it
    await asyncio.to_thread(pair.replica.promote)
    promoted_s = time.monotonic()
    while ledger.resumed_after(promoted_s) == float("inf") and time.monotonic() < promoted_s + 15:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(mend)
    before = len(ledger.acknowledged)
    while len(ledger.acknowledged) < before + 100 and time.monotonic() < promoted_s + 30:
        await asyncio.sleep(0.01)
    running.clear()
    await asyncio.gather(*writers)
    return ledger, ledger.resumed_after(promoted_s)


def check(pair: RealPostgresPair, ledger: Ledger, resumed_s: float) -> None:
    rows = [str(name) for (name,) in pair.replica.query("SELECT user_name FROM portcullis_users")]
    lost = ledger.acknowledged - set(rows)
    strangers = set(rows) - ledger.acknowledged - ledger.unknown
    print(
        f"acknowledged {len(ledger.acknowledged)}, lost {len(lost)}, duplicates {len(rows) - len(set(rows))}, "
        f"unknown {len(ledger.unknown)} of which {len(ledger.unknown & set(rows))} took place, "
        f"resumed after {resumed_s:.2f} s, longest call {ledger.longest_s:.2f} s"
    )
    assert not lost
    assert len(rows) == len(set(rows))
    assert not strangers
    assert resumed_s <= RESUME_S_MAX
    assert ledger.longest_s <= CALL_S_MAX


async def test_nothing_acknowledged_is_lost_when_the_primary_is_killed(
    pair: RealPostgresPair, directory: Directory
) -> None:
    ledger, resumed_s = await fail_over(pair, directory, pair.primary.kill, lambda: None)
    check(pair, ledger, resumed_s)


async def test_nothing_acknowledged_is_lost_when_the_primary_is_stopped_and_comes_back(
    pair: RealPostgresPair, directory: Directory
) -> None:
    ledger, resumed_s = await fail_over(pair, directory, pair.primary.freeze, pair.primary.thaw)
    check(pair, ledger, resumed_s)


async def test_a_primary_that_is_cut_off_and_deposed_acknowledges_nothing(
    pair: RealPostgresPair, directory: Directory, tmp_path: Path
) -> None:
    ledger, resumed_s = await fail_over(pair, directory, pair.link.cut, pair.link.mend)
    check(pair, ledger, resumed_s)
    # Both are primaries now, by their own word. Who sees both takes the one that took over.
    assert pair.primary.query("SELECT pg_is_in_recovery()") == pair.replica.query("SELECT pg_is_in_recovery()")
    fresh = open_directory(pair.url, tmp_path, Rot(), connections=Connections(SMALL))
    # Who sees the deposed one alone gets no acknowledgement: its replica is gone, and it waits for it.
    behind = open_directory(pair.primary.url, tmp_path, Rot(), connections=Connections(SMALL))
    try:
        await fresh.add_user(user("fresh"))
        with pytest.raises(StoreUnavailable):
            await behind.add_user(user("behind"))
    finally:
        await fresh.close()
        await behind.close()
    assert pair.replica.query("SELECT count(*) FROM portcullis_users WHERE user_name = 'fresh'") == [(1,)]


async def test_a_commit_that_did_not_wait_for_its_replica_counts_as_failed(
    pair: RealPostgresPair, directory: Directory
) -> None:
    """The server says COMMIT and warns. What it committed is there, and may be gone after the next failover."""
    server = PostgresServer(pair.primary.url, _nothing)
    await asyncio.to_thread(pair.replica.freeze)
    try:

        async def work(db: Any) -> None:
            await db.execute("BEGIN; SET LOCAL client_min_messages = warning")
            await db.execute("INSERT INTO portcullis_tenants VALUES ('lost', 'Lost', true, '{}')")
            await _commit(db)

        committing = asyncio.create_task(server.call(work))
        cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        await asyncio.to_thread(wait_until, lambda: pair.primary.query(cancel) == [(True,)], "a commit that waits")
        with pytest.raises(StoreUnavailable, match="did not wait for a replica"):
            await committing
    finally:
        await asyncio.to_thread(pair.replica.thaw)
        await server.close()
    assert pair.primary.query("SELECT name FROM portcullis_tenants WHERE id = 'lost'") == [("Lost",)]


async def test_while_the_replica_is_stopped_no_write_is_acknowledged_and_reads_go_on(
    pair: RealPostgresPair, directory: Directory
) -> None:
    await directory.add_user(user("before"))
    await asyncio.to_thread(pair.replica.freeze)
    try:
        begun_s = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await directory.add_user(user("during"))
        assert await directory.find_user("acme", "before") is not None
        assert time.monotonic() - begun_s < 2 * CALL_S_MAX
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        await asyncio.to_thread(
            wait_until, lambda: pair.primary.query(waiting) == [(0,)], "the end of what waits on the server"
        )
    finally:
        await asyncio.to_thread(pair.replica.thaw)
    await asyncio.to_thread(pair.replica.catch_up)

    deadline_s = time.monotonic() + 10
    while not await took_place(directory, "after"):
        assert time.monotonic() < deadline_s


async def test_reads_go_on_while_the_primary_is_away(pair: RealPostgresPair, directory: Directory) -> None:
    await directory.add_user(user("known"))
    await asyncio.to_thread(pair.replica.catch_up)
    assert await directory.find_user("acme", "known") is not None
    await asyncio.to_thread(pair.primary.kill)
    begun_s = time.monotonic()
    for _ in range(50):
        assert await directory.find_user("acme", "known") is not None
    assert time.monotonic() - begun_s < CALL_S_MAX
    with pytest.raises(StoreUnavailable):
        await directory.add_user(user("new"))
    await asyncio.to_thread(pair.primary.start)

    deadline_s = time.monotonic() + 20
    while not await took_place(directory, "new"):
        assert time.monotonic() < deadline_s, "the same primary came back"


async def test_a_gateway_that_starts_while_the_primary_is_away_reads(
    pair: RealPostgresPair, directory: Directory, tmp_path: Path
) -> None:
    await directory.add_user(user("known"))
    await asyncio.to_thread(pair.replica.catch_up)
    await asyncio.to_thread(pair.primary.kill)
    fresh = open_directory(pair.url, tmp_path, Rot(), connections=Connections(SMALL))
    try:
        assert await fresh.find_user("acme", "known") is not None
        with pytest.raises(StoreUnavailable):
            await fresh.add_user(user("new"))
    finally:
        await fresh.close()


async def test_idle_connections_beyond_the_minimum_are_closed(pair: RealPostgresPair) -> None:
    server = PostgresServer(pair.primary.url, _nothing, PoolLimits(2, 10, 0.2, 2.0, 2.0))

    async def work(db: Any) -> None:
        await db.execute("SELECT pg_sleep(0.1)")

    try:
        await asyncio.gather(*(server.call(work) for _ in range(30)))
        assert server.pool("postgres_primary").open == 10
        deadline_s = time.monotonic() + 5
        while server.pool("postgres_primary").open > 2:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.02)
        counted = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'portcullis'"
        await asyncio.to_thread(wait_until, lambda: pair.primary.query(counted) == [(2,)], "two connections at rest")
        await server.call(work)
        assert server.pool("postgres_primary").open == 2
    finally:
        await server.close()


async def test_a_replica_that_is_behind_is_not_asked(pair: RealPostgresPair, tmp_path: Path) -> None:
    """Own writes are seen at once, those of others when they are older than LAG_S_MAX, whatever the replica does."""
    pair.primary.query("ALTER SYSTEM RESET synchronous_standby_names")
    pair.primary.query("SELECT pg_reload_conf()")
    writer, reader = (open_directory(pair.url, tmp_path, Rot(), connections=Connections(SMALL)) for _ in range(2))
    try:
        await writer.put_tenant(Tenant("acme", "Acme"))
        assert await reader.after(writer.revision).get_tenant("acme") is not None
        await asyncio.to_thread(pair.replica.pause)
        await writer.add_user(user("own"))
        assert await writer.find_user("acme", "own") is not None
        assert await reader.after(writer.revision).find_user("acme", "own") is not None
        deadline_s = time.monotonic() + 5 * LAG_S_MAX + 2
        while await reader.find_user("acme", "own") is None:
            assert time.monotonic() < deadline_s
            await asyncio.sleep(0.05)
        await asyncio.to_thread(pair.replica.resume)
        await asyncio.to_thread(pair.replica.catch_up)
        reads = pair.replica.query("SELECT sum(idx_scan) FROM pg_stat_user_tables WHERE relname = 'portcullis_users'")
        for _ in range(20):
            assert await reader.find_user("acme", "own") is not None
        wait_until(
            lambda: (
                pair.replica.query("SELECT sum(idx_scan) FROM pg_stat_user_tables WHERE relname = 'portcullis_users'")
                != reads
            ),
            "reads on the replica",
        )
    finally:
        await writer.close()
        await reader.close()


@pytest.mark.parametrize("said", ["7", "lsn:", "lsn:1/2/3", "lsn:G/1", "log:1/2"])
def test_what_is_no_revision_is_refused(said: str) -> None:
    async def read() -> None:
        database = PostgresDatabase("postgresql://nobody@127.0.0.1:1/none")
        try:
            await database.read(lambda: iter(()), said)  # type: ignore[arg-type,return-value]
        finally:
            await database.close()

    with pytest.raises(ValueError, match="not a revision"):
        asyncio.run(read())


async def test_connections_at_rest_and_under_load_are_those_of_the_pool(pair: RealPostgresPair, tmp_path: Path) -> None:
    directory = open_directory(pair.url, tmp_path, Rot())
    try:
        await directory.put_tenant(Tenant("acme", "Acme"))
        await directory.get_tenant("acme")

        def count(server: str) -> int:
            query = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'portcullis'"
            ((found,),) = (pair.primary if server == "primary" else pair.replica).query(query)
            return int(str(found))

        await asyncio.to_thread(wait_until, lambda: count("primary") >= 20, "twenty connections to the primary")
        await asyncio.gather(*(directory.put_tenant(Tenant(f"t{number}", "T")) for number in range(200)))
        await asyncio.gather(*(directory.get_tenant(f"t{number}") for number in range(200)))
        await asyncio.to_thread(wait_until, lambda: count("replica") >= 10, "ten connections to the replica")
        scouts = 2
        assert count("primary") <= POSTGRES_PRIMARY.connections_max + scouts
        assert count("replica") <= 50 + scouts
        states = {state.store: state for state in directory.pools()}  # type: ignore[attr-defined]
        assert states["postgres_primary"].open >= 20
        assert states["postgres_primary"].connections_max == 100
        assert states["postgres_replica"].connections_max == 50
        assert states["postgres_primary"].busy == states["postgres_primary"].waiting == 0
    except GatewayError as error:
        raise AssertionError(str(error)) from error
    finally:
        await directory.close()
