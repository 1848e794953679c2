"""Which language a page is in: the one that an application asked for, else the one that its reader likes best."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.front.login.cookies import LANGUAGE, put
from gateway.front.login.texts import Catalogue, Texts, read_catalogue

_LOCALES_BYTES_MAX: Final = 512
_TAG_BYTES_MAX: Final = 35  # RFC 5646 §4.4.1


class Languages:
    """Gives texts to pages."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    @property
    def tags(self) -> Sequence[str]:
        """The languages that there are (RFC 5646)."""
        return [texts["lang"] for _, texts in sorted(self._catalogue.languages.items())]

    def texts(self, request: Request) -> Texts:
        """Give the texts in the reader's language."""
        wanted = self._chosen(request) or request.cookies.get(LANGUAGE, "")[:_TAG_BYTES_MAX]
        return self._catalogue.texts(request.headers.get("accept-language", ""), wanted)

    def keep(self, request: Request, response: Response) -> None:
        """Have the browser keep a language that an application asked for, until it is closed: for the pages to come."""
        chosen = self._chosen(request)
        if chosen:
            put(response, LANGUAGE, chosen)

    def _chosen(self, request: Request) -> str:
        return self._catalogue.first_of(request.query_params.get("ui_locales", "")[:_LOCALES_BYTES_MAX])


def configured_catalogue(folder: str, base_dir: Path) -> Catalogue:
    """Read the texts, with those of an operator's `folder`. Raises ValueError for a file that cannot be used."""
    return read_catalogue(base_dir / Path(folder).expanduser() if folder else None)
