"""Each compiled module alone, beside what a Python program would use in its place."""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from bench.front import FrontDoorAsked, forward_scope
from bench.material import Issuer
from bench.measure import Contestant, calling, looping, proved
from bench.verifiers import our_validator
from gateway._native import base64url, json_scan
from gateway._native.cache import ByteCache
from gateway._native.http1 import parse_response_head
from gateway._native.metrics import MetricsBlock
from gateway._native.routes import Route, RouteSnapshot, canonical_path
from gateway._native.verify import KeyHandle, raw_verify_loop
from gateway.config import RouteConfig

CLAIMS = (b"exp", b"iat", b"iss", b"aud", b"nbf", b"sub", b"scope", b"jti")
ROUTE_COUNT = 100
PATH = b"/api/resource-73/4711/lines"
ENCODED_PATH = b"/api/resource-73/%34711/lines"
HEAD = (
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 23 Nov 2026 12:00:00 GMT\r\nContent-Type: application/json"
    b"\r\nContent-Length: 31\r\nConnection: keep-alive\r\nCache-Control: no-store\r\nX-Request-Id: 6f1c9a0b2d3e\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Group:
    """Contestants that do the same work; the first is ours."""

    title: str
    contestants: tuple[Contestant, ...]


def _one(
    name: str, call: Callable[[Any], object], argument: object, expected: object, count: int, note: str = ""
) -> Contestant:
    return Contestant(name, calling(proved(call, [(argument, expected)]), [argument]), count, note)


def _base64url(tokens: list[bytes], count: int) -> Group:
    payload = tokens[0].split(b".")[1]
    padded = payload + b"=" * (-len(payload) % 4)
    expected = base64.urlsafe_b64decode(padded)
    title = f"base64url: the claims of a token, {len(payload)} characters"
    return Group(
        title,
        (
            _one(f"base64url.decode ({base64url.IMPLEMENTATION})", base64url.decode, payload, expected, count),
            _one("base64.urlsafe_b64decode", base64.urlsafe_b64decode, padded, expected, count, "lenient"),
        ),
    )


def _json_scan(tokens: list[bytes], count: int) -> Group:
    text = base64url.decode(tokens[0].split(b".")[1])
    subject = json.loads(text)["sub"].encode()
    found = json_scan.scan(text, CLAIMS)
    assert found[CLAIMS.index(b"sub")] == ("string", subject)
    run = calling(lambda data: json_scan.scan(data, CLAIMS), [text])  # type: ignore[arg-type]
    return Group(
        f"json_scan: {len(CLAIMS)} claims of {len(text)} bytes, with the Python objects for them",
        (
            Contestant("json_scan.scan", run, count, "refuses duplicate names"),
            _one("orjson.loads", orjson.loads, text, json.loads(text), count, "last duplicate wins"),
            _one("json.loads", json.loads, text, json.loads(text), count, "last duplicate wins"),
        ),
    )


def _cache(tokens: list[bytes], count: int) -> Group:
    cache = ByteCache(len(tokens) * 2)
    digests = {}
    for number, token in enumerate(tokens):
        cache.put(token, number)
        digests[hashlib.sha256(token).digest()] = number
    cases = [(token, number) for number, token in enumerate(tokens)]
    sha256 = hashlib.sha256
    by_digest: Callable[[Any], object] = lambda token: digests.get(sha256(token).digest())  # noqa: E731
    return Group(
        f"cache: a hit among {len(tokens):,} tokens in turn",
        (
            Contestant("ByteCache.get", calling(proved(cache.get, cases), tokens), count, "keyed SipHash, whole key"),  # type: ignore[arg-type]
            Contestant("dict by SHA-256", calling(proved(by_digest, cases), tokens), count),
        ),
    )


def _paths(count: int) -> Group:
    def with_library(raw: Any) -> bytes:
        return posixpath.normpath(unquote_to_bytes(raw))

    return Group(
        "routes: the canonical form of a path with one escape",
        (
            _one("canonical_path", canonical_path, ENCODED_PATH, PATH, count, "refuses what is ambiguous"),
            _one("unquote + normpath", with_library, ENCODED_PATH, PATH, count, "guesses"),
        ),
    )


def _routes(count: int) -> Group:
    from starlette.routing import Match
    from starlette.routing import Route as StarletteRoute

    snapshot = RouteSnapshot(
        [Route(f"/api/resource-{number}/{{id}}/lines", index=number) for number in range(ROUTE_COUNT)]
    )
    theirs = [
        StarletteRoute(f"/api/resource-{number}/{{id}}/lines", endpoint=lambda _: None) for number in range(ROUTE_COUNT)
    ]
    scope = {"type": "http", "path": PATH.decode(), "method": "GET", "root_path": "", "path_params": {}}

    def find(path: Any) -> object:
        found = snapshot.find(b"api.example.com", path, b"GET")
        return found if isinstance(found, str) else (found[0].index, found[1])

    def find_theirs(path: Any) -> object:
        for index, route in enumerate(theirs):
            match, more = route.matches(scope)
            if match is Match.FULL:
                return index, more["path_params"]
        return "no_route"

    def bare(rounds: int) -> None:
        assert snapshot.bench(b"api.example.com", PATH, b"GET", rounds)

    expected = (73, {"id": "4711"})
    return Group(
        f"routes: one of {ROUTE_COUNT}, with a parameter",
        (
            _one("RouteSnapshot.find", find, PATH, expected, count, "with a Python dict of the parameters"),
            Contestant("the same in C", looping(bare), count * 10),
            _one("Starlette's routes in turn", find_theirs, PATH, expected, count // 10),
        ),
    )


def _verify(issuer: Issuer, tokens: list[bytes], count: int) -> Group:
    assert issuer.spki is not None
    signed, _, encoded = tokens[0].rpartition(b".")
    signature = base64url.decode(encoded)
    spki = issuer.spki
    handle = KeyHandle(b"", "RS256", spki=spki)
    key = load_der_public_key(spki)
    assert isinstance(key, rsa.RSAPublicKey)
    pkcs1, sha256 = padding.PKCS1v15(), SHA256()
    return Group(
        "verify: one RS256 signature, 2048 bits",
        (
            _one("KeyHandle.verify", lambda data: handle.verify(data, signature), signed, True, count),
            Contestant(
                "bare libcrypto", looping(lambda n: raw_verify_loop("RS256", spki, signed, signature, n)), count
            ),
            _one("cryptography", lambda data: key.verify(signature, data, pkcs1, sha256), signed, None, count),
        ),
    )


def _metrics(count: int) -> Iterator[Group]:
    from prometheus_client import CollectorRegistry, Counter, Histogram

    block = MetricsBlock(bytearray(8 * 100), 0, 100)
    registry = CollectorRegistry()
    counter = Counter("a_total", "A.", ["door"], registry=registry).labels("proxy")
    histogram = Histogram("b_seconds", "B.", registry=registry)
    yield Group(
        "metrics: one event counted",
        (
            _one("MetricsBlock.add", lambda n: block.add(0, n), 1, None, count, "all processes see it"),
            _one("prometheus_client inc", counter.inc, 1, None, count, "one process only"),
        ),
    )
    yield Group(
        "metrics: one duration observed",
        (
            _one("MetricsBlock.observe_ns", lambda ns: block.observe_ns(1, ns), 15_000, None, count),
            _one("prometheus_client observe", histogram.observe, 15e-6, None, count),
        ),
    )


def _http1(count: int) -> Group:
    import h11

    def theirs(data: Any) -> int:
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("host", "a")]))
        connection.send(h11.EndOfMessage())
        connection.receive_data(data)
        event = connection.next_event()
        assert isinstance(event, h11.Response)
        return event.status_code

    def ours(data: Any) -> int:
        parsed = parse_response_head(data)
        assert parsed is not None
        return parsed[0]

    return Group(
        f"http1: an upstream's response head of {len(HEAD)} bytes",
        (
            _one("parse_response_head", ours, HEAD, 200, count),
            _one("h11", theirs, HEAD, 200, max(1, count // 20), "with its request"),
        ),
    )


def _front(issuer: Issuer, tokens: list[bytes], count: int) -> Group:
    door = FrontDoorAsked(our_validator(issuer), (RouteConfig(path="/api/{*rest}"),))
    scopes = [forward_scope(token) for token in tokens[:500]]
    for _ in range(2):
        assert {door.status(scope) for scope in scopes} == {200}
    broken = forward_scope(tokens[0][:-8])
    assert door.status(broken) == 401
    return Group(
        "front: forward-auth inside the server, from scope to answer",
        (
            Contestant("FrontDoor, same token", calling(door.call, scopes[:1]), count),
            Contestant("FrontDoor, 500 tokens in turn", calling(door.call, scopes), count),
            Contestant("FrontDoor, a malformed token", calling(door.call, [broken]), count, "401 with problem+json"),
        ),
    )


def groups(issuer: Issuer, tokens: list[bytes], count: int) -> Iterator[Group]:
    """Make all groups; `count` is how often cheap work runs in one round."""
    yield _base64url(tokens, count)
    yield _json_scan(tokens, count)
    yield _cache(tokens, count)
    yield _paths(count)
    yield _routes(count)
    yield _verify(issuer, tokens, max(1, count // 20))
    yield _http1(count)
    yield from _metrics(count)
    yield _front(issuer, tokens, count)
