"""Tokens that are bound to a key, at the doors (RFC 9449 §7): a request passes with a proof that counts for it alone.

The hot path knows of the scheme DPoP no more than that Python must be asked. What comes back is the identity of this
one request; nothing of it is kept, and a proof is used up. Only tokens of our own issuer can be bound.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from gateway._native.front import PROVEN, Verdict
from gateway.errors import GatewayError
from gateway.flows.oauth import DPoPChecker, OAuthRefused
from gateway.flows.oauth.questions import key_of
from gateway.front.asgi import Scope
from gateway.resilience import Resilience
from gateway.tokens.own import OwnTokens

_log = logging.getLogger("portcullis.proofs")

_SCHEMES: Final[Mapping[str, str]] = {"ws": "http", "wss": "https"}  # a handshake is a request like any other


class DoorProofs:
    """Check the proofs of requests at the doors."""

    def __init__(self, tokens: OwnTokens, checker: DPoPChecker, resilience: Resilience) -> None:
        """`tokens`: judges as the doors do, with their scopes and headers, also what is bound to a key."""
        self._tokens = tokens
        self._checker = checker
        self._resilience = resilience

    async def ask(self, verdict: Verdict, scope: Scope) -> str | None:
        """Put the identity of a request whose proof is good into its scope, and give None; or the reason to refuse.

        Never raises.
        """
        try:
            async with self._resilience.bulkheads.pool("token_validation"):
                return await self._ask(verdict, scope)
        except OAuthRefused as refused:
            _log.debug("a proof was refused: %s", refused.reason)
            return "sender_constrained"
        except GatewayError as error:
            _log.warning("a proof could not be checked: %s: %s", error.code, error)
            return "introspection_unavailable"

    async def _ask(self, verdict: Verdict, scope: Scope) -> str | None:
        identity, claims, reason = self._tokens.identify(verdict.token.decode("ascii", "replace"))
        if identity is None:
            return reason
        jkt = key_of(claims)
        if not jkt:
            return "sender_constrained"  # a bearer token under another scheme than its own
        proofs = _values(scope, b"dpop")
        token = verdict.token.decode("ascii")
        await self._checker.check(proofs, verdict.method, url_of(verdict, scope), token=token, jkt=jkt)
        scope[PROVEN] = identity
        return None


def url_of(verdict: Verdict, scope: Scope) -> str:
    """Return the address of the judged request as its client sees it, for `htu`; "" where that is not known.

    Proxies that are trusted say it, as for everything else that the doors judge.
    """
    if verdict.door == "nginx":
        return _one(scope, b"x-original-url")
    host, scheme = _one(scope, b"host"), verdict.scheme
    if verdict.door in ("forward", "proxy") and verdict.peer_trusted:
        host = _one(scope, b"x-forwarded-host") or host
        scheme = _one(scope, b"x-forwarded-proto") or scheme
    scheme = _SCHEMES.get(scheme, scheme)
    return f"{scheme}://{host}{quote(verdict.path)}"


def _values(scope: Scope, name: bytes) -> list[str]:
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    return [value.decode("latin-1") for key, value in headers if key.lower() == name]


def _one(scope: Scope, name: bytes) -> str:
    values = _values(scope, name)
    return values[0] if len(values) == 1 else ""
