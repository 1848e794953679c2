"""The two pages of the token service: asking for consent, and saying why a request goes nowhere. No script runs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from typing import Final
from urllib.parse import urlsplit

from starlette.responses import Response

from gateway.flows.oauth import AskConsent

# What the usual scopes mean to a user; others are shown by their names.
_MEANINGS: Final = {
    "openid": "Know that it is you",
    "profile": "See your name",
    "email": "See your e-mail address",
    "offline_access": "Stay connected when you are away",
}
_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1a1d21;--soft:#5a6270;--line:#d9dde3;--page:#f4f5f7;--card:#fff;--act:#1f5fd0}
@media (prefers-color-scheme:dark){:root{--ink:#eceef1;--soft:#a3abb8;--line:#363c45;--page:#14171a;--card:#1d2126;
--act:#7aa7ff}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;padding:1rem;background:var(--page);color:var(--ink);
font:1rem/1.5 system-ui,sans-serif}
main{width:100%;max-width:26rem;background:var(--card);border:1px solid var(--line);border-radius:14px;padding:1.75rem}
h1{font-size:1.3rem;line-height:1.3;margin:0 0 .75rem;overflow-wrap:anywhere}
p{margin:.5rem 0;color:var(--soft);overflow-wrap:anywhere}
ul{margin:1rem 0;padding:0;list-style:none;border-top:1px solid var(--line)}
li{padding:.65rem 0;border-bottom:1px solid var(--line);overflow-wrap:anywhere}
form{display:grid;grid-template-columns:1fr 1fr;gap:.75rem;margin-top:1.25rem}
button{font:inherit;padding:.75rem;border-radius:10px;border:1px solid var(--line);background:none;color:inherit;
cursor:pointer;min-height:3rem}
button.yes{background:var(--act);border-color:var(--act);color:var(--card);font-weight:600}
button:focus-visible{outline:3px solid var(--act);outline-offset:2px}
small{color:var(--soft)}
"""
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def consent_page(asked: AskConsent, action: str) -> Response:
    """Show who asks for what, and where the browser goes afterwards; the form is posted to `action`."""
    client = asked.client
    scopes = [_MEANINGS.get(scope, scope) for scope in asked.scopes]
    scopes += [f"Use {resource.name} for you" for resource in asked.resources]
    items = "".join(f"<li>{escape(text)}</li>" for text in scopes) or "<li>Nothing but that it may ask</li>"
    known = "" if client.source == "config" else "<p>This application is not known to the operator of this site.</p>"
    body = (
        f"<h1>{escape(client.name)} asks for access</h1>{known}<p>If you agree, it can:</p><ul>{items}</ul>"
        f"<small>You go on at {escape(_place(asked.redirect_uri))}</small>"
        f'<form method="post" action="{escape(action)}">'
        f'<input type="hidden" name="request" value="{escape(asked.request)}">'
        f'<input type="hidden" name="csrf" value="{escape(asked.csrf)}">'
        '<button name="decision" value="deny">Cancel</button>'
        '<button class="yes" name="decision" value="allow">Allow</button></form>'
    )
    return _page(f"{client.name} asks for access", body, form_targets=(_origin(asked.redirect_uri),))


def unsafe_page(message: str, request_id: str, status: int = 400) -> Response:
    """Show why the browser is not sent back to the application."""
    body = (
        "<h1>This cannot go on</h1>"
        f"<p>{escape(message[:1].upper() + message[1:])}.</p>"
        "<p>Go back to the application and try again. If it happens again, tell whoever runs it.</p>"
        f"<small>{escape(request_id)}</small>"
    )
    response = _page("This cannot go on", body, status=status)
    response.headers["x-request-id"] = request_id
    return response


def _page(title: str, body: str, *, status: int = 200, form_targets: Sequence[str] = ()) -> Response:
    html = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">'
        f"<style>{_STYLE}</style></head><body><main>{body}</main></body></html>"
    )
    # Browsers hold `form-action` against the redirect that answers a form, too: the application's address is in it.
    targets = " ".join(("'self'", *form_targets))
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {targets}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    headers = {
        "content-security-policy": policy,
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
    return Response(html, status, headers, "text/html; charset=utf-8")


def _origin(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("https", "http") else f"{parts.scheme}:"


def _place(uri: str) -> str:
    parts = urlsplit(uri)
    return parts.netloc if parts.scheme in ("https", "http") else f"{parts.scheme}:…"
