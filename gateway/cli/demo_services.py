"""The two services around the demo's gateway: an issuer that publishes its keys and mints tokens, and an app.

Both are toys on loopback, made with the standard library; the gateway in between is the real one. They run in a process
of their own (`python -m gateway.cli.demo_services`), because the gateway's parent may have no threads when it forks:

    the demo ◂── standard output: one line of JSON with our addresses
             ──▸ standard input: nothing; the process ends when it does
"""

from __future__ import annotations

import html
import json
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from gateway.tokens.signing import SigningKey, mint, new_key, public_jwks

AUDIENCE = "demo-api"
TOKEN_LIFETIME_S = 3600


class _Quiet(BaseHTTPRequestHandler):
    """A handler that logs nothing and answers with a length."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """The gateway's log is the one to read."""

    def answer(self, body: str, content_type: str, status: int = 200) -> None:
        data = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


class _Service:
    """A threaded HTTP server on a free loopback port."""

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int = 0) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class DemoIssuer(_Service):
    """Publishes metadata and keys, and gives a token to whoever asks: `/token?sub=alice&scope=orders:read`."""

    def __init__(self, port: int = 0) -> None:
        self.key: SigningKey = new_key("ES256")
        issuer = self

        class Handler(_Quiet):
            def do_GET(self) -> None:
                target = urlsplit(self.path)
                if target.path == "/.well-known/openid-configuration":
                    self.answer(json.dumps(issuer.metadata()), "application/json")
                elif target.path == "/keys":
                    self.answer(json.dumps(public_jwks([issuer.key])), "application/json")
                elif target.path == "/token":
                    query = {name: values[-1] for name, values in parse_qs(target.query).items()}
                    self.answer(issuer.token(query.get("sub", "alice"), query.get("scope", "")), "text/plain")
                else:
                    self.answer("not found\n", "text/plain", 404)

        super().__init__(Handler, port)

    def metadata(self) -> dict[str, Any]:
        """Give what discovery needs (OIDC Discovery 1.0 §3)."""
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/keys",
            "authorization_endpoint": f"{self.url}/authorize",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        }

    def token(self, subject: str, scope: str) -> str:
        """Mint an access token."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": subject,
            "scope": scope,
            "iat": now,
            "exp": now + TOKEN_LIFETIME_S,
        }
        return mint(claims, self.key)


class DemoApp(_Service):
    """Shows who the gateway says is calling."""

    def __init__(self, port: int = 0) -> None:
        class Handler(_Quiet):
            def do_GET(self) -> None:
                identity = {
                    name.lower(): value for name, value in self.headers.items() if name.lower().startswith("x-auth-")
                }
                body = {"app": "demo", "path": self.path, "you are": identity}
                if "text/html" in self.headers.get("Accept", ""):
                    shown = html.escape(json.dumps(body, indent=2))
                    self.answer(f"<!doctype html><title>Demo app</title><pre>{shown}</pre>", "text/html")
                else:
                    self.answer(json.dumps(body, indent=2) + "\n", "application/json")

            do_HEAD = do_GET

        super().__init__(Handler, port)


def main() -> None:
    """Serve until standard input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the gateway's to answer; our input ends with it
    issuer, app = DemoIssuer(), DemoApp()
    print(json.dumps({"issuer": issuer.url, "app": app.url}), flush=True)
    try:
        sys.stdin.read()
    finally:
        app.stop()
        issuer.stop()


if __name__ == "__main__":
    main()
