"""What logs in Redis have in common: a name, which another log does not have, and the order of a stream's ids."""

from __future__ import annotations

import secrets
from typing import Any, Final, cast

from gateway.stores.redis_server import answer

START: Final = "0-0"  # the place before every entry


async def log_name(client: Any, key: str) -> str:
    """Return the log's name, giving it one when it is new: a server that was emptied has another."""
    name = await answer(client.get(key))
    if name is None:
        await answer(client.set(key, secrets.token_hex(8), nx=True))
        name = await answer(client.get(key))
    return cast(bytes, name).decode()


async def last_id(client: Any, stream: str) -> str:
    """Return the highest id ever given; entries that were removed count."""
    if not await answer(client.exists(stream)):
        return START
    information = await client.xinfo_stream(stream)
    return cast(bytes, information["last-generated-id"]).decode()


def order(identifier: str) -> tuple[int, int]:
    """Make ids of entries comparable."""
    milliseconds, _, sequence = identifier.partition("-")
    return int(milliseconds), int(sequence)
