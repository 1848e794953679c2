"""Request ids that a trusted proxy hands over."""

from __future__ import annotations

import re

REQUEST_ID_CHARACTERS_MAX = 128

# No dot: an id can never be a JWT that somebody put into the wrong header and that would then stand in every log.
_ACCEPTED = re.compile(rb"[A-Za-z0-9_:=+/@-]{1,%d}" % REQUEST_ID_CHARACTERS_MAX)


def accepted_request_id(value: bytes) -> bytes | None:
    """Return a proxy's request id as it is, or None where ours must take its place.

    Accepts letters, digits and `_ : = + / @ -`, up to 128 of them: UUIDs, ULIDs, nginx's `$request_id`, AWS trace ids.
    To be asked only for peers in `server.trusted_proxies`.
    """
    return value if _ACCEPTED.fullmatch(value) else None
