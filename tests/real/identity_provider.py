"""An identity provider of our own on loopback, by which people log in: honest by default, able to forge anything."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, parse_qsl, unquote, urlencode, urlsplit

from tests.forge import Signer, rsa_signer
from tests.real.issuer import RealIssuer

CLIENT_ID = "portcullis"
CLIENT_SECRET = "a+secret/of the:client"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class RealIdentityProvider(RealIssuer):
    """RealIssuer with the endpoints of a log-in. What it answers can be changed by `forge_…`."""

    def __init__(self, *, pushes: bool = True) -> None:
        self.signer: Signer = rsa_signer("idp")
        self.kid = "idp"
        super().__init__([self.signer.jwk()])
        self.pushes = pushes
        self.user: dict[str, Any] = {"sub": "248289761001", "sid": "s-1"}
        self.told: dict[str, Any] = {"email": "alice@corp.example", "email_verified": True, "name": "Alice"}
        self.forge_claims: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
        self.forge_answer: dict[str, str | None] = {}  # parameters of the redirect; None takes one away
        self.now_s: Callable[[], float] = time.time
        self.requests: list[dict[str, str]] = []  # authorization requests as they came
        self._pushed: dict[str, dict[str, str]] = {}
        self._codes: dict[str, dict[str, str]] = {}
        self.used: list[str] = []  # codes that were presented

    def authorize(self, address: str) -> str:
        """Be the browser and the user at the authorization endpoint; return where that sends the browser."""
        query = dict(parse_qsl(urlsplit(address).query))
        request = self._pushed.pop(query["request_uri"]) if "request_uri" in query else query
        assert address.startswith(f"{self.issuer}/authorize?")
        assert request["client_id"] == query["client_id"] == CLIENT_ID
        self.requests.append(request)
        code = secrets.token_urlsafe(16)
        self._codes[code] = request
        answer: dict[str, str | None] = {"code": code, "state": request["state"], "iss": self.issuer}
        answer |= self.forge_answer
        kept = {name: value for name, value in answer.items() if value is not None}
        return f"{request['redirect_uri']}?{urlencode(kept)}"

    def logout_token(self, **changes: Any) -> str:
        """Make a logout token."""
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": int(self.now_s()),
            "exp": int(self.now_s()) + 120,
            "jti": secrets.token_hex(8),
            "sub": self.user["sub"],
            "events": {"http://schemas.openid.net/event/backchannel-logout": {}},
        }
        claims |= changes
        return self._signed({k: v for k, v in claims.items() if v is not None}, "logout+jwt")

    def _signed(self, claims: Mapping[str, Any], kind: str = "JWT") -> str:
        header = {"alg": self.signer.algorithm, "kid": self.kid, "typ": kind}
        return self.signer.token(claims, header).decode()

    def _document(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, object]:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if "/.well-known/" in path:
            status, document = super()._document(path, headers, body)
            assert isinstance(document, dict)
            return status, self._metadata() | document
        if path == "/par":
            if not self._knows(headers):
                return 401, {"error": "invalid_client"}
            uri = f"urn:ietf:params:oauth:request_uri:{secrets.token_hex(8)}"
            self._pushed[uri] = form
            return 201, {"request_uri": uri, "expires_in": 60}
        if path == "/token":
            return self._token(headers, form)
        if path == "/userinfo":
            return 200, {"sub": self.user["sub"], **self.told}
        return super()._document(path, headers, body)

    def _metadata(self) -> dict[str, object]:
        found: dict[str, object] = {
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "end_session_endpoint": f"{self.issuer}/end",
            "authorization_response_iss_parameter_supported": True,
        }
        return found | ({"pushed_authorization_request_endpoint": f"{self.issuer}/par"} if self.pushes else {})

    def _token(self, headers: Mapping[str, str], form: Mapping[str, str]) -> tuple[int, object]:
        if not self._knows(headers):
            return 401, {"error": "invalid_client"}
        code = form.get("code", "")
        self.used.append(code)
        request = self._codes.pop(code, None)
        verifier = form.get("code_verifier", "")
        if (
            request is None
            or form.get("redirect_uri") != request["redirect_uri"]
            or _text(hashlib.sha256(verifier.encode()).digest()) != request["code_challenge"]
        ):
            return 400, {"error": "invalid_grant"}
        access_token = secrets.token_urlsafe(16)
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": int(self.now_s()),
            "exp": int(self.now_s()) + 300,
            "auth_time": int(self.now_s()),
            "nonce": request["nonce"],
            "at_hash": _text(hashlib.sha256(access_token.encode()).digest()[:16]),
            **self.user,
        }
        claims = {name: value for name, value in self.forge_claims(claims).items() if value is not None}
        return 200, {"access_token": access_token, "token_type": "Bearer", "id_token": self._signed(claims)}

    @staticmethod
    def _knows(headers: Mapping[str, str]) -> bool:
        scheme, _, encoded = headers.get("authorization", "").partition(" ")
        if scheme != "Basic":
            return False
        name, _, password = base64.b64decode(encoded).decode().partition(":")
        return (unquote(name), unquote(password)) == (CLIENT_ID, CLIENT_SECRET)
