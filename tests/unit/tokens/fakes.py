"""A clock that is moved by hand, and stand-ins for the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, cast

from gateway._native.verify import KeyHandle
from gateway.stores.fetch import Fetcher, FetchFailed, Problem
from gateway.tokens.keys import KeyFault, LoadedKeys


class MovedClock:
    """Time that passes only when told to; the wall clock can also be set apart."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.offset_s = 1_700_000_000.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s + self.offset_s

    def move(self, seconds: float) -> None:
        self.now_s += seconds


class FakeFetcher:
    """Answers from `documents` by address; an address without one fails with `problem`."""

    def __init__(self) -> None:
        self.documents: dict[str, dict[str, Any]] = {}
        self.problem: Problem = "unreachable"
        self.asked: list[str] = []
        self.gate: asyncio.Event | None = None

    @property
    def as_fetcher(self) -> Fetcher:
        return cast(Fetcher, self)

    async def open(self) -> None:
        pass

    async def get_json(
        self, url: str, *, timeout_s: float, bytes_max: int, same_origin_redirects: bool = False
    ) -> dict[str, Any]:
        self.asked.append(url)
        if self.gate is not None:
            await self.gate.wait()
        if url not in self.documents:
            raise FetchFailed(self.problem, f"`{url}` is down", 404 if self.problem == "status" else 0)
        return self.documents[url]


class FakeKey:
    """A key by name and material; the material is what its JWK says under "x"."""

    def __init__(self, kid: bytes, material: str) -> None:
        self.kid = kid
        self.material = material
        self.algorithm = "ES256"

    def __repr__(self) -> str:
        return f"{self.kid.decode()}={self.material}"


def fake_load_jwks(
    document: Mapping[str, Any], algorithms: Collection[str], previous: Iterable[KeyHandle] = ()
) -> LoadedKeys:
    """Load every key that has "x"; one without is a fault. Unchanged keys keep their object."""
    known = {(key.kid, cast(FakeKey, key).material): key for key in previous}
    handles, faults = [], []
    for jwk in document["keys"]:
        kid = jwk.get("kid", "").encode()
        if "x" in jwk:
            handles.append(known.get((kid, jwk["x"]), cast(KeyHandle, FakeKey(kid, jwk["x"]))))
        else:
            faults.append(KeyFault(kid.decode(), "has no x"))
    return LoadedKeys(tuple(handles), tuple(faults))


def key_set(**materials: str) -> dict[str, Any]:
    """Make a key set for `fake_load_jwks`: kid = material."""
    return {"keys": [{"kty": "EC", "kid": kid, "x": material} for kid, material in materials.items()]}


def middle(low: float, high: float) -> float:
    """Jitter without chance."""
    return (low + high) / 2


Jitter = Callable[[float, float], float]
