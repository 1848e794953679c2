"""Kafka on loopback: a broker of Apache Kafka where this machine has one, and librdkafka's own mock cluster anywhere.

The mock speaks the protocol over TCP from a process of its own, so it can be stopped and killed; it keeps everything in
memory, and fences nobody off. What it cannot show is shown by the broker, or skipped by name.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
import uuid
from pathlib import Path

import pytest

from tests.real.process import ServerProcess, accepts, free_port, wait_until

_MOCK = """
import signal, sys
from confluent_kafka import Producer
cluster = Producer({"bootstrap.servers": "unused:1", "test.mock.num.brokers": 3, "log_level": 0})
brokers = cluster.list_topics(timeout=10).brokers.values()
print("READY", ",".join(f"{each.host}:{each.port}" for each in brokers), flush=True)
signal.pause()
"""
_BROKER = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={folder}/data
num.partitions=4
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
"""


class MockKafka:
    """Three brokers that are none, in one process."""

    fences = False

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")
        self.server = ServerProcess([sys.executable, "-c", _MOCK], folder / "kafka-mock.log")
        self.server.wait_for(lambda: "READY" in self.server.output, "the mock of Kafka")
        found = re.search(r"^READY (.+)$", self.server.output, re.MULTILINE)
        assert found is not None
        self.servers = found[1].strip()
        self.forget()

    def forget(self) -> None:
        """Have another topic, which is empty."""
        from confluent_kafka import Producer

        topic = f"audit-{uuid.uuid4().hex[:8]}"
        self.url = f"kafka://{self.servers}/{topic}"
        maker = Producer({"bootstrap.servers": self.servers, "log_level": 0})
        wait_until(lambda: maker.list_topics(topic, timeout=5).topics[topic].error is None, "a topic")

    def signal(self, number: signal.Signals) -> None:
        self.server.signal(number)

    def stop(self) -> None:
        self.server.stop()


class RealKafka(MockKafka):
    """A broker of Apache Kafka, KRaft, one node."""

    fences = True

    def __init__(self, folder: Path) -> None:
        pytest.importorskip("confluent_kafka", reason="confluent-kafka is not installed")
        home = os.environ.get("KAFKA_HOME", "")
        start = shutil.which("kafka-server-start.sh", path=f"{home}/bin:{os.environ.get('PATH', '')}")
        if start is None:
            pytest.skip("Apache Kafka is not installed (KAFKA_HOME)")
        port = free_port()
        config = folder / "kafka.properties"
        config.write_text(_BROKER.format(port=port, controller=free_port(), folder=folder))
        storage = str(Path(start).with_name("kafka-storage.sh"))
        made = ServerProcess([storage, "format", "-t", uuid.uuid4().hex[:22], "-c", str(config)], folder / "format.log")
        assert made.process.wait(60) == 0, made.output
        self.server = ServerProcess([start, str(config)], folder / "kafka.log")
        self.server.wait_for(lambda: accepts(port), "Apache Kafka")
        self.servers = f"127.0.0.1:{port}"
        self.forget()
