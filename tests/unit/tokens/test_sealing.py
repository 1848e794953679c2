"""What is sealed is opened by the same key, for the same purpose, unchanged."""

from __future__ import annotations

import pytest

from gateway.errors import KeyInvalid
from gateway.tokens.sealing import Sealer
from gateway.types import Secret

KEY = Secret(b"k" * 32)


def test_what_was_sealed_can_be_opened_and_looks_different_each_time() -> None:
    sealer = Sealer(KEY)
    one, other = sealer.encrypt(b"plain", b"a"), sealer.encrypt(b"plain", b"a")
    assert one != other and b"plain" not in one
    assert Sealer(KEY).decrypt(one, b"a") == Sealer(KEY).decrypt(other, b"a") == b"plain"


def test_another_key_purpose_or_byte_opens_nothing() -> None:
    sealed = Sealer(KEY).encrypt(b"plain", b"a")
    with pytest.raises(KeyInvalid):
        Sealer(Secret(b"x" * 32)).decrypt(sealed, b"a")
    with pytest.raises(KeyInvalid):
        Sealer(KEY).decrypt(sealed, b"b")
    for at in range(len(sealed)):
        changed = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(KeyInvalid):
            Sealer(KEY).decrypt(changed, b"a")
    for short in (b"", sealed[:1], sealed[:12], sealed[:-1]):
        with pytest.raises(KeyInvalid):
            Sealer(KEY).decrypt(short, b"a")


def test_each_purpose_has_a_key_of_its_own_and_all_processes_the_same() -> None:
    assert Sealer(KEY).derive(b"a") == Sealer(KEY).derive(b"a") != Sealer(KEY).derive(b"b")
    assert len(Sealer(KEY).derive(b"a")) == 32


def test_a_short_secret_seals_nothing() -> None:
    with pytest.raises(KeyInvalid, match="32 bytes"):
        Sealer(Secret(b"k" * 31))
