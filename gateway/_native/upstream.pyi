"""The proxy door's client side: requests framed anew, responses relayed as they come."""

import ssl
from asyncio import AbstractEventLoop, StreamReader, StreamWriter, Transport
from collections.abc import Awaitable, Callable, Generator, MutableMapping, Sequence
from contextvars import Context
from typing import Any, Final, Self

from typing_extensions import disjoint_base

FAULT_KINDS: Final[tuple[str, ...]]
"""All values of `UpstreamFault.kind`."""

class UpstreamFault(Exception):
    """Why a request could not be relayed.

    `kind`: `unreachable` (no connection), `timeout` (no answer, or it stopped), `protocol` (no HTTP/1.1, or cut off),
    `busy` (no connection came free), `client_gone` (nobody is there to answer), `body_too_large`, `body_timeout` (the
    client's body stopped), `bad_request` (cannot be framed in one way only). `started`: the response's start was handed
    to the server; what follows can only be cut, which every server does when the application returns or raises.
    """

    kind: str
    started: bool
    def __init__(self, kind: str, message: str = "", *, started: bool = False) -> None: ...

@disjoint_base
class Exchange:
    """One request and its response, for whoever awaits it; behaves like an asyncio future."""

    _asyncio_future_blocking: bool
    status: Final[int]
    """Of the response; 0 until it started."""

    def __new__(cls) -> Exchange: ...
    def __await__(self) -> Generator[Any]: ...
    def __iter__(self) -> Generator[Any]: ...
    def __next__(self) -> Self: ...
    def get_loop(self) -> AbstractEventLoop: ...
    def done(self) -> bool: ...
    def cancelled(self) -> bool: ...
    def result(self) -> None: ...
    def exception(self) -> BaseException | None: ...
    def add_done_callback(self, callback: Callable[[Exchange], object], *, context: Context | None = None) -> None: ...
    def remove_done_callback(self, callback: Callable[[Exchange], object]) -> int: ...
    def cancel(self, msg: object = None) -> bool:
        """Stop relaying: the upstream's connection is closed, the awaiter gets CancelledError."""

@disjoint_base
class UpstreamConnection:
    """One connection; an asyncio protocol. Owned by its pool."""

    def __new__(cls, pool: UpstreamPool) -> UpstreamConnection: ...
    def connection_made(self, transport: Transport) -> None: ...
    def data_received(self, data: bytes) -> None: ...
    def eof_received(self) -> bool: ...
    def connection_lost(self, error: Exception | None) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...

@disjoint_base
class UpstreamPool:
    """The connections to one upstream. One event loop a pool: the one that runs at the first request.

    Timeouts are counted in ticks of `tick_s`: late by at most one, never early. `body_bytes_max=0` is no bound;
    `host_header=None` keeps the client's Host; `via=b""` sends none (apps behind nginx's `gzip_proxied off` lose their
    compression by it); `forwarded=False` sends no `Forwarded` (RFC 7239) and passes a trusted peer's.
    """

    host: Final[str]
    port: Final[int]
    connections_max: Final[int]
    queue_max: Final[int]
    streams_max: Final[int]
    requests: Final[int]
    connects: Final[int]
    reuses: Final[int]
    retries: Final[int]
    faults: Final[int]
    draining: bool
    """Tell clients to close their connections after the response (`Connection: close`)."""

    def __new__(
        cls,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
        unix_path: str | None = None,
        connections_max: int = 256,
        queue_max: int = 1024,
        streams_max: int = 1024,
        connect_timeout_s: float = 2.0,
        response_timeout_s: float = 30.0,
        keepalive_s: float = 55.0,
        queue_timeout_s: float = 1.0,
        body_timeout_s: float = 30.0,
        stall_timeout_s: float = 60.0,
        expect_timeout_s: float = 1.0,
        body_bytes_max: int = 0,
        host_header: bytes | None = None,
        via: bytes = b"",
        forwarded: bool = True,
        tick_s: float = 0.25,
    ) -> UpstreamPool: ...
    def forward(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
        target: bytes,
        extra_headers: Sequence[tuple[bytes, bytes]] = (),
        drop: frozenset[bytes] | None = None,
        trusted: bool = False,
    ) -> Awaitable[None]:
        """Relay one ASGI http request and its response. Return an awaitable that raises UpstreamFault.

        `target`: path and query in the form that was judged. `extra_headers` come after the client's own; no header of
        the client with one of their names, or with a name in `drop`, in any case and with `_` for `-`, goes upstream.
        `drop` should be one and the same object each time (its names are compiled once). `trusted`: the peer is a proxy
        whose forwarding headers count (they are continued; everybody else's are replaced). Trailers are dropped both
        ways: ASGI servers of the day offer no way to pass them on. RFC 9110 §7.6, RFC 9112 §6.
        """

    def request_head(
        self,
        scope: MutableMapping[str, Any],
        target: bytes,
        extra_headers: Sequence[tuple[bytes, bytes]] = (),
        drop: frozenset[bytes] | None = None,
        trusted: bool = False,
    ) -> bytes:
        """Return the head that `forward` would send for a request without body (a handshake). Raises UpstreamFault."""

    async def open_stream(self, limit: int = 65536) -> tuple[StreamReader, StreamWriter]:
        """Open a connection for something else than HTTP requests, such as a WebSocket.

        At most `streams_max` at a time, beside `connections_max`. `close_stream` must be called in the end. Raises
        UpstreamFault: `unreachable`, `busy`.
        """

    def close_stream(self, writer: StreamWriter) -> None:
        """Close what `open_stream` gave; what is not written yet is thrown away."""

    async def aclose(self, grace_s: float = 0.0) -> None:
        """Close the pool: idle connections at once, others when their response is done or `grace_s` is over."""

    def tick(self) -> None:
        """Let one tick pass: idle connections age, deadlines come nearer. The pool's own timer calls this."""

    def stats(self) -> dict[str, int]:
        """Return counts: connections by state, requests waiting, and totals since the start."""
