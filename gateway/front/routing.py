"""From the config's `[[routes]]` to the compiled `RouteSnapshot` that the engine reads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway._native.front import RouteSettings
from gateway._native.route_policy import RoutePolicy
from gateway._native.routes import Route, RouteSnapshot
from gateway.config import Config, RouteConfig
from gateway.errors import ConfigError, ConfigFault
from gateway.front.answers import challenge_of, refusal_of

PoolOf = Callable[[RouteConfig], object]
PolicyOf = Callable[[RouteConfig, int], RoutePolicy | None]

IDENTITY_HEADERS = (b"x-auth-subject", b"x-auth-issuer", b"x-auth-scopes")
DECISION_HEADER = b"x-auth-decision-id"


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """The routes of one config, compiled; the scope names give the bits of `RouteSettings.scope_mask`."""

    snapshot: RouteSnapshot
    scope_names: tuple[bytes, ...]


def scope_names_of(config: Config) -> tuple[bytes, ...]:
    """List every scope that some route asks for, in a stable order."""
    return tuple(sorted({scope.encode() for route in config.routes for scope in route.scopes}))


def header_claims_of(config: Config) -> tuple[tuple[bytes, bytes], ...]:
    """List the configured identity headers as (lower-case header, claim)."""
    return tuple(sorted((name.lower().encode(), claim.encode()) for name, claim in config.identity.headers.items()))


def identity_header_names(config: Config) -> tuple[bytes, ...]:
    """List every header that only the gateway may set, in the order in which verdicts carry them."""
    return IDENTITY_HEADERS + tuple(name for name, _ in header_claims_of(config))


def _settings(
    route: RouteConfig, realm: str, names: tuple[bytes, ...], pool: object, policy: RoutePolicy | None
) -> RouteSettings:
    mask = 0
    for scope in route.scopes:
        mask |= 1 << names.index(scope.encode())
    detail = refusal_of("insufficient_scope").detail
    return RouteSettings(
        pool,
        strip_prefix=route.strip_prefix.encode(),
        scope_challenge=challenge_of(realm, "insufficient_scope", detail, " ".join(route.scopes)),
        scope_mask=mask,
        policy=policy,
    )


def policies_of_routes(config: Config, policy_of: PolicyOf) -> list[RoutePolicy | None]:
    """Give what each route asks of the policies. Raises ConfigError with what is wrong with any of them."""
    found: list[RoutePolicy | None] = []
    faults: list[ConfigFault] = []
    for index, route in enumerate(config.routes):
        try:
            found.append(policy_of(route, index))
        except ConfigError as error:
            faults += error.faults
    if faults:
        raise ConfigError(faults)
    return found


def plan_routes(config: Config, pool_of: PoolOf, policy_of: PolicyOf | None = None) -> RoutePlan:
    """Compile the routes; `pool_of` gives the upstream pool of a route that has one.

    `policy_of` gives what a route asks of the policies, by its index. Raises RouteConflict (a ValueError) for two
    routes that match the same requests, and ConfigError for routes that the policies do not foresee.
    """
    names = scope_names_of(config)
    routes = []
    policies = policies_of_routes(config, policy_of or (lambda _, __: None))
    for index, (route, policy) in enumerate(zip(config.routes, policies, strict=True)):
        pool = pool_of(route) if route.upstream else None
        settings = _settings(route, config.server.realm, names, pool, policy)
        routes.append(
            Route(
                route.path,
                index=index,
                host=route.host,
                methods=route.methods,
                auth=route.auth,
                scopes=route.scopes,
                upstream=pool,
                extra=settings,
            )
        )
    return RoutePlan(RouteSnapshot(routes), names)
