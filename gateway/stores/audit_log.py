"""The audit log: events in chains of hashes, and the laws of a store of them.

Each writer has a chain of its own, named after it: nobody waits for anybody, and which process lost what is told apart.
An entry holds its number, the hash of the entry before it and its own, so that nothing can be changed, taken out or put
in without the chain breaking there. With a key the hash is an HMAC, and who can write the store cannot make a chain
that holds. That the end is missing shows only to who knows where it was: `AuditHead` is meant to be kept elsewhere.
`tests/contract/test_audit_log.py` holds every backend to these laws.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

import orjson

from gateway.types import AuditEvent, Secret

BATCH_MAX: Final = 1000  # events in one append
ENTRY_BYTES_MAX: Final = 128 * 1024  # an event with all details that it may have, escaped
ORIGIN_HASH: Final = "0" * 64  # what stands before the first entry of a chain
CHAIN_BYTES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class AuditHead:
    """Where a chain ends."""

    chain: str
    number: int  # of the last entry; 0: there is none
    hash: str  # of the last entry, hexadecimal; ORIGIN_HASH where there is none


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One event in its place."""

    chain: str
    number: int  # from 1
    before: str  # the hash of the entry before it
    hash: str
    event: AuditEvent


@dataclass(frozen=True, slots=True)
class AuditFault:
    """Where a chain does not hold, and why."""

    chain: str
    number: int  # the entry that should stand there
    problem: str


@dataclass(frozen=True, slots=True)
class AuditVerdict:
    """What a look at all entries has shown."""

    entries: int
    heads: tuple[AuditHead, ...]  # of all chains
    faults: tuple[AuditFault, ...]

    @property
    def whole(self) -> bool:
        return not self.faults


class AuditLog(Protocol):
    """An append-only log of events. An object of it writes one chain; reading and verifying sees all of them.

    Methods end within a deadline and raise StoreUnavailable for whatever goes wrong in the store. `append` is called
    by one task at a time; whether a failed or cancelled one took place is found out by the next, and handing in the
    same events again is harmless: an event is recorded once by its id, as far back as the last RECENT_IDS of them.
    """

    @property
    def shared(self) -> str:
        """Who sees the same log: "machine" or "network"."""

    async def append(self, events: Sequence[AuditEvent]) -> AuditHead:
        """Add events, at most BATCH_MAX, at the end of our chain. When this has returned they are durable."""

    def read(self, chain: str = "", after: int = 0) -> AsyncIterator[AuditEntry]:
        """Give the entries of one chain, or of all, each chain from number `after` + 1 on; reads as it goes.

        Entries that cannot be read are left out: `verify` tells of them.
        """

    async def verify(self, known: Sequence[AuditHead] = (), told: Callable[[int], None] | None = None) -> AuditVerdict:
        """Look at every entry of every chain. `known`: ends that were kept elsewhere and must be in the chains.

        `told` is called now and then with the number of entries that were looked at.
        """

    async def close(self) -> None:
        """Release everything. Never raises."""


RECENT_IDS: Final = 10_000


class Chain:
    """Makes and checks entries of a chain."""

    def __init__(self, key: Secret | None = None) -> None:
        self._key = None if key is None else key.reveal()

    def spell(self, head: AuditHead, event: AuditEvent) -> tuple[bytes, AuditHead]:
        """Return the line of an event that follows `head`, without an end of line, and the head that it makes."""
        body: dict[str, Any] = {"chain": head.chain, "n": head.number + 1, "before": head.hash, "event": _plain(event)}
        digest = self._hash(orjson.dumps(body))
        line = orjson.dumps(body | {"hash": digest})
        return line, AuditHead(head.chain, head.number + 1, digest)

    def read(self, line: bytes) -> AuditEntry:
        """Read an entry and check its own hash. Raises ValueError."""
        said = orjson.loads(line)
        if not isinstance(said, dict) or "hash" not in said:
            raise ValueError("it is no entry")
        digest = said.pop("hash")
        if not isinstance(digest, str) or not hmac.compare_digest(self._hash(orjson.dumps(said)), digest):
            raise ValueError("its hash does not fit")
        return AuditEntry(said["chain"], said["n"], said["before"], digest, _event(said["event"]))

    def _hash(self, text: bytes) -> str:
        if self._key is None:
            return hashlib.sha256(text).hexdigest()
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()


class Verifier:
    """Follows chains entry by entry, and remembers where one does not hold."""

    FAULTS_MAX: Final = 100

    def __init__(self, chain: Chain, known: Sequence[AuditHead] = ()) -> None:
        self._chain = chain
        self._heads: dict[str, AuditHead] = {}
        self._known = {(head.chain, head.number): head.hash for head in known}
        self._entries = 0
        self._faults: list[AuditFault] = []

    def look(self, chain: str, line: bytes) -> None:
        """Take the next entry of a chain."""
        self._entries += 1
        head = self._heads.get(chain) or AuditHead(chain, 0, ORIGIN_HASH)
        number = head.number + 1
        try:
            entry = self._chain.read(line)
        except (ValueError, KeyError, TypeError) as error:
            self.fault(chain, number, f"the entry cannot be read: {error}")
            self._heads[chain] = AuditHead(chain, number, "")  # what follows is judged by itself
            return
        if entry.chain != chain or entry.number != number:
            self.fault(chain, number, f"entry {entry.number} of chain `{entry.chain}` stands here")
        elif head.hash and entry.before != head.hash:
            self.fault(chain, number, "it does not follow the entry before it")
        known = self._known.pop((chain, entry.number), None)
        if known is not None and known != entry.hash:
            self.fault(chain, entry.number, "another entry was here when its hash was kept")
        self._heads[chain] = AuditHead(chain, entry.number, entry.hash)

    @property
    def entries(self) -> int:
        """How many were looked at."""
        return self._entries

    def begins(self, chain: str, number: int) -> None:
        """Take note that, by its name, a part of the chain begins with this entry."""
        head = self._heads.setdefault(chain, AuditHead(chain, 0, ORIGIN_HASH))
        if head.number + 1 != number:
            self.fault(chain, head.number + 1, f"it is missing: what follows begins with entry {number}")

    def fault(self, chain: str, number: int, problem: str) -> None:
        if len(self._faults) < self.FAULTS_MAX:
            self._faults.append(AuditFault(chain, number, problem))

    def verdict(self) -> AuditVerdict:
        for chain, number in self._known:
            if number:
                self.fault(chain, number, "this entry was there once and is missing")
        self._known = {}
        return AuditVerdict(self._entries, tuple(self._heads.values()), tuple(self._faults))


def check_chain(name: str) -> None:
    """Raise ValueError for what cannot be the name of a chain: it goes into names of files and keys."""
    if not name or len(name) > CHAIN_BYTES_MAX or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        raise ValueError(f"a chain's name has 1 to {CHAIN_BYTES_MAX} letters, digits, `-` and `_`")


def _plain(event: AuditEvent) -> dict[str, Any]:
    """Return what is not left at its default."""
    said: dict[str, Any] = {
        "id": event.id,
        "at": event.at_s,
        "action": event.action,
        "outcome": event.outcome,
        "tenant": event.tenant,
        "actor": event.actor,
        "target": event.target,
        "address": event.address,
        "request": event.request_id,
        "reason": event.reason,
        "details": dict(event.details),
    }
    return {name: value for name, value in said.items() if value not in ("", {})}


def _event(said: Mapping[str, Any]) -> AuditEvent:
    """Read an event. Raises KeyError and ValueError."""
    return AuditEvent(
        id=said["id"],
        at_s=said["at"],
        action=said["action"],
        outcome=cast(Any, said["outcome"]),
        tenant=said.get("tenant", ""),
        actor=said.get("actor", ""),
        target=said.get("target", ""),
        address=said.get("address", ""),
        request_id=said.get("request", ""),
        reason=said.get("reason", ""),
        details=said.get("details", {}),
    )
