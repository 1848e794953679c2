"""The scripts of the pages: files of this package, served from our own address, which changes with each."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_YEAR_S: Final = 31_536_000


class Script:
    """One script. `address` is what pages name it by."""

    def __init__(self, name: str) -> None:
        """`name`: of its file beside this one."""
        self._text = (Path(__file__).parent / name).read_bytes()
        self.path = f"/login/{name}"
        self.address = f"{self.path}?v={hashlib.sha256(self._text).hexdigest()[:12]}"

    def route(self) -> Route:
        """Return the route that serves it."""
        return Route(self.path, self._serve, methods=["GET"])

    async def _serve(self, _request: Request) -> Response:
        headers = {"cache-control": f"public, max-age={_YEAR_S}, immutable", "x-content-type-options": "nosniff"}
        return Response(self._text, 200, headers, "text/javascript; charset=utf-8")
