"""Records: every backend gives the answers that the one in memory gives, whatever is asked in whatever order.

The one in memory is atomic by its nature and short; it stands for the laws in `records.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.stores import Connections, _open_records
from gateway.stores.base import ORIGIN
from gateway.stores.records import (
    BODY_BYTES_MAX,
    KEY_BYTES_MAX,
    TAG_BYTES_MAX,
    TAGS_MAX,
    TIME_S_MAX,
    Record,
    RecordKind,
    RecordStore,
    check_tags,
    merged,
)
from gateway.types import VERSION_MAX
from tests.real.pools import SMALL
from tests.real.postgres import RealPostgres
from tests.real.postgres_replicas import OPTIONS
from tests.real.redis import RealRedis

NOW_S = int(time.time())
KIND = RecordKind("session", logged=True)

keys = st.sampled_from([b"\x00one", b"two", b"three"])
tags = st.lists(st.sampled_from(["t", "{u}", "v:1"]), max_size=2, unique=True)
one_tag = st.lists(
    st.sampled_from(["t", "{u}", "v:1"]), max_size=1
)  # of several, a cluster may keep some when one bars
versions = st.sampled_from([1, 2, 3, 4, VERSION_MAX - 1])
times = st.sampled_from([NOW_S + 5000, NOW_S + 6000, TIME_S_MAX])
seen = st.sampled_from([NOW_S, NOW_S + 10, NOW_S + 20])
records = st.builds(
    Record, key=keys, version=versions, body=st.sampled_from([b"", b"\x00\xff", b"x" * 300]), expires_s=times,
    seen_s=seen, idle_s=st.sampled_from([0, 3000]),
)  # fmt: skip
begun = st.sampled_from([None, NOW_S, NOW_S + 1])
steps = st.one_of(
    st.tuples(st.just("create"), records, one_tag, begun),
    st.tuples(st.just("swap"), records, versions, tags),
    st.tuples(st.just("touch"), keys, seen, tags),
    st.tuples(st.just("bury"), keys, times, st.one_of(st.none(), versions), st.booleans()),
    st.tuples(st.just("bury_all"), st.sampled_from(["t", "{u}"]), st.sampled_from([0, NOW_S + 1]), times),
    st.tuples(st.just("find"), st.sampled_from(["t", "{u}", "v:1"])),
    st.tuples(st.just("merge"), records, one_tag, begun),
    st.tuples(st.just("merge_buried"), records),
)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealPostgres]:
    server = RealPostgres(tmp_path_factory.mktemp("postgres"), options=OPTIONS)
    yield server
    server.stop()


def buried(record: Record) -> Record:
    return Record(record.key, record.version, b"", record.expires_s, record.seen_s, buried=True)


async def act(store: RecordStore, step: tuple[Any, ...]) -> Any:
    """Do one step; give its answer in a form that can be compared."""
    match step:
        case ("create", record, tagged, at_s):
            return await store.create(record, tagged, at_s)
        case ("swap", record, version, tagged):
            return await store.swap(record, version, tagged)
        case ("touch", key, at_s, tagged):
            return await store.touch(key, at_s, tagged)
        case ("bury", key, until_s, version, absent):
            return await store.bury(key, until_s, version=version, absent=absent)
        case ("bury_all", tag, before_s, until_s):
            return await store.bury_all(tag, before_s, until_s)
        case ("find", tag):
            return {record.key: record for record in await store.find(tag)}
        case ("merge", record, tagged, at_s):
            return await store.merge(record, tagged, at_s)
        case ("merge_buried", record):
            return await store.merge(buried(record))
    raise AssertionError(step)


async def compare(open_store: Callable[[], RecordStore], plan: list[tuple[Any, ...]]) -> None:
    model, store = _open_records(KIND, "memory:", Path(), 50, Connections(SMALL)), open_store()
    all_keys = [b"\x00one", b"two", b"three", b"never"]
    try:
        place = (await store.read_after(ORIGIN, 10)).revision
        model_place = (await model.read_after(ORIGIN, 10)).revision
        for step in plan:
            assert await act(store, step) == await act(model, step), step
            assert dict(await store.get(all_keys)) == dict(await model.get(all_keys)), step
        told = (await store.read_after(place, 10_000)).changes
        wanted = (await model.read_after(model_place, 10_000)).changes
        # Some tell more than they need to, never less.
        assert {(each.key, each.version, each.buried) for each in wanted} <= {
            (each.key, each.version, each.buried) for each in told
        }
    finally:
        await store.close()


@given(st.lists(steps, min_size=1, max_size=12))
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sqlite_answers_as_memory_does(tmp_path_factory: pytest.TempPathFactory, plan: list[tuple[Any, ...]]) -> None:
    file = tmp_path_factory.mktemp("records") / "records.sqlite3"
    asyncio.run(compare(lambda: _open_records(KIND, "", file, 50, Connections(SMALL)), plan))


@given(st.lists(steps, min_size=1, max_size=12))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_redis_answers_as_memory_does(redis: RealRedis, plan: list[tuple[Any, ...]]) -> None:
    redis.forget()
    asyncio.run(compare(lambda: _open_records(KIND, redis.url, Path(), 50, Connections(SMALL)), plan))


@given(st.lists(steps, min_size=1, max_size=12))
@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_postgres_answers_as_memory_does(postgres: RealPostgres, plan: list[tuple[Any, ...]]) -> None:
    postgres.empty()
    asyncio.run(compare(lambda: _open_records(KIND, postgres.url, Path(), 50, Connections(SMALL)), plan))


@given(st.lists(st.one_of(records, records.map(buried)), min_size=1, max_size=5), st.randoms())
def test_messages_in_any_order_and_number_come_to_the_same(said: list[Record], random: Any) -> None:
    """The law of `merge`. Two contents of one version cannot come from one owner, and do not here."""
    first: dict[int, Record] = {}
    said = [
        each if each.buried else first.setdefault(each.version, each)
        for each in (Record(b"k", r.version, r.body, r.expires_s, r.seen_s, r.idle_s, r.buried) for r in said)
    ]

    def outcome(order: list[Record]) -> tuple[Any, ...]:
        held: Record | None = None
        for each in order:
            held = merged(held, each)
        assert held is not None
        return held.buried, held.version if held.buried else (held.version, held.body)

    shuffled = [*said, *said]
    random.shuffle(shuffled)
    assert outcome(shuffled) == outcome(said)
    assert outcome(said)[0] == any(each.buried for each in said)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": b""},
        {"key": b"k" * (KEY_BYTES_MAX + 1)},
        {"version": 0},
        {"version": VERSION_MAX},
        {"body": b"x" * (BODY_BYTES_MAX + 1)},
        {"expires_s": 0},
        {"expires_s": TIME_S_MAX + 1},
        {"seen_s": -1},
        {"idle_s": 1 << 31},
    ],
)
def test_a_record_that_not_every_backend_can_keep_is_refused(changes: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"key": b"k", "version": 1, "body": b"", "expires_s": NOW_S}
    Record(**plain)
    with pytest.raises(ValueError, match="record"):
        Record(**(plain | changes))


@pytest.mark.parametrize("odd", [[""], ["x" * (TAG_BYTES_MAX + 1)], ["a\0b"], ["t"] * (TAGS_MAX + 1)])
def test_tags_that_not_every_backend_can_keep_are_refused(odd: list[str]) -> None:
    with pytest.raises(ValueError, match="tag"):
        check_tags(odd)
