"""Kafka, as stores use it: an address, and a thread that talks to the cluster.

librdkafka retries, reconnects and finds leaders by itself, for as long as it is let. So every call made here has a
deadline of its own, a broker that is stopped and still accepts connections included, and runs on a thread for which the
event loop waits no longer than that.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

from gateway.config.addresses import each_server
from gateway.errors import StoreUnavailable
from gateway.stores.work_thread import WorkThread

if TYPE_CHECKING:
    from confluent_kafka import Consumer

T = TypeVar("T")

SCHEMES: Final = ("kafka", "kafkas")
CALL_TIMEOUT_S: Final = 5.0  # of one call of a store
SLACK_S: Final = 0.5  # that a call's last step may take beyond its deadline
PORT: Final = 9092
LOOKS_MAX: Final = 10  # for a topic
LOOK_S: Final = 0.2  # between two of them
_TOPIC: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_log = logging.getLogger("portcullis.kafka")


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """The servers by which a cluster is found, a topic, and how to prove who we are."""

    name: str  # without what is secret
    topic: str
    options: Mapping[str, str]


def read_address(url: str) -> KafkaAddress:
    """Read `kafka://[user:password@]host:9092[,host:9092]/topic`, or `kafkas://` for TLS. Raises ValueError.

    With a user it is SASL, SCRAM-SHA-512 (RFC 7677).
    """
    parts = [urlsplit(each) for each in each_server(url)]
    first = parts[0]
    topic = first.path.removeprefix("/")
    if first.scheme not in SCHEMES or not all(part.hostname for part in parts):
        raise ValueError("it is no address of Kafka: write `kafka://host:9092/topic`")
    if not _TOPIC.fullmatch(topic):
        raise ValueError("no topic is named: write `kafka://host:9092/topic`")
    servers = ",".join(f"{part.hostname}:{part.port or PORT}" for part in parts)
    is_tls = first.scheme == "kafkas"
    options = {"bootstrap.servers": servers, "security.protocol": "ssl" if is_tls else "plaintext"}
    if first.username:
        options |= {
            "security.protocol": "sasl_ssl" if is_tls else "sasl_plaintext",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": unquote(first.username),
            "sasl.password": unquote(first.password or ""),
        }
    return KafkaAddress(f"{first.scheme}://{servers}/{topic}", topic, options)


class Deadline:
    """The time that a call has left, for each of its steps."""

    def __init__(self, seconds: float) -> None:
        self._ends_s = time.monotonic() + seconds

    def left_s(self) -> float:
        """Give the seconds that are left. Raises StoreUnavailable where there are none."""
        left_s = self._ends_s - time.monotonic()
        if left_s <= 0:
            raise StoreUnavailable("Kafka did not answer in time")
        return left_s


class KafkaThread:
    """Runs a store's calls one after the other, each within its deadline."""

    def __init__(self, address: KafkaAddress, name: str) -> None:
        self._address = address
        self._thread = WorkThread(f"kafka-{name}")

    async def run(self, work: Callable[[Deadline], T], timeout_s: float = CALL_TIMEOUT_S) -> T:
        """Return what `work` gives. Raises StoreUnavailable for whatever goes wrong in Kafka, or takes too long."""
        deadline = Deadline(timeout_s)
        try:
            async with asyncio.timeout(timeout_s + SLACK_S):
                return await self._thread.run(lambda: self._work(work, deadline))
        except TimeoutError as error:
            raise StoreUnavailable(f"`{self._address.name}` did not answer within {timeout_s:g} s") from error
        except RuntimeError as error:  # the thread is closed
            raise StoreUnavailable(f"`{self._address.name}` cannot be used: {error}") from error

    def close(self) -> None:
        """Take no more calls."""
        self._thread.close()

    def _work(self, work: Callable[[Deadline], T], deadline: Deadline) -> T:
        try:
            from confluent_kafka import KafkaException
        except ImportError as error:
            raise StoreUnavailable(
                "Kafka needs a driver that is not installed; remedy: pip install 'portcullis-gateway[kafka]'"
            ) from error
        deadline.left_s()  # whoever asked has given up: nothing is begun
        try:
            return work(deadline)
        except KafkaException as error:
            raise StoreUnavailable(f"`{self._address.name}`: {_told(error)}") from error
        except BufferError as error:
            raise StoreUnavailable(f"`{self._address.name}` takes too little: {error}") from error

    # -- in the thread

    def options(self, **more: Any) -> dict[str, Any]:
        """Give what a client of the driver is made with."""
        return {
            **self._address.options,
            "client.id": "portcullis",
            "log_level": 3,
            "logger": _log,
            "socket.timeout.ms": int(CALL_TIMEOUT_S * 1000),
            "socket.keepalive.enable": True,
            "reconnect.backoff.max.ms": 1000,
            **{name.replace("_", "."): value for name, value in more.items()},
        }

    def consumer(self, group: str, **more: Any) -> Consumer:
        """Make a consumer that reads what was committed, and tells where a partition ends."""
        from confluent_kafka import Consumer

        return Consumer(
            self.options(
                group_id=group,
                enable_auto_commit=False,
                enable_partition_eof=True,
                isolation_level="read_committed",
                auto_offset_reset="error",
                **more,
            )
        )

    def partitions(self, client: Any, deadline: Deadline) -> int:
        """Give how many partitions the topic has. Raises StoreUnavailable where there is none."""
        name = self._address.topic
        for _ in range(LOOKS_MAX):
            found = client.list_topics(name, timeout=deadline.left_s()).topics.get(name)
            if found is not None and found.error is None and found.partitions:
                return len(found.partitions)
            time.sleep(min(LOOK_S, deadline.left_s()))  # a topic that is made by being asked for takes a moment
        raise StoreUnavailable(
            f"`{self._address.name}` has no such topic; remedy: kafka-topics.sh --create --topic {name} "
            "--partitions 12 --replication-factor 3 --config retention.ms=-1"
        )


def _told(error: Exception) -> str:
    """Say what the driver says of itself; its texts hold addresses, and no secrets."""
    inner = error.args[0] if error.args else error
    return str(inner.str() if hasattr(inner, "str") else inner)


__all__ = ["CALL_TIMEOUT_S", "SCHEMES", "Deadline", "KafkaAddress", "KafkaThread", "read_address"]
