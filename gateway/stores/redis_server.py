"""One Redis server, asked within hard deadlines.

It must not forget what it acknowledged: run it with `appendonly yes` and `maxmemory-policy noeviction`.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from gateway.errors import StoreUnavailable

if TYPE_CHECKING:
    from redis.asyncio import Redis

OPEN_TIMEOUT_S = 30.0  # the import of the driver, on a machine that has just started
CONNECT_TIMEOUT_S = 1.0  # TCP and TLS
CALL_TIMEOUT_S = 1.0  # one call in all: the driver's own timeouts do not end a peer that is stopped or drips
CONNECTIONS_MAX = 8
BLOCK_S_MAX = 1.0  # of one blocking read: a server that is stopped is noticed this late


class RedisServer:
    """The connections to one server, made on first use."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._name = f"{parts.scheme}://{parts.hostname or ''}:{parts.port or 6379}{parts.path}"  # no password
        self._url = url
        self._client: Redis | None = None
        self._opening = asyncio.Lock()
        self.suspect = False  # a call failed: what follows may be another server; for the store to reset

    async def open(self) -> Redis:
        """Return the client, made on first use; no server is asked."""
        async with self._opening, self.bounded(OPEN_TIMEOUT_S):
            if self._client is None:
                # The import takes 200 ms; the loop has requests to answer meanwhile.
                await asyncio.to_thread(importlib.import_module, "redis.asyncio")
                self._client = _new_client(self._url)
            return self._client

    @asynccontextmanager
    async def bounded(self, timeout_s: float) -> AsyncIterator[None]:
        """Hold a hard deadline over everything inside, and let no error of the driver pass."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except TimeoutError as error:
            self.suspect = True
            raise StoreUnavailable(f"`{self._name}` did not answer within {timeout_s:g} s") from error
        except Exception as error:  # redis-py lets AttributeError and others out of a connection that breaks
            self.suspect = True
            raise StoreUnavailable(f"`{self._name}` failed: {type(error).__name__}") from error

    async def close(self) -> None:
        """Close all connections; never raises."""
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    await client.aclose()


async def answer(value: Any) -> Any:
    """Await an answer; redis-py's types say that some may be there already."""
    return await cast(Awaitable[Any], value)


def _new_client(url: str) -> Redis:
    from redis.asyncio import BlockingConnectionPool, Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.maint_notifications import MaintNotificationsConfig

    # Whoever finds all connections busy waits for one, within the deadline that `bounded` holds.
    pool = BlockingConnectionPool.from_url(
        url,
        timeout=None,
        # `bounded` holds the deadline. With a socket_timeout, redis-py 8.1 writes through asyncio.wait_for, which on
        # Python 3.11 swallows a cancellation that comes when the write is done: ours, and that of asyncio.timeout.
        socket_timeout=None,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        socket_keepalive=True,
        max_connections=CONNECTIONS_MAX,
        retry=Retry(NoBackoff(), 0),  # whoever calls knows better when to come again
        decode_responses=False,
        maint_notifications_config=MaintNotificationsConfig(enabled=False),
    )
    return Redis.from_pool(pool)
