"""The keys of our own issuer over years: announced, signing, verifying, gone; never a token without its key."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.errors import KeyInvalid
from gateway.tokens import verify_jws
from gateway.tokens.issuer_keys import IssuerKeys, KeySchedule
from gateway.tokens.own import OwnTokens
from gateway.tokens.sealing import Sealer
from gateway.types import Secret
from tests.unit.tokens.fakes import MovedClock

SEALER = Sealer(Secret(b"k" * 32))
SCHEDULE = KeySchedule("ES256", every_s=1000, announce_s=100, overlap_s=50)


def kid_of(token: str) -> str:
    header = token.split(".", maxsplit=1)[0]
    return str(json.loads(base64.urlsafe_b64decode(header + "=" * (-len(header) % 4)))["kid"])


def test_the_next_key_is_published_before_it_signs_and_the_former_after(tmp_path: Path) -> None:
    clock = MovedClock()
    keys = IssuerKeys(tmp_path, SEALER, SCHEDULE, clock)
    (first,) = [key["kid"] for key in keys.published]
    assert keys.first == first
    assert IssuerKeys(tmp_path, SEALER, SCHEDULE, clock).first == ""

    made = []

    def signs() -> str:
        made.append(keys.refresh())
        return kid_of(keys.sign({"iat": 0, "exp": 1}, typ="at+jwt"))

    clock.move(999)
    assert (signs(), len(keys.published)) == (first, 1)
    clock.move(1)
    assert (signs(), len(keys.published)) == (first, 2)
    second = keys.published[0]["kid"]
    assert made == ["", second]
    clock.move(99)
    assert signs() == first
    clock.move(1)
    assert (signs(), len(keys.published)) == (second, 2)
    clock.move(50)
    assert signs() == second and [key["kid"] for key in keys.published] == [second]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(["jwks.json", f"{second}.sealed"])


def test_over_years_every_token_verifies_by_the_set_that_anybody_has_kept_for_a_while(tmp_path: Path) -> None:
    clock = MovedClock()
    keys = IssuerKeys(tmp_path, SEALER, SCHEDULE, clock)
    kept, kept_at_s = keys.jwks(), clock.now_s
    tokens: list[tuple[float, str]] = []
    for _ in range(300):
        clock.move(17)
        keys.refresh()
        tokens.append((clock.now_s, keys.sign({"iat": 0, "exp": 1}, typ="at+jwt")))
        if clock.now_s - kept_at_s > 90:  # somebody who keeps the set for almost as long as keys are announced
            kept, kept_at_s = keys.jwks(), clock.now_s
        assert verify_jws(tokens[-1][1], kept, ["ES256"])
        for made_s, token in tokens[-4:]:
            if clock.now_s - made_s < 50:
                assert verify_jws(token, keys.jwks(), ["ES256"])


def test_many_workers_make_one_key(tmp_path: Path) -> None:
    clock = MovedClock()
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: IssuerKeys(tmp_path, SEALER, SCHEDULE, clock), range(8)))
        assert len({keys.published[0]["kid"] for keys in made}) == 1
        clock.move(1000)
        list(pool.map(lambda keys: keys.refresh(), made))
    assert len({json.dumps(keys.jwks()) for keys in made}) == 1
    assert len(made[0].published) == 2


def test_another_algorithm_is_announced_like_any_next_key(tmp_path: Path) -> None:
    clock = MovedClock()
    IssuerKeys(tmp_path, SEALER, SCHEDULE, clock)
    keys = IssuerKeys(tmp_path, SEALER, replace(SCHEDULE, algorithm="EdDSA"), clock)
    assert (keys.algorithm, len(keys.published)) == ("ES256", 2)
    clock.move(100)
    keys.refresh()
    assert keys.algorithm == "EdDSA"


def test_keys_that_another_secret_sealed_are_not_replaced(tmp_path: Path) -> None:
    IssuerKeys(tmp_path, SEALER, SCHEDULE, MovedClock())
    before = (tmp_path / "jwks.json").read_bytes()
    with pytest.raises(KeyInvalid, match="another key"):
        IssuerKeys(tmp_path, Sealer(Secret(b"x" * 32)), SCHEDULE, MovedClock())
    assert (tmp_path / "jwks.json").read_bytes() == before


def test_our_own_tokens_are_judged_by_the_keys_that_sign_now(tmp_path: Path) -> None:
    clock = MovedClock()
    keys = IssuerKeys(tmp_path, SEALER, SCHEDULE, clock)
    own = OwnTokens("https://auth.example", keys, clock)

    def token(**changes: object) -> str:
        now_s = int(clock.wall_s())
        claims = {
            **{"iss": "https://auth.example", "sub": "s", "aud": "any", "jti": "j"},
            **{"iat": now_s, "exp": now_s + 300, **changes},
        }
        return keys.sign(claims, typ="at+jwt")

    claims, reason = own.judge(token(cnf={"jkt": "x"}))
    assert reason == "ok" and claims is not None and claims["cnf"] == {"jkt": "x"}
    assert own.judge(token(iss="https://other.example")) == (None, "issuer_unknown")
    clock.move(1100)
    keys.refresh()
    assert own.judge(token())[1] == "ok"
    own.revoke_many([("jti", b"https://auth.example", b"j", int(clock.wall_s()) + 300, 0)])
    assert own.judge(token()) == (None, "revoked")
    assert own.judge("nonsense")[0] is None
    own.is_trusted = lambda: False
    assert own.judge(token(jti="k")) == (None, "keys_unavailable")
