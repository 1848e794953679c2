"""granian: a fixed ASGI answer as the floor of every Python server, and Starlette with PyJWT on it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench.machine import package_version
from bench.material import AUDIENCE, ISSUER
from bench.peers.base import Peer, Setup

# The settings of notes that all granian peers and our own gateway share: one worker, one thread, HTTP/1 only.
SETTINGS = (
    "--interface", "asgi", "--workers", "1", "--runtime-threads", "1", "--runtime-mode", "st", "--loop", "uvloop",
    "--http", "1", "--no-access-log", "--log-level", "error", "--backlog", "2048", "--backpressure", "1024",
)  # fmt: skip

_HELLO = """\
START = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]}
BODY = {"type": "http.response.body", "body": b""}


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send(START)
        await send(BODY)
"""

_STARLETTE = """\
import jwt
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

KEY = jwt.PyJWK({jwk!r})


async def auth(request):
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return Response(status_code=401)
    try:
        claims = jwt.decode(token, KEY, algorithms=["RS256"], audience={audience!r}, issuer={issuer!r})
    except jwt.InvalidTokenError:
        return Response(status_code=401)
    return Response(headers={{"x-auth-subject": claims["sub"]}})


app = Starlette(routes=[Route("/auth", auth)])
"""


class GranianHello(Peer):
    name = "granian, a fixed answer"
    authenticates = False
    checks = "nothing"

    def version(self) -> str:
        return package_version("granian")

    def missing(self) -> str | None:
        return "granian is not installed" if package_version("granian") == "absent" else None

    def command(self, setup: Setup) -> Sequence[str]:
        (setup.folder / "peer_app.py").write_text(self.source(setup))
        return [sys.executable, "-m", "granian", *SETTINGS, "--port", str(setup.port), "peer_app:app"]

    def source(self, setup: Setup) -> str:
        return _HELLO


class StarlettePyJWT(GranianHello):
    name = "granian + Starlette + PyJWT"
    authenticates = True
    checks = "signature, alg, iss, aud, exp, nbf, iat"
    skips = "kid, typ, duplicate members; no cache"

    def version(self) -> str:
        return f"{package_version('granian')} + {package_version('starlette')} + {package_version('pyjwt')}"

    def source(self, setup: Setup) -> str:
        return _STARLETTE.format(jwk=setup.issuer.jwk, audience=AUDIENCE, issuer=ISSUER)
