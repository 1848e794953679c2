"""A revocation reaches every worker and every gateway within a second, and survives what can happen to its store."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway._native.token import TokenValidator
from gateway.config import Config, IssuerConfig, StoreConfig
from gateway.errors import StoreUnavailable
from gateway.tokens.control import TokenControl
from tests.forge import ed_signer
from tests.real.redis import RealRedis

pytestmark = pytest.mark.journey

ROOT = Path(__file__).parents[2]
ISSUER = "https://idp.example.com"
SIGNER = ed_signer("k")
FAR_S = 2_000_000_000

# Another worker: serves the same store, and prints one line when a token turns from good to revoked.
WORKER = """
import asyncio, sys, time
from pathlib import Path
from gateway._native.token import TokenValidator
from gateway.config import Config, IssuerConfig, StoreConfig
from gateway.tokens.control import TokenControl

async def main():
    run_dir, url, token = Path(sys.argv[1]), sys.argv[2], sys.argv[3].encode()
    validator = TokenValidator()
    issuer = IssuerConfig(
        issuer="https://idp.example.com", audiences=("api",), algorithms=("EdDSA",), jwks_file="keys.json"
    )
    control = TokenControl(
        Config(issuers=(issuer,), store=StoreConfig(url=url)), base_dir=run_dir, run_dir=run_dir, validators=[validator]
    )
    await control.start()
    print(validator.judge_token(token)[1], flush=True)
    while validator.judge_token(token)[1] == "ok":
        await asyncio.sleep(0.005)
    print(validator.judge_token(token)[1], time.time(), flush=True)
    await control.stop()

asyncio.run(main())
"""


def token(**claims: object) -> bytes:
    now_s = int(time.time())
    return SIGNER.token({"iss": ISSUER, "sub": "alice", "aud": "api", "iat": now_s, "exp": now_s + 600, **claims})


class Gateway:
    """One gateway's control plane over a store."""

    def __init__(self, run_dir: Path, url: str = "") -> None:
        run_dir.mkdir(exist_ok=True)
        (run_dir / "keys.json").write_text(json.dumps({"keys": [SIGNER.jwk()]}))
        self.validator = TokenValidator()
        self.run_dir = run_dir
        self.control = TokenControl(self.config(url), base_dir=run_dir, run_dir=run_dir, validators=[self.validator])

    def config(self, url: str) -> Config:
        issuer = IssuerConfig(issuer=ISSUER, audiences=("api",), algorithms=("EdDSA",), jwks_file="keys.json")
        return Config(issuers=(issuer,), store=StoreConfig(url=url))

    def judge(self, text: bytes) -> str:
        return self.validator.judge_token(text)[1]

    @property
    def status(self) -> str:
        return self.control.state().revocations.status


@asynccontextmanager
async def serving(*gateways: Gateway) -> AsyncIterator[None]:
    for gateway in gateways:
        await gateway.control.start()
    try:
        yield
    finally:
        for gateway in gateways:
            await gateway.control.stop()


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> float:
    """Wait for `condition`, and return how long that took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s
        await asyncio.sleep(0.005)
    return time.monotonic() - started


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RealRedis]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RealRedis(folder)
    yield server
    server.stop()


@asynccontextmanager
async def other_process(run_dir: Path, url: str, text: bytes) -> AsyncIterator[asyncio.subprocess.Process]:
    worker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", WORKER, str(run_dir), url, text.decode(), cwd=ROOT, stdout=subprocess.PIPE
    )
    try:
        yield worker
    finally:
        if worker.returncode is None:
            worker.kill()
        await worker.wait()


async def line_of(worker: asyncio.subprocess.Process) -> list[str]:
    assert worker.stdout is not None
    return (await asyncio.wait_for(worker.stdout.readline(), 20)).decode().split()


@pytest.mark.parametrize("backend", ["sqlite", "redis"])
async def test_a_revocation_is_seen_in_another_process_within_a_second(
    request: pytest.FixtureRequest, tmp_path: Path, backend: str
) -> None:
    url = request.getfixturevalue("redis").url if backend == "redis" else ""
    gateway = Gateway(tmp_path / "run", url)
    async with serving(gateway):
        text = token(jti="stolen")
        async with other_process(gateway.run_dir, url, text) as worker:
            assert await line_of(worker) == ["ok"]
            revoked_at_s = time.time()
            await gateway.control.revoke("jti", ISSUER, "stolen", until_s=FAR_S)
            assert gateway.judge(text) == "revoked"
            reason, seen_at_s = await line_of(worker)
            assert reason == "revoked"
            assert float(seen_at_s) - revoked_at_s < 1.0


async def test_every_kind_reaches_every_gateway_and_touches_nobody_else(redis: RealRedis, tmp_path: Path) -> None:
    here, there = Gateway(tmp_path / "a", redis.url), Gateway(tmp_path / "b", redis.url)
    async with serving(here, there):
        now_s = int(time.time())
        spared = token(jti="1", sid="x", sub="carol")
        texts = {
            ("jti", "j"): token(jti="j"),
            ("sub", "bob"): token(sub="bob"),
            ("sid", "s"): token(sid="s"),
        }
        newer = token(sub="bob", iat=now_s, jti="after the logout")
        older = token(sub="bob", iat=now_s - 60, jti="before the logout")
        for text in (*texts.values(), spared, newer, older):
            assert here.judge(text) == there.judge(text) == "ok"  # and now cached
        await here.control.revoke("sub", ISSUER, "bob", until_s=FAR_S, issued_before_s=now_s - 30)
        await until(lambda: there.judge(older) == "revoked", 1.0)
        assert there.judge(newer) == "ok"
        for (kind, value), text in texts.items():
            await here.control.revoke(kind, ISSUER, value, until_s=FAR_S)  # type: ignore[arg-type]
            assert here.judge(text) == "revoked"
            assert await until(lambda text=text: there.judge(text) == "revoked") < 1.0  # type: ignore[misc]
        assert here.judge(spared) == there.judge(spared) == "ok"


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_an_outage_of_redis_is_shown_and_its_gap_closes(redis: RealRedis, tmp_path: Path, fault: str) -> None:
    first, second = Gateway(tmp_path / "a", redis.url), Gateway(tmp_path / "b", redis.url)
    before, during, after, good = (token(jti=name) for name in ("before", "during", "after", "good"))
    async with serving(first, second):
        await first.control.revoke("jti", ISSUER, "before", until_s=FAR_S)
        await until(lambda: second.judge(before) == "revoked")
        redis.kill() if fault == "kill" else redis.freeze()
        await until(lambda: first.status == second.status == "degraded")
        assert second.judge(before) == "revoked"
        assert second.judge(good) == "ok"  # the store's outage is not everybody's
        started = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await first.control.revoke("jti", ISSUER, "during", until_s=FAR_S)
        assert time.monotonic() - started < 1.3
        assert first.judge(during) == "revoked"  # here at least
        redis.start() if fault == "kill" else redis.thaw()
        await until(lambda: first.status == second.status == "ok")
        await first.control.revoke("jti", ISSUER, "during", until_s=FAR_S)
        await first.control.revoke("jti", ISSUER, "after", until_s=FAR_S)
        assert await until(lambda: second.judge(after) == "revoked") < 1.0
        assert second.judge(during) == second.judge(before) == "revoked"


async def test_a_gateway_that_never_read_the_log_answers_for_no_token(redis: RealRedis, tmp_path: Path) -> None:
    stolen, good = token(jti="stolen"), token(jti="good")
    writer = Gateway(tmp_path / "a", redis.url)
    async with serving(writer):
        await writer.control.revoke("jti", ISSUER, "stolen", until_s=FAR_S)
    redis.freeze()
    late = Gateway(tmp_path / "b", redis.url)
    async with serving(late):
        assert not late.control.state().ready
        for text in (stolen, good):
            assert late.judge(text) == "keys_unavailable"
            assert await late.control.ask("keys_unavailable", 0, text) == "keys_unavailable"
        redis.thaw()
        await until(lambda: late.control.state().ready)
        assert (late.judge(stolen), late.judge(good)) == ("revoked", "ok")


async def test_revocations_survive_a_restart_of_everything(redis: RealRedis, tmp_path: Path) -> None:
    stolen = token(jti="stolen")
    for url in ("", redis.url):
        gateway = Gateway(tmp_path / "a", url)
        async with serving(gateway):
            await gateway.control.revoke("jti", ISSUER, "stolen", until_s=FAR_S)
        if url:
            redis.kill()
            redis.start()
        gateway = Gateway(tmp_path / "a", url)
        async with serving(gateway):
            assert gateway.judge(stolen) == "revoked"


async def test_an_emptied_redis_is_noticed_and_what_is_known_stays_in_force(redis: RealRedis, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "a", redis.url)
    stolen, later = token(jti="stolen"), token(jti="later")
    async with serving(gateway):
        await gateway.control.revoke("jti", ISSUER, "stolen", until_s=FAR_S)
        redis.forget()
        await until(lambda: gateway.control.state().revocations.restarts == 1)
        assert gateway.judge(stolen) == "revoked"
        other = Gateway(tmp_path / "b", redis.url)
        async with serving(other):
            await other.control.revoke("jti", ISSUER, "later", until_s=FAR_S)
            assert await until(lambda: gateway.judge(later) == "revoked") < 1.5


async def test_reload_moves_to_another_store_only_when_it_can_be_read(redis: RealRedis, tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "a")
    here, there = token(jti="here"), token(jti="there")
    writer = Gateway(tmp_path / "b", redis.url)
    async with serving(gateway, writer):
        await gateway.control.revoke("jti", ISSUER, "here", until_s=FAR_S)
        await writer.control.revoke("jti", ISSUER, "there", until_s=FAR_S)
        redis.freeze()
        with pytest.raises(StoreUnavailable):
            await gateway.control.reload(gateway.config(redis.url))
        assert (gateway.judge(here), gateway.judge(there)) == ("revoked", "ok")
        assert gateway.status == "ok"
        redis.thaw()
        await gateway.control.reload(gateway.config(redis.url))
        assert (gateway.judge(here), gateway.judge(there)) == ("revoked", "revoked")
        await gateway.control.reload(gateway.config(redis.url))
        assert gateway.status == "ok"
