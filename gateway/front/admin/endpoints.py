"""The endpoints of the admin API below `/admin/v1`, on the admin listener."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.errors import GatewayError
from gateway.flows.admin import AdminActs, Administrator, StepUpNeeded
from gateway.flows.admin.acts import ENTRIES_MAX
from gateway.flows.trail import Caller
from gateway.front.admin.callers import AdminCallers, NobodyKnown
from gateway.front.refusals import refusal_of
from gateway.front.responses import ProblemResponse, json_response
from gateway.resilience import Resilience
from gateway.stores.directory import PAGE_MAX, Condition

PREFIX: Final = "/admin/v1"
_ID: Final = r"([A-Za-z0-9_.:~-]{1,256})"
_NUMBER_MAX: Final = 2**53

Answer = Callable[[Administrator], Awaitable[dict[str, Any] | None]]
Make = Callable[..., Answer]


class BadRequest(GatewayError):
    """A parameter that cannot be read."""

    code = "invalid_request"
    status = 400


class AdminEndpoints:
    """Serves everything below `/admin/v1`."""

    def __init__(
        self,
        acts: AdminActs,
        callers: AdminCallers,
        *,
        resilience: Resilience,
        where: Callable[[Request], Caller],
        step_up_s: int,
        acr_values: tuple[str, ...],
    ) -> None:
        self._acts = acts
        self._callers = callers
        self._resilience = resilience
        self._where = where
        self._step_up_s = step_up_s
        self._acr_values = acr_values
        self._table = [(re.compile(path), methods) for path, methods in self._places().items()]

    def _places(self) -> dict[str, dict[str, Make]]:
        """Give what is at each path: by method, what makes the answer from the request and the path's ids."""
        acts, one = self._acts, f"users/{_ID}"
        return {
            "me": {"GET": lambda _: acts.me},
            "state": {"GET": lambda _: acts.state},
            "audit": {"GET": self._audit},
            "users": {"GET": self._users},
            one: {"GET": lambda _, user: lambda admin: acts.user(admin, user)},
            f"{one}/deactivate": {"POST": lambda _, user: lambda admin: acts.deactivate(admin, user)},
            f"{one}/reactivate": {"POST": lambda _, user: lambda admin: acts.reactivate(admin, user)},
            f"{one}/sessions": {
                "GET": lambda _, user: lambda admin: acts.sessions(admin, user),
                "DELETE": lambda _, user: lambda admin: acts.end_sessions(admin, user),
            },
            f"{one}/sessions/{_ID}": {
                "DELETE": lambda _, user, session: lambda admin: acts.end_session(admin, user, session)
            },
            f"{one}/devices": {"GET": lambda _, user: lambda admin: acts.devices(admin, user)},
            f"{one}/devices/{_ID}": {
                "DELETE": lambda _, user, device: lambda admin: acts.forget_device(admin, user, device)
            },
            f"{one}/grants": {"GET": lambda _, user: lambda admin: acts.grants(admin, user)},
            f"{one}/grants/{_ID}": {
                "DELETE": lambda _, user, grant: lambda admin: acts.revoke_grant(admin, user, grant)
            },
            "clients": {"GET": lambda _: acts.clients},
            "clients/(.{1,512})": {"GET": lambda _, client: lambda admin: acts.client(admin, client)},
        }

    async def endpoint(self, request: Request) -> Response:
        """Answer one request."""
        where = self._where(request)
        place = str(request.path_params["place"])
        try:
            async with self._resilience.serving("admin_auth", critical=True):
                admin = await self._callers.who(request, where)  # who is nobody is told nothing of what there is
                answer = self._planned(request, place)
                if isinstance(answer, Response):
                    return answer
                body = await answer(admin)
        except StepUpNeeded as error:
            return self._step_up(error)
        except NobodyKnown as error:
            headers = {"www-authenticate": 'Bearer realm="admin"'}
            return ProblemResponse(401, error.code, "Who are you?", str(error), headers)
        except GatewayError as error:
            return refusal_of(error)
        return Response(None, 204, {"cache-control": "no-store"}) if body is None else json_response(body)

    def _planned(self, request: Request, place: str) -> Answer | Response:
        for pattern, methods in self._table:
            match = pattern.fullmatch(place)
            if match is None:
                continue
            make = methods.get(request.method)
            if make is None:
                allow = {"allow": ", ".join(methods)}
                return ProblemResponse(
                    405, "method_not_allowed", "Method not allowed", "this endpoint takes other methods", allow
                )
            return make(request, *match.groups())
        return ProblemResponse(404, "not_found", "Not found", "there is nothing at this address")

    def _step_up(self, error: StepUpNeeded) -> Response:
        """Say which proof is needed (RFC 9470 §3)."""
        challenge = f'Bearer realm="admin", error="{error.code}", error_description="{error}"'
        if self._acr_values:
            challenge += f', acr_values="{" ".join(self._acr_values)}"'
        if self._step_up_s:
            challenge += f", max_age={self._step_up_s}"
        return ProblemResponse(401, error.code, "Prove it again", str(error), {"www-authenticate": challenge})

    def _users(self, request: Request) -> Answer:
        conditions = []
        query = request.query_params
        for name, field, operator in (
            ("user_name", "user_name", "sw"),
            ("email", "email", "eq"),
            ("external_id", "external_id", "eq"),
            ("group", "group", "eq"),
        ):
            if query.get(name):
                conditions.append(Condition(field, operator, query[name]))  # type: ignore[arg-type]
        if query.get("active"):
            conditions.append(Condition("active", "eq", _flag(query["active"], "active")))
        offset = _number(query.get("offset"), "offset", 0, _NUMBER_MAX)
        limit = _number(query.get("limit"), "limit", 100, PAGE_MAX)
        return lambda admin: self._acts.users(admin, conditions, offset, limit)

    def _audit(self, request: Request) -> Answer:
        query = request.query_params
        names = ("action", "actor", "target", "outcome", "tenant", "request_id")
        wanted = {name: query[name] for name in names if query.get(name)}
        after = _number(query.get("after"), "after", 0, _NUMBER_MAX)
        limit = _number(query.get("limit"), "limit", 100, ENTRIES_MAX)
        chain = query.get("chain", "")
        if not re.fullmatch(r"[A-Za-z0-9_-]{0,64}", chain):
            raise BadRequest("`chain` is no name of a chain")
        return lambda admin: self._acts.audit(admin, chain=chain, after=after, limit=limit, wanted=wanted)


def _number(text: str | None, name: str, default: int, largest: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 17) or int(text) > largest:
        raise BadRequest(f"`{name}` is a number up to {largest}")
    return int(text)


def _flag(text: str, name: str) -> bool:
    if text not in ("true", "false"):
        raise BadRequest(f"`{name}` is `true` or `false`")
    return text == "true"
