"""HAProxy: `jwt_verify` with a PEM key, one thread."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import ClassVar

from bench.machine import first_match
from bench.material import AUDIENCE, ISSUER
from bench.peers.base import Door, Peer, Setup

_TEMPLATE = """\
global
    nbthread 1
    maxconn 4096

defaults
    mode http
    timeout client 30s
    timeout server 30s
    timeout connect 2s
    http-reuse always

frontend door
    bind 127.0.0.1:{port}
{rules}
{answer}
"""

# In the order that the manual shows for `jwt_verify` (7.3.1): algorithm first, then the claims, then the signature.
_RULES = """\
    http-request set-var(txn.bearer) http_auth_bearer
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_header_query('$.alg') -m str RS256 }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.iss') -m str {issuer} }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_payload_query('$.aud') -m str {audience} }}
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 if {{ var(txn.bearer),jwt_payload_query('$.exp','int'),sub(txn.now) -m int lt 0 }}
    http-request deny deny_status 401 unless {{ var(txn.bearer),jwt_verify("RS256","{pem}") -m int 1 }}"""


class HAProxy(Peer):
    name = "HAProxy jwt_verify"
    doors: ClassVar[tuple[Door, ...]] = ("forward", "proxy")
    skips = "kid, nbf, iat, typ, crit, duplicate members, canonical base64url and path; no cache"
    _binary = shutil.which("haproxy") or "/usr/sbin/haproxy"

    def version(self) -> str:
        return first_match([self._binary, "-v"], r"version (\S+)")

    def missing(self) -> str | None:
        return None if shutil.which(self._binary) else "haproxy is not installed"

    def command(self, setup: Setup) -> Sequence[str]:
        pem = setup.folder / "key.pem"
        pem.write_bytes(setup.issuer.public_pem)
        config = setup.folder / "haproxy.cfg"
        rules = _RULES.format(issuer=ISSUER, audience=AUDIENCE, pem=pem) if self.authenticates else ""
        config.write_text(_TEMPLATE.format(port=setup.port, rules=rules, answer=self._answer(setup)))
        return [self._binary, "-f", str(config), "-db"]

    def _answer(self, setup: Setup) -> str:
        subject = "%[var(txn.bearer),jwt_payload_query('$.sub')]"
        if setup.door == "forward":
            return f"    http-request return status 200 hdr X-Auth-Subject {subject}"
        header = f"    http-request set-header X-Auth-Subject {subject}\n" if self.authenticates else ""
        return f"{header}    default_backend app\n\nbackend app\n    server app 127.0.0.1:{setup.upstream_port}"


class HAProxyFloor(HAProxy):
    name = "HAProxy without auth"
    doors = ("proxy",)
    authenticates = False
    checks, skips = "nothing", ""
