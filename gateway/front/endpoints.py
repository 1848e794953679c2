"""Our own endpoints: probes, metrics and introspection. Starlette routes them; nothing here is hot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Lifespan

from gateway.errors import GatewayError
from gateway.front.introspect import Introspection
from gateway.front.level_header import LevelHeader
from gateway.front.refusals import gateway_error
from gateway.front.responses import ProblemResponse, json_response

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Dependency:
    """One thing that the gateway needs, as `/readyz` shows it."""

    state: str  # ok | degraded | stale | starting | unavailable
    ready: bool  # whether requests can be judged with it in this state
    detail: Mapping[str, object]


class Vitals(Protocol):
    """What the probes ask of the running application."""

    @property
    def draining(self) -> bool: ...

    @property
    def degradation_level(self) -> int: ...

    def dependencies(self) -> Mapping[str, Dependency]: ...

    def detail(self) -> Mapping[str, object]: ...

    def metrics_text(self) -> str: ...


async def not_found(request: Request, _error: Exception) -> Response:
    """Answer an address of ours that does not exist."""
    return ProblemResponse(404, "not_found", "Not found", "there is nothing at this address")


async def wrong_method(request: Request, error: Exception) -> Response:
    """Answer a method that an endpoint of ours does not take, with those that it takes (RFC 9110 §15.5.6)."""
    allowed = error.headers if isinstance(error, HTTPException) else None
    return ProblemResponse(
        405, "method_not_allowed", "Method not allowed", "this endpoint takes other methods", allowed
    )


def _probes(vitals: Vitals, *, detailed: bool) -> list[Route]:
    """`detailed`: who asks may know of tenants, and of how much would fill a pool."""

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        dependencies = vitals.dependencies()
        ready = not vitals.draining and all(dependency.ready for dependency in dependencies.values())
        if vitals.draining:
            status = "draining"
        elif not ready:
            status = "unready"
        elif all(dependency.state == "ok" for dependency in dependencies.values()):
            status = "ok"
        else:
            status = "degraded"
        body: dict[str, Any] = {"status": status, **(vitals.detail() if detailed else {}), "dependencies": {}}
        for name, dependency in dependencies.items():
            body["dependencies"][name] = {"state": dependency.state, **dependency.detail}
        return json_response(body, 200 if ready else 503)

    return [Route("/livez", livez), Route("/readyz", readyz)]


def _middleware(vitals: Vitals) -> list[Middleware]:
    return [Middleware(LevelHeader, level=lambda: vitals.degradation_level)]


_HANDLERS: Any = {404: not_found, 405: wrong_method, GatewayError: gateway_error}


def public_app(
    vitals: Vitals,
    introspection: Introspection | None,
    lifespan: Lifespan[Starlette],
    more: Sequence[Route] = (),
    gates: Sequence[Middleware] = (),
) -> Starlette:
    """Make the application behind the doors' listener.

    `more` are routes of endpoints that are not always there, and `gates` stand before all of them.
    """
    routes = _probes(vitals, detailed=False)
    if introspection is not None:
        routes.append(Route("/oauth2/introspect", introspection.endpoint, methods=["POST"]))
    routes.extend(more)
    middleware = [*_middleware(vitals), *gates]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=_HANDLERS, middleware=middleware)


def admin_app(vitals: Vitals, administer: Callable[[Request], Awaitable[Response]]) -> Starlette:
    """Make the application behind the admin listener; `administer` answers what is below `/admin/v1`."""

    async def metrics(_request: Request) -> Response:
        return Response(vitals.metrics_text(), media_type=METRICS_TYPE)

    admin = Route("/admin/v1/{place:path}", administer, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])
    routes = [*_probes(vitals, detailed=True), Route("/metrics", metrics), admin]
    return Starlette(routes=routes, exception_handlers=_HANDLERS, middleware=_middleware(vitals))


OWN_FOLDERS: Final = ("/login/sso/", "/login/passkey/", "/mfa/passkey/", "/account/passkeys/", "/account/sso/")
"""Folders of which nothing is anybody else's, whatever the config has."""


def reserved_paths(introspection: bool, more: Sequence[Route] = ()) -> tuple[bytes, ...]:
    """List the paths on the doors' listener that are ours, whatever the routes say.

    Each proxied request is compared with all of them, so that what lies in a folder of ours is one: `/login/sso/`.
    """
    paths = [b"/livez", b"/readyz"]
    if introspection:
        paths.append(b"/oauth2/introspect")
    paths.extend(_reserved(route.path).encode() for route in more)
    return tuple(dict.fromkeys(paths))


def _reserved(path: str) -> str:
    """Return what a path reserves: itself, or its folder where that is one of `OWN_FOLDERS`."""
    folder = next((each for each in OWN_FOLDERS if path.startswith(each)), "")
    return folder or path.partition("{")[0]
