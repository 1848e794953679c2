"""Portcullis itself: `portcullis serve` with one worker, answers given inline or by granian's public interface."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from bench import door_policies
from bench.machine import package_version
from bench.material import AUDIENCE, ISSUER
from bench.peers.base import Door, Peer, Setup
from gateway import __version__

_CHECKOUT = Path(__file__).resolve().parents[2]
CACHE_ENTRIES = 20_000  # as Envoy's, so that both hold the 10,000 tokens with room to spare

_CONFIG = """\
[server]
listen = "127.0.0.1:{port}"
admin_listen = ""
workers = 1
inline = {inline}
run_dir = {run_dir}

[cache]
tokens_entries = {entries}
tokens_ttl_s = 3600.0

[log]
level = "error"
access = "off"
audit = "off"

[[issuers]]
issuer = "{issuer}"
audiences = ["{audience}"]
algorithms = ["{algorithm}"]
jwks_file = {jwks}

{policy}
[[routes]]
path = "{path}"
{asks}
{upstream}
"""

_POLICY = """\
[policy]
path = {folder}
entities = {entities}
principal = "User"
"""


class Portcullis(Peer):
    name = "Portcullis, inline answers"
    doors: ClassVar[tuple[Door, ...]] = ("forward", "proxy")
    checks = "signature, alg, kid, iss, aud, exp, nbf, iat, typ, crit, revocation, strict JSON and base64url"
    skips = "nothing that the others check"
    forward_path = "/auth/forward"
    inline = True
    policy = False
    # The checkout itself, also where it is not installed: the server starts in a folder of its own.
    environment: ClassVar[Mapping[str, str]] = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_CHECKOUT), os.environ.get("PYTHONPATH")]))
    }

    def version(self) -> str:
        return f"{__version__} on granian {package_version('granian')}"

    def missing(self) -> str | None:
        if importlib.util.find_spec("gateway.cli.serve") is None:
            return "this checkout cannot serve yet"
        return None

    def command(self, setup: Setup) -> Sequence[str]:
        jwks = setup.folder / "keys.json"
        setup.issuer.write_jwks(jwks)
        run_dir = setup.folder / "run"
        run_dir.mkdir(mode=0o700)
        upstream = f'upstream = "http://127.0.0.1:{setup.upstream_port}"' if setup.door == "proxy" else ""
        policy = self._write_policy(setup) if self.policy else ""
        config = setup.folder / "portcullis.toml"
        config.write_text(
            _CONFIG.format(
                port=setup.port,
                inline=str(self.inline).lower(),
                run_dir=json.dumps(str(run_dir)),
                entries=CACHE_ENTRIES,
                issuer=ISSUER,
                audience=AUDIENCE,
                algorithm=setup.issuer.algorithm,
                jwks=json.dumps(str(jwks)),
                policy=policy,
                path="/api/orders/{id}",  # the same for both, so that only the policies differ
                asks=door_policies.ROUTE_TOML if self.policy else "",
                upstream=upstream,
            )
        )
        return [sys.executable, "-m", "gateway", "serve", "-c", str(config)]

    @staticmethod
    def _write_policy(setup: Setup) -> str:
        folder = setup.folder / "policies"
        folder.mkdir()
        (folder / "orders.cedar").write_text(door_policies.POLICIES)
        (folder / "orders.cedarschema").write_text(door_policies.SCHEMA)
        entities = setup.folder / "entities.json"
        entities.write_text(json.dumps(door_policies.entities_for(setup.tokens)))
        return _POLICY.format(folder=json.dumps(str(folder)), entities=json.dumps(str(entities)))


class PortcullisPolicy(Portcullis):
    name = "Portcullis, inline answers, policy"
    checks = f"{Portcullis.checks}; five policies by role, team, state and a header"
    policy = True


class PortcullisPublic(Portcullis):
    name = "Portcullis, public interface"
    inline = False
