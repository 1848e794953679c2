"""Passwords and their hashes, and the list of leaked ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.flows.breached import LeakFilter, NothingLeaked, hashes_in, write_filter
from gateway.flows.password import HashParameters, PasswordHasher, PasswordRules

CHEAP = HashParameters(memory_kib=64, passes=1, lanes=1)


async def at_once(work: Callable[[], Any]) -> Any:
    return work()


def hasher(parameters: HashParameters = CHEAP) -> PasswordHasher:
    return PasswordHasher(at_once, parameters)


async def test_hashes_are_argon2id_with_what_owasp_asks_for() -> None:
    made = await hasher(HashParameters()).hash("correct horse")
    assert made.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_a_password_fits_its_hash_and_no_other() -> None:
    one = hasher()
    made = await one.hash("correct horse")
    assert await one.verify("correct horse", made)
    assert not await one.verify("correct horsf", made)
    assert await one.hash("correct horse") != made


async def test_who_has_no_password_costs_one_hash_and_never_fits() -> None:
    one = hasher()
    for password in ("", "x", "x" * 100_000):
        assert not await one.verify(password, None)
    assert one.computed == 3


async def test_the_decoy_has_the_parameters_in_force() -> None:
    one = hasher()
    assert not one.outdated(one._decoy)
    assert PasswordHasher(at_once, HashParameters(memory_kib=128, passes=1, lanes=1)).outdated(one._decoy)


async def test_the_same_characters_are_one_password_however_they_are_written() -> None:
    one = hasher()
    made = await one.hash("Zoe\u0308 ﬁne")
    assert await one.verify("Zo\u00eb fine", made)


async def test_what_is_too_long_is_nobodys_password() -> None:
    one = hasher()
    made = await one.hash("")
    assert not await one.verify("x" * 5000, made)
    assert not await one.verify("", made)


@pytest.mark.parametrize("kept", ["", "$2b$12$x", "$argon2id$", "plain", "$argon2i$v=19$m=64,t=1,p=1$AAAA$AAAA"])
async def test_a_hash_that_cannot_be_read_fits_nothing(kept: str) -> None:
    one = hasher()
    assert not await one.verify("x", kept)
    assert one.outdated(kept)


def test_rules_ask_for_length_and_nothing_of_spelling() -> None:
    rules = PasswordRules(NothingLeaked(), 12)
    assert rules.problem("elevenchars") == "too_short"
    assert rules.problem("twelve chars") is None
    assert rules.problem("x" * 1025) == "too_long"
    assert rules.problem("Alice-Smith!", "alice-smith") == "like_name"
    assert rules.problem("alice keeps many geese in march", "alice") is None


# --- leaked passwords


def filter_of(folder: Path, *passwords: str) -> LeakFilter:
    lines = [password.encode() for password in passwords]
    write_filter(hashes_in(lines), len(lines), folder / "leaked")
    return LeakFilter(folder / "leaked")


def test_what_has_leaked_is_known_and_refused(tmp_path: Path) -> None:
    leaked = filter_of(tmp_path, "password12345", "iloveyou12345")
    assert "password12345" in leaked
    assert "correct horse" not in leaked
    assert PasswordRules(leaked, 12).problem("iloveyou12345") == "leaked"


def test_lists_are_read_as_they_are_handed_around() -> None:
    digest = hashlib.sha1(b"password").hexdigest().upper().encode()
    plain = hashlib.sha1(b"hunter2").digest()
    lines = [digest + b":37\r\n", digest + b":2\n", digest + b"\n", b"hunter2\n", b"\n", b"x" * 5000]
    assert list(hashes_in(lines, seen_min=10)) == [bytes.fromhex(digest.decode())] * 2 + [plain]


@given(
    st.lists(st.text(min_size=1, max_size=20).filter(lambda text: text.strip("\r\n") == text), min_size=1, max_size=30)
)
def test_nothing_that_leaked_is_ever_missed(tmp_path_factory: pytest.TempPathFactory, passwords: list[str]) -> None:
    folder = tmp_path_factory.mktemp("leaked")
    hashes = [hashlib.sha1(password.encode()).digest() for password in passwords]
    write_filter(hashes, len(hashes), folder / "leaked")
    leaked = LeakFilter(folder / "leaked")
    assert all(password in leaked for password in passwords)


def test_few_others_are_taken_for_leaked_ones(tmp_path: Path) -> None:
    count = 2000
    hashes = (hashlib.sha1(b"leaked %d" % number).digest() for number in range(count))
    write_filter(hashes, count, tmp_path / "leaked", wrong_share=0.01)
    leaked = LeakFilter(tmp_path / "leaked")
    wrong = sum(f"other {number}" in leaked for number in range(10_000))
    assert wrong < 200


def test_a_list_takes_three_bytes_a_password(tmp_path: Path) -> None:
    hashes = [hashlib.sha1(b"%d" % number).digest() for number in range(1000)]
    write_filter(hashes, len(hashes), tmp_path / "leaked")
    assert (tmp_path / "leaked").stat().st_size < 3100
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("damage", [b"", b"x" * 40, b"PCLEAK1\n" + b"\xff" * 24, b"PCLEAK1\n" + b"\0" * 24])
def test_a_file_that_is_no_list_is_refused(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "leaked").write_bytes(damage)
    with pytest.raises(ValueError, match=r"no list|cut short"):
        LeakFilter(tmp_path / "leaked")


def test_a_list_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    filter_of(tmp_path, "a", "b", "c")
    whole = (tmp_path / "leaked").read_bytes()
    (tmp_path / "leaked").write_bytes(whole[:-1])
    with pytest.raises(ValueError, match="cut short"):
        LeakFilter(tmp_path / "leaked")
    with pytest.raises(ValueError, match="cannot read"):
        LeakFilter(tmp_path / "none")
