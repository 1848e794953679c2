"""A front door whose one route asks policies."""

from __future__ import annotations

from typing import Any

from gateway._native.front import Verdict
from gateway._native.route_policy import DeciderCell, Sampling
from gateway._native.token import TokenValidator
from gateway.config import PolicyConfig, RouteConfig
from gateway.front.principals import PrincipalClaims
from gateway.front.route_policy import compile_route_policy
from gateway.policy import Engine, Entities, Entity, EntityUid, PolicySet, Schema
from tests.native.front_harness import Harness
from tests.real.gateway import bearer, mint

READ = 'Action::"read"'
ALICE = EntityUid("User", "alice")
ROUTE = RouteConfig(path="/orders/{id}", action=READ, resource='Order::"{id}"')


def engine_of(policies: str, *more: Entity) -> Engine:
    entities = Entities([*(Entity(EntityUid("Order", name), {"owner": ALICE}) for name in ("1", "a b/ü")), *more])
    return Engine(PolicySet.parse(policies), entities)


class Asking(Harness):
    """A front door with one route that asks policies."""

    def __init__(
        self,
        policies: str | None,
        route: RouteConfig = ROUTE,
        *entities: Entity,
        schema: str = "",
        config: PolicyConfig | None = None,
        sampling: Sampling | None = None,
        validator: TokenValidator | None = None,
    ) -> None:
        self.cell = DeciderCell(None if policies is None else engine_of(policies, *entities))
        config = config or PolicyConfig()
        self.principals = PrincipalClaims(config, Schema.parse(schema) if schema else None)
        super().__init__(
            routes=(route,),
            policies=self.cell,
            policy_of=lambda each, index: compile_route_policy(each, index, self.principals),
            policy=config,
            sampling=sampling,
            validator=validator,
        )

    @property
    def deciding(self) -> Engine:
        """The engine in force."""
        assert isinstance(self.cell.decider, Engine)
        return self.cell.decider

    def judged(self, target: str, *headers: tuple[str, str], method: str = "GET", **claims: Any) -> Verdict:
        """Judge a request with a token of these claims."""
        return self.door.judge_scope(self.scope(method, target, [bearer(mint(**claims)), *headers]))

    def reason(self, target: str, *headers: tuple[str, str], subject: str = "alice", method: str = "GET") -> str:
        """Judge a request with a token of `subject`."""
        return self.judged(target, *headers, method=method, sub=subject).reason


def context_route(**context: str) -> RouteConfig:
    return RouteConfig(path="/orders/{id}", action=READ, resource='Order::"{id}"', context=context)
