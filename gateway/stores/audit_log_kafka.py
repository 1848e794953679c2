"""The audit log in Kafka: a topic whose partitions hold chains, each in one of them.

An append is a transaction of a producer that is named after its chain: all of it is there, or nothing; of two processes
that write one chain the later one fences the earlier off. The topic must keep what it has (`retention.ms=-1`,
`cleanup.policy=delete`) and as many partitions as it had: by their number a chain finds its own.
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from gateway.errors import StoreUnavailable
from gateway.stores.audit_log import (
    BATCH_MAX,
    ENTRY_BYTES_MAX,
    ORIGIN_HASH,
    RECENT_IDS,
    AuditEntry,
    AuditHead,
    AuditVerdict,
    Chain,
    Verifier,
    check_chain,
)
from gateway.stores.kafka import Deadline, KafkaThread, read_address
from gateway.types import AuditEvent, Secret

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Producer

PAGE: Final = 500
READ_TIMEOUT_S: Final = 15.0  # of one page, the first of a partition included
ENTER_TIMEOUT_S: Final = 15.0  # to find the end of our chain
TAIL: Final = 2 * RECENT_IDS  # offsets looked at first, from the end
GROUP: Final = "portcullis-audit-reader"  # nothing is ever committed for it

Line = tuple[str, bytes]
Span = tuple[int, int, int]  # a partition, its first offset, and the one after its last


class KafkaAuditLog:
    """Writes the chain `chain`, and reads all of them."""

    shared = "network"

    def __init__(self, url: str, chain: str, key: Secret | None = None) -> None:
        """Connects to nothing. Raises ValueError for what is no address, or no name of a chain."""
        check_chain(chain)
        address = read_address(url)
        self._topic = address.topic
        self._name = chain
        self._chain = Chain(key)
        self._writing = KafkaThread(address, "audit")
        self._reading = KafkaThread(address, "audit-reader")
        self._producer: Producer | None = None  # of the writing thread, as are the next three
        self._partition = 0
        self._head: AuditHead | None = None  # None: to be found, for it is not certain what took place
        self._recent: deque[str] = deque(maxlen=RECENT_IDS)

    async def append(self, events: Sequence[AuditEvent]) -> AuditHead:
        if len(events) > BATCH_MAX:
            raise ValueError(f"at most {BATCH_MAX} events at once")
        if self._head is None:
            await self._writing.run(self._enter, ENTER_TIMEOUT_S)
        return await self._writing.run(lambda deadline: self._append(events, deadline))

    async def read(self, chain: str = "", after: int = 0) -> AsyncIterator[AuditEntry]:
        if chain:
            check_chain(chain)
        async for _, line in self._lines(chain):
            with suppress(ValueError, KeyError, TypeError):
                entry = self._chain.read(line)
                if entry.number > after:
                    yield entry

    async def verify(self, known: Sequence[AuditHead] = (), told: Callable[[int], None] | None = None) -> AuditVerdict:
        verifier = Verifier(self._chain, known)
        async for chain, line in self._lines(""):
            verifier.look(chain, line)
            if told is not None and verifier.entries % PAGE == 0:
                told(verifier.entries)
        return verifier.verdict()

    async def close(self) -> None:
        with suppress(StoreUnavailable):
            await self._writing.run(lambda _: self._leave())
        self._writing.close()
        self._reading.close()

    # -- in the thread that writes

    def _append(self, events: Sequence[AuditEvent], deadline: Deadline) -> AuditHead:
        if self._head is None or self._producer is None:
            raise StoreUnavailable(f"the end of chain `{self._name}` is not known")
        head, lines, new_ids = self._head, [], list[str]()
        known = set(self._recent)
        for event in events:
            if event.id in known:
                continue
            line, head = self._chain.spell(head, event)
            if len(line) > ENTRY_BYTES_MAX:
                raise ValueError(f"an audit event has at most {ENTRY_BYTES_MAX} bytes")
            lines.append(line)
            new_ids.append(event.id)
            known.add(event.id)
        if lines:
            self._head = None  # until it is certain: whatever fails now is looked for anew
            try:
                self._write(lines, deadline)
            except BaseException:
                self._leave()
                raise
            self._head = head
            self._recent.extend(new_ids)
        return head

    def _write(self, lines: Sequence[bytes], deadline: Deadline) -> None:
        producer = self._producer
        assert producer is not None
        producer.begin_transaction()
        for line in lines:
            producer.produce(self._topic, key=self._name.encode(), value=line, partition=self._partition)
        producer.commit_transaction(deadline.left_s())  # writes what is left, and tells of what could not be

    def _enter(self, deadline: Deadline) -> None:
        """Take the chain, whoever had it, and find its end."""
        from confluent_kafka import Producer

        self._leave()
        producer = Producer(
            self._writing.options(
                transactional_id=f"portcullis-audit-{self._topic}-{self._name}",
                acks="all",
                message_max_bytes=2 * ENTRY_BYTES_MAX,
                transaction_timeout_ms=10_000,
                linger_ms=0,
            )
        )
        partitions = self._writing.partitions(producer, deadline)
        self._partition = _partition_of(self._name, partitions)
        producer.init_transactions(deadline.left_s())  # what was under way is over, one way or the other
        self._find_end(deadline)
        self._producer = producer

    def _find_end(self, deadline: Deadline) -> None:
        """Read our partition from the end on, further back each time, until our chain's last entry is seen."""
        from confluent_kafka import TopicPartition

        consumer = self._writing.consumer(GROUP)
        try:
            place = TopicPartition(self._topic, self._partition)
            first, end = consumer.get_watermark_offsets(place, timeout=deadline.left_s())
            back = TAIL
            while True:
                start = max(first, end - back)
                head = AuditHead(self._name, 0, ORIGIN_HASH)
                self._recent.clear()
                for chain, line in _read(consumer, self._topic, (self._partition, start, end), deadline):
                    if chain == self._name:
                        entry = self._chain_entry(line)
                        head = AuditHead(self._name, entry.number, entry.hash)
                        self._recent.append(entry.event.id)
                if head.number or start == first:
                    break
                back *= 4
        finally:
            consumer.close()
        self._head = head

    def _chain_entry(self, line: bytes) -> AuditEntry:
        try:
            return self._chain.read(line)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreUnavailable(
                f"the end of chain `{self._name}` cannot be read ({error}); remedy: portcullis audit verify"
            ) from error

    def _leave(self) -> None:
        """Drop the producer: what it had begun is given up by the one that comes after it."""
        self._head = None
        self._producer = None

    # -- in the thread that reads

    async def _lines(self, chain: str) -> AsyncIterator[Line]:
        """Give what there is at this moment, partition by partition."""
        consumer = await self._reading.run(lambda _: self._reading.consumer(GROUP), READ_TIMEOUT_S)
        try:
            spans = await self._reading.run(lambda deadline: self._spans(consumer, chain, deadline), READ_TIMEOUT_S)
            for partition, first, end in spans:
                for start in range(first, end, PAGE):
                    span = (partition, start, min(end, start + PAGE))
                    page = await self._reading.run(partial(_read, consumer, self._topic, span), READ_TIMEOUT_S)
                    for name, line in page:
                        if chain in ("", name):
                            yield name, line
        finally:
            with suppress(StoreUnavailable):
                await self._reading.run(lambda _: consumer.close())

    def _spans(self, consumer: Consumer, chain: str, deadline: Deadline) -> list[Span]:
        """Give the partitions that are to be read, from where to where."""
        from confluent_kafka import TopicPartition

        count = self._reading.partitions(consumer, deadline)
        found = []
        for partition in [_partition_of(chain, count)] if chain else range(count):
            place = TopicPartition(self._topic, partition)
            first, end = consumer.get_watermark_offsets(place, timeout=deadline.left_s())
            found.append((partition, first, end))
        return found


def _partition_of(chain: str, partitions: int) -> int:
    return zlib.crc32(chain.encode()) % partitions


def _read(consumer: Consumer, topic: str, span: Span, deadline: Deadline) -> list[Line]:
    """Give key and value of what lies in a part of a partition."""
    from confluent_kafka import KafkaError, KafkaException, TopicPartition

    partition, start, end = span
    found: list[Line] = []
    if start < end:
        consumer.assign([TopicPartition(topic, partition, start)])
    at = start
    while at < end:
        for message in consumer.consume(PAGE, timeout=min(1.0, deadline.left_s())):
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                return found  # what follows are marks of transactions, or nothing
            if error is not None:
                raise KafkaException(error)
            at = (message.offset() or 0) + 1
            if at > end:
                return found
            found.append(((message.key() or b"").decode("utf-8", "replace"), message.value() or b""))
    return found


__all__ = ["KafkaAuditLog"]
