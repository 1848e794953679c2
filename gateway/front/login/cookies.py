"""The cookies of log-in: what each is for, how it is set, and how forms are tied to the browser that asked for them.

All of them are `__Host-`, `Secure`, `HttpOnly` and `SameSite=Lax`: no other host can set them, no script can read them,
and no other site's form sends them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

FORM: Final = "__Host-portcullis-form"  # ties forms to this browser
STEP: Final = "__Host-portcullis-step"  # what is under way
KNOWN: Final = "__Host-portcullis-known"  # somebody logged in from here before
DEVICE: Final = "__Host-portcullis-device"  # a device that its user had remembered
VOUCHER: Final = "__Host-portcullis-voucher"  # what a gateway says of that device, for while the directory is away
LANGUAGE: Final = "__Host-portcullis-language"  # that an application asked for
KNOWN_S: Final = 365 * 86_400
STEP_S: Final = 3600

_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{22}")
_CROSS: Final = frozenset({"cross-site", "same-site"})


def put(response: Response, name: str, value: str, *, max_age_s: int | None = None) -> None:
    """Set a cookie; without `max_age_s` until the browser is closed."""
    response.set_cookie(name, value, max_age=max_age_s, path="/", secure=True, httponly=True, samesite="lax")


def drop(response: Response, name: str) -> None:
    """Have the browser forget a cookie."""
    put(response, name, "", max_age_s=0)


def forget_session(request: Request, response: Response, name: str) -> None:
    """Have the browser forget what it went on by: also what would carry it on while the directory is away."""
    drop(response, name)
    if request.cookies.get(VOUCHER):
        drop(response, VOUCHER)


@dataclass(frozen=True, slots=True)
class FormKey:
    """What forms of one browser are tied to. `is_new`: it has to be set."""

    nonce: str
    is_new: bool


class Forms:
    """Makes and checks the tokens of forms (CSRF): a form counts from the browser and the session that asked for it."""

    def __init__(self, key: bytes, session_cookie: str) -> None:
        self._key = key
        self._session_cookie = session_cookie

    def key_of(self, request: Request) -> FormKey:
        """Give what a browser's forms are tied to, a new one where it has none."""
        nonce = request.cookies.get(FORM, "")
        if _NONCE.fullmatch(nonce):
            return FormKey(nonce, False)
        return FormKey(base64.urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode(), True)

    def token(self, request: Request, key: FormKey) -> str:
        """Make the token of a form that is shown."""
        session = hashlib.sha256(request.cookies.get(self._session_cookie, "").encode()).digest()
        made = hmac.digest(self._key, b"form\0" + key.nonce.encode() + b"\0" + session, "sha256")
        return base64.urlsafe_b64encode(made).rstrip(b"=").decode()

    def tie(self, response: Response, key: FormKey) -> None:
        """Have the browser keep what its forms are tied to."""
        put(response, FORM, key.nonce)

    def accepts(self, request: Request, token: str) -> bool:
        """Tell whether a posted form is one that this browser was shown, and comes from one of our own pages."""
        if request.headers.get("sec-fetch-site", "none") in _CROSS or not _is_own_origin(request):
            return False
        key = self.key_of(request)
        return not key.is_new and hmac.compare_digest(self.token(request, key).encode(), token.encode())


def _is_own_origin(request: Request) -> bool:
    origin = request.headers.get("origin", "")
    if not origin:
        return True  # not every browser says; the token is what counts
    try:
        return urlsplit(origin).netloc.lower() == request.headers.get("host", "").lower()
    except ValueError:
        return False
