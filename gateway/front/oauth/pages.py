"""The pages of the token service: asking for consent or before a log-out, and saying why a request goes nowhere.

No script runs on them, and nothing is asked for but the page: they are there without the pages of log-in.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from gateway.flows.oauth import AskConsent, AskLogout
from gateway.front.login.reader_language import Languages
from gateway.front.login.texts import Texts

_SCOPE_TEXTS: Final = {  # other scopes are shown by their names
    "openid": "scope_openid",
    "profile": "scope_profile",
    "email": "scope_email",
    "offline_access": "scope_offline_access",
}

# The theme of all pages. It is put into these.
_STYLE: Final = (Path(__file__).parents[1] / "login" / "style.css").read_text(encoding="utf-8")
_STYLE_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()


class OAuthPages:
    """Makes the pages, in their reader's language."""

    def __init__(self, languages: Languages) -> None:
        self._languages = languages

    def consent(self, request: Request, asked: AskConsent, action: str) -> Response:
        """Show who asks for what, and where the browser goes afterwards; the form is posted to `action`."""
        texts, client = self._languages.texts(request), asked.client
        title = texts["consent_title"].format(client=client.name)
        scopes = [texts[_SCOPE_TEXTS[scope]] if scope in _SCOPE_TEXTS else scope for scope in asked.scopes]
        scopes += [texts["consent_resource"].format(resource=resource.name) for resource in asked.resources]
        items = "".join(f"<li><div>{escape(text)}</div></li>" for text in scopes or [texts["consent_nothing"]])
        known = "" if client.source == "config" else f'<p class="note bad">{escape(texts["consent_stranger"])}</p>'
        body = (
            f"<h1>{escape(title)}</h1>{known}<p>{escape(texts['consent_intro'])}</p>"
            f'<ul class="rows">{items}</ul>'
            f'<p class="soft">{escape(texts["consent_place"].format(place=_place(asked.redirect_uri)))}</p>'
            f"{_form(action, asked.request, asked.csrf)}"
            f'<button class="main" name="decision" value="allow">{escape(texts["consent_allow"])}</button>'
            f'<div class="actions"><button name="decision" value="deny">{escape(texts["consent_deny"])}</button></div>'
            "</form>"
        )
        return self._page(request, texts, title, body, form_targets=(_origin(asked.redirect_uri),))

    def ask_logout(self, request: Request, asked: AskLogout, action: str) -> Response:
        """Ask whether the user wants to be logged out; the form is posted to `action`."""
        texts = self._languages.texts(request)
        named = texts["app_logout_text"].format(client=asked.client.name) if asked.client else texts["logout_text"]
        body = (
            f"<h1>{escape(texts['logout_title'])}</h1><p>{escape(named)}</p>"
            f"{_form(action, asked.request, asked.csrf)}"
            f'<button class="main">{escape(texts["logout"])}</button></form>'
        )
        targets = (_origin(asked.location),) if asked.location else ()
        return self._page(request, texts, texts["logout_title"], body, form_targets=targets)

    def logged_out(self, request: Request) -> Response:
        """Say goodbye to whose application does not say where to go on."""
        texts = self._languages.texts(request)
        body = f"<h1>{escape(texts['logged_out_title'])}</h1><p>{escape(texts['logged_out_text'])}</p>"
        return self._page(request, texts, texts["logged_out_title"], body)

    def unsafe(self, request: Request, message: str, request_id: str, status: int = 400) -> Response:
        """Show why the browser is not sent back to the application. The message is for whoever made that."""
        texts = self._languages.texts(request)
        body = (
            f"<h1>{escape(texts['unsafe_title'])}</h1>"
            f'<p lang="en">{escape(message[:1].upper() + message[1:])}.</p>'
            f"<p>{escape(texts['unsafe_advice'])}</p>"
            f'<p class="soft"><small>{escape(request_id)}</small></p>'
        )
        response = self._page(request, texts, texts["unsafe_title"], body, status=status)
        response.headers["x-request-id"] = request_id
        return response

    def _page(
        self,
        request: Request,
        texts: Texts,
        title: str,
        body: str,
        *,
        status: int = 200,
        form_targets: Sequence[str] = (),
    ) -> Response:
        html = _html(texts, title, body)
        response = Response(html, status, _headers(form_targets), "text/html; charset=utf-8")
        self._languages.keep(request, response)
        return response


def _html(texts: Texts, title: str, body: str) -> str:
    return (
        f'<!doctype html><html lang="{escape(texts["lang"])}"><head><meta charset="utf-8">'
        f"<title>{escape(title)}</title>"
        '<meta name="viewport" content="width=device-width,initial-scale=1"><meta name="robots" content="noindex">'
        f'<meta name="color-scheme" content="light dark"><style>{_STYLE}</style></head>'
        f"<body><main>{body}</main></body></html>"
    )


def _headers(form_targets: Sequence[str]) -> dict[str, str]:
    # Browsers hold `form-action` against the redirect that answers a form, too: the application's address is in it.
    targets = " ".join(("'self'", *form_targets))
    policy = (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; form-action {targets}; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return {
        "content-security-policy": policy,
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",  # the addresses of these pages are nobody else's business
        "cache-control": "no-store",
    }


def _form(action: str, request: str, csrf: str) -> str:
    return (
        f'<form method="post" action="{escape(action)}">'
        f'<input type="hidden" name="request" value="{escape(request)}">'
        f'<input type="hidden" name="csrf" value="{escape(csrf)}">'
    )


def _origin(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in ("https", "http") else f"{parts.scheme}:"


def _place(uri: str) -> str:
    parts = urlsplit(uri)
    return parts.netloc if parts.scheme in ("https", "http") else f"{parts.scheme}:…"
