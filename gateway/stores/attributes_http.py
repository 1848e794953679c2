"""A service that is asked for entities over HTTP. It tells of no changes: what it said is believed for a while only.

The question is a POST of `{"uids": [{"type": …, "id": …}, …]}`; the answer is Cedar's entity JSON, an array of those of
them that the service knows: `[{"uid": {"type": …, "id": …}, "attrs": {…}, "parents": […], "tags": {…}}, …]`. Anything
else, also in a single element, makes all of the answer unusable: an entity that cannot be read must not pass for one
that is not there.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import orjson

from gateway._native.uid import EntityUid
from gateway.errors import StoreUnavailable
from gateway.stores.attributes import (
    BODY_BYTES_MAX,
    MEMBERS,
    AttributeBatch,
    can_be_kept,
    check_read,
    check_uid,
    load_json,
)
from gateway.stores.base import ORIGIN
from gateway.stores.fetch import Fetcher, FetchFailed, check_address
from gateway.types import Secret

CALL_TIMEOUT_S: Final = 1.0  # one question in all, from the connection to the last byte
ANSWER_BYTES_MAX: Final = 8 * 1024 * 1024


class HTTPAttributeSource:
    """An AttributeSource that is not followed. Belongs to the event loop that first uses it."""

    shared = "network"

    def __init__(
        self,
        url: str,
        name: str,
        *,
        secret: Secret | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`secret` is sent as a bearer token. Raises ValueError for an address that is neither https nor loopback."""
        try:
            check_address(url)
        except FetchFailed as error:
            raise ValueError(str(error)) from error
        if secret and not _is_token(secret.reveal()):
            raise ValueError("the secret of a source has visible ASCII characters only")
        self.name = name
        self._url = url
        self._secret = secret
        self._timeout_s = timeout_s
        self._fetcher = Fetcher(ssl_context=ssl_context)

    async def read(self, uids: Sequence[EntityUid]) -> AttributeBatch:
        check_read(uids)
        asked = [uid for uid in dict.fromkeys(uids) if can_be_kept(uid)]
        if not asked:
            await self._fetcher.open()  # so that the first question need not wait for our own start
            return AttributeBatch({}, ORIGIN)
        question = orjson.dumps({"uids": [{"type": uid.type, "id": uid.id} for uid in asked]})
        try:
            answer = await self._fetcher.post_json(
                self._url, question, bearer=self._secret, timeout_s=self._timeout_s, bytes_max=ANSWER_BYTES_MAX
            )
        except FetchFailed as error:
            raise StoreUnavailable(str(error)) from error
        try:
            found = _entities(answer)
        except ValueError as error:
            raise StoreUnavailable(f"`{self.name}` does not answer with entities: {error}") from error
        return AttributeBatch({uid: found[uid] for uid in asked if uid in found}, ORIGIN)

    async def close(self) -> None:
        with suppress(Exception):
            await self._fetcher.aclose()


def _entities(answer: bytes) -> dict[EntityUid, bytes]:
    """Read Cedar's entity JSON, each entity as the text of its body. Raises ValueError for what is none."""
    items = load_json(answer)
    if not isinstance(items, list):
        raise ValueError("not an array")
    found: dict[EntityUid, bytes] = {}
    for item in items:
        if not isinstance(item, dict) or "uid" not in item:
            raise ValueError("an element is no object with a `uid`")
        uid = _uid(item.pop("uid"))
        if not MEMBERS.issuperset(item):
            raise ValueError(f"`{uid}` has other members than `attrs`, `parents` and `tags`")
        # Not by orjson, which makes another number of an integer that is too large for Cedar.
        body = json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode()
        if len(body) > BODY_BYTES_MAX:
            raise ValueError(f"`{uid}` has more than {BODY_BYTES_MAX} bytes")
        if found.setdefault(uid, body) != body:
            raise ValueError(f"`{uid}` stands twice, and not the same")
    return found


def _uid(value: Any) -> EntityUid:
    match value:
        case {"__entity": inner} if len(value) == 1:
            return _uid(inner)
        case {"type": str(kind), "id": str(identifier)} if len(value) == 2:
            uid = EntityUid(kind, identifier)
            check_uid(uid)
            return uid
    raise ValueError("a `uid` is no object of `type` and `id`")


def _is_token(text: bytes) -> bool:
    return all(0x21 <= byte <= 0x7E for byte in text)
