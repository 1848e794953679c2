"""The engine's verdict on a token alone, with its claims: for introspection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from gateway._native import base64url
from gateway._native.front import Engine
from gateway._native.token import Identity
from gateway.front.asking import Learner
from gateway.observability.catalogue import ASK_KINDS


class EngineJudge:
    """Judge tokens as the doors do: same validator, same caches, same asks."""

    __slots__ = ("_engine", "_learner")

    def __init__(self, engine: Engine, learner: Learner) -> None:
        self._engine = engine
        self._learner = learner

    async def judge(self, token: bytes) -> tuple[Mapping[str, Any] | None, str]:
        """Give the claims of a valid token and "ok", or None and the reason. Never raises."""
        identity, reason = self._engine.tokens.judge_token(token)
        if reason in ASK_KINDS:
            refusal = await self._learner.ask(reason, -1, token)
            if refusal is not None:
                return None, refusal
            identity, reason = self._engine.tokens.judge_token(token)
            if reason == "opaque":
                return None, "introspection_unavailable"  # a reload came in between: what was learned is not here
        if identity is None:
            return None, reason
        return _claims_of(identity, token), "ok"


def _claims_of(identity: Identity, token: bytes) -> Mapping[str, Any]:
    """Give a judged token's claims; of an opaque one, what its issuer said that every token has."""
    segments = token.split(b".")
    if len(segments) == 3:
        claims: dict[str, Any] = orjson.loads(base64url.decode(segments[1]))
        return claims
    return {
        "sub": identity.subject.decode(),
        "iss": identity.issuer.decode(),
        "scope": b" ".join(identity.scopes).decode(),
        "exp": identity.expires_at_s,
    }
