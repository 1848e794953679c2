"""PostgreSQL with the tables of `schema.py`: one primary, and replicas that stream from it.

Which server is the primary is asked of all of them, whenever one lets us down: the one that is not in recovery, and of
several the one of the highest timeline; a server of a lower timeline than one that was ever seen is deposed, and what
it says it committed does not count. Reads go to a replica that has replayed what they have to show: all that was
written through this object, what the caller names, and what the primary had LAG_S_MAX ago. A commit of which the
server warns that it did not wait for its replica counts as failed, like every other whose outcome is unknown.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from gateway.config.addresses import each_server
from gateway.errors import GatewayError, StoreUnavailable
from gateway.stores.base import ORIGIN, Revision
from gateway.stores.migrations import VERSION_TABLE, is_old, upgrade
from gateway.stores.pools import POSTGRES_PRIMARY, POSTGRES_REPLICA, PoolLimits, PoolState
from gateway.stores.postgres_server import PostgresServer, Work
from gateway.stores.sql import Answer, Compiler, Program

if TYPE_CHECKING:
    from psycopg import AsyncConnection
    from sqlalchemy.engine import Dialect

T = TypeVar("T")

OPEN_TIMEOUT_S: Final = 60.0  # the imports, and the migrations
CALL_TIMEOUT_S: Final = 2.0  # of one read or write in all
REPLICA_TIMEOUT_S: Final = 0.6  # of one replica, before the next is asked
LOOK_TIMEOUT_S: Final = 0.5  # for the word of each server about what it is
SLOW_S: Final = 0.3  # when no call to the primary ends for so long, we look around, again and again
LOOK_PAUSE_S: Final = 1.0  # between two looks while all is well
LOOK_AGAIN_S: Final = 0.1  # between two looks while there is no primary
LAG_S_MAX: Final = 1.0  # what a replica may lack
RETRIES: Final = 3  # of a transaction that two others made impossible
MADE_IMPOSSIBLE: Final = frozenset(("40001", "40P01"))  # serialization_failure, deadlock_detected

_LOOK: Final = (
    "SELECT pg_is_in_recovery(),"
    " CASE WHEN pg_is_in_recovery() THEN '' ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END,"
    " (CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_replay_lsn(), '0/0')"
    " ELSE pg_current_wal_lsn() END)::text"
)
_REPLAYED: Final = "SELECT coalesce(pg_last_wal_replay_lsn(), pg_current_wal_lsn())::text"
# A gateway that is frozen in the middle of a write would hold up all others. The warning must reach us.
_BEGIN: Final = (
    "BEGIN; SET LOCAL statement_timeout = 2000; SET LOCAL idle_in_transaction_session_timeout = 2000;"
    " SET LOCAL client_min_messages = warning"
)
_END: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
    " WHERE pid = ANY (%s) AND application_name = 'portcullis' AND usename = current_user"
)
_COMMIT: Final = "COMMIT; SELECT pg_current_wal_lsn()::text, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)"


class PostgresDatabase:
    """The tables are made, or brought forward, before the first call, unless `migrate` is False."""

    shared = "network"

    def __init__(
        self,
        url: str,
        primary: PoolLimits = POSTGRES_PRIMARY,
        replica: PoolLimits = POSTGRES_REPLICA,
        *,
        migrate: bool = True,
    ) -> None:
        """`url` names all servers, comma between: `postgresql://user@one:5432,two:5432/database`."""
        self._urls = _each(url)
        self._name = ",".join(_place(each) for each in self._urls)
        self._limits = primary, replica
        self._migrate = migrate
        self._compiler = Compiler(_dialect, _pyformat)
        self._scouts = {each: PostgresServer(each, _nothing, _SCOUT) for each in self._urls}
        self._primary: tuple[str, PostgresServer] | None = None
        self._replicas: dict[str, PostgresServer] = {}
        self._replayed: dict[str, int] = {}  # by each replica, at least
        self._timeline = ""  # the highest that was ever seen; hexadecimal of one length
        self._samples: deque[tuple[float, int]] = deque(maxlen=64)  # where the primary was, and when that was seen
        self._written = 0  # where it was after our last write
        self._opened = False
        self._opening = asyncio.Lock()
        self._looking: asyncio.Task[None] | None = None
        self._looked_s = float("-inf")
        self._doubted = True
        self._turn = itertools.count()
        self._lag = 0
        self._calls = 0  # to the primary, under way
        self._finished = 0
        self._wondering: asyncio.TimerHandle | None = None
        self._closed = False
        self._users = 1
        self._retired: set[asyncio.Task[None]] = set()

    def use(self) -> bool:
        """Count one more store that uses it, and closes it once; False where it is closed already."""
        if self._closed:
            return False
        self._users += 1
        return True

    @property
    def revision(self) -> Revision:
        return _spelled(self._written) if self._written else ORIGIN

    @property
    def lag_bytes(self) -> int:
        """What the replica that is most behind lacked of the primary's log, at the last look at both."""
        return self._lag

    async def read(self, program: Callable[[], Program[T]], after: Revision = "") -> T:
        wanted = _parsed(after)
        await self._open()
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._read(program, wanted)
        except TimeoutError as error:
            raise StoreUnavailable(f"`{self._name}` did not answer within {CALL_TIMEOUT_S:g} s") from error

    async def write(self, program: Callable[[], Program[T]], *, durable: bool = True) -> T:
        await self._open()
        backends: set[int] = set()  # that work for us
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                for _ in range(RETRIES):
                    outcome = await self._on_primary(lambda db: self._write(db, program, backends))
                    if not isinstance(outcome, _Impossible):
                        return _result(outcome)
        except TimeoutError as error:
            self._doubted = True
            raise StoreUnavailable(f"`{self._name}` did not answer within {CALL_TIMEOUT_S:g} s") from error
        finally:
            self._end(backends)
        raise StoreUnavailable(f"`{self._name}` could not order what was written at once")

    def pools(self) -> Sequence[PoolState]:
        states = [server.pool("postgres_replica") for server in self._replicas.values()]
        if self._primary is not None:
            states.insert(0, self._primary[1].pool("postgres_primary"))
        return states

    async def close(self) -> None:
        """Close all connections, with the last of those who use them; never raises."""
        self._users -= 1
        if self._users:
            return
        self._closed = True
        if self._wondering is not None:
            self._wondering.cancel()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait({self._looking})
        servers = [*self._scouts.values(), *self._replicas.values()]
        if self._primary is not None:
            servers.append(self._primary[1])
        await asyncio.gather(*(server.close() for server in servers))
        if self._retired:
            await asyncio.wait(self._retired)

    # -- reading

    async def _read(self, program: Callable[[], Program[T]], wanted: int) -> T:
        await self._keep_looking(patient=not self._replicas)
        wanted = max(wanted, self._written, self._floor())
        replicas = list(self._replicas.items())
        start = next(self._turn) % max(1, len(replicas))
        for url, server in replicas[start:] + replicas[:start]:
            with suppress(StoreUnavailable):
                work = partial(self._read_replica, url=url, wanted=wanted, program=program)
                outcome = await server.call(work, REPLICA_TIMEOUT_S)
                if not isinstance(outcome, _Behind):
                    return _result(outcome)
        return _result(await self._on_primary(lambda db: self._drive(db, program)))

    async def _read_replica(
        self, db: AsyncConnection[Any], *, url: str, wanted: int, program: Callable[[], Program[T]]
    ) -> T | _Raised | _Behind:
        if self._replayed.get(url, 0) < wanted:
            row = await (await db.execute(_REPLAYED)).fetchone()
            self._replayed[url] = _position(row[0]) if row else 0
            if self._replayed[url] < wanted:
                return _Behind()
        return await self._drive(db, program)

    def _floor(self) -> int:
        """Return where the primary was LAG_S_MAX ago."""
        now_s = asyncio.get_running_loop().time()
        while len(self._samples) > 1 and self._samples[1][0] <= now_s - LAG_S_MAX:
            self._samples.popleft()
        if self._samples and self._samples[0][0] <= now_s - LAG_S_MAX:
            return self._samples[0][1]
        return 0

    # -- writing

    async def _on_primary(self, work: Work[T]) -> T:
        await self._keep_looking()
        if self._primary is None:
            raise StoreUnavailable(f"none of `{self._name}` is a primary")
        self._calls += 1
        self._wonder()
        try:
            return await self._primary[1].call(work)
        except StoreUnavailable:
            self._doubted = True
            raise
        finally:
            self._calls -= 1
            self._finished += 1

    async def _write(
        self, db: AsyncConnection[Any], program: Callable[[], Program[T]], backends: set[int]
    ) -> T | _Raised | _Impossible:
        outcome: T | _Raised | _Impossible
        backends.add(db.info.backend_pid)
        outcome = await self._transact(db, program)
        backends.discard(db.info.backend_pid)
        return outcome

    async def _transact(self, db: AsyncConnection[Any], program: Callable[[], Program[T]]) -> T | _Raised | _Impossible:
        from psycopg import Error

        await db.execute(_BEGIN, prepare=False)
        try:
            outcome = await self._drive(db, program)
            if isinstance(outcome, _Raised):
                await db.execute("ROLLBACK")
                return outcome
            position, timeline = await _commit(db)
        except Error as error:
            if error.sqlstate in MADE_IMPOSSIBLE:
                await db.execute("ROLLBACK")
                return _Impossible()
            raise
        if timeline < self._timeline:
            raise StoreUnavailable(f"`{self._name}` let a deposed primary commit; it does not count")
        self._written = max(self._written, position)
        return outcome

    def _end(self, backends: set[int]) -> None:
        """Have the server end what still works for us: one that waits for its replica would do so for ever.

        Neither a timeout of the server's nor the end of our connection ends that wait; each would hold one of its
        connections.
        """
        if not backends or self._primary is None or self._closed:
            return
        scout = self._scouts[self._primary[0]]

        async def end(db: AsyncConnection[Any]) -> None:
            await db.execute(_END, (list(backends),))

        async def run() -> None:
            with suppress(StoreUnavailable):
                await scout.call(end, LOOK_TIMEOUT_S)

        task = asyncio.create_task(run())
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)

    async def _drive(self, db: AsyncConnection[Any], program: Callable[[], Program[T]]) -> T | _Raised:
        running = program()
        try:
            asked = next(running)
            while True:
                text, parameters = self._compiler.compile(asked)
                cursor = await db.execute(text.encode(), parameters)
                rows = await cursor.fetchall() if cursor.description else []
                asked = running.send(Answer(rows, max(cursor.rowcount, 0)))
        except StopIteration as stop:
            result: T = stop.value
            return result
        except (GatewayError, ValueError) as error:  # the program's own: the connection is as good as before
            return _Raised(error)

    # -- who is what

    async def _open(self) -> None:
        if not self._opened:
            async with self._opening:
                if not self._opened:
                    try:
                        async with asyncio.timeout(OPEN_TIMEOUT_S):
                            await self._prepare()
                    except TimeoutError as error:
                        raise StoreUnavailable(f"the tables of `{self._name}` were not ready in time") from error
                    self._opened = True

    async def _prepare(self) -> None:
        """See to it that the tables are those that this code works with."""
        try:
            version = await self._on_primary(_version)
        except StoreUnavailable:
            # Started while the primary is away: what replicas show is served, where the tables are there already.
            for server in list(self._replicas.values()):
                with suppress(StoreUnavailable):
                    if not is_old(await server.call(_version, REPLICA_TIMEOUT_S)):
                        return
            raise
        if not is_old(version):
            return
        if not self._migrate:
            raise StoreUnavailable(f"the tables of `{self._name}` are of revision {version or 'none'}; migrate them")
        assert self._primary is not None
        await asyncio.to_thread(upgrade, self._primary[0])

    async def _keep_looking(self, *, patient: bool = True) -> None:
        """Know the primary: look now where it is in doubt, and in the background where the last look is old.

        Not `patient`: do not wait for the look; a replica may do.
        """
        if self._closed:
            raise StoreUnavailable(f"`{self._name}` is closed")
        now_s = asyncio.get_running_loop().time()
        pause_s = LOOK_PAUSE_S if self._primary is not None and not self._doubted else LOOK_AGAIN_S
        if now_s >= self._looked_s + pause_s:
            self._begin_to_look()
        if patient and (self._primary is None or self._doubted) and self._looking is not None:
            await asyncio.shield(self._looking)

    def _wonder(self) -> None:
        """Look around while calls are under way and none ends: where another server took over, they are ended."""
        if self._wondering is None and not self._closed:
            finished = self._finished

            def look() -> None:
                self._wondering = None
                if self._calls:
                    if self._finished == finished:
                        self._begin_to_look()
                    self._wonder()

            self._wondering = asyncio.get_running_loop().call_later(SLOW_S, look)

    def _begin_to_look(self) -> None:
        if not self._closed and (self._looking is None or self._looking.done()):
            self._looking = asyncio.create_task(self._look())

    async def _look(self) -> None:
        self._looked_s = asyncio.get_running_loop().time()
        words = await asyncio.gather(*(self._ask(url) for url in self._urls))
        now_s = asyncio.get_running_loop().time()
        primaries = [(said[1], url, said[2]) for url, said in words if said is not None and not said[0]]
        if primaries:
            timeline, url, position = max(primaries)
            if timeline >= self._timeline:
                self._timeline = timeline
                self._samples.append((now_s, position))
                self._appoint(url)
                self._doubted = False
            else:
                self._depose()  # it does not know yet that another took over
        for url, said in words:
            if said is not None and said[0]:
                self._replayed[url] = said[2]
                if url not in self._replicas and (self._primary is None or self._primary[0] != url):
                    self._replicas[url] = PostgresServer(url, _nothing, self._limits[1])
            elif url in self._replicas and said is not None:
                self._retire(self._replicas.pop(url))
        if primaries:
            position = max(primaries)[2]
            self._lag = max((position - said[2] for _, said in words if said is not None and said[0]), default=0)
            self._lag = max(0, self._lag)  # it may have replayed more since the primary was asked
        # One that does not answer may be slow only; whoever calls finds out. That it became a replica is known.
        if not primaries and self._primary is not None and dict(words)[self._primary[0]] is not None:
            self._depose()

    async def _ask(self, url: str) -> tuple[str, tuple[bool, str, int] | None]:
        async def look(db: AsyncConnection[Any]) -> tuple[bool, str, int]:
            row = await (await db.execute(_LOOK)).fetchone()
            assert row is not None
            return bool(row[0]), str(row[1]), _position(row[2])

        try:
            said = await self._scouts[url].call(look, LOOK_TIMEOUT_S)
        except StoreUnavailable:
            return url, None
        if not said[0] and said[1] > self._timeline > "":
            # It took over: nobody waits any more for the answers of others, one of which may be stopped. At the very
            # first look all are waited for: one of several primaries may be deposed.
            self._timeline, self._doubted = said[1], False
            self._appoint(url)
        return url, said

    def _appoint(self, url: str) -> None:
        if self._primary is not None and self._primary[0] == url:
            return
        self._depose()
        if url in self._replicas:
            self._retire(self._replicas.pop(url))
        self._primary = url, PostgresServer(url, _nothing, self._limits[0])

    def _depose(self) -> None:
        if self._primary is not None:
            self._primary[1].abort()
            self._retire(self._primary[1])
            self._primary = None

    def _retire(self, server: PostgresServer) -> None:
        """Close a server's connections without waiting for it; calls that run on them fail."""
        task = asyncio.create_task(server.close())
        self._retired.add(task)
        task.add_done_callback(self._retired.discard)


_SCOUT: Final = PoolLimits(0, 2, 30.0, connect_timeout_s=LOOK_TIMEOUT_S, call_timeout_s=LOOK_TIMEOUT_S)


class _Behind:
    """A replica has not replayed yet what the read has to show."""


class _Impossible:
    """Two transactions excluded each other; run again."""


class _Raised:
    """What a program raised."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _result(outcome: T | _Raised) -> T:
    if isinstance(outcome, _Raised):
        raise outcome.error
    return outcome


async def _nothing(_: AsyncConnection[Any]) -> None:
    """Prepare nothing."""


async def _commit(db: AsyncConnection[Any]) -> tuple[int, str]:
    """Commit; return where the log is then, and its timeline. Raises StoreUnavailable for what is not certain.

    Where the wait for a replica is cancelled, the server says COMMIT and warns that "the transaction has already
    committed locally, but might not have been replicated to the standby": the one trace of it.
    """
    warnings: list[str] = []

    def warned(diagnostic: Any) -> None:
        if diagnostic.severity_nonlocalized == "WARNING":
            warnings.append(diagnostic.sqlstate or "")

    db.add_notice_handler(warned)
    try:
        cursor = await db.execute(_COMMIT, prepare=False)
        if cursor.statusmessage != "COMMIT":
            raise StoreUnavailable("the transaction was rolled back by the server")
        cursor.nextset()
        row = await cursor.fetchone()
    finally:
        db.remove_notice_handler(warned)
    if warnings or row is None:
        raise StoreUnavailable("the commit did not wait for a replica: it may be lost")
    return _position(row[0]), str(row[1])


async def _version(db: AsyncConnection[Any]) -> str | None:
    row = await (await db.execute("SELECT to_regclass(%s) IS NOT NULL", (VERSION_TABLE,))).fetchone()
    if row is None or not row[0]:
        return None
    row = await (await db.execute(f"SELECT version_num FROM {VERSION_TABLE}")).fetchone()  # noqa: S608 - a constant
    return str(row[0]) if row else None


def _each(url: str) -> list[str]:
    """Return one URL for each server. Raises ValueError for what is no URL of PostgreSQL."""
    parts = urlsplit(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise ValueError(f"unknown kind of store `{parts.scheme}`")
    return each_server(url)


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.hostname or ''}:{parts.port or 5432}"


def _position(lsn: str) -> int:
    """Return a place in the write-ahead log as a number. Raises ValueError."""
    high, _, low = lsn.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def _spelled(position: int) -> Revision:
    return f"lsn:{position >> 32:X}/{position & 0xFFFFFFFF:X}"


def _parsed(revision: Revision) -> int:
    if revision == ORIGIN:
        return 0
    kind, _, lsn = revision.partition(":")
    if kind != "lsn" or not re.fullmatch(r"[0-9A-F]{1,8}/[0-9A-F]{1,8}", lsn):
        raise ValueError("not a revision of this database")
    return _position(lsn)


def _pyformat(text: str) -> str:
    """Turn `:name` into what psycopg takes."""
    return re.sub(r"(?<!:):([a-z_][a-z_0-9]*)", r"%(\1)s", text.replace("%", "%%"))


def _dialect() -> Dialect:
    from sqlalchemy.dialects.postgresql import psycopg

    made: Dialect = psycopg.dialect()  # type: ignore[no-untyped-call]
    return made
