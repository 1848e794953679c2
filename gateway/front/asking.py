"""The only way from the hot path into Python: learn what was missing, then judge once more."""

from __future__ import annotations

from typing import Any, Final, NamedTuple, Protocol

from gateway._native.front import Engine, FrontDoor, Verdict
from gateway._native.uid import EntityUid
from gateway.front.asgi import Receive, Scope, Send

ASKS_MAX: Final = 6  # for one request: its opaque token, its issuer's keys, its key, and entities that lead to others


class Learned(NamedTuple):
    """What came of asking: `refusal` is None for "judge, for good", or the reason to refuse."""

    refusal: str | None
    fetched: bool  # entities were fetched, or should have been


class Learner(Protocol):
    """What can be asked when the hot path does not know a token."""

    async def ask(self, reason: str, issuer_index: int, token: bytes, engine: Engine | None = None) -> str | None:
        """Learn what is missing to judge `token`; give None for "judge again", or the reason to refuse.

        `reason` is `kid_unknown`, `opaque` or `keys_unavailable`. Ends within the deadlines of its dependencies. Where
        asking again soon would be in vain, `engine` is told to refuse by itself for a while.
        """


class SessionAsker(Protocol):
    """What can be asked when the hot path does not know a session."""

    async def ask(self, value: bytes) -> str | None:
        """Learn the session of a cookie's value; give None for "judge again", or the reason to refuse. Never raises."""


class ProofAsker(Protocol):
    """What can be asked when a token came under the scheme DPoP."""

    async def ask(self, verdict: Verdict, scope: Scope) -> str | None:
        """Check the proof of a request; give None for "judge again", or the reason to refuse. Never raises."""


class Fetcher(Protocol):
    """What can be asked when a decision rests on entities that are kept elsewhere."""

    async def fetch(
        self,
        principal: EntityUid,
        action: EntityUid,
        resource: EntityUid,
        context: dict[str, Any],
        overlays: dict[EntityUid, Any] | None,
    ) -> str | None:
        """Fetch what deciding the question needs; give None for "judge again", or the reason to refuse.

        `overlays`: what the token's claims define, as `Decider.prepare` takes it. Never raises; ends within its own
        budget of time.
        """


class Asking:
    """Answer a request that the hot path asked about. Never lets a request pass by itself: the engine judges again."""

    __slots__ = ("_fetcher", "_learner", "_proofs", "_sessions")

    def __init__(
        self,
        learner: Learner,
        fetcher: Fetcher | None = None,
        sessions: SessionAsker | None = None,
        proofs: ProofAsker | None = None,
    ) -> None:
        self._learner = learner
        self._fetcher = fetcher
        self._sessions = sessions
        self._proofs = proofs

    async def __call__(self, door: FrontDoor, verdict: Verdict, scope: Scope, receive: Receive, send: Send) -> None:
        learned = await self.learn(door, verdict, scope)
        await door.finish(scope, receive, send, learned.refusal, learned.fetched)

    async def learn(self, door: FrontDoor, verdict: Verdict, scope: Scope) -> Learned:
        """Learn all that is missing; then the door judges for good.

        What was learned may lead to the next question: the key of a token, then the entities that its subject needs. Of
        a token nothing is asked twice.
        """
        asked: set[str] = set()
        fetched = False
        for _ in range(ASKS_MAX):
            if verdict.away is None and verdict.reason in asked:
                break
            asked.add(verdict.reason)
            refusal = await self._ask(door.engine, verdict, scope)
            fetched = fetched or verdict.away is not None
            if refusal is not None:
                return Learned(refusal, fetched)
            verdict = door.judge_again(scope)
            if verdict.kind != "ask":
                break
        return Learned(None, fetched)

    async def _ask(self, engine: Engine, verdict: Verdict, scope: Scope) -> str | None:
        if verdict.away is None and verdict.by_proof:
            return "sender_constrained" if self._proofs is None else await self._proofs.ask(verdict, scope)
        if verdict.away is None and verdict.by_session:
            return "session_invalid" if self._sessions is None else await self._sessions.ask(verdict.token)
        if verdict.away is None:
            return await self._learner.ask(verdict.reason, verdict.issuer_index, verdict.token, engine)
        if self._fetcher is None:
            return verdict.reason
        return await self._fetcher.fetch(*verdict.away)
