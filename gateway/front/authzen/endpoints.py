"""The decision API over HTTP: who may ask, what is read, what is answered. One snapshot of policies a request."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import BulkheadFullError, DeadlineExceededError, OverloadedError, StoreUnavailable
from gateway.front.authzen.batch import decide_batch
from gateway.front.authzen.evaluation import (
    Decision,
    as_named,
    decision_of,
    question_of,
    refused,
    unanswerable,
)
from gateway.front.authzen.mapping import Trust, Unanswerable
from gateway.front.authzen.messages import (
    AtLeast,
    BadRequest,
    Batch,
    Question,
    SearchQuestion,
    Target,
    parse_batch,
    parse_body,
    parse_question,
    parse_search,
)
from gateway.front.authzen.metadata import ENDPOINTS, METADATA_PATH, metadata_of
from gateway.front.authzen.search import Searcher
from gateway.front.clients import KnownClients, basic_credentials
from gateway.front.deciding import Deciding
from gateway.front.decisions import DecisionRecorder, DecisionSource
from gateway.front.refusals import refusal_of
from gateway.front.responses import ProblemResponse, json_response
from gateway.policy.decisions import Decided, Level
from gateway.policy.engine import Engine
from gateway.policy.handle import PolicyHandle, PolicySnapshot
from gateway.policy.plans import Question as PolicyQuestion
from gateway.policy.search import EntitiesAway, Lister
from gateway.stores.base import covers
from gateway.types import Clock, Secret

_log = logging.getLogger("portcullis.authzen")

PATHS: Final = (*ENDPOINTS.values(), METADATA_PATH)
WAIT_S: Final = 0.05  # for the revision that a caller asks for
REQUEST_ID_CHARACTERS_MAX: Final = 256
SEARCHES_MAX: Final = 4  # at once; they run beside the event loop
SEARCH_FETCHES_MAX: Final = 64  # for one page, each of all that a batch of candidates lacks
ATTRIBUTES_UNAVAILABLE: Final = "attributes_unavailable"
_NOBODY: Final = ""
_SOURCES: Final[dict[Level, DecisionSource]] = {"made": "resident", "fetched": "fetched", "l1": "l1", "l2": "l2"}


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request may ask for."""

    body_bytes: int
    body_timeout_s: float
    evaluations: int
    page_max: int


@dataclass(frozen=True, slots=True)
class Caller:
    """Who may ask: its secret, and whether its word counts about the parties it names."""

    secret: Secret
    trust: Trust


class Refused(Exception):
    """A request that is answered with a problem."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class DecisionApi:
    """Answers AuthZEN 1.0 requests by the policies that a handle holds."""

    def __init__(
        self,
        handle: PolicyHandle,
        searcher: Searcher,
        callers: Mapping[str, Caller],
        limits: Limits,
        *,
        clock: Clock,
        open_trust: Trust | None = None,
        base_url: str = "",
        refresh: Callable[[], Awaitable[None]] | None = None,
        deciding: Callable[[], Deciding | None] = lambda: None,
        recorder: DecisionRecorder | None = None,
        serving: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
        observe: Callable[[float], None] = lambda _elapsed_s: None,
    ) -> None:
        """`open_trust` is None where only `callers` may ask; `refresh` looks for newer policies right now.

        `deciding` gives what decides with entities that are kept elsewhere; None: the engine alone. `recorder` writes
        decisions down; None: nobody does. A request is answered within `serving()`: its pool, and its time.
        `observe` is told how long each decision took, in seconds.
        """
        self._handle = handle
        self._searcher = searcher
        self._names = searcher.names
        self._clients = KnownClients({name: caller.secret for name, caller in callers.items()})
        self._trust = {name: caller.trust for name, caller in callers.items()}
        self._open_trust = open_trust
        self._limits = limits
        self._clock = clock
        self._base_url = base_url
        self._refresh = refresh
        self._deciding = deciding
        self._recorder = recorder
        self._serving = serving
        self._observe = observe
        self._searches = asyncio.Semaphore(SEARCHES_MAX)
        self._lister: Lister | None = None

    def routes(self) -> list[Route]:
        """Give the routes of all endpoints."""
        answers: dict[str, Callable[[dict[str, Any], str, Trust], Awaitable[dict[str, Any]]]] = {
            "/access/v1/evaluation": self._evaluation,
            "/access/v1/evaluations": self._evaluations,
        }
        for target in ("subject", "resource", "action"):
            answers[f"/access/v1/search/{target}"] = self._searching(target)
        routes = [Route(path, self._endpoint(answer), methods=["POST"]) for path, answer in answers.items()]
        if self._base_url:
            routes.append(Route(METADATA_PATH, self._metadata, methods=["GET"]))
        return routes

    # --- what is answered

    async def _evaluation(self, data: dict[str, Any], client: str, trust: Trust) -> dict[str, Any]:
        question = parse_question(data)
        return (await self._decide(await self._snapshot(question.at_least), question, client, trust)).to_json()

    async def _evaluations(self, data: dict[str, Any], client: str, trust: Trust) -> dict[str, Any]:
        batch = parse_batch(data, items_max=self._limits.evaluations)
        snapshot = await self._snapshot(batch.at_least)
        if isinstance(batch, Question):
            return (await self._decide(snapshot, batch, client, trust)).to_json()
        await self._prefetch(snapshot, batch, trust)
        return await decide_batch(
            snapshot, batch, lambda question, pointer: self._decide(snapshot, question, client, trust, pointer=pointer)
        )

    async def _prefetch(self, snapshot: PolicySnapshot, batch: Batch, trust: Trust) -> None:
        """Fetch what the questions of a batch rest on, together: one after another they would wait for each other."""
        deciding = self._deciding()
        if deciding is None or deciding.prefetcher is None or snapshot.refusal:
            return
        questions = []
        for item in batch.items:
            if isinstance(item, Question):
                with suppress(BadRequest, Unanswerable):  # its own answer says why
                    questions.append(question_of(snapshot, self._names, item, trust, pointer=""))
        await deciding.prefetch(snapshot.engine, questions)

    async def _decide(
        self, snapshot: PolicySnapshot, question: Question, client: str, trust: Trust, *, pointer: str = ""
    ) -> Decision:
        """Answer one question, and have the answer written down where that is wanted. Raises BadRequest."""
        if self._recorder is None:
            return (await self._answer(snapshot, question, trust, pointer))[0]
        started_ns = time.monotonic_ns()
        decision, source = await self._answer(snapshot, question, trust, pointer)
        asked = decision.asked or as_named(self._names, question)
        self._recorder.question(
            client, snapshot, decision, asked, source=source, elapsed_ns=time.monotonic_ns() - started_ns
        )
        return decision

    async def _answer(
        self, snapshot: PolicySnapshot, question: Question, trust: Trust, pointer: str
    ) -> tuple[Decision, DecisionSource]:
        """Answer one question; what it rests on is fetched where it is not here. Raises BadRequest."""
        try:
            asked = question_of(snapshot, self._names, question, trust, pointer=pointer)
            if refusal := _refusal_of(snapshot, asked):
                return refused(snapshot, refusal), "resident"
            decided = await self._ask(snapshot.engine, asked)
        except Unanswerable as error:
            return unanswerable(snapshot, error), "resident"
        if refusal := _refusal_of(snapshot, asked):  # it may have come while entities were fetched
            return refused(snapshot, refusal), _SOURCES[decided.level]
        return decision_of(snapshot, asked, decided.answer), _SOURCES[decided.level]

    async def _ask(self, engine: Engine, question: PolicyQuestion) -> Decided:
        deciding = self._deciding()
        began_s = time.monotonic()
        try:
            if deciding is None:
                return Decided(question.answered_by(engine), "made")
            return await deciding.decide(engine, question)
        except ValueError as error:
            raise Unanswerable("request_too_large", str(error)) from None
        finally:
            self._observe(time.monotonic() - began_s)

    def _searching(self, target: Target) -> Callable[[dict[str, Any], str, Trust], Awaitable[dict[str, Any]]]:
        async def answer(data: dict[str, Any], client: str, trust: Trust) -> dict[str, Any]:
            question = parse_search(data, target, limit_max=self._limits.page_max)
            snapshot = await self._snapshot(question.at_least)
            if snapshot.refusal:
                raise Refused(_unavailable(snapshot.refusal, "the relations here may be older than they ought to be"))
            kind = {"subject": question.subject, "resource": question.resource}.get(target)
            if kind is not None and snapshot.engine.store.is_sourced(self._names.type_of(kind.type) or ""):
                detail = (
                    f"entities of `{kind.type}` are kept elsewhere, and only those that were asked for are known here"
                )
                raise Refused(ProblemResponse(501, "search_not_possible", "Cannot search", detail))
            async with self._searches:
                return await self._search(snapshot, question, client, trust)

        return answer

    async def _search(
        self, snapshot: PolicySnapshot, question: SearchQuestion, client: str, trust: Trust
    ) -> dict[str, Any]:
        """Give one page; what its decisions rest on is fetched, a batch at a time. Raises Refused."""
        lister = self._lister_of(snapshot)
        for _ in range(SEARCH_FETCHES_MAX):
            try:
                return await asyncio.to_thread(self._searcher.page, lister, question, client, trust)
            except EntitiesAway as away:
                deciding = self._deciding()
                if deciding is None or not await deciding.entities(snapshot.engine, away.uids):
                    break
        raise Refused(_unavailable(ATTRIBUTES_UNAVAILABLE, "entities that the answer rests on cannot be fetched"))

    async def _metadata(self, request: Request) -> Response:
        return _with_request_id(request, json_response(metadata_of(self._base_url)))

    async def _snapshot(self, at_least: AtLeast) -> PolicySnapshot:
        """Give one state of policies, no older than asked for. Raises Refused."""
        if self._handle.revision < at_least.policies:
            reached = await self._handle.reach(at_least.policies, clock=self._clock, within_s=WAIT_S)
            if not reached and self._refresh is not None:
                await self._refresh()
            if self._handle.revision < at_least.policies:
                detail = "the policies and entities here are not as new as asked for"
                raise Refused(_unavailable("revision_unavailable", detail))
        snapshot = self._handle.now  # held over the wait: another one's relations may be older
        if at_least.relations:
            await _reach_relations(snapshot, at_least.relations)
        return snapshot

    def _lister_of(self, snapshot: PolicySnapshot) -> Lister:
        lister = self._lister
        if lister is None or lister.engine is not snapshot.engine:
            lister = self._lister = Lister(snapshot.engine, clock=self._clock.monotonic_s)
        return lister

    # --- what is asked

    def _endpoint(
        self, answer: Callable[[dict[str, Any], str, Trust], Awaitable[dict[str, Any]]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                client, trust = self._caller(request)
                data = parse_body(await self._body(request))
                async with self._serving():
                    response = json_response(await answer(data, client, trust))
            except Refused as refused:
                response = refused.response
            except BadRequest as error:
                response = ProblemResponse(400, "invalid_request", "Malformed request", str(error))
            except (BulkheadFullError, OverloadedError, DeadlineExceededError) as error:
                response = refusal_of(error)
            return _with_request_id(request, response)

        return endpoint

    def _caller(self, request: Request) -> tuple[str, Trust]:
        """Give who asks, and how far its word counts. Raises Refused."""
        headers = request.headers.getlist("authorization")
        if not headers and self._open_trust is not None:
            return _NOBODY, self._open_trust
        credentials = basic_credentials(headers[0]) if len(headers) == 1 else None
        if credentials is not None and self._clients.knows(credentials):
            return credentials[0], self._trust[credentials[0]]
        refusal = ProblemResponse(
            401,
            "invalid_client",
            "Client authentication failed",
            "authenticate with the id and secret of a client by HTTP Basic",
            {"www-authenticate": 'Basic realm="authzen"'},
        )
        _log.warning(
            "a client did not prove itself at the decision API",
            extra={"request_id": refusal.headers["x-request-id"]},
        )
        raise Refused(refusal)

    async def _body(self, request: Request) -> bytes:
        """Read the whole body. Raises BadRequest, Refused."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise BadRequest("the content type must be application/json")
        body = bytearray()
        try:
            async with asyncio.timeout(self._limits.body_timeout_s):
                async for piece in request.stream():
                    body += piece
                    if len(body) > self._limits.body_bytes:
                        raise Refused(
                            ProblemResponse(413, "body_too_large", "Content too large", "the body is too long")
                        )
        except TimeoutError:
            detail = "the body did not arrive in time"
            raise Refused(ProblemResponse(408, "request_timeout", "Request timeout", detail)) from None
        except ClientDisconnect:
            raise BadRequest("the connection broke off") from None
        return bytes(body)


async def _reach_relations(snapshot: PolicySnapshot, revisions: Sequence[str]) -> None:
    """Wait until the relations are as new as each of these. Raises Refused."""
    follower = snapshot.relations
    if follower is None:
        raise Refused(_unavailable("revision_unavailable", "there are no relations here that could be so new"))
    unseen = [each for each in revisions if not covers(follower.revision, each)]
    if unseen:
        try:
            await follower.at_least(unseen[0])  # one look at the log's end covers all that were given before it
        except StoreUnavailable:
            detail = "the relations here are not as new as asked for"
            raise Refused(_unavailable("revision_unavailable", detail)) from None


def _unavailable(code: str, detail: str) -> ProblemResponse:
    return ProblemResponse(503, code, code.replace("_", " ").capitalize(), detail, {"retry-after": "1"})


def _refusal_of(snapshot: PolicySnapshot, question: PolicyQuestion) -> str:
    """Why a question may not be decided now; it may change from one moment to the next."""
    return snapshot.refusal_of(question.principal, question.action, question.resource)


def _with_request_id(request: Request, response: Response) -> Response:
    """Give the caller's X-Request-ID back as it came (§10.1.1), where it can stand in a header at all."""
    given = request.headers.getlist("x-request-id")
    if len(given) == 1 and given[0].isascii() and given[0].isprintable() and len(given[0]) <= REQUEST_ID_CHARACTERS_MAX:
        response.headers["x-request-id"] = given[0]
    return response
