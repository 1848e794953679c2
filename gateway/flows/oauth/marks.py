"""What our pages and addresses bring back to us: made with a key of ours, so that it says who made it, and what for."""

from __future__ import annotations

import base64
import hmac
from typing import Final

from gateway.types import Clock, Session

_DIGEST: Final = "sha256"


class Marks:
    """Makes and reads marks. One that was made for a purpose, or of other texts, is none."""

    def __init__(self, key: bytes, clock: Clock) -> None:
        self._key = key
        self._clock = clock

    def stamp(self, purpose: bytes, *texts: str) -> str:
        """Make a mark that says when it was made."""
        now_s = str(int(self._clock.wall_s()))
        return f"{now_s}.{self._mac(purpose, now_s, *texts)}"

    def stamped_s(self, mark: str, purpose: bytes, *texts: str, age_s_max: int) -> int | None:
        """Return when a mark was made, in Unix time; None for one that we did not make of this, or that is too old."""
        time, dot, mac = mark.partition(".")
        if not dot or not _same(self._mac(purpose, time, *texts), mac):
            return None
        made_s = int(time)
        return made_s if self._clock.wall_s() - made_s <= age_s_max else None

    def form(self, purpose: bytes, session: Session, text: str) -> str:
        """Make the token of a form (CSRF) that is shown in a session."""
        return self._mac(purpose, session.id_hash.hex(), session.csrf_secret.hex(), text)

    def accepts_form(self, token: str, purpose: bytes, session: Session, text: str) -> bool:
        """Tell whether a form that came back is the one that was shown in this session."""
        return _same(self.form(purpose, session, text), token)

    def _mac(self, purpose: bytes, *texts: str) -> str:
        message = b"\0".join((purpose, *(text.encode("utf-8", "surrogateescape") for text in texts)))
        return base64.urlsafe_b64encode(hmac.digest(self._key, message, _DIGEST)).rstrip(b"=").decode()


def _same(made: str, given: str) -> bool:
    return hmac.compare_digest(made.encode(), given.encode("utf-8", "surrogateescape"))
