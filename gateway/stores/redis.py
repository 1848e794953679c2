"""Stores in Redis, shared by all gateways.

Redis must not forget what it acknowledged: run it with `appendonly yes` and `maxmemory-policy noeviction`.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from gateway.stores.base import ORIGIN, PURGE_SLACK_S, Revision, RevocationBatch, RevocationKind, RevocationRow
from gateway.stores.redis_server import BLOCK_S_MAX, CALL_TIMEOUT_S, RedisServer
from gateway.stores.redis_stream import START, last_id, log_name, order

if TYPE_CHECKING:
    from redis.asyncio import Redis

PURGE_PAGE = 1000  # rows looked at in one call
OVERLAP_MS = 60_000  # read again after a fault: a replica that took over may lack, or have given, earlier ids

# One hash tag, so that a cluster keeps both in one slot.
STREAM = "portcullis:{revocations}"
LOG = "portcullis:{revocations}:log"

Fields = Mapping[bytes, bytes]


class RedisRevocationStore:
    """A log in a Redis stream; a revision is the log's name and the id of an entry.

    Rows are removed one by one when they are over, never by the stream's length: a long-lived row may stand before
    short-lived ones. A blocking read on a connection of its own tells of news within a round trip.
    """

    shared = "network"

    def __init__(self, url: str) -> None:
        self._server = RedisServer(url)

    async def append(self, rows: Sequence[RevocationRow]) -> Revision:
        client = await self._server.open()
        async with self._server.bounded(CALL_TIMEOUT_S):
            async with client.pipeline(transaction=True) as pipe:
                pipe.set(LOG, secrets.token_hex(8), nx=True)
                pipe.get(LOG)
                for row in rows:
                    pipe.xadd(STREAM, cast(Any, _fields(row)))
                _, log, *ids = await pipe.execute()
            return _revision(log.decode(), ids[-1].decode() if ids else START)

    async def read_after(self, revision: Revision, limit: int) -> RevocationBatch:
        client = await self._server.open()
        async with self._server.bounded(CALL_TIMEOUT_S):
            log = await log_name(client, LOG)
            after, restarted = _place(revision, log)
            begin = _rewind(after) if self._server.suspect else after
            found = await _page(client, begin, limit)
            if not found and order(after) > order(await last_id(client, STREAM)):
                # The log is one that we know, with less in it than we saw: an earlier state was restored.
                restarted = after != START
                begin = after = START
                found = await _page(client, begin, limit)
            self._server.suspect = False
        page = found[:limit]
        rows = []
        for _, fields in page:
            with suppress(ValueError, KeyError):
                rows.append(_row(fields))
        return RevocationBatch(
            rows=tuple(rows),
            revision=_revision(log, page[-1][0].decode() if page else after),
            more=len(found) > limit,
            restarted=restarted,
            damaged=len(page) - len(rows),
        )

    async def wait(self, revision: Revision, timeout_s: float) -> None:
        _, _, after = revision.partition(":")
        block_s = min(timeout_s, BLOCK_S_MAX)
        if block_s <= 0:
            return
        client = await self._server.open()
        async with self._server.bounded(block_s + CALL_TIMEOUT_S):
            await client.xread({STREAM: after or START}, count=1, block=max(1, int(block_s * 1000)))

    async def purge(self, now_s: float) -> int:
        client = await self._server.open()
        total, after, more = 0, START, True
        while more:
            async with self._server.bounded(CALL_TIMEOUT_S):
                found = await _page(client, after, PURGE_PAGE)
                dead = [identifier for identifier, fields in found if _is_over(fields, now_s)]
                if dead:
                    total += await client.xdel(STREAM, *dead)
            more = len(found) > PURGE_PAGE
            after = found[-1][0].decode() if found else after
        return total

    async def close(self) -> None:
        await self._server.close()


async def _page(client: Redis, after: str, limit: int) -> list[tuple[bytes, Fields]]:
    """Return the entries after an id, one more than `limit` where there are more."""
    return cast("list[tuple[bytes, Fields]]", await client.xrange(STREAM, min=f"({after}", max="+", count=limit + 1))


def _fields(row: RevocationRow) -> dict[str, bytes | int | str]:
    return {
        "kind": row.kind,
        "issuer": row.issuer,
        "value": row.value,
        "until_s": row.until_s,
        "issued_before_s": row.issued_before_s,
    }


def _row(fields: Fields) -> RevocationRow:
    """Read an entry. Raises KeyError and ValueError for one that is no revocation."""
    return RevocationRow(
        kind=cast(RevocationKind, fields[b"kind"].decode()),
        issuer=fields[b"issuer"],
        value=fields[b"value"],
        until_s=int(fields[b"until_s"]),
        issued_before_s=int(fields[b"issued_before_s"]),
    )


def _is_over(fields: Fields, now_s: float) -> bool:
    try:
        return _row(fields).until_s + PURGE_SLACK_S < now_s
    except (KeyError, ValueError):
        return False  # nobody knows how long it was meant to hold


def _revision(log: str, identifier: str) -> Revision:
    return f"{log}:{identifier}"


def _place(revision: Revision, log: str) -> tuple[str, bool]:
    """Return the id that `revision` stands for, and whether it belongs to another log."""
    own, _, identifier = revision.partition(":")
    if revision == ORIGIN:
        return START, False
    return (identifier, False) if own == log else (START, True)


def _rewind(identifier: str) -> str:
    return f"{max(0, order(identifier)[0] - OVERLAP_MS)}-0"
