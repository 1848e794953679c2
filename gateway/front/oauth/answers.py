"""What clients are told: answers and errors of OAuth (RFC 6749 §5, RFC 6750 §3, RFC 9449 §7, §8)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from starlette.responses import Response

from gateway.flows.oauth import OAuthRefused
from gateway.flows.oauth.dpop import ALGORITHMS
from gateway.front.responses import json_response

# Apps in browsers read these endpoints too. No cookie means anything at them, so that any origin may (RFC 6749 has no
# other word on it; without this a public client in a browser cannot be one).
CORS: Final[Mapping[str, str]] = {
    "access-control-allow-origin": "*",
    "access-control-expose-headers": "DPoP-Nonce, WWW-Authenticate",
}
PREFLIGHT: Final[Mapping[str, str]] = {
    **CORS,
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": "Authorization, Content-Type, DPoP, MCP-Protocol-Version",
    "access-control-max-age": "7200",
}


def preflight() -> Response:
    """Answer a browser that asks before it sends what a page wants to send."""
    return Response(status_code=204, headers=PREFLIGHT)


def granted(members: Mapping[str, Any], nonce: str, status: int = 200) -> Response:
    """Answer with what was asked for; nobody may store it (RFC 6749 §5.1)."""
    headers = {**CORS, "pragma": "no-cache"}
    if nonce:
        headers["dpop-nonce"] = nonce
    return json_response(members, status, headers)


def published(document: Mapping[str, Any], max_age_s: int) -> Response:
    """Answer with a document that everybody may read and keep for a while."""
    return json_response(document, 200, {**CORS, "cache-control": f"public, max-age={max_age_s}"})


def refused(error: OAuthRefused, nonce: str = "", *, basic: bool = False) -> Response:
    """Answer with an error code (RFC 6749 §5.2). `basic`: the client tried to prove itself by HTTP Basic."""
    headers = {**CORS, "pragma": "no-cache"}
    if nonce and error.error in ("use_dpop_nonce", "invalid_dpop_proof"):
        headers["dpop-nonce"] = nonce
    if error.error == "invalid_client" and basic:
        headers["www-authenticate"] = 'Basic realm="oauth2"'
    if error.retry_after_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after_s)))
    return json_response({"error": error.error, "error_description": str(error)}, _status(error, basic=basic), headers)


def challenged(error: OAuthRefused | None, scheme: str) -> Response:
    """Answer a request whose access token does not do, or is missing (RFC 6750 §3.1, RFC 9449 §7.1)."""
    if error is not None and error.http_status >= 500:
        return refused(error)
    members = []
    if error is not None:
        code = "invalid_dpop_proof" if error.error == "use_dpop_nonce" else error.error
        members = [f'error="{code}"', f'error_description="{error}"']
    dpop = ["DPoP " + ", ".join((*members, f'algs="{" ".join(ALGORITHMS)}"'))]
    bearer = ["Bearer " + ", ".join(members) if members else 'Bearer realm="oauth2"']
    if scheme == "dpop":
        values = dpop
    elif error is None:
        values = [*bearer, *dpop]
    else:
        values = bearer
    status = 401 if error is None else error.http_status if error.error == "insufficient_scope" else 401
    response = Response(status_code=status, headers={**CORS, "cache-control": "no-store"})
    for value in values:
        response.headers.append("www-authenticate", value)
    return response


def _status(error: OAuthRefused, *, basic: bool) -> int:
    # RFC 6749 §5.2: 401 "If the client attempted to authenticate via the Authorization header", else it MAY be 401;
    # 400 and 401 are both read by clients, and 401 without a challenge is no HTTP (RFC 9110 §15.5.2).
    if error.error == "invalid_client" and not basic:
        return 400
    return error.http_status
