"""The composition root without a server: one worker's application on this test's own event loop."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.app import App, build_app, metrics_layout
from gateway.config import (
    Config,
    IssuerConfig,
    LogConfig,
    PolicyConfig,
    RelationsConfig,
    RouteConfig,
    ServerConfig,
    StoreConfig,
)
from gateway.errors import ConfigError
from gateway.observability.metrics import create_map
from gateway.types import WorkerContext
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
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"host", b"app.test"), (b"authorization", f"Bearer {token}".encode())],
        "client": ("127.0.0.1", 1),
    }
    verdict = app.asgi.judge_scope(scope)
    return verdict.kind, verdict.reason


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
        app.reload(config_for(tmp_path, "extra"))
        await settled(app)
        assert verdict_of(app, good) == ("allow", "ok")
        assert verdict_of(app, revoked) == ("deny", "revoked")
        assert verdict_of(app, mint(jti="three")) == ("deny", "insufficient_scope")


async def test_reload_of_the_same_shape_takes_effect_at_once(tmp_path: Path) -> None:
    async with running(tmp_path, config_for(tmp_path)) as app:
        token = mint()
        assert verdict_of(app, token) == ("allow", "ok")
        moved = RouteConfig(path="/elsewhere/{id}", scopes=("orders:read",))
        app.reload(config_for(tmp_path, routes=(moved,)))
        assert verdict_of(app, token) == ("deny", "no_route")
        assert verdict_of(app, token, "/auth/envoy/elsewhere/1") == ("allow", "ok")


async def test_reload_that_takes_an_issuer_away_ends_its_tokens(tmp_path: Path) -> None:
    async with running(tmp_path, config_for(tmp_path)) as app:
        token = mint()
        assert verdict_of(app, token) == ("allow", "ok")
        app.reload(config_for(tmp_path, issuers=()))
        await settled(app)
        assert verdict_of(app, token) == ("deny", "issuer_unknown")


async def test_config_that_cannot_serve_changes_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, config_for(tmp_path)) as app:
        twice = (RouteConfig(path="/a"), RouteConfig(path="/a"))
        with pytest.raises(ConfigError):
            app.reload(config_for(tmp_path, routes=twice))
        unwritable = LogConfig(access=str(tmp_path / "no" / "such" / "folder"), audit="off")
        with pytest.raises(ConfigError):
            app.reload(config_for(tmp_path, log=unwritable))
        assert verdict_of(app, mint()) == ("allow", "ok")


async def test_draining_is_told_to_every_part(tmp_path: Path) -> None:
    upstream = RouteConfig(path="/app/{*rest}", auth="none", upstream=f"http://127.0.0.1:{free_port()}")
    async with running(tmp_path, config_for(tmp_path, routes=(upstream,))) as app:
        app.draining = True
        assert app.asgi.draining
        assert all(pool.draining for pool in app._upstreams.pools())
        app.reload(config_for(tmp_path, routes=(upstream, RouteConfig(path="/x"))))
        assert app.asgi.draining


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
        app.reload(config_for(tmp_path, policy=policy))
        assert not app._vitals.dependencies()["relations"].ready  # nothing was read yet
        await settled(app)
        assert app._vitals.dependencies()["relations"].state == "ok"
        assert "portcullis_relations_up 1\n" in app._vitals.metrics_text()
        assert "portcullis_relation_readings_total 1\n" in app._vitals.metrics_text()
