"""A service of entities over HTTP that answers, lingers, lies or breaks off: what is believed, and what it costs."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway._native.uid import EntityUid
from gateway.errors import StoreUnavailable
from gateway.stores import ORIGIN, open_attribute_source
from gateway.stores.attributes import BODY_BYTES_MAX, READ_MAX, FollowedSource
from gateway.stores.attributes_http import HTTPAttributeSource
from gateway.types import Secret
from tests.real.issuer import Mode, RealIssuer

DEADLINE_S = 0.3

ALICE = EntityUid("User", "alice")
BOB = EntityUid("User", "bob")


def item(name: str, **members: object) -> dict[str, object]:
    return {"uid": {"type": "User", "id": name}, **members}


class RealDirectory(RealIssuer):
    """A peer that can misbehave, with entities to answer with."""

    answer: object = ()
    raw: bytes | None = None  # instead of it

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[object] = []

    def _document(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, object]:
        self.questions.append(json.loads(body))
        return 200, self.answer

    async def _honest(
        self, mode: Mode, path: str, headers: dict[str, str], body: bytes, writer: asyncio.StreamWriter
    ) -> bool:
        if self.raw is None:
            return await super()._honest(mode, path, headers, body, writer)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(self.raw) + self.raw)
        await writer.drain()
        return True

    @property
    def url(self) -> str:
        return f"{self.issuer}/entities"


@pytest.fixture
async def directory() -> AsyncIterator[RealDirectory]:
    async with RealDirectory() as directory:
        yield directory


@pytest.fixture
async def source(directory: RealDirectory) -> AsyncIterator[HTTPAttributeSource]:
    source = HTTPAttributeSource(directory.url, "directory", secret=Secret("s3cret"), timeout_s=DEADLINE_S)
    await source.read(())  # the import of the driver is part of no deadline
    assert source._fetcher._client is not None
    yield source
    await source.close()


async def test_those_that_the_service_knows_are_found_as_it_says(
    directory: RealDirectory, source: HTTPAttributeSource
) -> None:
    directory.answer = [
        item("bob", attrs={"level": 3, "big": 2**63 - 1, "ü": "\0🦜"}, parents=[{"type": "Team", "id": "eng"}]),
        {"uid": {"__entity": {"type": "User", "id": "alice"}}},
        item("not asked for", attrs={"admin": True}),
    ]
    batch = await source.read([ALICE, BOB, ALICE, EntityUid("User", "carol")])
    assert batch.found.keys() == {ALICE, BOB}
    assert json.loads(batch.found[ALICE]) == {}
    assert json.loads(batch.found[BOB]) == {
        "attrs": {"level": 3, "big": 2**63 - 1, "ü": "\0🦜"},
        "parents": [{"type": "Team", "id": "eng"}],
    }
    assert batch.revision == ORIGIN
    asked = [{"type": "User", "id": name} for name in ("alice", "bob", "carol")]
    assert directory.questions == [{"uids": asked}]


async def test_the_secret_is_sent_as_a_bearer_token_and_shown_nowhere(
    directory: RealDirectory, source: HTTPAttributeSource
) -> None:
    await source.read([ALICE])
    assert directory.headers[0]["authorization"] == "Bearer s3cret"
    assert directory.headers[0]["content-type"] == "application/json"
    directory.mode = "500"
    with pytest.raises(StoreUnavailable) as failed:
        await source.read([ALICE])
    assert "s3cret" not in f"{failed.value} {failed.value.__cause__!r} {source!r} {vars(source)}"


async def test_nothing_is_asked_for_nobody(directory: RealDirectory, source: HTTPAttributeSource) -> None:
    assert dict((await source.read([])).found) == {}
    assert dict((await source.read([EntityUid("User", "a\0b"), EntityUid("", "x")])).found) == {}
    with pytest.raises(ValueError, match="entities in one read"):
        await source.read([EntityUid("User", str(number)) for number in range(READ_MAX + 1)])
    assert directory.total == 0


@pytest.mark.parametrize("mode", ["hang", "drip", "drip_head", "huge"])
async def test_a_slow_or_endless_answer_costs_the_deadline_and_no_more(
    directory: RealDirectory, source: HTTPAttributeSource, mode: Mode
) -> None:
    directory.mode = mode
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        await source.read([ALICE])
    assert time.monotonic() - started < DEADLINE_S + 0.2


@pytest.mark.parametrize(
    "mode",
    ["500", "404", "bad_json", "not_object", "redirect_away", "redirect_here", "reset", "cut", "garbage", "bomb"],
)
async def test_an_answer_that_is_none_is_a_fault_of_the_source(
    directory: RealDirectory, source: HTTPAttributeSource, mode: Mode
) -> None:
    directory.mode = mode
    with pytest.raises(StoreUnavailable):
        await source.read([ALICE])
    assert directory.total == 1  # no redirect was followed
    directory.mode, directory.answer = "ok", [item("alice")]
    assert (await source.read([ALICE])).found.keys() == {ALICE}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({}, "not an array"),
        (None, "not an array"),
        ([item("alice"), None], "no object with a `uid`"),
        ([item("alice"), {"attrs": {}}], "no object with a `uid`"),
        ([{"uid": 'User::"alice"'}], "no object of `type` and `id`"),
        ([{"uid": {"type": "User", "id": 1}}], "no object of `type` and `id`"),
        ([{"uid": {"type": "User", "id": "alice", "more": 1}}], "no object of `type` and `id`"),
        ([{"uid": {"__entity": {"__expr": "x"}}}], "no object of `type` and `id`"),
        ([item("alice", attributes={})], "other members"),
        ([item("alice", attrs={"a": 1}), item("alice")], "stands twice"),
        ([item("alice", attrs={"x": "x" * BODY_BYTES_MAX})], "more than"),
    ],
)
async def test_one_element_that_is_no_entity_makes_the_answer_unusable(
    directory: RealDirectory, source: HTTPAttributeSource, answer: object, reason: str
) -> None:
    directory.answer = answer
    with pytest.raises(StoreUnavailable, match=reason):
        await source.read([ALICE])


async def test_what_cedar_would_refuse_is_not_mended_on_the_way(
    directory: RealDirectory, source: HTTPAttributeSource
) -> None:
    directory.answer = [item("alice", attrs={"n": 2**70})]
    assert (await source.read([ALICE])).found[ALICE] == b'{"attrs":{"n":1180591620717411303424}}'
    for text in (
        b'[{"uid":{"type":"User","id":"alice"},"attrs":{"a":1,"a":2}}]',
        b'[{"uid":{"type":"User","id":"alice"},"attrs":{"a":NaN}}]',
        b'[{"uid":{"type":"User","id":"\xff"}}]',
        b'[{"uid":{"type":"User","id":"\\ud800"}}]',
        b'[{"uid":{"type":"User","id":"alice"},"attrs":{"a":"\\ud800"}}]',
        b"[" * 100_000,
    ):
        directory.raw = text
        with pytest.raises(StoreUnavailable, match="does not answer with entities"):
            await source.read([ALICE])


async def test_a_service_that_is_away_is_a_fault_and_closing_is_harmless(directory: RealDirectory) -> None:
    source = HTTPAttributeSource(directory.url, "directory")
    await directory.stop()
    with pytest.raises(StoreUnavailable):
        await source.read([ALICE])
    await source.close()
    await source.close()


def test_only_https_and_loopback_are_addresses_of_a_source(tmp_path: Path) -> None:
    for url in ("http://directory.example.com/", "https://user:pw@directory.example.com/", "https:///x"):
        with pytest.raises(ValueError, match=r"address|https|holds"):
            open_attribute_source(url, tmp_path, name="directory")
    with pytest.raises(ValueError, match="visible ASCII"):
        open_attribute_source("https://directory.example.com/", tmp_path, name="d", secret=Secret("a\r\nb: c"))
    source = open_attribute_source("https://directory.example.com/", tmp_path, name="d", secret=Secret("ok"))
    assert (source.name, source.shared, isinstance(source, FollowedSource)) == ("d", "network", False)


def test_a_source_that_is_followed_has_no_secret(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only a source over HTTP"):
        open_attribute_source("", tmp_path, name="people", secret=Secret("x"))
