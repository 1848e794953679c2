"""Bearer tokens at our own endpoints: whose they are, what they may, and how often a failure is noted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from starlette.requests import Request

from gateway.front.bearers import FailureNotes, KnownTokens, bearer_token, judged, scopes_of
from gateway.types import Secret
from tests.unit.tokens.fakes import MovedClock

ISSUERS = frozenset({"https://idp.test"})


def request(*headers: tuple[str, str], cookies: str = "") -> Request:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    if cookies:
        raw.append((b"cookie", cookies.encode()))
    return Request({"type": "http", "method": "GET", "path": "/", "headers": raw, "query_string": b""})


def test_a_token_has_one_owner() -> None:
    known = KnownTokens({"one": Secret("a" * 40), "two": Secret("b" * 40)})
    assert (known.owner("a" * 40), known.owner("b" * 40)) == ("one", "two")
    assert [known.owner(wrong) for wrong in ("", "a" * 39, "a" * 41, "\udcff")] == [None] * 4
    with pytest.raises(ValueError, match="the same token"):
        KnownTokens({"one": Secret("a"), "two": Secret("a")})


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([("Authorization", "Bearer abc")], "abc"),
        ([("Authorization", "bearer  abc ")], "abc"),
        ([("Authorization", "Basic abc")], None),
        ([("Authorization", "Bearer")], None),
        ([("Authorization", "Bearer ")], None),
        ([("Authorization", "Bearer a"), ("Authorization", "Bearer a")], None),
        ([], None),
    ],
)
def test_a_request_has_one_token_or_none(headers: list[tuple[str, str]], token: str | None) -> None:
    assert bearer_token(request(*headers)) == token


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iss": "https://idp.test"}, "ok"),
        ({"iss": "https://other.test"}, "issuer"),
        ({"iss": "https://idp.test", "cnf": {"jkt": "x"}}, "sender_constrained"),
        (None, "expired"),
    ],
)
async def test_only_tokens_of_named_issuers_count_and_none_that_is_bound_to_a_key(
    claims: Mapping[str, Any] | None, reason: str
) -> None:
    async def judge(_token: bytes) -> tuple[Mapping[str, Any] | None, str]:
        return claims, "ok" if claims else "expired"

    found, why = await judged(judge, "x", ISSUERS)
    assert (found, why) == (claims if reason == "ok" else None, reason)
    assert await judged(judge, "x", frozenset()) == (None, "unknown")


def test_scopes_are_read_from_either_claim() -> None:
    assert scopes_of({"scope": "a b"}) == scopes_of({"scp": ["a", "b"]}) == {"a", "b"}
    assert scopes_of({}) == frozenset()


def test_failures_of_one_address_are_noted_once_a_second() -> None:
    clock = MovedClock()
    notes = FailureNotes(clock)
    assert [notes.is_due("10.0.0.1"), notes.is_due("10.0.0.1"), notes.is_due("10.0.0.2")] == [True, False, True]
    clock.now_s += 1
    assert notes.is_due("10.0.0.1")
    for number in range(3000):
        notes.is_due(f"host-{number}")
    assert len(notes._noted) <= 1001
