"""`portcullis keys`."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from gateway.tokens.keys import load_jwks

Run = Callable[..., Result]
RunJson = Callable[..., Any]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_makes_a_key_that_its_owner_alone_can_read_and_publishes_it(run_json: RunJson, folder: Path) -> None:
    made = run_json("keys", "new")
    assert made["algorithm"] == "ES256"
    assert mode(folder / made["private"]) == 0o600
    published = json.loads((folder / made["jwks"]).read_text())
    assert [key["kid"] for key in published["keys"]] == [made["kid"]]
    assert len(load_jwks(published, ["ES256"]).handles) == 1


def test_no_private_member_is_ever_published(run_json: RunJson, folder: Path) -> None:
    for algorithm in ("RS256", "PS512", "ES512", "EdDSA"):
        run_json("keys", "new", "--alg", algorithm)
    run_json("keys", "rotate")
    published = json.loads((folder / "keys" / "jwks.json").read_text())
    assert len(published["keys"]) == 5
    for key in published["keys"]:
        assert not set(key) & {"d", "p", "q", "dp", "dq", "qi", "k"}
    assert not load_jwks(published, ["RS256", "PS512", "ES256", "ES512", "EdDSA"]).faults


def test_pem_is_pkcs8(run_json: RunJson, folder: Path) -> None:
    made = run_json("keys", "new", "--format", "pem", "--alg", "RS256")
    path = folder / made["private"]
    assert path.read_bytes().startswith(b"-----BEGIN PRIVATE KEY-----")
    assert mode(path) == 0o600


def test_a_secret_is_a_file_and_is_published_nowhere(run_json: RunJson, folder: Path) -> None:
    made = run_json("keys", "new", "--alg", "HS512")
    assert made["jwks"] == ""
    assert len((folder / "hmac.key").read_bytes()) >= 64
    assert mode(folder / "hmac.key") == 0o600
    assert not (folder / "keys").exists()


def test_no_key_is_overwritten(run: Run, folder: Path) -> None:
    run("keys", "new", "--alg", "HS256")
    before = (folder / "hmac.key").read_bytes()
    assert "is there already" in run("keys", "new", "--alg", "HS256", status=1).stderr
    assert (folder / "hmac.key").read_bytes() == before
    run("keys", "new", "--kid", "one")
    assert "`one` is in `keys` already" in run("keys", "new", "--kid", "one", status=1).stderr


@pytest.mark.parametrize("kid", ["../one", "a/b", ".hidden", "a b"])
def test_a_name_that_is_no_files_name_is_refused(kid: str, run: Run, folder: Path) -> None:
    assert "cannot name a file" in run("keys", "new", "--kid", kid, status=1).stderr
    assert not list(folder.rglob("*.json"))


def test_list_shows_what_each_key_is_good_for(run: Run, run_json: RunJson) -> None:
    assert run_json("keys", "list")["keys"] == []
    assert "no keys in keys" in run("keys", "list").output
    first = run_json("keys", "new")["kid"]
    second = run_json("keys", "rotate", "--overlap", "90m")["signing"]
    listed = run_json("keys", "list")["keys"]
    assert [(key["kid"], key["state"]) for key in listed] == [(second, "signing"), (first, "verifying")]
    assert "verifying" in run("keys", "list").output


def test_rotate_keeps_old_keys_for_the_overlap_and_then_deletes_them(run_json: RunJson, folder: Path) -> None:
    first = run_json("keys", "new")
    rotated = run_json("keys", "rotate", "--overlap", "0")
    assert rotated["retired"] == [first["kid"]]
    assert rotated["verifying"] == []
    assert not (folder / first["private"]).exists()
    published = json.loads((folder / "keys" / "jwks.json").read_text())
    assert [key["kid"] for key in published["keys"]] == [rotated["signing"]]


def test_an_unknown_algorithm_is_a_fault(run_json: RunJson) -> None:
    answer = run_json("keys", "new", "--alg", "none", status=1)
    assert answer["ok"] is False
    assert answer["error"].startswith("`none` is none of RS256")


def test_a_set_that_is_not_ours_is_a_fault_and_is_left_alone(run: Run, folder: Path) -> None:
    (folder / "keys").mkdir()
    (folder / "keys" / "jwks.json").write_text("[]")
    for verb in ("new", "list", "rotate"):
        assert "is no key set of ours" in run("keys", verb, status=1).stderr
    assert (folder / "keys" / "jwks.json").read_text() == "[]"
    assert len(list((folder / "keys").iterdir())) == 1
