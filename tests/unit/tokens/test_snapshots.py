"""Key sets on disk: what is kept, and when it counts."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from gateway.tokens.snapshots import CLOCK_SLACK_S, FILE_BYTES_MAX, KeySetSnapshots

ISSUER = "https://idp.example.com"
NOW_S = 1_700_000_000.0
KEY = {"kty": "EC", "kid": "a", "crv": "P-256", "x": "AA", "y": "BB"}


@pytest.fixture
def snapshots(tmp_path: Path) -> KeySetSnapshots:
    return KeySetSnapshots(tmp_path / "keys")


def test_a_set_comes_back_with_its_time(snapshots: KeySetSnapshots) -> None:
    snapshots.save(ISSUER, "", {"keys": [KEY]}, NOW_S)
    stored = snapshots.load(ISSUER, "", NOW_S + 10)
    assert stored is not None
    assert (stored.document, stored.fetched_at_s) == ({"keys": [KEY]}, NOW_S)


def test_private_and_symmetric_keys_never_reach_the_disk(snapshots: KeySetSnapshots) -> None:
    keys = [KEY | {"d": "SECRET"}, {"kty": "oct", "k": "SECRET"}, {"kty": "RSA", "n": "A", "p": "SECRET"}]
    snapshots.save(ISSUER, "", {"keys": keys}, NOW_S)
    assert b"SECRET" not in snapshots.path(ISSUER, "").read_bytes()
    stored = snapshots.load(ISSUER, "", NOW_S)
    assert stored is not None
    assert stored.document == {"keys": []}  # a private key that was published is refused, also after a restart


def test_only_this_user_can_read_the_file_and_no_draft_stays(snapshots: KeySetSnapshots) -> None:
    snapshots.save(ISSUER, "", {"keys": [KEY]}, NOW_S)
    snapshots.save(ISSUER, "", {"keys": []}, NOW_S + 1)
    (path,) = snapshots.folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(snapshots.folder.stat().st_mode) == 0o700


def test_each_issuer_and_address_has_a_set_of_its_own(snapshots: KeySetSnapshots) -> None:
    snapshots.save(ISSUER, "", {"keys": [KEY]}, NOW_S)
    assert snapshots.load(ISSUER, "https://idp.example.com/jwks", NOW_S) is None
    assert snapshots.load("https://other.example.com", "", NOW_S) is None


def test_a_file_under_the_name_of_another_issuer_does_not_count(snapshots: KeySetSnapshots) -> None:
    snapshots.save("https://evil.example.com", "", {"keys": [KEY]}, NOW_S)
    snapshots.path("https://evil.example.com", "").rename(snapshots.path(ISSUER, ""))
    assert snapshots.load(ISSUER, "", NOW_S) is None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_does_not_count(snapshots: KeySetSnapshots, mode: int) -> None:
    snapshots.save(ISSUER, "", {"keys": [KEY]}, NOW_S)
    snapshots.path(ISSUER, "").chmod(mode)
    assert snapshots.load(ISSUER, "", NOW_S) is None


def test_a_link_or_a_pipe_does_not_count(snapshots: KeySetSnapshots, tmp_path: Path) -> None:
    snapshots.save(ISSUER, "", {"keys": [KEY]}, NOW_S)
    path = snapshots.path(ISSUER, "")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert snapshots.load(ISSUER, "", NOW_S) is None
    path.unlink()
    os.mkfifo(path, 0o600)
    assert snapshots.load(ISSUER, "", NOW_S) is None


def test_a_set_from_the_future_does_not_count(snapshots: KeySetSnapshots) -> None:
    snapshots.save(ISSUER, "", {"keys": [KEY]}, NOW_S)
    within = snapshots.load(ISSUER, "", NOW_S - CLOCK_SLACK_S)
    assert within is not None
    assert within.fetched_at_s == NOW_S - CLOCK_SLACK_S
    assert snapshots.load(ISSUER, "", NOW_S - CLOCK_SLACK_S - 1) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        json.dumps({"version": 2, "issuer": ISSUER, "address": "", "fetched_at_s": NOW_S, "keys": []}).encode(),
        json.dumps({"version": 1, "issuer": ISSUER, "address": "", "fetched_at_s": "x", "keys": []}).encode(),
        json.dumps({"version": 1, "issuer": ISSUER, "address": "", "fetched_at_s": NOW_S, "keys": {}}).encode(),
        b" " * (FILE_BYTES_MAX + 1),
    ],
)
def test_a_damaged_file_does_not_count(snapshots: KeySetSnapshots, content: bytes) -> None:
    snapshots.folder.mkdir()
    path = snapshots.path(ISSUER, "")
    path.write_bytes(content)
    path.chmod(0o600)
    assert snapshots.load(ISSUER, "", NOW_S) is None
