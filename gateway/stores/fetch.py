"""One bounded request to another service: every way in which a peer can misbehave ends in `FetchFailed`, in time.

Peers are identity providers and sources of attributes. Only addresses that the configuration names, or that a
configured issuer's own metadata names, come here; nothing is ever fetched because a token says so (design §13.4).
"""

from __future__ import annotations

import asyncio
import importlib
import ipaddress
import ssl
import zlib
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, urljoin, urlsplit

import orjson

from gateway.errors import GatewayError
from gateway.types import Secret

if TYPE_CHECKING:
    import httpx2

Problem = Literal[
    "address",  # not https (nor loopback), or not an address at all
    "timeout",  # the whole request took longer than its deadline
    "unreachable",  # no connection
    "tls",  # no trusted TLS connection
    "broken",  # the connection broke off, or what came is not HTTP
    "status",  # an answer, but not 200
    "redirect",  # a redirect that may not be followed
    "too_large",  # more bytes than the cap, as sent or after decompression
    "encoding",  # compressed in a way that nobody asked for and that cannot be bounded
    "not_json",  # not a JSON object
    "issuer_mismatch",  # metadata that speaks for another issuer
    "no_jwks_uri",  # metadata without the address of a key set
    "unreadable",  # a file that cannot be read
    "not_a_key_set",  # a JSON object without a list of keys
    "empty",  # a key set without keys
    "too_many_keys",
    "not_an_answer",  # a JSON object, but no introspection response
    "no_usable_key",  # keys, but none that the configured algorithms can use
    "circuit_open",  # the peer failed so often that it was not asked
    "no_room",  # so much is under way that the peer was not asked
]

CONNECTIONS_MAX = 64  # of one fetcher, to all its peers together; more wait, within their deadline
KEEPALIVE_S = 30.0  # introspection and attributes are asked for often; key sets once an hour
CONNECT_SHARE = 0.45  # of the deadline, for the TCP connection and again for the TLS handshake
REDIRECTS_MAX = 3  # of those requests that may follow any
ENCODINGS = {"": 0, "identity": 0, "gzip": 31, "x-gzip": 31, "deflate": 47}  # zlib's wbits; 0 = as it is
LOOPBACK_DIRECT = ("all://127.0.0.1", "all://localhost", "all://[::1]")  # never through a proxy of the environment


class FetchFailed(GatewayError):
    """A peer gave no usable answer. `problem` says why in one stable word, `http_status` what it sent."""

    code = "fetch_failed"
    status = 503
    retry_after_s = 5.0

    def __init__(self, problem: Problem, message: str, http_status: int = 0) -> None:
        super().__init__(message)
        self.problem: Problem = problem
        self.http_status = http_status


def is_loopback(host: str) -> bool:
    """Say whether `host` is this machine by its name or address alone; nothing is resolved."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(url: str) -> SplitResult:
    """Return the parts of an address that may be fetched: https, or http to loopback; no user, no fragment.

    Raises FetchFailed with the problem "address".
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise FetchFailed("address", f"`{url}` is not an address") from error
    if not host or port == 0 or not url.isascii() or not url.isprintable() or any(c in url for c in ' \\"<>`{}'):
        raise FetchFailed("address", f"`{url}` is not an address")
    if parts.username is not None or parts.password is not None or "#" in url:
        raise FetchFailed("address", f"the address at `{host}` holds a user, a password or a fragment")
    if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(host)):
        raise FetchFailed("address", f"`{url}` is not https")
    return parts


def origin(parts: SplitResult) -> tuple[str, str, int]:
    """Return scheme, host and port, the default port filled in (RFC 6454 §4)."""
    return parts.scheme, parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class Fetcher:
    """GET and POST of JSON through one client that belongs to one event loop.

    The deadline is `asyncio.timeout` around everything: a per-read timeout never ends a peer that sends one byte a
    second. TLS certificates are always verified, against the system's trust store or `ssl_context`. Proxies of the
    environment (`HTTPS_PROXY`, `NO_PROXY`) are used, except towards loopback.
    """

    def __init__(self, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._ssl_context = ssl_context
        self._client: httpx2.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opening = asyncio.Lock()

    async def get_json(
        self,
        url: str,
        *,
        timeout_s: float,
        bytes_max: int,
        same_origin_redirects: bool = False,
        bearer: Secret | None = None,
    ) -> dict[str, Any]:
        """Return the JSON object at `url`, asked for with `bearer` as the credential. Raises FetchFailed.

        Redirects are refused, or with `same_origin_redirects` followed where scheme, host and port stay the same.
        """
        redirects = REDIRECTS_MAX if same_origin_redirects else 0
        client = await self.open()
        async with self._bounded(url, timeout_s):
            body = await self._send(
                client,
                "GET",
                url,
                timeout_s=timeout_s,
                bytes_max=bytes_max,
                redirects=redirects,
                headers=_authorization(bearer),
            )
            return _json_object(body, url)

    async def post_form(
        self,
        url: str,
        form: Mapping[str, str],
        *,
        basic: tuple[str, str] | None,
        timeout_s: float,
        bytes_max: int,
        created: bool = False,
    ) -> dict[str, Any]:
        """Return the JSON object that answers a posted form, with `basic` as name and password. Raises FetchFailed.

        `created`: 201 is a good answer, too (RFC 9126 §2.2).
        """
        client = await self.open()
        async with self._bounded(url, timeout_s):
            body = await self._send(
                client,
                "POST",
                url,
                timeout_s=timeout_s,
                bytes_max=bytes_max,
                redirects=0,
                form=form,
                basic=basic,
                statuses=(200, 201) if created else (200,),
            )
            return _json_object(body, url)

    async def post_json(
        self, url: str, body: bytes, *, bearer: Secret | None, timeout_s: float, bytes_max: int
    ) -> bytes:
        """Return what answers a posted JSON text, as it came, with `bearer` as the credential. Raises FetchFailed."""
        headers = {"content-type": "application/json", **_authorization(bearer)}
        client = await self.open()
        async with self._bounded(url, timeout_s):
            return await self._send(
                client,
                "POST",
                url,
                timeout_s=timeout_s,
                bytes_max=bytes_max,
                redirects=0,
                content=body,
                headers=headers,
            )

    async def post_notice(self, url: str, form: Mapping[str, str], *, timeout_s: float, bytes_max: int) -> None:
        """Post a form of which only whether it was taken matters. Raises FetchFailed."""
        client = await self.open()
        async with self._bounded(url, timeout_s):
            await self._send(
                client,
                "POST",
                url,
                timeout_s=timeout_s,
                bytes_max=bytes_max,
                redirects=0,
                form=form,
                statuses=(200, 204),
            )

    async def aclose(self) -> None:
        """Close all connections; a later request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def open(self) -> httpx2.AsyncClient:
        """Return the client, made on first use. Its import is our own start, and part of no peer's deadline."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError("a fetcher belongs to the event loop that first used it")
        async with self._opening:
            if self._client is None:
                self._client = await self._new_client()
            return self._client

    async def _new_client(self) -> httpx2.AsyncClient:
        # The import takes 100 ms; the loop has requests to answer meanwhile.
        await asyncio.to_thread(importlib.import_module, "httpx2")
        import httpx2

        verify = self._ssl_context or True
        limits = httpx2.Limits(
            max_connections=CONNECTIONS_MAX, max_keepalive_connections=CONNECTIONS_MAX, keepalive_expiry=KEEPALIVE_S
        )
        direct = httpx2.AsyncHTTPTransport(verify=verify, limits=limits, trust_env=False)
        return httpx2.AsyncClient(
            verify=verify,
            limits=limits,
            mounts=dict.fromkeys(LOOPBACK_DIRECT, direct),
            follow_redirects=False,
            headers={"accept": "application/json", "accept-encoding": "identity", "user-agent": "portcullis"},
            http2=False,
        )

    @asynccontextmanager
    async def _bounded(self, url: str, timeout_s: float) -> AsyncIterator[None]:
        """Hold the deadline over everything inside, and turn every fault of the driver into FetchFailed."""
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except FetchFailed:
            raise
        except TimeoutError as error:
            raise FetchFailed("timeout", f"no answer from `{_place(url)}` within {timeout_s:g} s") from error
        except Exception as error:  # the driver's own tree leaks others: h11, anyio, ssl
            raise FetchFailed(_problem_of(error), f"the request to `{_place(url)}` failed") from error

    async def _send(
        self,
        client: httpx2.AsyncClient,
        method: str,
        url: str,
        *,
        timeout_s: float,
        bytes_max: int,
        redirects: int,
        form: Mapping[str, str] | None = None,
        basic: tuple[str, str] | None = None,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        statuses: Collection[int] = (200,),
    ) -> bytes:
        first = origin(check_address(url))
        # `_bounded` holds the deadline that counts. Only connecting has one of the driver's as well: httpcore2 2.16
        # forgets its socket when a task is cancelled inside the TLS handshake, and closes it when it times out itself.
        waits = (timeout_s * CONNECT_SHARE, None, None, None)
        for _ in range(redirects + 1):
            client.cookies.clear()  # a peer must not fill memory, nor tell our requests apart
            async with client.stream(
                method, url, data=form, auth=basic, content=content, headers=headers, timeout=waits
            ) as response:
                if response.status_code in statuses:
                    return await _read(response, url, bytes_max)
                if not response.has_redirect_location:
                    problem = f"`{_place(url)}` answered {response.status_code}"
                    raise FetchFailed("status", problem, response.status_code)
                url = urljoin(url, response.headers["location"])
                if not redirects or origin(check_address(url)) != first:
                    raise FetchFailed("redirect", f"`{first[1]}` redirects elsewhere", response.status_code)
        raise FetchFailed("redirect", f"more than {redirects} redirects at `{first[1]}`")


async def _read(response: httpx2.Response, url: str, bytes_max: int) -> bytes:
    """Return the body, never holding more than the cap: neither as sent nor as decompressed."""
    window_bits = ENCODINGS.get(response.headers.get("content-encoding", "").strip().lower())
    if window_bits is None:
        raise FetchFailed("encoding", f"`{_place(url)}` sends an encoding that was not asked for")
    inflate = zlib.decompressobj(window_bits) if window_bits else None
    body = bytearray()
    received_bytes = 0
    async for piece in response.aiter_raw():
        received_bytes += len(piece)
        body += inflate.decompress(piece, bytes_max - len(body) + 1) if inflate else piece
        if max(received_bytes, len(body)) > bytes_max:
            raise FetchFailed("too_large", f"`{_place(url)}` sends more than {bytes_max} bytes")
    if inflate is not None and not inflate.eof:
        raise FetchFailed("broken", f"`{_place(url)}` breaks off inside compressed data")
    return bytes(body)


def _json_object(body: bytes, url: str) -> dict[str, Any]:
    # The media type is not looked at: key sets are served as text/plain, application/octet-stream and worse.
    try:
        document = orjson.loads(body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise FetchFailed("not_json", f"`{_place(url)}` does not answer with JSON") from error
    if not isinstance(document, dict):
        raise FetchFailed("not_json", f"`{_place(url)}` does not answer with a JSON object")
    return document


def _authorization(bearer: Secret | None) -> dict[str, str]:
    return {"authorization": f"Bearer {bearer.reveal().decode('ascii')}"} if bearer else {}


def _place(url: str) -> str:
    """Return the address for a message: without its query, which may hold what nobody should read in a log."""
    return url.partition("?")[0]


def _problem_of(error: BaseException) -> Problem:
    import httpx2

    if isinstance(error, httpx2.TimeoutException):
        return "timeout"
    cause: BaseException | None = error
    while cause is not None:
        # "Want read" is how a handshake that waits for its peer looks from inside.
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLWantReadError):
            return "tls"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.ConnectError | httpx2.ProxyError | OSError):
        return "unreachable"
    return "broken"
