"""A front door without a server: real validator, real routes, and what it sends kept in a list."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from gateway._native.front import Engine, FrontDoor, Verdict
from gateway._native.route_policy import Decided, DeciderCell, Sampling
from gateway._native.token import IssuerRules, KeySnapshot, TokenValidator
from gateway.config import Config, IdentityConfig, PolicyConfig, RouteConfig
from gateway.front.answers import deny_answers
from gateway.front.claims import ClaimPicker, policy_claims_of
from gateway.front.endpoints import reserved_paths
from gateway.front.routing import PolicyOf, header_claims_of, identity_header_names, plan_routes
from gateway.front.trust import TrustedProxies
from gateway.tokens.keys import load_jwk
from tests.real.gateway import AUDIENCE, ISSUER, public_jwk
from tests.real.http import Answer

FAR_FUTURE_S = 1 << 40

ROUTES = (
    RouteConfig(path="/orders/{id}", scopes=("orders:read",)),
    RouteConfig(path="/admin/{*rest}", scopes=("admin",)),
    RouteConfig(path="/public/{*rest}", auth="none"),
    RouteConfig(path="/only-get", methods=("GET",)),
)


def validator_for(config: Config, *, usable_until_s: int = FAR_FUTURE_S) -> TokenValidator:
    """Make a validator that knows the test issuer's first key."""
    from gateway.front.routing import scope_names_of

    names = policy_claims_of(config)
    validator = TokenValidator(
        scope_names=scope_names_of(config),
        header_claims=header_claims_of(config),
        claims_factory=ClaimPicker(names) if names else None,
    )
    rules = IssuerRules(ISSUER.encode(), audiences=(AUDIENCE.encode(),), algorithms=("RS256",))
    validator.publish(KeySnapshot((rules,), (load_jwk(public_jwk(), ("RS256",)),), (usable_until_s,)))
    return validator


class Asked(Exception):
    """Raised by the harness where a request would leave the hot path."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.reason)
        self.verdict = verdict


class Harness:
    """Calls a FrontDoor with ASGI scopes and reads its answers."""

    def __init__(
        self,
        *,
        routes: Iterable[RouteConfig] = ROUTES,
        identity: dict[str, str] | None = None,
        login: Callable[[Verdict], bytes | None] | None = None,
        validator: TokenValidator | None = None,
        header_bytes_max: int = 32768,
        header_count_max: int = 100,
        policies: DeciderCell | None = None,
        policy_of: PolicyOf | None = None,
        policy: PolicyConfig | None = None,
        sampling: Sampling | None = None,
        sessions: TokenValidator | None = None,
        proofs: bool = False,
    ) -> None:
        self.config = Config(
            routes=tuple(routes), identity=IdentityConfig(headers=identity or {}), policy=policy or PolicyConfig()
        )
        self.validator = validator or validator_for(self.config)
        self.plan = plan_routes(self.config, lambda _: None, policy_of)
        self.engine = Engine(
            self.validator,
            self.plan.snapshot,
            reserved=reserved_paths(introspection=True),
            header_bytes_max=header_bytes_max,
            header_count_max=header_count_max,
            policies=policies,
            sampling=sampling,
            sessions=sessions,
            proofs=proofs,
        )
        self.decided: list[tuple[Decided, str, str, str]] = []
        self.native: list[dict[str, Any]] = []
        self.audited: list[tuple[Verdict, int]] = []
        self.door = FrontDoor(
            self.engine,
            app=self._app,
            ask=self._ask,
            websocket=self._ask,
            fault=lambda *_: None,
            drop=frozenset(identity_header_names(self.config)),
            is_trusted=TrustedProxies(("127.0.0.0/8",)),
            answers=deny_answers("portcullis"),
            forward_answers=deny_answers("portcullis", forward=True),
            blank_identity=tuple((name, b"") for name in identity_header_names(self.config)),
            audit=lambda verdict, status: self.audited.append((verdict, status)),
            decisions=lambda *noted: self.decided.append(noted),
            login=login,
        )

    async def _app(self, scope: dict[str, Any], _receive: object, _send: object) -> None:
        self.native.append(scope)

    async def _ask(self, _door: FrontDoor, verdict: Verdict, *_: object) -> None:
        raise Asked(verdict)

    def scope(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        peer: str = "127.0.0.1",
        host: str = "app.test",
    ) -> dict[str, Any]:
        path, _, query = target.partition("?")
        pairs = [(b"host", host.encode())] if host else []
        pairs += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        return {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "headers": pairs,
            "client": (peer, 1234),
            "server": ("127.0.0.1", 8080),
            "http_version": "1.1",
        }

    def call(
        self,
        method: str,
        target: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        peer: str = "127.0.0.1",
        host: str = "app.test",
    ) -> Answer:
        return self.send(self.scope(method, target, headers, peer=peer, host=host))

    def send(self, scope: dict[str, Any]) -> Answer:
        return self._answer(lambda receive, send: self.door(scope, receive, send))

    def finish(self, scope: dict[str, Any]) -> Answer:
        """Have a scope judged for good, as after an ASK."""
        return self._answer(lambda receive, send: self.door.finish(scope, receive, send))

    @staticmethod
    def _answer(call: Callable[[Any, Any], Awaitable[None]]) -> Answer:
        sent: list[dict[str, Any]] = []

        async def send(message: MutableMapping[str, Any]) -> None:
            sent.append(dict(message))

        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def run() -> None:
            await call(receive, send)

        asyncio.run(run())
        assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
        headers = tuple((name.decode(), value.decode("utf-8")) for name, value in sent[0]["headers"])
        return Answer(sent[0]["status"], headers, sent[1]["body"])

    def forward(
        self, method: str, uri: str, *headers: tuple[str, str], host: str = "app.test", **options: Any
    ) -> Answer:
        """Ask as Traefik, Caddy and HAProxy do."""
        described = [("X-Forwarded-Method", method), ("X-Forwarded-Uri", uri), ("X-Forwarded-Host", host)]
        return self.call("GET", "/auth/forward", [*described, ("X-Forwarded-Proto", "https"), *headers], **options)

    def nginx(self, method: str, url: str, *headers: tuple[str, str], **options: Any) -> Answer:
        """Ask as nginx's auth_request does."""
        described = [("X-Original-Method", method), ("X-Original-URL", url)]
        return self.call("GET", "/auth/request", [*described, *headers], host="auth.test", **options)

    def envoy(self, method: str, target: str, *headers: tuple[str, str], **options: Any) -> Answer:
        """Ask as Envoy's HTTP ext_authz does."""
        return self.call(method, "/auth/envoy" + target, headers, **options)
