"""One PostgreSQL server, asked within hard deadlines. Its driver, psycopg, is an extra of this package: `postgres`.

Neither the driver nor the kernel ends a call to a server that is frozen, and cancelling one politely asks that same
server to help. So each call runs in a task of its own; when its time is over the socket is shut down, which ends the
task at once, and the connection is never used again. What the call did by then is unknown.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

from gateway.errors import StoreUnavailable
from gateway.stores.pools import PoolLimits, PoolState

if TYPE_CHECKING:
    from psycopg import AsyncConnection

T = TypeVar("T")

OPEN_TIMEOUT_S = 30.0  # the import of the driver, on a machine that has just started
CONNECT_TIMEOUT_S = 1.0  # TCP, TLS and the log-in
CALL_TIMEOUT_S = 2.0  # one call in all, the wait for a connection included
PREPARE_FROM = 5  # a statement is prepared when it is run for the fifth time
FEW: Final = PoolLimits(0, 4, None, CONNECT_TIMEOUT_S, CALL_TIMEOUT_S)  # besides one that listens

Work = Callable[["AsyncConnection[Any]"], Awaitable[T]]


class PostgresServer:
    """A few connections to one database, made when they are needed, in autocommit mode."""

    def __init__(self, url: str, prepare: Work[None], limits: PoolLimits = FEW) -> None:
        """`prepare` is run once, on the first connection: it makes the tables."""
        parts = urlsplit(url)
        self._limits = limits
        self._name = f"{parts.scheme}://{parts.hostname or ''}:{parts.port or 5432}{parts.path}"  # no password
        self._url = url
        self._prepare = prepare
        self._prepared = False  # anew after each fault: the tables may be gone
        self._loaded = False
        self._preparing = asyncio.Lock()
        self._idle: list[tuple[AsyncConnection[Any], float]] = []  # and since when; the last one used comes last
        self._places = asyncio.Semaphore(limits.connections_max)
        self._busy = 0
        self._waiting = 0
        self._warming: asyncio.Task[None] | None = None
        self._pruning: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._active: set[AsyncConnection[Any]] = set()  # work for a call
        self._closed = False

    async def call(self, work: Work[T], timeout_s: float = CALL_TIMEOUT_S) -> T:
        """Run `work` on a connection, for `timeout_s` at most. Raises StoreUnavailable for whatever goes wrong."""
        await self._load_driver()
        try:
            async with asyncio.timeout(timeout_s):
                self._waiting += 1
                try:
                    await self._places.acquire()
                finally:
                    self._waiting -= 1
                self._busy += 1
                try:
                    return await self._run(work)
                finally:
                    self._busy -= 1
                    self._places.release()
        except TimeoutError as error:
            raise StoreUnavailable(f"`{self._name}` did not answer within {timeout_s:g} s") from error
        except StoreUnavailable:
            raise
        except Exception as error:
            self._prepared = False
            raise StoreUnavailable(f"`{self._name}` failed: {_reason(error)}") from error

    async def listen(self, channel: str, heard: Callable[[], None]) -> None:
        """Call `heard` when listening has begun and at each notification; on a connection of its own, until it fails.

        A server that is frozen is not noticed here. Raises StoreUnavailable.
        """
        await self._load_driver()
        connection: AsyncConnection[Any] | None = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                connection = await self._connect()
                await self._watched(connection, lambda db: db.execute(f"LISTEN {channel}"))
            heard()
            async for _ in connection.notifies():
                heard()
            raise ConnectionError("the connection has ended")
        except Exception as error:
            raise StoreUnavailable(f"`{self._name}` failed: {_reason(error)}") from error
        finally:
            if connection is not None:
                _abandon(connection)

    async def close(self) -> None:
        """Close all connections; never raises."""
        self._closed = True
        if self._pruning is not None:
            self._pruning.cancel()
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.wait({self._warming})
        idle, self._idle = self._idle, []
        for connection, _ in idle:
            _abandon(connection)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CALL_TIMEOUT_S)

    def abort(self) -> None:
        """Let every call that is under way fail at once: another server has taken over."""
        for connection in self._active:
            _shut(connection)

    def pool(self, store: str) -> PoolState:
        """Return how many connections there are; `store` is what they are called in the metrics."""
        open_count = self._busy + len(self._idle)
        server = urlsplit(self._url)
        name = f"{server.hostname or ''}:{server.port or 5432}"
        return PoolState(store, name, open_count, self._busy, self._waiting, self._limits.connections_max)

    async def _load_driver(self) -> None:
        if self._loaded:
            return
        try:
            # The import takes 200 ms; the loop has requests to answer meanwhile.
            await asyncio.wait_for(asyncio.to_thread(importlib.import_module, "psycopg"), OPEN_TIMEOUT_S)
        except TimeoutError as error:
            raise StoreUnavailable("the driver of PostgreSQL could not be loaded in time") from error
        except ImportError as error:
            raise StoreUnavailable(
                "PostgreSQL needs psycopg, which is not installed; remedy: pip install 'portcullis-gateway[postgres]'"
            ) from error
        self._loaded = True

    async def _run(self, work: Work[T]) -> T:
        connection: AsyncConnection[Any] | None = None
        while self._idle and (connection is None or connection.closed):
            connection, _ = self._idle.pop()
        if connection is None or connection.closed:
            connection = await self._connect()
        self._active.add(connection)
        try:
            if not self._prepared:
                async with self._preparing:
                    if not self._prepared:
                        await self._watched(connection, self._prepare)
                        self._prepared = True
            result = await self._watched(connection, work)
        except BaseException:
            _abandon(connection)
            raise
        finally:
            self._active.discard(connection)
        if self._closed or connection.closed:
            _abandon(connection)
        else:
            self._idle.append((connection, asyncio.get_running_loop().time()))
            self._keep_size()
        return result

    def _keep_size(self) -> None:
        """Open the connections that are kept at rest, once, and see to it that idle ones beyond them go."""
        if self._warming is None and self._limits.connections_min > 1:
            self._warming = asyncio.create_task(self._warm())
        if self._pruning is None and self._limits.idle_s_max is not None:
            self._pruning = asyncio.get_running_loop().call_later(self._limits.idle_s_max, self._prune)

    async def _warm(self) -> None:
        with suppress(Exception):
            while self._busy + len(self._idle) < self._limits.connections_min:
                connection = await self._connect()
                if self._closed:
                    _abandon(connection)
                    return
                # In front: those that were used of late are used first, so that the others can go.
                self._idle.insert(0, (connection, asyncio.get_running_loop().time()))

    def _prune(self) -> None:
        assert self._limits.idle_s_max is not None
        self._pruning = None
        now_s = asyncio.get_running_loop().time()
        while (
            self._idle
            and self._busy + len(self._idle) > self._limits.connections_min
            and self._idle[0][1] + self._limits.idle_s_max <= now_s
        ):
            _abandon(self._idle.pop(0)[0])
        if self._busy + len(self._idle) > self._limits.connections_min:
            oldest_s = self._idle[0][1] if self._idle else now_s
            delay_s = max(0.1, oldest_s + self._limits.idle_s_max - now_s)
            self._pruning = asyncio.get_running_loop().call_later(delay_s, self._prune)

    async def _watched(self, connection: AsyncConnection[Any], work: Work[T]) -> T:
        """Await `work` in a task of its own; who cancels this ends it by its socket."""

        abandoned = False

        async def run() -> T:
            done = False
            try:
                result = await work(connection)
                done = True
                return result
            finally:
                if abandoned or not done:
                    connection.pgconn.finish()  # here nobody waits for its socket any more

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            abandoned = True  # the answer may be there already, and the task succeed
            _shut(connection)
            raise

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has been told; an abandoned call has nobody to tell

    async def _connect(self) -> AsyncConnection[Any]:
        from psycopg import AsyncConnection

        async with asyncio.timeout(self._limits.connect_timeout_s):
            connection = await AsyncConnection.connect(
                self._url,
                autocommit=True,
                connect_timeout=2,  # the smallest there is; the deadline above is the one that counts
                application_name="portcullis",
                # Poolers between us and the server may not know prepared statements: they are to be asked for.
                prepare_threshold=PREPARE_FROM if self._limits.statements_max else None,
            )
        if self._limits.statements_max:
            connection.prepared_max = self._limits.statements_max
        return connection


def _shut(connection: AsyncConnection[Any]) -> None:
    """Shut the socket down, whatever the peer does: whoever waits for it wakes with an error."""
    with suppress(Exception):
        held = socket.fromfd(connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM)  # the family does not matter here
        try:
            held.shutdown(socket.SHUT_RDWR)
        finally:
            held.close()


def _abandon(connection: AsyncConnection[Any]) -> None:
    """Be done with a connection. One that is still in use is closed by whoever uses it, woken by its socket's end."""
    from psycopg.pq import TransactionStatus

    _shut(connection)
    with suppress(Exception):
        if connection.info.transaction_status != TransactionStatus.ACTIVE:
            connection.pgconn.finish()


def _reason(error: Exception) -> str:
    """Name a fault by its class and SQLSTATE; the driver's text may hold the connection's parameters."""
    code = getattr(error, "sqlstate", None)
    return f"{type(error).__name__} {code}" if code else type(error).__name__
