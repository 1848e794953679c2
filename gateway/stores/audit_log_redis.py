"""The audit log in Redis: one stream a chain. See `redis_nodes.py` for how Redis has to be run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from gateway.errors import StoreUnavailable
from gateway.stores.audit_log import (
    BATCH_MAX,
    ENTRY_BYTES_MAX,
    ORIGIN_HASH,
    AuditEntry,
    AuditHead,
    AuditVerdict,
    Chain,
    Verifier,
    check_chain,
)
from gateway.stores.pools import PoolState
from gateway.stores.redis_nodes import Command, RedisNodes, Word, script
from gateway.types import AuditEvent, Secret

PAGE: Final = 500
CHAINS: Final = "portcullis:{audit}:chains"
ID_KEPT_S: Final = 86_400  # an event that comes again within this time is known by its id

# KEYS: the stream, its head, the ids that were written of late. ARGV: the head on which the lines were spelled,
# the new one, how long ids are kept, then pairs: id, line. Ids were looked at by the caller under the same head.
_APPEND: Final = """
local head = redis.call('GET', KEYS[2]) or ''
if head == ARGV[2] then return head end
if head ~= ARGV[1] then return head end
local number = tonumber(string.match(ARGV[1], '^(%d+)') or '0')
local now = tonumber(redis.call('TIME')[1])
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - tonumber(ARGV[3]))
for i = 4, #ARGV, 2 do
  number = number + 1
  redis.call('XADD', KEYS[1], string.format('%d-0', number), 'entry', ARGV[i + 1])
  redis.call('ZADD', KEYS[3], now, ARGV[i])
end
redis.call('SET', KEYS[2], ARGV[2])
return ARGV[2]
"""
# ARGV: ids. Answers with the head, and with which of them are there.
_KNOWN: Final = """
local found = {}
for i = 1, #ARGV do found[i] = redis.call('ZSCORE', KEYS[3], ARGV[i]) and 1 or 0 end
return {redis.call('GET', KEYS[2]) or '', found}
"""
ATTEMPTS: Final = 3


class RedisAuditLog:
    """Writes the chain `chain`, and reads all of them."""

    shared = "network"

    def __init__(self, nodes: RedisNodes, chain: str, key: Secret | None = None) -> None:
        check_chain(chain)
        self._name = chain
        self._chain = Chain(key)
        self._nodes = nodes
        self._closed = False

    def pools(self) -> list[PoolState]:
        return self._nodes.pools()

    async def append(self, events: Sequence[AuditEvent]) -> AuditHead:
        if len(events) > BATCH_MAX:
            raise ValueError(f"at most {BATCH_MAX} events at once")
        keys = _keys(self._name)
        for _ in range(ATTEMPTS):
            told, known = await self._one(script(_KNOWN, keys, *(event.id for event in events)))
            head = self._read_head(told)
            words: list[Word] = []
            ids: set[str] = set()
            begun = told
            for event, is_known in zip(events, known, strict=True):
                if is_known or event.id in ids:
                    continue
                line, head = self._chain.spell(head, event)
                if len(line) > ENTRY_BYTES_MAX:
                    raise ValueError(f"an audit event has at most {ENTRY_BYTES_MAX} bytes")
                words += [event.id, line]
                ids.add(event.id)
            await self._one(Command(CHAINS, ("SADD", CHAINS, self._name)))
            if not words:
                return head
            wanted = f"{head.number}:{head.hash}".encode()
            now = await self._one(script(_APPEND, keys, begun, wanted, ID_KEPT_S, *words, replicated=True))
            if now == wanted:
                return head
        raise StoreUnavailable(f"another process writes the chain `{self._name}`")

    async def read(self, chain: str = "", after: int = 0) -> AsyncIterator[AuditEntry]:
        async for _, line in self._lines(chain, after):
            with suppress(ValueError, KeyError, TypeError):
                yield self._chain.read(line)

    async def verify(self, known: Sequence[AuditHead] = (), told: Callable[[int], None] | None = None) -> AuditVerdict:
        verifier = Verifier(self._chain, known)
        async for chain, line in self._lines("", 0):
            verifier.look(chain, line)
            if told is not None and verifier.entries % PAGE == 0:
                told(verifier.entries)
        verdict = verifier.verdict()
        ends = {head.chain: head for head in verdict.heads}
        for chain in await self._chains():
            kept = self._read_head(await self._one(Command(_keys(chain)[1], ("GET", _keys(chain)[1]))) or b"", chain)
            end = ends.get(chain)
            if kept.number and (end is None or end.number < kept.number):
                verifier.fault(chain, kept.number, "the end of the chain is missing")
        return verifier.verdict()

    async def close(self) -> None:
        if not self._closed:
            self._closed = True  # others may use the same connections
            await self._nodes.close()

    async def _one(self, command: Command) -> Any:
        (answer,) = await self._nodes.ask((command,))
        return answer

    async def _chains(self) -> list[str]:
        return sorted(name.decode() for name in await self._one(Command(CHAINS, ("SMEMBERS", CHAINS))))

    async def _lines(self, chain: str, after: int) -> AsyncIterator[tuple[str, bytes]]:
        for name in [chain] if chain else await self._chains():
            stream, place = _keys(name)[0], f"{after}-0"
            more = True
            while more:
                entries = await self._one(Command(stream, ("XRANGE", stream, f"({place}", "+", "COUNT", PAGE)))
                for identifier, fields in entries:
                    yield name, fields.get(b"entry", b"")
                    place = identifier.decode()
                more = len(entries) == PAGE

    def _read_head(self, told: bytes, chain: str = "") -> AuditHead:
        if not told:
            return AuditHead(chain or self._name, 0, ORIGIN_HASH)
        number, _, digest = told.decode().partition(":")
        return AuditHead(chain or self._name, int(number), digest)


def _keys(chain: str) -> tuple[str, str, str]:
    """Return the keys of a chain, in one slot."""
    slot = f"portcullis:{{audit:{chain}}}"
    return f"{slot}:entries", f"{slot}:head", f"{slot}:ids"
