"""The two pages of the token service: asking for consent, and saying why a request goes nowhere. No script runs."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
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
_STRANGER: Final = "This application is not known to whoever runs this site. Agree only if you trust where it leads."

# The theme of all pages. It is put into these: nothing else has to be served for them.
_STYLE: Final = (Path(__file__).parents[1] / "login" / "style.css").read_text(encoding="utf-8")
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


def consent_page(asked: AskConsent, action: str) -> Response:
    """Show who asks for what, and where the browser goes afterwards; the form is posted to `action`."""
    client = asked.client
    scopes = [_MEANINGS.get(scope, scope) for scope in asked.scopes]
    scopes += [f"Use {resource.name} for you" for resource in asked.resources]
    items = "".join(f"<li><div>{escape(text)}</div></li>" for text in scopes)
    known = "" if client.source == "config" else f'<p class="note bad">{_STRANGER}</p>'
    body = (
        f"<h1>{escape(client.name)} asks for access</h1>{known}<p>If you agree, it can:</p>"
        f'<ul class="rows">{items or "<li><div>Know that you agreed</div></li>"}</ul>'
        f'<p class="soft">You go on at {escape(_place(asked.redirect_uri))}</p>'
        f'<form method="post" action="{escape(action)}">'
        f'<input type="hidden" name="request" value="{escape(asked.request)}">'
        f'<input type="hidden" name="csrf" value="{escape(asked.csrf)}">'
        '<button class="main" name="decision" value="allow">Allow</button>'
        '<div class="actions"><button name="decision" value="deny">Cancel</button></div></form>'
    )
    return _page(f"{client.name} asks for access", body, form_targets=(_origin(asked.redirect_uri),))


def unsafe_page(message: str, request_id: str, status: int = 400) -> Response:
    """Show why the browser is not sent back to the application."""
    body = (
        "<h1>This cannot go on</h1>"
        f"<p>{escape(message[:1].upper() + message[1:])}.</p>"
        "<p>Go back to the application and try again. If it happens again, tell whoever runs it.</p>"
        f'<p class="soft"><small>{escape(request_id)}</small></p>'
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
        "referrer-policy": "same-origin",  # the addresses of these pages are nobody else's business
        "cache-control": "no-store",
    }
    return Response(html, status, headers, "text/html; charset=utf-8")


def _origin(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("https", "http") else f"{parts.scheme}:"


def _place(uri: str) -> str:
    parts = urlsplit(uri)
    return parts.netloc if parts.scheme in ("https", "http") else f"{parts.scheme}:…"
