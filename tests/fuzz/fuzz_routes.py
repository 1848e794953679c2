"""Paths and routes: the canonical form stays itself; on a share of the inputs it and its route are the oracle's.

An input is two bytes that choose routes, then path, host and method with `|` between (no path holds a plain `|`).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable

from gateway._native import routes
from tests.oracle import routes as oracle

WORDS = (
    b"%2e", b"%2f", b"%5c", b"%25", b"%3b", b"%00", b"%c3%a9", b"%ed%a0%80", b"/../", b"/./", b"//", b";a=b", b"\\",
    b"%", b"|api.test|", b"|a.b.test.|", b"|GET", b"|HEAD", b"/orders/", b"/users/1/posts", b"/files/a/b/c", b"/a" * 70,
)  # fmt: skip
LENGTH_MAX = 4200
ORACLE_SHARE = 4
POOL = (
    oracle.Pattern("/", "", ()),
    oracle.Pattern("/orders", "", ("GET", "POST")),
    oracle.Pattern("/orders/{id}", "", ("GET",)),
    oracle.Pattern("/orders/new", "", ()),
    oracle.Pattern("/users/{user}/posts", "", ()),
    oracle.Pattern("/users/{user}/{part}", "", ("PUT",)),
    oracle.Pattern("/files/{*rest}", "", ()),
    oracle.Pattern("/files/a/{name}", "", ("GET",)),
    oracle.Pattern("/{*all}", "", ("DELETE",)),
    oracle.Pattern("/orders", "api.test", ()),
    oracle.Pattern("/{*all}", "api.test", ()),
    oracle.Pattern("/{a}/{b}/{c}", "*.test", ()),
    oracle.Pattern("/x/{b}", "*.b.test", ("GET",)),
    oracle.Pattern("/{*all}", "*.b.test", ()),
)
SNAPSHOTS_MAX = 64
_snapshots: dict[int, tuple[tuple[oracle.Pattern, ...], routes.RouteSnapshot]] = {}


def snapshot_of(choice: int) -> tuple[tuple[oracle.Pattern, ...], routes.RouteSnapshot]:
    """Return the routes whose bit is set in `choice`, and their tree."""
    choice %= 1 << len(POOL)
    if choice not in _snapshots:
        if len(_snapshots) >= SNAPSHOTS_MAX:
            _snapshots.clear()
        patterns = tuple(pattern for bit, pattern in enumerate(POOL) if choice >> bit & 1)
        made = [routes.Route(p.path, index=i, host=p.host, methods=p.methods) for i, p in enumerate(patterns)]
        _snapshots[choice] = patterns, routes.RouteSnapshot(made)
    return _snapshots[choice]


def seeds() -> Iterable[bytes]:
    for path in ("/", "/orders/7", "/users/%C3%A9/posts", "/files/a/b", "/a%2fb", "/a/../b", "/x/y;z", "/a//b", "/%41"):
        for rest in ("||GET", "|api.test|POST", "|q.b.test|GET", "|Z.TEST.|HEAD"):
            yield b"\xff\xff" + (path + rest).encode()


def target(data: bytes) -> object:
    path, _, rest = data[2:].partition(b"|")
    host, _, method = rest.partition(b"|")
    with_oracle = zlib.crc32(data) % ORACLE_SHARE == 0
    try:
        canonical = routes.canonical_path(path)
    except routes.PathRefused as refusal:
        assert not with_oracle or (refusal.offset, refusal.code) == oracle.canonical_path(path)
        return refusal.code
    assert not with_oracle or canonical == oracle.canonical_path(path)
    assert routes.canonical_path(canonical) == canonical
    patterns, snapshot = snapshot_of(int.from_bytes(data[:2], "big"))
    found = snapshot.find(host, canonical, method)
    if not with_oracle:
        return found if isinstance(found, str) else (found[0].name, found[0].host)
    segments = canonical.count(b"/")
    if len(host) > routes.LIMITS["ROUTE_HOST_BYTES_MAX"]:
        host = b"-"  # the tree takes it for no route's host; the doors refuse it before
    if segments > routes.LIMITS["ROUTE_SEGMENTS_MAX"] or not host.isascii() or not method.isascii():
        return "unusual", isinstance(found, str)
    slow = oracle.find(patterns, host.decode(), canonical.decode(), method.decode())
    if isinstance(found, str):
        assert found == slow
        return found
    assert (found[0].index, found[1]) == slow
    return found[0].name, found[0].host
