"""Page tokens of searches: opaque, short-lived, and good for the same caller and the same question only."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.front.authzen.messages import BadRequest, SearchQuestion
from gateway.front.own_keys import KEY_BYTES, own_key
from gateway.types import Clock

TOKEN_CHARACTERS_MAX: Final = 8192
_MAC_BYTES: Final = 16
_KEY_FILE: Final = "authzen-pages.key"


@dataclass(frozen=True, slots=True)
class Position:
    """Where the next page begins: behind the candidate `after`; `limit` holds where the caller gives none."""

    after: str
    limit: int


class PageTokens:
    """Makes and reads page tokens: base64url of a MAC and what it covers."""

    __slots__ = ("_clock", "_key", "_lifetime_s")

    def __init__(self, key: bytes, clock: Clock, *, lifetime_s: float) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError("a key of page tokens has 32 bytes")
        self._key = key
        self._clock = clock
        self._lifetime_s = lifetime_s

    def make(self, position: Position, question: SearchQuestion, client: str) -> str:
        """Give the token of the next page."""
        expires = int(self._clock.wall_s() + self._lifetime_s)
        body = orjson.dumps([position.after, position.limit, expires])
        return base64.urlsafe_b64encode(self._mac(body, question, client) + body).rstrip(b"=").decode()

    def read(self, question: SearchQuestion, client: str) -> Position | None:
        """Give the position that the question's token stands for; None for the first page. Raises BadRequest."""
        token = question.token
        if not token:
            return None
        refusal = BadRequest("no token of ours for this request, or too old: begin anew", "/page/token")
        if len(token) > TOKEN_CHARACTERS_MAX or not token.isascii():
            raise refusal
        try:
            raw = base64.b64decode(token + "=" * (-len(token) % 4), b"-_", validate=True)
        except ValueError:
            raise refusal from None
        mac, body = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(body, question, client)):
            raise refusal
        after, limit, expires = orjson.loads(body)
        if self._clock.wall_s() >= expires:
            raise refusal
        return Position(after, limit)

    def _mac(self, body: bytes, question: SearchQuestion, client: str) -> bytes:
        """Cover the question too: a later page must repeat it (§8.2), all but for the size of the page."""
        asked = [
            client,
            question.target,
            [question.subject.type, question.subject.id, _plain(question.subject.properties)],
            None if question.action is None else [question.action.name, _plain(question.action.properties)],
            [question.resource.type, question.resource.id, _plain(question.resource.properties)],
            _plain(question.context),
        ]
        digest = hashlib.sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)).digest()
        return hmac.digest(self._key, digest + body, "sha256")[:_MAC_BYTES]


def _plain(value: Mapping[str, Any]) -> str:
    """Write an object so that the order of members makes no difference."""
    return json.dumps(value, sort_keys=True, ensure_ascii=True)


def page_key(run_dir: Path) -> bytes:
    """Give the key that all workers of one gateway share."""
    return own_key(run_dir, _KEY_FILE)
