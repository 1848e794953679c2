"""Programs and people that prove themselves by a bearer token: one of the config, or an access token of an issuer."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from starlette.requests import Request

from gateway.types import Clock, Secret

Judge = Callable[[bytes], Awaitable[tuple[Mapping[str, Any] | None, str]]]
"""Gives the claims of a valid access token and "ok", or None and the reason; EngineJudge's method."""

RETRYABLE: Final = frozenset({"keys_unavailable", "introspection_unavailable"})
FAILURES_APART_S: Final = 1.0  # between two notes of failures of one address
ADDRESSES_MAX: Final = 1000


class KnownTokens:
    """Who has which token of the config; compares in constant time."""

    def __init__(self, tokens: Mapping[str, Secret]) -> None:
        """`tokens` by the names of those that have them. Raises ValueError where two have the same."""
        self._tokens = {name: hashlib.sha256(token.reveal()).digest() for name, token in tokens.items()}
        if len(set(self._tokens.values())) != len(self._tokens):
            raise ValueError("two clients have the same token")

    def owner(self, token: str) -> str | None:
        """Give the name of who has a token; None: nobody."""
        given = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = None
        for name, expected in self._tokens.items():
            if hmac.compare_digest(given, expected):
                found = name
        return found


def bearer_token(request: Request) -> str | None:
    """Give the token of a request's Authorization header; None where it has none, or several."""
    headers = request.headers.getlist("authorization")
    if len(headers) != 1:
        return None
    scheme, _, token = headers[0].partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


async def judged(judge: Judge, token: str, issuers: frozenset[str]) -> tuple[Mapping[str, Any] | None, str]:
    """Give the claims of an access token of one of `issuers` and "ok", or None and the reason.

    A token that is bound to a key counts only with a proof of the key (RFC 9449 §7), which these endpoints do not take.
    """
    if not issuers:
        return None, "unknown"
    claims, reason = await judge(token.encode("utf-8", "surrogateescape"))
    if claims is None:
        return None, reason
    if claims.get("iss") not in issuers:
        return None, "issuer"
    return (None, "sender_constrained") if claims.get("cnf") else (claims, "ok")


def scopes_of(claims: Mapping[str, Any]) -> frozenset[str]:
    """Give the scopes of a token, by either claim that issuers use."""
    found = claims.get("scope", claims.get("scp", ""))
    return frozenset(found.split() if isinstance(found, str) else map(str, found))


class FailureNotes:
    """Says which failures to log in are noted in the audit log: one a second of an address, or it would be theirs."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._noted: OrderedDict[str, float] = OrderedDict()

    def is_due(self, address: str) -> bool:
        now_s = self._clock.monotonic_s()
        last_s = self._noted.get(address)
        if last_s is not None and now_s - last_s < FAILURES_APART_S:
            return False
        self._noted[address] = now_s
        self._noted.move_to_end(address)
        if len(self._noted) > ADDRESSES_MAX:
            self._noted.popitem(last=False)
        return True
