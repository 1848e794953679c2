"""The replication queue in Kafka: a topic whose partitions hold the messages of a key in their order.

A group's place is what Kafka keeps as its committed offsets. How long messages are kept is the topic's own setting.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import orjson

from gateway.errors import StoreUnavailable
from gateway.stores.kafka import CALL_TIMEOUT_S, Deadline, KafkaThread, read_address
from gateway.stores.replication import BODY_BYTES_MAX, Batch, Lag, Message, check_group, check_messages
from gateway.types import Clock

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Producer, TopicPartition

LOOK_S: Final = 0.1  # of one look at what came


class _Reader:
    """What one group reads by, in its thread."""

    def __init__(self, consumer: Consumer) -> None:
        self.consumer = consumer
        self.places: dict[int, int] = {}  # by partition, where the next message of the group lies
        self.lost = False


class KafkaReplicationQueue:
    """One topic. Writing and reading have threads of their own."""

    shared = "network"

    def __init__(self, url: str, clock: Clock) -> None:
        """Connects to nothing. Raises ValueError for what is no address."""
        address = read_address(url)
        self._topic = address.topic
        self._clock = clock
        self._writing = KafkaThread(address, "replication")
        self._reading = KafkaThread(address, "replication-reader")
        self._producer: Producer | None = None
        self._readers: dict[str, _Reader] = {}

    async def publish(self, messages: Sequence[Message]) -> None:
        check_messages(messages)
        if messages:
            await self._writing.run(lambda deadline: self._publish(messages, deadline))

    async def receive(self, group: str, limit: int = 100, wait_s: float = 0.0) -> Batch:
        check_group(group)
        return await self._reading.run(
            lambda deadline: self._receive(group, limit, wait_s, deadline), CALL_TIMEOUT_S + wait_s
        )

    async def done(self, batch: Batch) -> None:
        await self._reading.run(lambda deadline: self._done(batch, deadline))

    async def lag(self, group: str) -> Lag:
        check_group(group)
        return await self._reading.run(lambda deadline: self._lag(group, deadline))

    async def close(self) -> None:
        with suppress(StoreUnavailable):
            await self._reading.run(lambda _: self._leave())
        self._reading.close()
        self._writing.close()

    # -- in the thread that writes

    def _publish(self, messages: Sequence[Message], deadline: Deadline) -> None:
        from confluent_kafka import KafkaException, Producer

        if self._producer is None:
            self._producer = Producer(
                self._writing.options(
                    acks="all",
                    enable_idempotence=True,
                    linger_ms=0,
                    message_max_bytes=2 * BODY_BYTES_MAX,
                    delivery_timeout_ms=int(CALL_TIMEOUT_S * 1000),
                )
            )
        producer, faults, delivered = self._producer, list[Any](), 0

        def told(error: Any, _message: Any) -> None:
            nonlocal delivered
            delivered += 1
            if error is not None:
                faults.append(error)

        for each in messages:
            value = orjson.dumps([each.version, each.at_s]) + b"\n" + each.body
            producer.produce(self._topic, key=each.key.encode(), value=value, on_delivery=told)
        while delivered < len(messages):
            producer.poll(min(0.1, deadline.left_s()))
        if faults:
            raise KafkaException(faults[0])

    # -- in the thread that reads

    def _reader(self, group: str, deadline: Deadline) -> _Reader:
        from confluent_kafka import TopicPartition

        known = self._readers.get(group)
        if known is not None:
            return known
        consumer = self._reading.consumer(f"portcullis-{self._topic}-{group}")
        try:
            reader = _Reader(consumer)
            count = self._reading.partitions(consumer, deadline)
            all_of_it = [TopicPartition(self._topic, number) for number in range(count)]
            for place in consumer.committed(all_of_it, timeout=deadline.left_s()):
                first, _ = consumer.get_watermark_offsets(place, timeout=deadline.left_s())
                reader.lost = reader.lost or 0 <= place.offset < first
                reader.places[place.partition] = max(first, place.offset)
            consumer.assign(self._at(reader))
        except BaseException:
            consumer.close()
            raise
        self._readers[group] = reader
        return reader

    def _at(self, reader: _Reader) -> list[TopicPartition]:
        from confluent_kafka import TopicPartition

        return [TopicPartition(self._topic, partition, offset) for partition, offset in reader.places.items()]

    def _receive(self, group: str, limit: int, wait_s: float, deadline: Deadline) -> Batch:
        """Read on from the group's place: what was received before and is not done comes again."""
        reader = self._reader(group, deadline)
        try:
            reader.consumer.assign(self._at(reader))
            places, found = dict(reader.places), list[Message]()
            ended: set[int] = set()  # partitions of which it is certain that nothing follows
            ends_s = time.monotonic() + wait_s
            while not found and (len(ended) < len(places) or time.monotonic() < ends_s):
                for raw in reader.consumer.consume(limit, timeout=min(LOOK_S, deadline.left_s())):
                    partition, offset = raw.partition() or 0, raw.offset() or 0
                    if self._is_message(raw):
                        places[partition] = offset + 1
                        found.append(_message(raw))
                    else:
                        ended.add(partition)
        except BaseException:
            self._forget(group)
            raise
        lost, reader.lost = reader.lost, False
        return Batch(group, tuple(found), orjson.dumps(sorted(places.items())).decode(), lost)

    @staticmethod
    def _is_message(raw: Any) -> bool:
        from confluent_kafka import KafkaError, KafkaException

        error = raw.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        return error is None

    def _done(self, batch: Batch, deadline: Deadline) -> None:
        reader = self._reader(batch.group, deadline)
        for partition, offset in orjson.loads(batch.place):
            reader.places[partition] = max(offset, reader.places.get(partition, 0))
        try:
            # Another process may have gone further for this group.
            for place in reader.consumer.committed(self._at(reader), timeout=deadline.left_s()):
                reader.places[place.partition] = max(place.offset, reader.places[place.partition])
            reader.consumer.commit(offsets=self._at(reader), asynchronous=False)
        except BaseException:
            self._forget(batch.group)
            raise

    def _lag(self, group: str, deadline: Deadline) -> Lag:
        reader, behind, oldest_s = self._reader(group, deadline), 0, 0.0
        for place in self._at(reader):
            first, end = reader.consumer.get_watermark_offsets(place, timeout=deadline.left_s())
            behind += max(0, end - max(first, place.offset))
        if behind:
            batch = self._receive(group, 1, 0.0, deadline)
            oldest_s = max([0.0, *(self._clock.wall_s() - each.at_s for each in batch.messages)])
        return Lag(behind, oldest_s)

    def _forget(self, group: str) -> None:
        """Begin anew with the next call: what was committed is asked for again."""
        reader = self._readers.pop(group, None)
        if reader is not None:
            reader.consumer.close()

    def _leave(self) -> None:
        for group in list(self._readers):
            self._forget(group)


def _message(raw: Any) -> Message:
    head, _, body = raw.value().partition(b"\n")
    version, at_s = orjson.loads(head)
    return Message(raw.key().decode(), version, body, at_s)


__all__ = ["KafkaReplicationQueue"]
