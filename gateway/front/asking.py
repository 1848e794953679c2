"""The only way from the hot path into Python: learn what was missing, then judge once more."""

from __future__ import annotations

from typing import Protocol

from gateway._native.front import Engine, FrontDoor, Verdict
from gateway.front.asgi import Receive, Scope, Send


class Learner(Protocol):
    """What can be asked when the hot path does not know."""

    async def ask(self, reason: str, issuer_index: int, token: bytes, engine: Engine | None = None) -> str | None:
        """Learn what is missing to judge `token`; give None for "judge again", or the reason to refuse.

        `reason` is `kid_unknown`, `opaque` or `keys_unavailable`. Ends within the deadlines of its dependencies. Where
        asking again soon would be in vain, `engine` is told to refuse by itself for a while.
        """


class Asking:
    """Answer a request that the hot path asked about. Never lets a request pass by itself: the engine judges again."""

    __slots__ = ("_learner",)

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    async def __call__(self, door: FrontDoor, verdict: Verdict, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = await self._learner.ask(verdict.reason, verdict.issuer_index, verdict.token, door.engine)
        await door.finish(scope, receive, send, refusal)

    async def learn(self, verdict: Verdict) -> str | None:
        """Do the same for a listener that answers by itself (WebSocket): give None or the reason to refuse."""
        return await self._learner.ask(verdict.reason, verdict.issuer_index, verdict.token)
