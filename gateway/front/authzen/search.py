"""Search questions: candidates, decided one by one, a page at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gateway._native.uid import EntityUid
from gateway.front.authzen.mapping import Names, Trust, Unanswerable, ask
from gateway.front.authzen.messages import SearchQuestion
from gateway.front.authzen.paging import PageTokens, Position
from gateway.policy.engine import Request
from gateway.policy.incremental import Residual
from gateway.policy.search import Found, Lister


@dataclass(frozen=True, slots=True)
class SearchLimits:
    """How much is done for one page."""

    page: int
    candidates: int
    time_s: float


@dataclass(frozen=True, slots=True)
class Searcher:
    """Answers searches. Blocks for as long as `limits` allow: to be called beside the event loop."""

    names: Names
    tokens: PageTokens
    limits: SearchLimits

    def page(self, lister: Lister, question: SearchQuestion, client: str, trust: Trust) -> dict[str, Any]:
        """Give one page of results; `next_token` is "" on the last one. Raises BadRequest and EntitiesAway."""
        position = self.tokens.read(question, client)
        limit = question.limit or (self.limits.page if position is None else position.limit)
        after = None if position is None else position.after
        kinds = self.names.type_of(question.subject.type), self.names.type_of(question.resource.type)
        if kinds[0] is None or kinds[1] is None:
            return _page([], "")
        candidates, prepare, residual = self._plan(lister, question, (kinds[0], kinds[1]), trust, after)
        found = lister.find(
            candidates,
            prepare,
            limit=limit,
            count_max=self.limits.candidates,
            time_s=self.limits.time_s,
            residual=residual,
        )
        token = "" if found.resume is None else self.tokens.make(Position(found.resume, limit), question, client)
        return _page(_results(question, found), token)

    def _plan(
        self, lister: Lister, question: SearchQuestion, kinds: tuple[str, str], trust: Trust, after: str | None
    ) -> tuple[Iterator[EntityUid], Callable[[EntityUid], Request | None], Residual | None]:
        """Give who or what may be a result, how the request about each is made, and what decides it more quickly."""
        engine = lister.engine
        principal = EntityUid(kinds[0], question.subject.id)
        resource = EntityUid(kinds[1], question.resource.id)
        if question.action is None:

            def about_action(uid: EntityUid) -> Request:
                return ask(engine, uid, question, kinds=kinds, trust=trust).prepare(principal, uid, resource)

            return lister.actions(self.names.action_type, after=after), _lenient(about_action), None
        action = self.names.action_of(question.action)
        asked = ask(engine, action, question, kinds=kinds, trust=trust)
        if question.target == "subject":
            subjects = lister.entities("principal", kinds[0], action, resource, after=after)
            return subjects, _lenient(lambda uid: asked.prepare(uid, action, resource)), None
        residual = None
        if asked.overlays.get("subject"):
            resources = lister.entities("resource", kinds[1], action, principal, after=after)
        else:
            resources, residual = lister.resources(principal, action, kinds[1], after=after)
        return resources, _lenient(lambda uid: asked.prepare(principal, action, uid)), residual


def _lenient(prepare: Callable[[EntityUid], Request]) -> Callable[[EntityUid], Request | None]:
    """Leave out candidates about which there is no question; the single question would be denied."""

    def lenient(uid: EntityUid) -> Request | None:
        try:
            return prepare(uid)
        except Unanswerable:
            return None

    return lenient


def _results(question: SearchQuestion, found: Found) -> list[dict[str, str]]:
    if question.target == "action":
        return [{"name": uid.id} for uid in found.uids]
    kind = (question.subject if question.target == "subject" else question.resource).type
    return [{"type": kind, "id": uid.id} for uid in found.uids]


def _page(results: list[dict[str, str]], token: str) -> dict[str, Any]:
    return {"page": {"next_token": token, "count": len(results)}, "results": results}
