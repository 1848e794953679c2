"""Opaque tokens: what an issuer's answer allows, and how asking is shared, bounded and ordered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import pytest

from gateway.config import WAITING_PER_PERMIT_MAX, Config, IssuerConfig
from gateway.resilience import Resilience
from gateway.stores.fetch import Fetcher, FetchFailed
from gateway.tokens import introspection
from gateway.tokens.introspection import ActiveToken, AnswerRefused, OpaqueIntrospector, read_answer
from gateway.tokens.issuer_calls import DirectCalls, GuardedCalls, IssuerCalls
from gateway.types import Secret
from tests.unit.tokens.fakes import MovedClock

ISSUER = "https://idp.example.com"
NOW_S = 1_700_000_000.0


def issuer(name: str = "idp", **settings: Any) -> IssuerConfig:
    return IssuerConfig(
        **{
            "issuer": f"https://{name}.example.com",
            "audiences": ("api",),
            "introspection_endpoint": f"https://{name}.example.com/introspect",
            "introspection_client_id": "gate way",
            "introspection_client_secret": "env:SECRET",
            **settings,
        }
    )


ANSWER: Mapping[str, Any] = {
    "active": True,
    "sub": "alice",
    "scope": "read  write",
    "aud": ["api", "other"],
    "exp": NOW_S + 100,
    "iat": NOW_S - 10,
    "jti": "j1",
    "sid": "s1",
}


class Endpoints:
    """The introspection endpoints of all issuers."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any] | Exception] = {}
        self.asked: list[tuple[str, str]] = []
        self.basic: tuple[str, str] | None = None
        self.under_way = self.under_way_max = 0
        self.gate: asyncio.Event | None = None

    async def open(self) -> None:
        pass

    async def post_form(
        self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None, timeout_s: float, bytes_max: int
    ) -> dict[str, Any]:
        self.asked.append((url.split("/")[2].split(".", maxsplit=1)[0], form["token"]))
        self.basic = basic
        self.under_way += 1
        self.under_way_max = max(self.under_way, self.under_way_max)
        try:
            if self.gate is not None:
                await self.gate.wait()
        finally:
            self.under_way -= 1
        answer = self.answers.get(self.asked[-1][0], {"active": False})
        if isinstance(answer, Exception):
            raise answer
        return answer


class World:
    def __init__(self, *issuers: IssuerConfig, calls: IssuerCalls | None = None) -> None:
        self.endpoints = Endpoints()
        self.kept: dict[bytes, ActiveToken] = {}
        self.refusal: str | None = None
        self.introspector = OpaqueIntrospector(
            issuers,
            fetcher=cast(Fetcher, self.endpoints),
            clock=MovedClock(),
            remember=self.remember,
            read_secret=lambda reference: Secret("p/w:%"),
            calls=calls or GuardedCalls(Resilience(Config().resilience, clock=MovedClock())),
        )

    def remember(self, token: bytes, active: ActiveToken) -> str | None:
        self.kept[token] = active
        return self.refusal


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World(issuer())
    world.endpoints.answers["idp"] = {"active": True, "sub": "alice", "aud": "api"}
    yield world
    await world.introspector.stop()


def reason_of(changes: Mapping[str, Any], **settings: Any) -> str | None:
    """Return why an answer is refused, None for an active one."""
    answer = {name: value for name, value in {**ANSWER, **changes}.items() if value is not ...}
    try:
        return None if read_answer(answer, issuer(**settings), NOW_S) else "inactive"
    except AnswerRefused as refused:
        return refused.reason


# Answers


def test_an_active_answer_tells_who_it_is_and_how_long() -> None:
    active = read_answer(ANSWER, issuer(), NOW_S)
    assert active is not None
    assert (active.issuer, active.subject, active.scopes) == (ISSUER, b"alice", (b"read", b"write"))
    assert (active.jti, active.sid, active.issued_at_s) == (b"j1", b"s1", int(NOW_S) - 10)
    assert active.keep_until_s == NOW_S + 10  # introspection_ttl_s
    assert active.claims == ANSWER


@pytest.mark.parametrize(("exp_s", "keep_s"), [(5, 5), (10, 10), (11, 10), (0.5, 1)])
def test_an_answer_is_kept_no_longer_than_exp(exp_s: float, keep_s: float) -> None:
    active = read_answer({**ANSWER, "exp": NOW_S + exp_s}, issuer(), NOW_S)
    assert active is not None
    assert active.keep_until_s == NOW_S + keep_s


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"exp": ...},
        {"iat": ...},
        {"sub": ...},
        {"scope": ...},
        {"scope": ["read", "write"]},
        {"aud": "api"},
        {"iss": ISSUER},
        {"token_type": "Bearer"},
        {"token_type": "bearer"},
        {"token_use": "access_token"},
        {"typ": "Bearer"},
        {"nbf": NOW_S + 30},
    ],
)
def test_good_answers_pass(changes: Mapping[str, Any]) -> None:
    assert reason_of(changes) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": "https://other.example.com"}, "issuer_unknown"),
        ({"iss": ISSUER + "/"}, "issuer_unknown"),
        ({"iss": 7}, "issuer_unknown"),
        ({"exp": NOW_S}, "expired"),
        ({"exp": NOW_S - 1}, "expired"),
        ({"exp": "soon"}, "claim_invalid"),
        ({"exp": True}, "claim_invalid"),
        ({"exp": 2**60}, "claim_invalid"),
        ({"exp": -1}, "claim_invalid"),
        ({"nbf": NOW_S + 31}, "not_yet_valid"),
        ({"iat": NOW_S + 31}, "issued_in_future"),
        ({"aud": "other"}, "audience"),
        ({"aud": "api2"}, "audience"),
        ({"aud": []}, "audience"),
        ({"aud": ...}, "audience"),
        ({"aud": [7]}, "claim_invalid"),
        ({"aud": {"api": 1}}, "claim_invalid"),
        ({"sub": 7}, "claim_invalid"),
        ({"scope": 7}, "claim_invalid"),
        ({"jti": []}, "claim_invalid"),
        ({"cnf": {"jkt": "x"}}, "sender_constrained"),
        ({"token_type": "DPoP"}, "sender_constrained"),
        ({"token_type": "mac"}, "type"),
        ({"token_type": "refresh_token"}, "type"),
        ({"token_type": 7}, "claim_invalid"),
        ({"token_use": "refresh_token"}, "type"),
        ({"typ": "Refresh"}, "type"),
        ({"typ": "ID"}, "type"),
    ],
)
def test_an_active_token_is_refused_by_the_issuers_rules(changes: Mapping[str, Any], reason: str) -> None:
    assert reason_of(changes) == reason


def test_settings_of_the_issuer_widen_and_narrow_the_rules() -> None:
    assert reason_of({"aud": ...}, any_audience=True, audiences=()) is None
    assert reason_of({"cnf": {"jkt": "x"}, "token_type": "DPoP"}, allow_sender_constrained=True) is None
    assert reason_of({}, required_claims=("sub", "tenant")) == "claim_missing"
    assert reason_of({"tenant": "t"}, required_claims=("sub", "tenant")) is None
    assert reason_of({}, lifetime_max_s=109) == "claim_invalid"
    assert reason_of({}, lifetime_max_s=110) is None
    assert reason_of({"iat": ...}, lifetime_max_s=110) == "claim_missing"


@pytest.mark.parametrize("answer", [{}, {"active": "true"}, {"active": 1}, {"active": None}, {"error": "x"}])
def test_an_answer_without_active_is_no_answer(answer: Mapping[str, Any]) -> None:
    with pytest.raises(FetchFailed):
        read_answer({**answer, "sub": "alice"}, issuer(), NOW_S)


def test_an_inactive_token_is_inactive_whatever_else_it_says() -> None:
    assert read_answer({**ANSWER, "active": False}, issuer(), NOW_S) is None


# Asking


async def test_an_active_token_is_kept_and_judged_again(world: World) -> None:
    assert await world.introspector.introspect(b"opaque") is None
    assert world.kept[b"opaque"].subject == b"alice"
    assert world.endpoints.asked == [("idp", "opaque")]


async def test_name_and_password_are_form_encoded_before_they_are_sent(world: World) -> None:
    await world.introspector.introspect(b"opaque")
    assert world.endpoints.basic == ("gate+way", "p%2Fw%3A%25")


async def test_what_the_validator_refuses_stays_refused(world: World) -> None:
    world.refusal = "revoked"
    assert await world.introspector.introspect(b"opaque") == "revoked"


async def test_an_inactive_token_is_refused_and_asked_about_again(world: World) -> None:
    world.endpoints.answers["idp"] = {"active": False}
    for _ in range(3):
        assert await world.introspector.introspect(b"opaque") == "token_inactive"
    assert len(world.endpoints.asked) == 3
    assert world.kept == {}


async def test_a_fault_is_unavailable_and_never_an_answer(world: World) -> None:
    for fault in (FetchFailed("timeout", "no answer"), FetchFailed("status", "500", 500), KeyError("a bug")):
        world.endpoints.answers["idp"] = fault
        assert await world.introspector.introspect(b"opaque") == "introspection_unavailable"
    assert world.kept == {}
    world.endpoints.answers["idp"] = {"active": True, "aud": "api"}
    assert await world.introspector.introspect(b"opaque") is None


async def test_callers_with_the_same_token_share_one_asking(world: World) -> None:
    world.endpoints.gate = asyncio.Event()
    asks = [asyncio.create_task(world.introspector.introspect(b"opaque")) for _ in range(50)]
    asks.append(asyncio.create_task(world.introspector.introspect(b"another")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asks[0].cancel()
    world.endpoints.gate.set()
    assert await asyncio.gather(*asks[1:]) == [None] * 50
    assert sorted(world.endpoints.asked) == [("idp", "another"), ("idp", "opaque")]


async def test_no_more_than_the_limit_are_asked_at_once(world: World) -> None:
    world.endpoints.gate = asyncio.Event()
    permits = Config().resilience.external_calls.token_validation
    count = permits * (1 + WAITING_PER_PERMIT_MAX)
    asks = [asyncio.create_task(world.introspector.introspect(b"t%d" % number)) for number in range(count)]
    for _ in range(5):
        await asyncio.sleep(0)
    assert world.endpoints.under_way == permits
    assert await world.introspector.introspect(b"one-more") == "introspection_unavailable"
    world.endpoints.gate.set()
    assert await asyncio.gather(*asks) == [None] * count
    assert world.endpoints.under_way_max == permits


async def test_one_token_more_than_the_limit_is_refused_at_once() -> None:
    world = World(issuer(), calls=DirectCalls())
    world.endpoints.answers["idp"] = {"active": True, "sub": "alice", "aud": "api"}
    world.endpoints.gate = asyncio.Event()
    asks = [
        asyncio.create_task(world.introspector.introspect(b"t%d" % number))
        for number in range(introspection.FLIGHTS_MAX)
    ]
    await asyncio.sleep(0)
    assert await world.introspector.introspect(b"one-more") == "introspection_unavailable"
    assert world.introspector.shed == 1
    world.endpoints.gate.set()
    assert set(await asyncio.gather(*asks)) == {None}


async def test_an_issuer_that_is_down_is_left_alone_and_the_next_one_still_asked(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = World(issuer("a"), issuer("b"))
    world.endpoints.answers = {"a": FetchFailed("unreachable", "down"), "b": {"active": True, "aud": "api"}}
    for number in range(20):
        assert await world.introspector.introspect(b"t%d" % number) is None
    asked = [name for name, _ in world.endpoints.asked]
    assert (asked.count("a"), asked.count("b")) == (10, 20)
    assert sum("introspection at" in record.getMessage() for record in caplog.records) == 10


async def test_the_whole_asking_has_a_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(introspection, "TOTAL_TIMEOUT_S", 0.05)
    world.endpoints.gate = asyncio.Event()
    assert await world.introspector.introspect(b"opaque") == "introspection_unavailable"


async def test_stopping_refuses_whoever_waits(world: World) -> None:
    world.endpoints.gate = asyncio.Event()
    ask = asyncio.create_task(world.introspector.introspect(b"opaque"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await world.introspector.stop()
    assert await ask == "introspection_unavailable"


@pytest.mark.parametrize("token", [b"", b"a b", b"a\nb", b"=", b"a=b", b"\xff", "tökén".encode(), b"a,b"])
async def test_what_cannot_be_a_token_is_asked_of_nobody(world: World, token: bytes) -> None:
    assert await world.introspector.introspect(token) == "malformed"
    assert world.endpoints.asked == []


@pytest.mark.parametrize(
    ("first", "second", "verdict", "asked"),
    [
        ("active", "active", None, ["a"]),
        ("inactive", "active", None, ["a", "b"]),
        ("inactive", "inactive", "token_inactive", ["a", "b"]),
        ("fault", "active", None, ["a", "b"]),
        ("fault", "inactive", "introspection_unavailable", ["a", "b"]),
        ("inactive", "fault", "introspection_unavailable", ["a", "b"]),
        ("refused", "active", "audience", ["a"]),
    ],
)
async def test_issuers_are_asked_in_order_until_one_knows_the_token(
    first: str, second: str, verdict: str | None, asked: list[str]
) -> None:
    world = World(issuer("a"), IssuerConfig(issuer="https://jwt-only.example.com"), issuer("b"))
    kinds: dict[str, dict[str, Any] | Exception] = {
        "active": {"active": True, "aud": "api"},
        "inactive": {"active": False},
        "refused": {"active": True, "aud": "other"},
        "fault": FetchFailed("timeout", "no answer"),
    }
    world.endpoints.answers = {"a": kinds[first], "b": kinds[second]}
    assert await world.introspector.introspect(b"opaque") == verdict
    assert [name for name, _ in world.endpoints.asked] == asked
    if verdict is None:
        assert world.kept[b"opaque"].issuer == f"https://{asked[-1]}.example.com"


async def test_no_token_reaches_the_log(world: World, caplog: pytest.LogCaptureFixture) -> None:
    for fault in (FetchFailed("timeout", "no answer"), KeyError("a bug")):
        world.endpoints.answers["idp"] = fault
        await world.introspector.introspect(b"canary-token")
    assert caplog.records
    assert "canary" not in caplog.text
