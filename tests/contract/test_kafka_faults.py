"""Kafka that is stopped, killed, or taken by another process: nobody waits for it, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.stores import audit_log_kafka
from gateway.stores.audit_log_kafka import KafkaAuditLog
from gateway.stores.kafka import SLACK_S
from gateway.types import Secret
from tests.contract.test_audit_log import entries, event
from tests.real.kafka import MockKafka, RealKafka

KEY = Secret("a key that only the gateway has")
ENTER_S = 3.0


@pytest.fixture(params=["mock", "broker"])
def kafka(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MockKafka]:
    server = MockKafka(tmp_path) if request.param == "mock" else RealKafka(tmp_path)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit_log_kafka, "ENTER_TIMEOUT_S", ENTER_S)


async def test_what_was_acknowledged_before_and_after_a_standstill_is_there_once(kafka: MockKafka) -> None:
    log = KafkaAuditLog(kafka.url, "w0", KEY)
    ledger: dict[str, list[int]] = {"acknowledged": [], "unknown": []}

    async def write(number: int) -> None:
        try:
            await log.append([event(number)])
        except StoreUnavailable:
            ledger["unknown"].append(number)
        else:
            ledger["acknowledged"].append(number)

    for number in range(20):
        await write(number)
    kafka.signal(signal.SIGSTOP)
    for number in range(20, 23):
        began_s = time.monotonic()
        await write(number)
        assert time.monotonic() - began_s < 5.0 + ENTER_S + 2 * SLACK_S
    kafka.signal(signal.SIGCONT)
    assert ledger["unknown"] == [20, 21, 22]
    # The writer hands in again what it does not know of, as the queue before it does.
    async with asyncio.timeout(60):
        while ledger["unknown"]:
            again, ledger["unknown"] = ledger["unknown"], []
            for number in again:
                await write(number)
    for number in range(23, 30):
        await write(number)
    found = [entry.event.id for entry in await entries(log)]
    assert sorted(found) == sorted(f"e{number}" for number in range(30))
    assert (await log.verify()).whole
    await log.close()


async def test_a_cluster_that_is_gone_costs_its_deadline_and_no_more(kafka: MockKafka) -> None:
    log = KafkaAuditLog(kafka.url, "w0", KEY)
    await log.append([event(1)])
    kafka.signal(signal.SIGKILL)
    for call in (log.append([event(2)]), log.append([event(3)]), log.verify()):
        began_s = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await call
        assert time.monotonic() - began_s < audit_log_kafka.READ_TIMEOUT_S + 2 * SLACK_S
    began_s = time.monotonic()
    await log.close()
    assert time.monotonic() - began_s < 10


async def test_what_is_cancelled_is_found_out_by_the_next(kafka: MockKafka) -> None:
    log = KafkaAuditLog(kafka.url, "w0", KEY)
    await log.append([event(1)])
    for number in range(2, 8):
        cut = asyncio.create_task(log.append([event(number)]))
        await asyncio.sleep(0.0005 * number)
        cut.cancel()
        with contextlib.suppress(asyncio.CancelledError):  # a fast one is done by then
            await cut
        await log.append([event(number)])
    assert [entry.event.id for entry in await entries(log)] == [f"e{number}" for number in range(1, 8)]
    assert (await log.verify()).whole
    await log.close()


async def test_a_chain_has_one_writer(kafka: MockKafka) -> None:
    if not kafka.fences:
        pytest.skip("the mock of Kafka fences nobody off")
    first, second = (KafkaAuditLog(kafka.url, "w0", KEY) for _ in range(2))
    await first.append([event(1)])
    assert (await second.append([event(2)])).number == 2
    with pytest.raises(StoreUnavailable):
        await first.append([event(3)])
    assert (await first.append([event(3)])).number == 3  # it takes the chain back, and knows what was written meanwhile
    assert (await first.verify()).whole
    await first.close()
    await second.close()


async def test_a_topic_that_does_not_exist_is_told_with_its_remedy(kafka: MockKafka) -> None:
    if not kafka.fences:
        pytest.skip("the mock of Kafka makes every topic that is named")
    log = KafkaAuditLog(kafka.url.replace("/audit-", "/missing-"), "w0", KEY)
    with pytest.raises(StoreUnavailable, match="kafka-topics"):
        await log.append([event(1)])
    await log.close()


@pytest.mark.parametrize(
    "url",
    ["kafka://host:9092", "kafka://host:9092/", "kafka:///topic", "kafka://host/a topic", "kafka://host/" + "x" * 250],
)
def test_an_address_names_brokers_and_a_topic(url: str) -> None:
    with pytest.raises(ValueError, match="kafka://host:9092/topic"):
        KafkaAuditLog(url, "w0")


async def test_nobody_answers_where_nobody_listens() -> None:
    log = KafkaAuditLog("kafka://user:secret@127.0.0.1:1/audit", "w0", KEY)
    with pytest.raises(StoreUnavailable) as refused:
        await log.append([event(1)])
    assert "secret" not in str(refused.value)
    await log.close()
