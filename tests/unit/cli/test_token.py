"""`portcullis token`."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from gateway._native.token import REASONS
from gateway.cli.token import CHECKS, TOKEN_BYTES_MAX, checks_of

Run = Callable[..., Result]
RunJson = Callable[..., Any]

pytestmark = pytest.mark.usefixtures("issuer_config")


def private_file(folder: Path) -> Path:
    [path] = [path for path in (folder / "keys").iterdir() if path.name != "jwks.json"]
    return path


def test_mint_takes_issuer_and_audience_from_the_config(run_json: RunJson) -> None:
    minted = run_json(
        "token", "mint", "--sub", "alice", "--scope", "a b", "--claim", "n=1", "--claim", "s=x=y", "--claim", 'l=["a"]'
    )
    claims = minted["claims"]
    assert (claims["iss"], claims["aud"], claims["sub"], claims["scope"]) == (
        "https://idp.example.com",
        "api",
        "alice",
        "a b",
    )
    assert (claims["n"], claims["s"], claims["l"]) == (1, "x=y", ["a"])
    assert claims["exp"] - claims["iat"] == 3600
    assert minted["header"]["typ"] == "at+jwt"


def test_mint_says_what_it_is_told(run_json: RunJson) -> None:
    minted = run_json(
        "token",
        "mint",
        "--iss",
        "https://x",
        "--aud",
        "a",
        "--aud",
        "b",
        "--lifetime",
        "5",
        "--typ",
        "",
        "--claim",
        "exp=7",
    )
    assert (minted["claims"]["iss"], minted["claims"]["aud"], minted["claims"]["exp"]) == ("https://x", ["a", "b"], 7)
    assert "typ" not in minted["header"]


def test_mint_needs_a_key_that_can_sign(run: Run, folder: Path) -> None:
    public = json.loads((folder / "keys" / "jwks.json").read_text())["keys"][0]
    (folder / "public.json").write_text(json.dumps(public))
    assert "it takes the private one" in run("token", "mint", "--key", "public.json", status=1).stderr
    assert "no such file" in run("token", "mint", "--key", "absent", status=1).stderr
    wrong = run("token", "mint", "--key", str(private_file(folder)), "--alg", "RS256", status=1)
    assert "the key is for `ES256`, not for `RS256`" in wrong.stderr


def test_a_claim_without_a_value_is_wrong_usage(run: Run) -> None:
    run("token", "mint", "--claim", "x", status=2)


def test_what_mint_makes_verify_accepts(run: Run, run_json: RunJson) -> None:
    token = run("token", "mint", "--sub", "alice", "--scope", "read").output
    answer = run_json("token", "verify", stdin=token)
    assert (answer["ok"], answer["reason"], answer["subject"], answer["scopes"]) == (True, "ok", "alice", ["read"])
    assert all(check["passed"] for check in answer["checks"])
    text = run("token", "verify", token.strip()).output
    assert "✓ has the issuer's signature" in text
    assert "· is not revoked: not looked at" in text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--lifetime", "-60"), "expired"),
        (("--aud", "somebody"), "audience"),
        (("--iss", "https://evil.example", "--aud", "api"), "issuer_unknown"),
        (("--typ", "logout+jwt"), "type"),
        (("--claim", "nbf=99999999999"), "not_yet_valid"),
        (("--claim", "iat=99999999999", "--claim", "exp=99999999999"), "issued_in_future"),
        (("--claim", "sub=1"), "claim_invalid"),
        (("--claim", 'cnf={"jkt":"x"}'), "sender_constrained"),
    ],
)
def test_verify_names_the_check_that_failed(
    arguments: tuple[str, ...], reason: str, run: Run, run_json: RunJson
) -> None:
    token = run("token", "mint", *arguments).output
    answer = run_json("token", "verify", "--offline", stdin=token, status=1)
    assert answer["reason"] == reason
    assert [check["passed"] for check in answer["checks"]].count(False) == 1
    text = run("token", "verify", "--offline", stdin=token, status=1).output
    assert f": {reason}\n" in text
    assert "subject" not in text


def test_a_forged_signature_is_no_signature(run: Run, run_json: RunJson) -> None:
    head, payload, signature = run("token", "mint").output.strip().split(".")
    forged = ("B" if signature[0] == "A" else "A") + signature[1:]
    assert run_json("token", "verify", f"{head}.{payload}.{forged}", status=1)["reason"] == "signature"


def test_a_key_that_is_gone_is_unknown(run: Run, run_json: RunJson) -> None:
    token = run("token", "mint").output
    run("keys", "rotate", "--overlap", "0")
    assert run_json("token", "verify", stdin=token, status=1)["reason"] == "kid_unknown"


def test_verify_judges_as_of_another_moment(run: Run, run_json: RunJson) -> None:
    token = run("token", "mint", "--claim", "iat=1000", "--claim", "exp=2000").output
    assert run_json("token", "verify", "--now", "1500", stdin=token)["ok"]
    assert run_json("token", "verify", "--now", "2500", stdin=token, status=1)["reason"] == "expired"


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "….…", "a.b", "\x00.\x00.\x00", "x" * 9000])
def test_verify_survives_anything(text: str, run_json: RunJson) -> None:
    assert run_json("token", "verify", stdin=text, status=1)["reason"] in {"malformed", "too_large"}


def test_every_reason_has_one_check_and_every_check_a_reason() -> None:
    named = [reason for check in CHECKS for reason in check.reasons]
    assert sorted(named) == sorted(set(REASONS) - {"ok", "revoked"})


@pytest.mark.parametrize("reason", sorted(set(REASONS) - {"ok", "revoked"}))
def test_no_check_counts_as_passed_that_a_failed_one_may_have_come_before(reason: str) -> None:
    answers = checks_of(reason)
    [(failed, _)] = [(check, passed) for check, passed in answers if passed is False]
    for check, passed in answers:
        assert passed is not True or check.last < failed.first


def test_inspect_says_loudly_that_nothing_was_verified(run: Run, run_json: RunJson) -> None:
    token = run("token", "mint", "--sub", "alice", "--claim", "nbf=99999999999999999999").output
    text = run("token", "inspect", stdin=f"Bearer {token}").output
    assert text.startswith("NOTHING WAS VERIFIED")
    assert '"sub": "alice"' in text
    assert "nbf     no moment in time" in text
    answer = run_json("token", "inspect", token.strip())
    assert answer["verified"] is False
    assert answer["signature_bytes"] == 64


def encoded(document: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a.b", "no JWT: 2 parts"),
        ("!.e30.", "the header is no base64url"),
        (f"{encoded([])}.e30.", "the header is no base64url"),
        ("e30.e.", "the payload is no base64url"),
        ("e30.e30.!", "the signature is no base64url"),
        (f"e30.{base64.urlsafe_b64encode(b'[' * 6000).rstrip(b'=').decode()}.", "the payload is no base64url"),
    ],
)
def test_inspect_refuses_what_is_no_jwt(text: str, error: str, run: Run) -> None:
    assert error in run("token", "inspect", stdin=text, status=1).stderr


def test_a_token_may_be_as_long_as_the_limit_and_no_longer(run: Run) -> None:
    assert "no JWT" in run("token", "inspect", stdin="x" * TOKEN_BYTES_MAX, status=1).stderr
    run("token", "inspect", stdin="x" * (TOKEN_BYTES_MAX + 1), status=2)


def test_a_config_with_faults_ends_with_them(run: Run, folder: Path) -> None:
    (folder / "portcullis.toml").write_text("[servr]\n")
    assert "portcullis.toml:1: servr: unknown section" in run("token", "verify", "x", status=1).stderr
    assert "portcullis.toml:1: servr: unknown section" in run("token", "mint", status=1).stderr
