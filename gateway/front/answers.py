"""What each refusal says to the client: status, headers, problem+json (RFC 9457) and a page for browsers.

A client learns no more than RFC 6750 §3.1 asks: every fault of a token gives one and the same answer. The log has the
reason.
"""

from __future__ import annotations

import dataclasses
import html
from dataclasses import dataclass

import orjson

from gateway._native.front import REASONS, DenyAnswer

Header = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Refusal:
    """The public side of one reason."""

    status: int
    code: str
    title: str
    detail: str
    challenge: str = ""  # error code of WWW-Authenticate; "-" = a challenge without one
    retry_after_s: int = 0


_INVALID_TOKEN = Refusal(
    401,
    "invalid_token",
    "The access token is not valid",
    "the access token is malformed, expired, revoked, meant for somebody else or not signed by a trusted issuer",
    challenge="invalid_token",
)

_REFUSALS = {
    "keys_unavailable": Refusal(
        503, "keys_unavailable", "Keys unavailable", "the issuer's keys cannot be had at the moment", retry_after_s=5
    ),
    "no_credentials": Refusal(
        401, "no_credentials", "Authentication required", "send an access token as a bearer token", challenge="-"
    ),
    "credentials_malformed": Refusal(
        400,
        "invalid_request",
        "Malformed credentials",
        "the Authorization header must be the word Bearer, a space and one token",
        challenge="invalid_request",
    ),
    "authorization_repeated": Refusal(
        400,
        "invalid_request",
        "Malformed credentials",
        "the Authorization header may be sent once only",
        challenge="invalid_request",
    ),
    "insufficient_scope": Refusal(
        403, "insufficient_scope", "Not permitted", "the access token lacks a scope that this address asks for"
    ),
    "no_route": Refusal(404, "no_route", "Not found", "no route of the gateway leads to this address"),
    "method_not_allowed": Refusal(
        405, "method_not_allowed", "Method not allowed", "the route for this address takes other methods"
    ),
    "path_refused": Refusal(
        400, "path_refused", "Ambiguous path", "the path can be read in more than one way; send its canonical form"
    ),
    "host_invalid": Refusal(400, "host_invalid", "Invalid host", "exactly one valid Host header is needed"),
    "header_refused": Refusal(
        400, "header_refused", "Header refused", "header names may have letters, digits and hyphens only"
    ),
    "headers_too_large": Refusal(
        431, "headers_too_large", "Headers too large", "the request has more or longer headers than are accepted"
    ),
    "forwarding_header_repeated": Refusal(
        400, "forwarding_header_repeated", "Ambiguous request", "a forwarding header stands there more than once"
    ),
    "original_request_missing": Refusal(
        400,
        "original_request_missing",
        "Original request unknown",
        "the proxy did not say which request it asks about; `portcullis render` prints the snippet that does",
    ),
    "proxy_untrusted": Refusal(
        403, "proxy_untrusted", "Not permitted", "this endpoint answers the addresses in server.trusted_proxies only"
    ),
    "method_invalid": Refusal(400, "method_invalid", "Invalid method", "the request's method is not a method"),
    "introspection_unavailable": Refusal(
        503,
        "introspection_unavailable",
        "Introspection unavailable",
        "the issuer cannot be asked about the token at the moment",
        retry_after_s=5,
    ),
    "no_upstream": Refusal(404, "no_upstream", "Not found", "the route for this address serves forward-auth only"),
    "auth_unsupported": Refusal(
        403, "auth_unsupported", "Not permitted", "the route asks for a kind of login that this gateway does not offer"
    ),
    "policy_denied": Refusal(403, "policy_denied", "Not permitted", "no policy permits this, or one forbids it"),
    "policy_incomplete": Refusal(
        403, "policy_incomplete", "Not permitted", "the request lacks something that the policies are asked about"
    ),
    "policy_claim_invalid": Refusal(
        403, "policy_claim_invalid", "Not permitted", "a claim of the access token is not of the kind that is asked for"
    ),
    "policy_unavailable": Refusal(
        503, "policy_unavailable", "Policies unavailable", "the policies cannot be asked at the moment", retry_after_s=5
    ),
    "attributes_unavailable": Refusal(
        503,
        "attributes_unavailable",
        "Attributes unavailable",
        "what the policies ask about cannot be fetched at the moment",
        retry_after_s=5,
    ),
    "session_invalid": Refusal(
        401, "session_invalid", "Not signed in", "the session has ended, or there never was one; sign in again"
    ),
    "session_unavailable": Refusal(
        503,
        "session_unavailable",
        "Sessions unavailable",
        "sessions cannot be looked up at the moment",
        retry_after_s=5,
    ),
    "cross_site": Refusal(
        403, "cross_site", "Not permitted", "another site made the browser send this; open the page itself first"
    ),
    "internal_error": Refusal(500, "internal_error", "Internal error", "the gateway could not judge the request"),
}


# RFC 9449 §7.1. What is verified fast; others are taken too.
_DPOP_CHALLENGE = b'DPoP algs="ES256 EdDSA PS256 RS256"'


def refusal_of(reason: str) -> Refusal:
    """Give the public side of a reason; what is not named otherwise is a fault of the token."""
    return _REFUSALS.get(reason, _INVALID_TOKEN)


def nginx_status(status: int) -> int:
    """Give what nginx's `auth_request` can pass on for a status: anything but 401 and 403 becomes a 500 there."""
    return 401 if status == 401 else 403


def challenge_of(
    realm: str, error: str, description: str = "", scope: str = "", *, resource_metadata: str = ""
) -> bytes:
    """Write a WWW-Authenticate value (RFC 6750 §3): without an error code where no credentials were sent (§3.1).

    `resource_metadata`: where it says which issuer gives tokens for the resource (RFC 9728 §5.1).
    """
    parts = [f'Bearer realm="{realm}"']
    if error not in {"", "-"}:
        parts.append(f'error="{error}"')
        parts.append(f'error_description="{description}"')
    if scope:
        parts.append(f'scope="{scope}"')
    if resource_metadata:
        parts.append(f'resource_metadata="{resource_metadata}"')
    return ", ".join(parts).encode("ascii")


def problem_body(status: int, code: str, title: str, detail: str, request_id: str) -> bytes:
    """Write a problem+json document (RFC 9457 §3)."""
    return orjson.dumps(
        {
            "type": f"urn:portcullis:error:{code}",
            "title": title,
            "status": status,
            "code": code,
            "detail": detail,
            "request_id": request_id,
        }
    )


_ID_MARK = "@request-id@"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:18vh auto 0;padding:0 1.5rem}}
body{{color:#1d2430;background:#fafbfc}}
h1{{font-size:1.5rem;margin:0 0 .5rem}}p{{margin:.25rem 0}}small{{color:#667085}}
@media(prefers-color-scheme:dark){{body{{color:#e4e7ec;background:#12161c}}small{{color:#98a2b3}}}}
</style></head><body><h1>{title}</h1><p>{detail}.</p>
<p><small>{status} {code} · request {mark}</small></p></body></html>
"""


def page_body(status: int, code: str, title: str, detail: str, request_id: str) -> bytes:
    """Write the page that a browser gets for a refusal."""
    sentence = detail[:1].upper() + detail[1:]
    return _PAGE.format(
        title=html.escape(title), detail=html.escape(sentence), status=status, code=code, mark=html.escape(request_id)
    ).encode()


def _answer(refusal: Refusal, realm: str, resource_metadata: str, *, proofs: bool) -> DenyAnswer:
    headers: list[Header] = [(b"cache-control", b"no-store")]
    if refusal.challenge:
        value = challenge_of(
            realm,
            refusal.challenge,
            refusal.detail,
            resource_metadata=resource_metadata if refusal.status == 401 else "",
        )
        headers.append((b"www-authenticate", value))
        if proofs and refusal.status == 401:
            headers.append((b"www-authenticate", _DPOP_CHALLENGE))
    if refusal.retry_after_s:
        headers.append((b"retry-after", str(refusal.retry_after_s).encode()))
    problem = problem_body(refusal.status, refusal.code, refusal.title, refusal.detail, _ID_MARK)
    page = page_body(refusal.status, refusal.code, refusal.title, refusal.detail, _ID_MARK)
    problem_head, problem_tail = problem.split(_ID_MARK.encode())
    page_head, page_tail = page.split(_ID_MARK.encode())
    return DenyAnswer(
        refusal.status,
        nginx_status=nginx_status(refusal.status),
        headers=tuple(headers),
        problem_head=problem_head,
        problem_tail=problem_tail,
        page_head=page_head,
        page_tail=page_tail,
    )


def deny_answers(
    realm: str, *, forward: bool = False, resource_metadata: str = "", proofs: bool = False
) -> list[DenyAnswer]:
    """Make the answers to all reasons, in the order of `REASONS`, for the proxy door or for the forward-auth ones.

    `resource_metadata` goes into challenges; see `challenge_of`. `proofs`: tokens may come under the scheme DPoP too.

    A forward-auth answer is about somebody else's address: what has no route there is not permitted (403), not absent.
    """
    answers = []
    for reason in REASONS:
        refusal = refusal_of(reason)
        if forward and refusal.status in {404, 405}:
            refusal = dataclasses.replace(refusal, status=403, title="Not permitted")
        answers.append(_answer(refusal, realm, resource_metadata, proofs=proofs))
    return answers
