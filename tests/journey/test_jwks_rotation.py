"""Keys come, go and change at a real issuer over real HTTP, with the real validator and a hot cache."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway._native.token import TokenValidator
from gateway.config import Config, IssuerConfig
from gateway.tokens.control import TokenControl, claimed_key
from tests.forge import Signer, b64, ec_signer, hs_signer, segment
from tests.real.issuer import Mode, RealIssuer
from tests.unit.tokens.fakes import MovedClock

pytestmark = pytest.mark.journey

OLD, NEW = ec_signer("old"), ec_signer("new")
MIN_REFRESH_S = 0.3


class Gateway:
    """What a worker has of tokens: one validator, and the control plane that supplies it."""

    def __init__(self, issuer: RealIssuer, run_dir: Path, clock: MovedClock | None = None, **settings: Any) -> None:
        self.issuer = issuer
        self.clock = clock
        self.run_dir = run_dir
        self.settings = {
            "audiences": ("api",),
            "algorithms": ("ES256",),
            "jwks_refresh_s": 3600.0,
            "min_refresh_s": MIN_REFRESH_S,
            "fetch_timeout_s": 2.0,
            **settings,
        }
        self.validator = TokenValidator()
        self.control = TokenControl(
            self.config(), base_dir=run_dir, run_dir=run_dir, validators=[self.validator], clock=clock
        )

    def config(self, **settings: Any) -> Config:
        return Config(issuers=(IssuerConfig(issuer=self.issuer.issuer, **{**self.settings, **settings}),))

    def token(self, signer: Signer, **claims: Any) -> bytes:
        now_s = int(self.clock.wall_s() if self.clock else time.time())
        return signer.token(
            {"iss": self.issuer.issuer, "sub": "alice", "aud": "api", "iat": now_s, "exp": now_s + 200_000, **claims}
        )

    async def judge(self, token: bytes) -> str:
        """Judge as a door does: on the hot path, and once more after what it could not know was learned."""
        now_s = int(self.clock.wall_s()) if self.clock else None
        _, reason = self.validator.judge_token(token, now_s)
        if reason in ("kid_unknown", "opaque", "keys_unavailable"):
            refusal = await self.control.ask(reason, -1, token)
            if refusal is not None:
                return refusal
            _, reason = self.validator.judge_token(token, now_s)
        return reason

    async def settle(self) -> None:
        await self.control._keys.settle()

    def tick(self) -> None:
        self.control._keys.tick()

    @property
    def key_status(self) -> str:
        return self.control.state().issuers[0].status

    async def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, self.control.state()
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncIterator[Gateway]:
    await gateway.control.start()
    try:
        yield gateway
    finally:
        await gateway.control.stop()


@pytest.fixture
async def issuer() -> AsyncIterator[RealIssuer]:
    async with RealIssuer([OLD.jwk()]) as issuer:
        yield issuer


async def test_the_first_tokens_wait_for_the_first_fetch_and_pass(issuer: RealIssuer, tmp_path: Path) -> None:
    async with serving(Gateway(issuer, tmp_path)) as gateway:
        verdicts = await asyncio.gather(*(gateway.judge(gateway.token(OLD, jti=str(n))) for n in range(20)))
        assert set(verdicts) == {"ok"}
        assert issuer.total == 2  # metadata and keys, once


async def test_a_removed_key_is_accepted_no_more_once_the_refresh_is_done(issuer: RealIssuer, tmp_path: Path) -> None:
    issuer.keys = [OLD.jwk(), NEW.jwk()]
    async with serving(Gateway(issuer, tmp_path, jwks_refresh_s=0.6)) as gateway:
        old, new = ([gateway.token(signer, jti=str(n)) for n in range(500)] for signer in (OLD, NEW))
        await gateway.settle()
        assert {await gateway.judge(token) for token in (*old, *new)} == {"ok"}
        hits = gateway.validator.stats()["hits"]
        assert {await gateway.judge(token) for token in (*old, *new)} == {"ok"}
        assert gateway.validator.stats()["hits"] == hits + 1000  # the cache is hot
        issuer.keys = [NEW.jwk()]
        await gateway.until(lambda: gateway.control.state().issuers[0].keys == 1)
        assert {gateway.validator.judge_token(token)[1] for token in old} == {"kid_unknown"}
        hits = gateway.validator.stats()["hits"]
        assert {await gateway.judge(token) for token in new} == {"ok"}
        assert gateway.validator.stats()["hits"] == hits + 500  # the other key's verdicts were kept
        assert {await gateway.judge(token) for token in old[:20]} == {"kid_unknown"}


async def test_a_new_key_works_with_its_first_token(issuer: RealIssuer, tmp_path: Path) -> None:
    async with serving(Gateway(issuer, tmp_path)) as gateway:
        assert await gateway.judge(gateway.token(OLD)) == "ok"
        issuer.keys = [NEW.jwk(), OLD.jwk()]
        await asyncio.sleep(MIN_REFRESH_S)
        fetches = issuer.total
        verdicts = await asyncio.gather(*(gateway.judge(gateway.token(NEW, jti=str(n))) for n in range(50)))
        assert set(verdicts) == {"ok"}
        assert issuer.total == fetches + 1


async def test_the_same_kid_with_another_key_replaces_the_old_key(issuer: RealIssuer, tmp_path: Path) -> None:
    async with serving(Gateway(issuer, tmp_path, jwks_refresh_s=0.6)) as gateway:
        token = gateway.token(OLD)
        assert await gateway.judge(token) == "ok"
        issuer.keys = [{**NEW.jwk(), "kid": "old"}]
        forged_name = gateway.token(NEW, jti="new")
        renamed = Signer("old", NEW.algorithm, NEW.sign, NEW.spki).token(
            {"iss": issuer.issuer, "aud": "api", "exp": int(time.time()) + 100}
        )
        await gateway.until(lambda: gateway.validator.judge_token(renamed)[1] == "ok")
        assert gateway.validator.judge_token(token)[1] == "signature"
        assert await gateway.judge(forged_name) == "kid_unknown"


async def test_a_flood_of_unknown_kids_makes_one_fetch_per_cooldown(issuer: RealIssuer, tmp_path: Path) -> None:
    """10,000 distinct kids, 200 at a time, beside honest requests (PyJWT GHSA-fhv5-28vv-h8m8)."""
    async with serving(Gateway(issuer, tmp_path, min_refresh_s=1.0)) as gateway:
        honest = gateway.token(OLD)
        assert await gateway.judge(honest) == "ok"
        payload = segment({"iss": issuer.issuer, "aud": "api", "exp": int(time.time()) + 1000})
        fetches, started = issuer.total, time.monotonic()
        for batch in range(50):
            tokens = [
                segment({"alg": "ES256", "kid": f"{batch}-{number}"}) + b"." + payload + b"." + b64(bytes(64))
                for number in range(200)
            ]
            verdicts = await asyncio.gather(*(gateway.judge(token) for token in tokens))
            assert set(verdicts) == {"kid_unknown"}
            assert gateway.validator.judge_token(honest)[1] == "ok"
        assert issuer.total - fetches <= (time.monotonic() - started) / 1.0 + 1
        entry = gateway.control._keys.find(issuer.issuer)
        assert entry is not None
        assert len(entry.absent) <= 1000


@pytest.mark.parametrize("mode", ["hang", "drip", "huge", "bomb", "reset", "cut", "garbage", "500", "bad_json"])
async def test_a_misbehaving_issuer_costs_neither_keys_nor_time(issuer: RealIssuer, tmp_path: Path, mode: Mode) -> None:
    async with serving(Gateway(issuer, tmp_path, fetch_timeout_s=0.5)) as gateway:
        token = gateway.token(OLD)
        assert await gateway.judge(token) == "ok"
        issuer.mode = mode
        await asyncio.sleep(MIN_REFRESH_S)
        started = time.monotonic()
        assert await gateway.judge(gateway.token(NEW)) == "keys_unavailable"
        assert time.monotonic() - started < 0.7
        assert gateway.key_status == "stale"
        assert gateway.validator.judge_token(token)[1] == "ok"
        assert await gateway.judge(gateway.token(OLD, jti="2")) == "ok"


async def test_an_empty_set_leaves_the_last_keys(issuer: RealIssuer, tmp_path: Path) -> None:
    async with serving(Gateway(issuer, tmp_path)) as gateway:
        assert await gateway.judge(gateway.token(OLD)) == "ok"
        issuer.keys = []
        await asyncio.sleep(MIN_REFRESH_S)
        assert await gateway.judge(gateway.token(NEW)) == "keys_unavailable"
        assert gateway.control.state().issuers[0].error == "empty"
        assert await gateway.judge(gateway.token(OLD, jti="2")) == "ok"


async def test_without_its_issuer_the_last_keys_serve_until_stale_s_and_then_nothing(
    issuer: RealIssuer, tmp_path: Path
) -> None:
    clock = MovedClock()
    async with serving(Gateway(issuer, tmp_path, clock, stale_s=7200.0)) as gateway:
        token = gateway.token(OLD)
        assert await gateway.judge(token) == "ok"
        await issuer.stop()
        clock.move(3600)
        gateway.tick()
        await gateway.settle()
        assert gateway.key_status == "stale"
        assert await gateway.judge(token) == "ok"
        clock.move(3599)
        assert await gateway.judge(token) == "ok"
        assert await gateway.judge(gateway.token(OLD, jti="2")) == "ok"
        clock.move(2)
        assert gateway.key_status == "unavailable"
        assert await gateway.judge(token) == "keys_unavailable"  # also from the hot cache
        assert gateway.control.state().ready


async def test_a_restart_while_the_issuer_is_down_serves_from_disk(issuer: RealIssuer, tmp_path: Path) -> None:
    async with serving(Gateway(issuer, tmp_path)) as gateway:
        token = gateway.token(OLD)
        assert await gateway.judge(token) == "ok"
        await gateway.settle()
    await issuer.stop()
    async with serving(Gateway(issuer, tmp_path)) as gateway:
        assert gateway.validator.judge_token(token)[1] == "ok"  # at once, without asking anybody
        await gateway.settle()
        assert gateway.key_status == "stale"
        assert await gateway.judge(token) == "ok"
    elsewhere = tmp_path / "new-machine"
    elsewhere.mkdir()
    async with serving(Gateway(issuer, elsewhere)) as gateway:
        assert await gateway.judge(token) == "keys_unavailable"


async def test_start_needs_no_issuer_and_is_quick(issuer: RealIssuer, tmp_path: Path) -> None:
    issuer.mode = "hang"
    gateway = Gateway(issuer, tmp_path)
    started = time.monotonic()
    async with serving(gateway):
        assert time.monotonic() - started < 1
        assert not gateway.control.state().ready
        assert await gateway.judge(gateway.token(OLD)) == "keys_unavailable"
        assert gateway.control.state().ready  # an issuer that is down does not keep the gateway out of service
        issuer.mode = "ok"
        await asyncio.sleep(MIN_REFRESH_S)
        assert await gateway.judge(gateway.token(OLD)) == "ok"


async def test_reload_swaps_issuers_without_losing_a_kept_verdict(issuer: RealIssuer, tmp_path: Path) -> None:
    async with serving(Gateway(issuer, tmp_path)) as gateway:
        token = gateway.token(OLD)
        assert await gateway.judge(token) == "ok"
        second = hs_signer()
        (tmp_path / "secret").write_bytes(second.secret)
        other = IssuerConfig(
            issuer="https://second.example.com",
            audiences=("api",),
            algorithms=("HS256",),
            secret=f"file:{tmp_path / 'secret'}",
        )
        hits = gateway.validator.stats()["hits"]
        await gateway.control.reload(Config(issuers=(other, *gateway.config().issuers)))
        assert gateway.validator.judge_token(token)[1] == "ok"
        assert gateway.validator.stats()["hits"] == hits + 1
        assert await gateway.judge(gateway.token(second, iss="https://second.example.com")) == "ok"
        await gateway.control.reload(gateway.config(audiences=("elsewhere",)))
        assert await gateway.judge(token) == "audience"
        assert await gateway.judge(gateway.token(second, iss="https://second.example.com")) == "issuer_unknown"
        with pytest.raises(ValueError, match="environment"):
            await gateway.control.reload(gateway.config(algorithms=("HS256",), secret="env:PORTCULLIS_TEST_ABSENT"))
        assert await gateway.judge(gateway.token(OLD, aud="elsewhere")) == "ok"


@pytest.mark.parametrize("name", ["127.0.0.1", "idp.example.com"])
async def test_a_token_never_chooses_an_address(issuer: RealIssuer, tmp_path: Path, name: str) -> None:
    """Header parameters that point at keys, and issuers that are not configured, cause no fetch (design §13.4)."""
    async with serving(Gateway(issuer, tmp_path)) as gateway:
        assert await gateway.judge(gateway.token(OLD)) == "ok"
        await asyncio.sleep(MIN_REFRESH_S)
        fetches = issuer.total
        hostile = f"http://{name}:{issuer.port}/evil"
        for header in ({"jku": hostile}, {"x5u": hostile}, {"jwk": NEW.jwk()}):
            token = NEW.token({"iss": issuer.issuer, "aud": "api", "exp": int(time.time()) + 100}, header)
            assert await gateway.judge(token) != "ok"
        assert await gateway.judge(gateway.token(NEW, iss=hostile)) == "issuer_unknown"
        assert set(issuer.fetches) <= {"/.well-known/openid-configuration", "/jwks"}
        assert issuer.total <= fetches + 1


async def test_logs_hold_no_token(issuer: RealIssuer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with serving(Gateway(issuer, tmp_path)) as gateway:
            good, bad = gateway.token(OLD, jti="canary"), gateway.token(NEW, jti="canary")
            assert await gateway.judge(good) == "ok"
            await asyncio.sleep(MIN_REFRESH_S)
            assert await gateway.judge(bad) == "kid_unknown"
    for token in (good, bad):
        _, payload, signature = token.decode().split(".")
        assert payload not in caplog.text
        assert signature not in caplog.text


@pytest.mark.parametrize(
    ("token", "claimed"),
    [
        (segment({"kid": "k"}) + b"." + segment({"iss": "i"}) + b".x", ("i", b"k")),
        (segment({}) + b"." + segment({"iss": "i"}) + b".x", ("i", b"")),
        (segment({"kid": 7}) + b"." + segment({"iss": "i"}) + b".x", None),
        (segment({"kid": "k"}) + b"." + segment({"iss": 7}) + b".x", None),
        (segment({"kid": "k"}) + b"." + segment({}) + b".x", None),
        (segment(b"[]") + b"." + segment(b"[]") + b".x", None),
        (segment(b"7") + b"." + segment({"iss": "i"}) + b".x", None),
        (segment(b"{") + b"." + segment({"iss": "i"}) + b".x", None),
        (b"!." + segment({"iss": "i"}) + b".x", None),
        (b"opaque", None),
        (b"", None),
    ],
)
def test_what_a_token_claims_is_read_without_trust(token: bytes, claimed: tuple[str, bytes] | None) -> None:
    assert claimed_key(token) == claimed
