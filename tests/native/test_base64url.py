from __future__ import annotations

import base64
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native import base64url
from tests.oracle import base64url as oracle

each_way = pytest.mark.parametrize("way", base64url.IMPLEMENTATIONS)
LENGTHS = range(301)
RANDOM_SEED = 20_260


def native(way: str, data: bytes) -> bytes | None:
    """Decode like the oracle does: None where the compiled module refuses."""
    try:
        return base64url.decode_with(way, data)
    except ValueError:
        return None


def texts_of(length: int, chooser: random.Random) -> bytes:
    """Return a text of `length` characters that is canonical wherever that length can be."""
    if length % 4 == 1:
        return bytes(chooser.choices(oracle.ALPHABET, k=length))
    return oracle.encode(chooser.randbytes(length * 3 // 4))


def test_scalar_is_everywhere_and_the_best_available_is_used() -> None:
    assert base64url.IMPLEMENTATIONS[0] == "scalar"
    assert base64url.IMPLEMENTATIONS[-1] == base64url.IMPLEMENTATION


def test_the_oracle_encodes_like_the_standard_library() -> None:
    chooser = random.Random(RANDOM_SEED)
    for length in LENGTHS:
        data = chooser.randbytes(length)
        assert oracle.encode(data) == base64.urlsafe_b64encode(data).rstrip(b"=")
        assert oracle.decode(oracle.encode(data)) == data


@each_way
def test_every_length_decodes_like_the_oracle(way: str) -> None:
    chooser = random.Random(RANDOM_SEED)
    for length in LENGTHS:
        text = texts_of(length, chooser)
        expected = oracle.decode(text)
        assert native(way, text) == expected, length
        assert (expected is None) == (length % 4 == 1)


@each_way
def test_every_single_byte_at_every_place_is_judged_like_the_oracle(way: str) -> None:
    # All 256 values of one byte at each place of texts that end inside, at and after the widest vector step.
    chooser = random.Random(RANDOM_SEED)
    for length in (*range(9), 15, 16, 31, 32, 33, 63, 64, 66, 67, 98, 130):
        text = texts_of(length, chooser)
        for place in range(length):
            before, after = text[:place], text[place + 1 :]
            last_quantum = place >= length - length % 4
            for value in range(256):
                changed = before + bytes((value,)) + after
                got = native(way, changed)
                if last_quantum or length < 9:
                    assert got == oracle.decode(changed), changed
                else:
                    assert (got is not None) == (value in oracle.ALPHABET and length % 4 != 1), changed


@each_way
def test_one_corrupted_byte_is_refused_at_every_place_of_every_length(way: str) -> None:
    chooser = random.Random(RANDOM_SEED)
    outside = [value for value in range(256) if value not in oracle.ALPHABET]
    for length in LENGTHS:
        text = bytearray(texts_of(length, chooser))
        for place in range(length):
            kept = text[place]
            text[place] = chooser.choice(outside)
            assert native(way, bytes(text)) is None, (length, place)
            text[place] = kept


@each_way
@given(data=st.binary(max_size=2000))
def test_encoded_bytes_come_back(way: str, data: bytes) -> None:
    assert base64url.decode_with(way, base64.urlsafe_b64encode(data).rstrip(b"=")) == data


@each_way
@given(text=st.binary(max_size=300) | st.lists(st.sampled_from(oracle.ALPHABET), max_size=300).map(bytes))
def test_any_bytes_are_judged_like_the_oracle(way: str, text: bytes) -> None:
    assert native(way, text) == oracle.decode(text)


@each_way
@pytest.mark.parametrize(
    "text",
    [
        b"QQ==",
        b"QUI=",
        b"=",
        b"QQ\n",
        b" QQ",
        b"QUJD\n",
        b"QU\nJD",
        b"+_-A",
        b"/_-A",
        b"A",
        b"AAAAA",
        b"QQ\0",
        b"\xc3\xa9AA",
    ],
    ids=repr,
)
def test_padding_white_space_and_the_other_alphabet_are_refused(way: str, text: bytes) -> None:
    assert native(way, text) is None
    assert native(way, oracle.encode(bytes(range(96))) + text) is None


@each_way
@pytest.mark.parametrize(("text", "bits"), [(b"QQ", 4), (b"QUI", 2)])
def test_trailing_bits_that_are_not_zero_are_refused(way: str, text: bytes, bits: int) -> None:
    last = oracle.ALPHABET.index(text[-1])
    assert native(way, text) is not None
    for change in range(1, 1 << bits):
        assert native(way, text[:-1] + bytes((oracle.ALPHABET[last | change],))) is None


def test_an_unknown_implementation_is_refused() -> None:
    with pytest.raises(LookupError, match="no implementation `sse9`"):
        base64url.decode_with("sse9", b"QQ")


@pytest.mark.parametrize("wrong", ["QQ", None, bytearray(b"QQ"), memoryview(b"QQ")])
def test_only_bytes_are_taken(wrong: object) -> None:
    with pytest.raises(TypeError):
        base64url.decode(wrong)  # type: ignore[arg-type]
