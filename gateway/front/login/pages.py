"""How pages are made: templates that escape by default, one theme, and headers that let nothing else happen on them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import segno
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response

from gateway.front.login.reader_language import Languages
from gateway.front.login.texts import Catalogue, Texts, read_catalogue

STYLE_PATH: Final = "/login/style.css"
_FOLDER: Final = Path(__file__).parent
_YEAR_S: Final = 31_536_000
_QR_BORDER: Final = 4  # ISO/IEC 18004 §6.3.8: four modules stay free


@dataclass(frozen=True, slots=True)
class Way:
    """Another way to log in, or to look after an account: a link on a page. `script`: what the page needs for it."""

    address: str
    text: str  # the name of a text, or with `is_name` that of an identity provider
    id: str = ""
    script: str = ""
    is_name: bool = False


class Pages:
    """Makes pages. `ways` are shown on the page of log-in, `second_ways` where a code is asked for."""

    def __init__(
        self,
        ways: Sequence[Way] = (),
        second_ways: Sequence[Way] = (),
        account_ways: Sequence[Way] = (),
        catalogue: Catalogue | None = None,
    ) -> None:
        """`catalogue`: the texts; None for those that come with the gateway."""
        self._languages = Languages(catalogue or read_catalogue())
        self._environment = Environment(
            loader=FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._style = (_FOLDER / "style.css").read_bytes()
        self._style_address = f"{STYLE_PATH}?v={hashlib.sha256(self._style).hexdigest()[:12]}"
        self._ways: Mapping[str, Sequence[Way]] = {
            "login.html": ways,
            "code.html": second_ways,
            "account.html": account_ways,
        }

    def page(
        self, request: Request, name: str, status: int = 200, *, scripts: Sequence[str] = (), **values: Any
    ) -> Response:
        """Make the page of a template; `values` are what it shows, `scripts` what runs on it beside those of ways."""
        texts = self.texts(request)
        ways = self._ways.get(name, ())
        all_scripts = sorted({*scripts, *(way.script for way in ways if way.script)})
        known = {"t": texts, "style": self._style_address, "scripts": all_scripts, "ways": ways, "when": _when}
        html = self._environment.get_template(name).render({"error": "", "notice": "", **known, **values})
        response = Response(html, status, _headers(has_scripts=bool(all_scripts)), "text/html; charset=utf-8")
        self._languages.keep(request, response)
        return response

    def texts(self, request: Request) -> Texts:
        """Give the texts in the reader's language."""
        return self._languages.texts(request)

    def style(self) -> Response:
        """Give the theme; its address changes with it."""
        headers = {"cache-control": f"public, max-age={_YEAR_S}, immutable", "x-content-type-options": "nosniff"}
        return Response(self._style, 200, headers, "text/css; charset=utf-8")


def qr_code(text: str, label: str) -> Markup:
    """Draw a QR code as SVG, for inside a page."""
    rows = [list(row) for row in segno.make(text, error="m", micro=False).matrix]
    size = len(rows) + 2 * _QR_BORDER
    path = "".join(
        f"M{x + _QR_BORDER} {y + _QR_BORDER}h1v1h-1z"
        for y, row in enumerate(rows)
        for x, dark in enumerate(row)
        if dark
    )
    return Markup(
        '<svg class="qr" role="img" aria-label="{label}" viewBox="0 0 {size} {size}" shape-rendering="crispEdges">'
        '<path fill="#fff" d="M0 0h{size}v{size}H0z"/><path fill="#000" d="{path}"/></svg>'
    ).format(label=label, size=size, path=path)


def _headers(*, has_scripts: bool) -> dict[str, str]:
    script = "script-src 'self'; connect-src 'self'; " if has_scripts else ""
    return {
        "content-security-policy": f"default-src 'none'; style-src 'self'; {script}form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'",
        "x-frame-options": "DENY",
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",  # with `no-referrer` browsers would hide where a form comes from (Fetch §3.1)
        "cross-origin-opener-policy": "same-origin",
        "permissions-policy": "camera=(), microphone=(), geolocation=()",
        "cache-control": "no-store",
    }


def _when(at_s: float) -> str:
    """In UTC: without a script nobody knows where the reader is."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at_s))
