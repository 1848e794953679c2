"""The endpoints of SCIM 2.0 below `/scim/v2` (RFC 7644 §3): they read requests, ask the flows, and write answers."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson
from scim2_models import Error, PayloadTooLargeException, SCIMException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.errors import GatewayError
from gateway.flows.scim import Asked, BulkService, Discovery, Reply, ScimCaller, ScimLimits, ScimService
from gateway.flows.scim.bulk import Turn
from gateway.flows.scim.discovery import CONFIG, SCHEMAS, TYPES
from gateway.flows.scim.filters import Kind
from gateway.flows.trail import Caller
from gateway.front.forms import BodyRefused, read_json
from gateway.front.refusals import told_of
from gateway.front.scim.callers import CallerRefused, ScimCallers
from gateway.front.scim.pace import Pace
from gateway.resilience import Resilience

_chance = random.SystemRandom()
_log = logging.getLogger("portcullis.scim")

PREFIX: Final = "/scim/v2"
MEDIA_TYPE: Final = "application/scim+json"
_MEDIA_TYPES: Final = (MEDIA_TYPE, "application/json")
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_KINDS: Final[dict[str, Kind]] = {"users": "User", "groups": "Group"}
_DISCOVERY: Final = {name.lower(): name for name in (CONFIG, TYPES, SCHEMAS)}
_PARAMETERS: Final = ("filter", "sortBy", "sortOrder", "attributes", "excludedAttributes", "startIndex", "count")
_BUSY: Final = ("pool_full", "overloaded", "resource_exhausted")
HOLD_BACK_S: Final = (2.0, 4.0)  # before who found no place is told so; by chance, or all would come again at once
HELD_BACK_MAX: Final = 1000  # requests at once; more are told at once
_BULK_SLACK_S: Final = 10.0  # for the operation that is under way when a bulk request's time is over

Answer = Callable[[ScimCaller], Awaitable[Reply]]


class ScimEndpoints:
    """Serves everything below `/scim/v2`."""

    def __init__(
        self,
        service: ScimService,
        bulk: BulkService,
        discovery: Discovery,
        callers: ScimCallers,
        *,
        limits: ScimLimits,
        resilience: Resilience,
        pace: Pace,
        turn: Turn,
        where: Callable[[Request], Caller],
        body_timeout_s: float,
    ) -> None:
        """`where` tells from where a request comes."""
        self._service = service
        self._bulk = bulk
        self._discovery = discovery
        self._callers = callers
        self._limits = limits
        self._resilience = resilience
        self._where = where
        self._body_timeout_s = body_timeout_s
        self._pace = pace
        self._turn = turn
        self._held_back = 0

    def routes(self) -> list[Route]:
        """Return the one route."""
        return [Route(PREFIX + "/{place:path}", self.endpoint, methods=list(_METHODS))]

    async def endpoint(self, request: Request) -> Response:
        """Answer one request; every fault is an Error of SCIM."""
        where = self._where(request)
        try:
            reply = await self._answered(request, where)
        except SCIMException as error:
            return _error(error.to_error())
        except CallerRefused as error:
            headers = {"www-authenticate": error.challenge} if error.challenge else {"retry-after": "5"}
            return _error(Error(status=error.status, detail=str(error)), headers)
        except BodyRefused as error:
            return _error(Error(status=error.status, scim_type=_scim_type(error), detail=str(error)))
        except GatewayError as error:
            if error.code in _BUSY:
                await self._hold_back()
            level = logging.WARNING if error.status >= 500 else logging.INFO
            text = "%s was refused: %s: %s"
            _log.log(level, text, request.scope["path"], error.code, error, extra={"request_id": where.request_id})
            headers = {}
            if error.retry_after_s is not None:
                headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
            return _error(refusal_of(error), headers)
        return _response(reply)

    async def _hold_back(self) -> None:
        """Let who is refused wait for a while: clients that ask again at once would leave no time for anybody else."""
        if self._held_back < HELD_BACK_MAX:
            self._held_back += 1
            try:
                await asyncio.sleep(_chance.uniform(*HOLD_BACK_S))
            finally:
                self._held_back -= 1

    async def _answered(self, request: Request, where: Caller) -> Reply:
        place, _, rest = str(request.path_params["place"]).strip("/").partition("/")
        name = _DISCOVERY.get(place.lower())
        if name is not None:
            # Discovery tells nothing that is anybody's, and clients read it before they have a token (RFC 7644 §4).
            _allow(request, "GET")
            if "filter" in request.query_params:
                raise SCIMException.from_error(Error(status=403, detail="these are not filtered"))
            return self._discovery.answer(name, rest)
        # Before anything is done for it: who asks ten times as much as there is room for costs next to nothing.
        self._resilience.bulkheads.check("scim_provisioning")
        self._pace.check()
        caller = await self._callers.who(request, where)
        answer, limit_s = await self._planned(request, place, rest)
        if caller.is_reader and request.method != "GET" and not request.url.path.endswith("/.search"):
            raise SCIMException.from_error(Error(status=403, detail="this token may only read"))
        async with self._resilience.serving("scim_provisioning", limit_s=limit_s):
            await self._turn()  # in the pool: who waits for a turn is counted there
            return await answer(caller)

    async def _planned(self, request: Request, place: str, rest: str) -> tuple[Answer, float | None]:
        """Read a request; give what answers it, and how long that may take."""
        kind = _KINDS.get(place.lower())
        if kind is not None and rest and rest != ".search":
            return await self._single(request, kind, rest), None
        if kind is not None and not rest:
            _allow(request, "GET", "POST")
            if request.method == "POST":
                payload, asked = await self._body(request), _asked(request)
                return (lambda caller: self._service.create(kind, payload, caller, asked)), None
            parameters = _parameters(request)
            return (lambda caller: self._service.reader.search(kind, parameters, caller)), None
        if (place, rest) in (("", ""), (".search", "")) or rest == ".search":
            _allow(request, "POST" if ".search" in (place, rest) else "GET")
            sought = await self._body(request) if request.method == "POST" else _parameters(request)
            if kind is not None:
                return (lambda caller: self._service.reader.search(kind, sought, caller)), None
            if place in ("", ".search"):
                return (lambda caller: self._service.reader.search_all(sought, caller)), None
        if place.lower() == "bulk" and not rest:
            _allow(request, "POST")
            body = await self._body(request, is_bulk=True)
            return (lambda caller: self._bulk.run(body, caller)), self._limits.bulk_s + _BULK_SLACK_S
        raise SCIMException.from_error(Error(status=404, detail="there is nothing at this address"))

    async def _single(self, request: Request, kind: Kind, resource_id: str) -> Answer:
        _allow(request, "GET", "PUT", "PATCH", "DELETE")
        asked, service = _asked(request), self._service
        if request.method == "GET":
            return lambda caller: service.get(kind, resource_id, caller, asked)
        if request.method == "DELETE":
            return lambda caller: service.delete(kind, resource_id, caller, asked)
        payload = await self._body(request)
        if request.method == "PUT":
            return lambda caller: service.replace(kind, resource_id, payload, caller, asked)
        return lambda caller: service.patch(kind, resource_id, payload, caller, asked)

    async def _body(self, request: Request, *, is_bulk: bool = False) -> dict[str, Any]:
        try:
            return await read_json(
                request, self._body_timeout_s, bytes_max=self._limits.body_bytes, media_types=_MEDIA_TYPES
            )
        except BodyRefused as refused:
            if is_bulk and refused.status == 413:
                raise PayloadTooLargeException(
                    detail=f"a request has at most {self._limits.body_bytes} bytes"
                ) from None
            raise


def refusal_of(error: GatewayError) -> Error:
    """Say to a client what a fault of the gateway's own is."""
    return Error(status=error.status, detail=f"{error.code}: {told_of(error)}")


def _asked(request: Request) -> Asked:
    headers = request.headers
    return Asked(_parameters(request), headers.get("if-match", ""), headers.get("if-none-match", ""))


def _parameters(request: Request) -> dict[str, Any]:
    """Give the query's parameters by their names in the specification."""
    given: Mapping[str, str] = {name.lower(): value for name, value in request.query_params.items()}
    return {name: given[name.lower()] for name in _PARAMETERS if given.get(name.lower())}


def _allow(request: Request, *methods: str) -> None:
    if request.method not in methods:
        raise _WrongMethod(methods)


class _WrongMethod(SCIMException):
    status = 405

    def __init__(self, methods: tuple[str, ...]) -> None:
        super().__init__(detail=f"this takes {', '.join(methods)}")


def _scim_type(error: BodyRefused) -> str | None:
    return "invalidSyntax" if error.status == 400 else None


def _error(error: Error, headers: Mapping[str, str] | None = None) -> Response:
    return _response(Reply(error.status or 500, error.model_dump(), headers or {}))


def _response(reply: Reply) -> Response:
    merged = {"cache-control": "no-store", **reply.headers}
    if reply.body is None:
        return Response(None, reply.status, merged)
    return Response(orjson.dumps(reply.body), reply.status, merged, MEDIA_TYPE)
