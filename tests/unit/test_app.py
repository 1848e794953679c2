"""The composition root without a server: one worker's application on this test's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway._native.vm import Program
from gateway.app import App, build_app, metrics_layout
from gateway.config import (
    Config,
    IssuerConfig,
    LogConfig,
    PolicyConfig,
    PoolsConfig,
    RelationsConfig,
    ResilienceConfig,
    RouteConfig,
    ServerConfig,
    StoreConfig,
)
from gateway.errors import ConfigError, StoreUnavailable
from gateway.front.asgi import App as ASGIApp
from gateway.front.endpoints import public_app
from gateway.observability.metrics import create_map
from gateway.policy.compiler.policies import compile_statement
from gateway.policy.language.tree import Statement
from gateway.types import WorkerContext
from tests.files import rewrite
from tests.real.gateway import AUDIENCE, ISSUER, jwks_file, mint
from tests.real.process import free_port


def config_for(folder: Path, *scopes: str, **changes: Any) -> Config:
    issuer = IssuerConfig(issuer=ISSUER, audiences=(AUDIENCE,), algorithms=("RS256",), jwks_file=str(jwks_file(folder)))
    route = RouteConfig(path="/orders/{id}", scopes=scopes or ("orders:read",))
    settings: dict[str, Any] = {
        "server": ServerConfig(inline=False),
        "issuers": (issuer,),
        "routes": (route,),
        "store": StoreConfig(url="memory:"),
        "log": LogConfig(audit="off"),
    }
    return Config(**{**settings, **changes})


@contextlib.asynccontextmanager
async def running(folder: Path, config: Config) -> AsyncIterator[App]:
    """Run an application through its lifespan."""
    create_map(folder / "metrics", metrics_layout(), 1)
    context = WorkerContext(
        index=0, worker_count=1, control_path=folder / "control", metrics_path=folder / "metrics", run_dir=folder
    )
    app = build_app(config, context)
    async with app._lifespan(None):  # type: ignore[arg-type]
        yield app
    app._metrics.map._file.close()  # a worker keeps it as long as it lives; its block is in use by the door


def verdict_of(app: App, token: str, path: str = "/auth/envoy/orders/1") -> tuple[str, str]:
    scope = {
        "type": "http",
        "method": "GET",
        "scheme": "http",
        "raw_path": path.partition("?")[0].encode(),
        "query_string": path.partition("?")[2].encode(),
        "headers": [(b"host", b"app.test"), (b"authorization", f"Bearer {token}".encode())],
        "client": ("127.0.0.1", 1),
    }
    verdict = app.asgi.judge_scope(scope)
    return verdict.kind, verdict.reason


async def asked(app: ASGIApp, path: str) -> list[Any]:
    """Ask a listener's application; give what it sent."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b""}
    await app(scope, receive, send)
    return sent


async def settled(app: App) -> None:
    """Wait for what a reload does in the background."""
    while app._tasks:
        await next(iter(app._tasks))


async def test_good_token_is_allowed_and_a_revoked_one_is_not(tmp_path: Path) -> None:
    async with running(tmp_path, config_for(tmp_path)) as app:
        token = mint(jti="one")
        assert verdict_of(app, token) == ("allow", "ok")
        await app._now.control.revoke("jti", ISSUER, "one", until_s=int(time.time()) + 600)
        assert verdict_of(app, token) == ("deny", "revoked")


async def test_reload_of_other_scopes_keeps_revocations_of_a_store_in_memory(tmp_path: Path) -> None:
    async with running(tmp_path, config_for(tmp_path)) as app:
        revoked, good = mint(jti="one", scope="orders:read extra"), mint(jti="two", scope="orders:read extra")
        await app._now.control.revoke("jti", ISSUER, "one", until_s=int(time.time()) + 600)
        await app.reload(config_for(tmp_path, "extra"))
        await settled(app)
        assert verdict_of(app, good) == ("allow", "ok")
        assert verdict_of(app, revoked) == ("deny", "revoked")
        assert verdict_of(app, mint(jti="three")) == ("deny", "insufficient_scope")


async def test_reload_of_the_same_shape_takes_effect_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, config_for(tmp_path)) as app:
        token = mint()
        assert verdict_of(app, token) == ("allow", "ok")
        moved = RouteConfig(path="/elsewhere/{id}", scopes=("orders:read",))
        await app.reload(config_for(tmp_path, routes=(moved,)))
        assert verdict_of(app, token) == ("deny", "no_route")
        assert verdict_of(app, token, "/auth/envoy/elsewhere/1") == ("allow", "ok")


async def test_reload_that_takes_an_issuer_away_ends_its_tokens(tmp_path: Path) -> None:
    async with running(tmp_path, config_for(tmp_path)) as app:
        token = mint()
        assert verdict_of(app, token) == ("allow", "ok")
        await app.reload(config_for(tmp_path, issuers=()))
        await settled(app)
        assert verdict_of(app, token) == ("deny", "issuer_unknown")


async def test_config_that_cannot_serve_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, config_for(tmp_path)) as app:
        twice = (RouteConfig(path="/a"), RouteConfig(path="/a"))
        with pytest.raises(ConfigError):
            await app.reload(config_for(tmp_path, routes=twice))
        unwritable = LogConfig(access=str(tmp_path / "no" / "such" / "folder"), audit="off")
        with pytest.raises(ConfigError):
            await app.reload(config_for(tmp_path, log=unwritable))
        assert verdict_of(app, mint()) == ("allow", "ok")


async def test_draining_is_told_to_every_part(tmp_path: Path) -> None:
    upstream = RouteConfig(path="/app/{*rest}", auth="none", upstream=f"http://127.0.0.1:{free_port()}")
    async with running(tmp_path, config_for(tmp_path, routes=(upstream,))) as app:
        app.draining = True
        assert app.asgi.draining
        assert all(pool.draining for pool in app._upstreams.pools())
        await app.reload(config_for(tmp_path, routes=(upstream, RouteConfig(path="/x"))))
        assert app.asgi.draining


async def test_pools_follow_a_reload_and_are_shown(tmp_path: Path) -> None:
    async with running(tmp_path, config_for(tmp_path)) as app:
        assert 'portcullis_pool_size{pool="scim_provisioning"} 30\n' in app._vitals.metrics_text()
        small = ResilienceConfig(pools=PoolsConfig(scim_provisioning=7))
        await app.reload(config_for(tmp_path, resilience=small))
        assert 'portcullis_pool_size{pool="scim_provisioning"} 7\n' in app._vitals.metrics_text()
        assert app._vitals.detail()["degradation"] == {"level": 0, "reasons": []}


async def test_only_the_admin_listener_tells_of_pools_and_tenants(tmp_path: Path) -> None:
    async with running(tmp_path, config_for(tmp_path)) as app:
        listeners = app.admin_asgi, public_app(app._vitals, None, app._lifespan)
        admin, public = [orjson.loads((await asked(each, "/readyz"))[1]["body"]) for each in listeners]
        assert set(admin) - set(public) == {"degradation", "pools", "breakers"}
        assert admin["dependencies"].keys() == public["dependencies"].keys()


async def test_the_level_is_told_by_probes_and_a_header_and_leaves_the_worker_ready(tmp_path: Path) -> None:
    async def down() -> None:
        raise StoreUnavailable

    async with running(tmp_path, config_for(tmp_path)) as app:
        await settled(app)
        app._resilience.watch("database", down)
        for _ in range(2):
            await app._resilience.degradation.dependencies["database"].sample()
        app._resilience.degradation.update()
        start, body = await asked(app.admin_asgi, "/readyz")
        assert start["status"] == 200
        assert dict(start["headers"])[b"x-portcullis-degradation"] == b"2"
        assert orjson.loads(body["body"])["degradation"] == {"level": 2, "reasons": ["database down"]}


async def test_relations_that_come_with_a_reload_are_followed_from_then_on(tmp_path: Path) -> None:
    async with running(tmp_path, config_for(tmp_path)) as app:
        assert set(app._vitals.dependencies()) == {f"issuer {ISSUER}", "revocations"}
        (tmp_path / "p.cedar").write_text(
            "permit (principal, action, resource) when { principal in resource.viewers };"
        )
        (tmp_path / "p.cedarschema").write_text(
            "entity User; entity Doc { @relation viewers: Set<User> };"
            "action read appliesTo { principal: User, resource: Doc };"
        )
        policy = PolicyConfig(path=str(tmp_path / "p.cedar"), relations=RelationsConfig(url="embedded"))
        await app.reload(config_for(tmp_path, policy=policy))
        assert not app._vitals.dependencies()["relations"].ready  # nothing was read yet
        await settled(app)
        assert app._vitals.dependencies()["relations"].state == "ok"
        assert app._vitals.dependencies()["policy_engine"].ready
        assert "portcullis_relations_up 1\n" in app._vitals.metrics_text()
        assert "portcullis_relation_readings_total 1\n" in app._vitals.metrics_text()


# --- policies

SCHEMA = """entity User; entity Order;
action read appliesTo { principal: User, resource: Order, context: { floor: KIND } };
"""
FLOOR_7 = "permit (principal, action, resource) when { context.floor == 7 };"
FLOOR_SEVEN = 'permit (principal, action, resource) when { context.floor == "7" };'
ORDERS = RouteConfig(
    path="/orders/{id}",
    scopes=("orders:read",),
    action='Action::"read"',
    resource='Order::"{id}"',
    context={"floor": "{query.floor}"},
)


def policies_of(folder: Path, text: str, kind: str) -> PolicyConfig:
    """Write a folder of policies, whose context has a `floor` of a kind."""
    (folder / "policies").mkdir(exist_ok=True)
    rewrite(folder / "policies" / "a.cedar", text)
    rewrite(folder / "policies" / "a.cedarschema", SCHEMA.replace("KIND", kind))
    return PolicyConfig(path=str(folder / "policies"), watch_s=1.0)


async def test_requests_are_answered_while_ten_thousand_policies_are_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The compiler stops in its middle, and goes on only after a request was answered by the former policies."""
    gate, reached = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    compiled: list[Statement] = []

    def compiling(statement: Statement) -> Program:
        compiled.append(statement)
        if len(compiled) == 5_000:
            loop.call_soon_threadsafe(reached.set)
            assert gate.wait(60)
        return compile_statement(statement)

    route = RouteConfig(path="/orders/{id}", action='Action::"read"', resource='Order::"{id}"')
    rewrite(tmp_path / "p.cedar", "permit (principal, action, resource);")
    config = config_for(tmp_path, routes=(route,), policy=PolicyConfig(path=str(tmp_path / "p.cedar")))
    async with running(tmp_path, config) as app:
        token = mint()
        assert verdict_of(app, token) == ("allow", "ok")
        monkeypatch.setattr("gateway.policy.engine.compile_statement", compiling)
        rewrite(
            tmp_path / "p.cedar",
            "".join(f'permit (principal, action, resource == Order::"{number}");\n' for number in range(2, 10_002)),
        )
        reload = asyncio.ensure_future(app.reload(config))
        await reached.wait()
        assert not reload.done()
        assert verdict_of(app, token) == ("allow", "ok")
        gate.set()
        await reload
        assert len(compiled) == 10_000
        assert verdict_of(app, token) == ("deny", "policy_denied")
        assert verdict_of(app, token, "/auth/envoy/orders/9999") == ("allow", "ok")


async def test_reloads_take_effect_in_the_order_in_which_they_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one reads policies for long; the second one, without any, comes after it all the same."""
    gate = threading.Event()
    read = App._read_policies

    def reading(app: App, config: Config) -> Any:
        if config.policy.path:
            assert gate.wait(60)
        return read(app, config)

    async with running(tmp_path, config_for(tmp_path)) as app:
        monkeypatch.setattr(App, "_read_policies", reading)
        first = asyncio.ensure_future(
            app.reload(config_for(tmp_path, routes=(ORDERS,), policy=policies_of(tmp_path, FLOOR_7, "Long")))
        )
        second = asyncio.ensure_future(
            app.reload(config_for(tmp_path, routes=(RouteConfig(path="/new", scopes=("orders:read",)),)))
        )
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, second)
        assert verdict_of(app, mint()) == ("deny", "no_route")


async def test_a_watched_schema_has_routes_read_their_context_by_it(tmp_path: Path) -> None:
    config = config_for(tmp_path, routes=(ORDERS,), policy=policies_of(tmp_path, FLOOR_7, "Long"))
    async with running(tmp_path, config) as app:
        token = mint()
        assert app._policies is not None
        await app._policies.look()
        assert verdict_of(app, token, "/auth/envoy/orders/1?floor=7") == ("allow", "ok")
        assert verdict_of(app, token, "/auth/envoy/orders/1?floor=seven")[0] == "deny"
        policies_of(tmp_path, FLOOR_SEVEN, "String")
        await app._policies.look()
        await app._policies.look()
        assert verdict_of(app, token, "/auth/envoy/orders/1?floor=7") == ("allow", "ok")
        assert verdict_of(app, token, "/auth/envoy/orders/1?floor=seven") == ("deny", "policy_denied")


async def test_a_watched_schema_that_routes_do_not_fit_is_refused_and_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = config_for(tmp_path, routes=(ORDERS,), policy=policies_of(tmp_path, FLOOR_7, "Long"))
    async with running(tmp_path, config) as app:
        token = mint()
        assert app._policies is not None
        await app._policies.look()
        policies_of(tmp_path, "permit (principal, action, resource);", "Set<Long>")
        for _ in range(4):
            await app._policies.look()
        told = [record.getMessage() for record in caplog.records if "the former ones stay" in record.message]
        assert len(told) == 1
        assert "routes[0].context.floor" in told[0]
        assert verdict_of(app, token, "/auth/envoy/orders/1?floor=7") == ("allow", "ok")
        assert verdict_of(app, token, "/auth/envoy/orders/1?floor=8") == ("deny", "policy_denied")
        policies_of(tmp_path, FLOOR_SEVEN, "String")
        await app._policies.look()
        await app._policies.look()
        assert verdict_of(app, token, "/auth/envoy/orders/1?floor=7") == ("allow", "ok")
