"""Opaque tokens through the real validator, asked about at a real endpoint."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway._native.token import TokenValidator
from gateway.config import Config, IssuerConfig
from gateway.tokens.control import TokenControl
from tests.real.issuer import Mode, RealIssuer

pytestmark = pytest.mark.journey


class Gateway:
    def __init__(self, issuer: RealIssuer, run_dir: Path, **settings: Any) -> None:
        (run_dir / "secret").write_text("p:w/%+\n")
        self.validator = TokenValidator()
        config = IssuerConfig(
            **{
                "issuer": issuer.issuer,
                "audiences": ("api",),
                "introspection_endpoint": f"{issuer.issuer}/introspect",
                "introspection_client_id": "gate way",
                "introspection_client_secret": f"file:{run_dir / 'secret'}",
                "fetch_timeout_s": 0.5,
                **settings,
            }
        )
        self.control = TokenControl(
            Config(issuers=(config,)), base_dir=run_dir, run_dir=run_dir, validators=[self.validator]
        )

    async def judge(self, token: bytes, now_s: int | None = None) -> str:
        _, reason = self.validator.judge_token(token, now_s)
        if reason == "opaque":
            refusal = await self.control.ask(reason, -1, token)
            if refusal is not None:
                return refusal
            _, reason = self.validator.judge_token(token, now_s)
        return reason


@pytest.fixture
async def issuer() -> AsyncIterator[RealIssuer]:
    async with RealIssuer() as issuer:
        issuer.introspect = lambda token: {
            "active": token.startswith("good"),
            "sub": "alice",
            "aud": "api",
            "scope": "read write",
            "jti": f"id of {token}",
            "exp": int(time.time()) + 100,
        }
        yield issuer


@pytest.fixture
async def gateway(issuer: RealIssuer, tmp_path: Path) -> AsyncIterator[Gateway]:
    gateway = Gateway(issuer, tmp_path)
    await gateway.control.start()
    yield gateway
    await gateway.control.stop()


async def test_an_active_token_is_good_and_asked_about_once(issuer: RealIssuer, gateway: Gateway) -> None:
    for _ in range(5):
        assert await gateway.judge(b"good-1") == "ok"
    assert issuer.fetches["/introspect"] == 1
    assert issuer.forms == [{"token": "good-1", "token_type_hint": "access_token"}]
    assert issuer.credentials == [("gate way", "p:w/%+")]
    identity, _ = gateway.validator.judge_token(b"good-1")
    assert identity is not None
    assert (identity.subject, identity.scopes) == (b"alice", (b"read", b"write"))


async def test_an_answer_is_kept_no_longer_than_introspection_ttl_s(issuer: RealIssuer, gateway: Gateway) -> None:
    assert await gateway.judge(b"good-1") == "ok"
    now_s = int(time.time())
    assert gateway.validator.judge_token(b"good-1", now_s + 8)[1] == "ok"
    assert gateway.validator.judge_token(b"good-1", now_s + 11)[1] == "opaque"


async def test_an_inactive_token_is_refused_each_time_anew(issuer: RealIssuer, gateway: Gateway) -> None:
    assert await gateway.judge(b"bad") == "token_inactive"
    issuer.introspect = lambda token: {"active": True, "aud": "api"}
    assert await gateway.judge(b"bad") == "ok"


async def test_fifty_at_once_ask_once(issuer: RealIssuer, gateway: Gateway) -> None:
    assert set(await asyncio.gather(*(gateway.judge(b"good-1") for _ in range(50)))) == {"ok"}
    assert issuer.fetches["/introspect"] == 1


@pytest.mark.parametrize(
    "mode", ["hang", "drip", "huge", "bomb", "reset", "cut", "garbage", "500", "404", "bad_json", "redirect_away"]
)
async def test_a_misbehaving_endpoint_is_a_503_in_time_and_never_an_allow(
    issuer: RealIssuer, gateway: Gateway, mode: Mode
) -> None:
    assert await gateway.judge(b"good-0") == "ok"
    issuer.mode = mode
    started = time.monotonic()
    assert await gateway.judge(b"good-1") == "introspection_unavailable"
    assert time.monotonic() - started < 0.5 + 0.2
    issuer.mode = "ok"
    assert await gateway.judge(b"good-1") == "ok"


async def test_refused_credentials_are_a_503_and_no_verdict_on_the_token(issuer: RealIssuer, gateway: Gateway) -> None:
    issuer.accepts_credentials = lambda name, password: False
    assert await gateway.judge(b"good-1") == "introspection_unavailable"


async def test_a_revocation_reaches_a_kept_answer_at_once_and_a_new_one_too(
    issuer: RealIssuer, gateway: Gateway
) -> None:
    assert await gateway.judge(b"good-1") == "ok"
    await gateway.control.revoke("jti", issuer.issuer, "id of good-1", until_s=2_000_000_000)
    await gateway.control.revoke("jti", issuer.issuer, "id of good-2", until_s=2_000_000_000)
    assert await gateway.judge(b"good-1") == "revoked"
    assert await gateway.judge(b"good-2") == "revoked"
    assert await gateway.judge(b"good-3") == "ok"


async def test_a_subject_that_may_not_stand_in_a_header_is_refused(issuer: RealIssuer, gateway: Gateway) -> None:
    issuer.introspect = lambda token: {"active": True, "aud": "api", "sub": "alice\r\nX-Auth-Subject: root"}
    assert await gateway.judge(b"good-1") == "claim_invalid"


async def test_without_an_endpoint_an_opaque_token_is_malformed(issuer: RealIssuer, tmp_path: Path) -> None:
    gateway = Gateway(
        issuer,
        tmp_path,
        introspection_endpoint="",
        introspection_client_id="",
        introspection_client_secret="",
    )
    await gateway.control.start()
    assert await gateway.judge(b"good-1") == "malformed"
    assert issuer.fetches["/introspect"] == 0
    await gateway.control.stop()


async def test_counts_of_what_was_asked_are_shown_by_issuer(issuer: RealIssuer, gateway: Gateway) -> None:
    await gateway.judge(b"good-1")
    await gateway.judge(b"bad")
    issuer.mode = "500"
    await gateway.judge(b"good-2")
    name = issuer.issuer
    assert gateway.control.state().introspections == {(name, "active"): 1, (name, "inactive"): 1, (name, "error"): 1}


async def test_a_list_of_revocations_that_overflows_ends_every_kept_answer(
    issuer: RealIssuer, gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await gateway.judge(b"good-1") == "ok"

    def overflow(rows: object) -> None:
        raise OverflowError("no room")

    full = Gateway(issuer, gateway.control._run_dir)
    monkeypatch.setattr(full.control._revocations, "_sinks", [SinkStub(overflow)])
    await full.control.start()
    assert await full.judge(b"good-1") == "ok"
    await full.control.revoke("jti", issuer.issuer, "any", until_s=2_000_000_000)
    assert not full.control.state().ready
    assert await full.judge(b"good-1") == "keys_unavailable"
    await full.control.stop()


class SinkStub:
    """A table of revocations that does what `revoke_many` is given to do."""

    def __init__(self, revoke_many: Callable[[object], None]) -> None:
        self.revoke_many = revoke_many
