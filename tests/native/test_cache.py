from __future__ import annotations

import gc
import os
import subprocess
import sys
import weakref
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native import cache as native
from gateway._native.cache import ByteCache
from tests.oracle import cache as oracle

words = st.integers(-(2**63), 2**63 - 1)


# --- SipHash ----------------------------------------------------------------------------------------------------------


def test_the_oracle_gives_the_papers_vector() -> None:
    """Aumasson and Bernstein, appendix A: SipHash-2-4 of 00 01 … 0e under the key 00 01 … 0f."""
    k0, k1 = 0x0706050403020100, 0x0F0E0D0C0B0A0908
    assert oracle.siphash(bytes(range(15)), k0, k1, c=2, d=4) == 0xA129CA6149BE45E5


@given(st.binary(max_size=100), words, words)
def test_siphash_equals_the_oracle(data: bytes, k0: int, k1: int) -> None:
    assert native.siphash(data, k0, k1) == oracle.siphash(data, k0 % 2**64, k1 % 2**64)


@pytest.mark.skipif(sys.hash_info.algorithm != "siphash13", reason="this Python hashes otherwise than by SipHash-1-3")
def test_siphash_equals_pythons_own_under_a_key_of_zeros() -> None:
    texts = [bytes(range(length)) for length in range(1, 80)]
    code = f"print([hash(bytes(range(n))) % 2**64 for n in range(1, {len(texts) + 1})])"
    told = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        capture_output=True,
        check=True,
        text=True,
    )
    assert [native.siphash(text) for text in texts] == [int(word) for word in told.stdout.strip()[1:-1].split(",")]


# --- the cache --------------------------------------------------------------------------------------------------------

keys = st.integers(0, 30).map(lambda n: b"key-%d" % n) | st.binary(max_size=9)
steps = st.lists(
    st.tuples(st.sampled_from(["put", "put", "get", "get", "discard", "advance", "clear"]), keys, st.integers(0, 9)),
    max_size=120,
)


@given(st.integers(1, 40), st.sampled_from([0, 0, 5]), st.sampled_from([0, 1, 3, 64]), steps)
def test_a_cache_may_forget_but_never_errs(
    entries: int, ttl_s: int, hash_bits: int, script: list[tuple[str, bytes, int]]
) -> None:
    cache = ByteCache(entries, ttl_s, hash_bits=hash_bits)
    model = oracle.Cache(entries, ttl_s)
    for verb, key, number in script:
        if verb == "put":
            cache.put(key, (key, number))
            model.put(key, (key, number))
            assert cache.get(key) == (key, number)
        elif verb == "get":
            assert cache.get(key) in (None, model.may_know(key))
        elif verb == "discard":
            assert cache.discard(key) in (False, key in model.known)
            model.known.pop(key, None)
            assert cache.get(key) is None
        elif verb == "advance":
            cache.advance(number)
            # A real clock ran meanwhile, and ticks are 1/16 s: stay away from the very edge.
            model.now_s += number + 0.2
        else:
            cache.clear()
            model.known.clear()
            assert len(cache) == 0
        assert len(cache) <= entries


@pytest.mark.parametrize("entries", [1, 2, 6, 7, 8, 14, 15, 16, 100, 1000])
def test_entries_are_the_bound_and_most_of_it_is_used(entries: int) -> None:
    cache = ByteCache(entries)
    for number in range(5 * entries):
        cache.put(b"%d" % number, number)
        assert len(cache) <= entries
    assert len(cache) >= 0.9 * entries
    assert cache.stats()["capacity"] == entries


def test_keys_that_all_collide_keep_their_own_values() -> None:
    cache = ByteCache(100, hash_bits=0)
    names = [b"%02d" % n for n in range(14)]  # two buckets of seven
    for name in names:
        cache.put(name, name)
    assert [cache.get(name) for name in names] == names
    cache.put(b"one more", 0)
    assert cache.get(b"one more") == 0
    assert sum(cache.get(name) == name for name in names) == 13


def test_the_same_key_replaces_its_value() -> None:
    cache = ByteCache(10, hash_bits=0)
    for number in range(30):
        cache.put(b"key", number)
        cache.put(b"other", -number)
    assert (cache.get(b"key"), cache.get(b"other"), len(cache)) == (29, -29, 2)


def test_an_absent_key_gives_the_default() -> None:
    cache = ByteCache(10)
    default = object()
    assert cache.get(b"x") is None
    assert cache.get(b"x", default) is default
    assert cache.discard(b"x") is False


def test_keys_differ_by_every_byte_and_by_length() -> None:
    cache = ByteCache(1000, hash_bits=0)
    for length in (0, 1, 7, 8, 9, 31, 32, 63, 64, 65, 127, 128, 129, 200):
        cache.clear()
        key = bytes(range(length))
        cache.put(key, length)
        assert cache.get(key) == length
        assert cache.get(key + b"\0") is None
        for place in range(length):
            assert cache.get(key[:place] + bytes([key[place] ^ 0x80]) + key[place + 1 :]) is None


def test_an_entry_lives_for_its_time() -> None:
    cache = ByteCache(10, 60)
    cache.put(b"key", 1)
    cache.advance(59)
    assert cache.get(b"key") == 1
    cache.advance(1.5)
    assert cache.get(b"key") is None
    assert len(cache) == 0
    cache.put(b"key", 2)
    cache.advance(59)
    assert cache.get(b"key") == 2


def test_what_is_used_outlives_a_flood_of_what_is_seen_once() -> None:
    cache = ByteCache(1000)
    hot = [b"hot %d" % n for n in range(200)]
    for name in hot:
        cache.put(name, name)
        cache.get(name)
    missed = 0
    for number in range(20_000):
        cache.put(b"once %d" % number, number)
        name = hot[number % len(hot)]
        if cache.get(name) is None:
            missed += 1
            cache.put(name, name)
    assert missed <= 1000  # of 20,000; first in, first out would miss 5,000


def test_an_insertion_looks_at_few_entries_even_when_all_are_hot() -> None:
    """Every entry is as hot as can be: the sweep must still end soon, and take one of them."""
    cache = ByteCache(1000)
    for number in range(1000):
        cache.put(b"%d" % number, number)
    for _ in range(5):
        for number in range(1000):
            cache.get(b"%d" % number)
    for number in range(100):
        cache.put(b"new %d" % number, number)
        assert cache.get(b"new %d" % number) == number
    assert sum(cache.get(b"%d" % number) == number for number in range(1000)) >= 890


def test_counts_tell_what_happened() -> None:
    cache = ByteCache(2)
    for number in range(3):
        cache.put(b"%d" % number, number)
    hits = sum(cache.get(b"%d" % number) is not None for number in range(3))
    stats = cache.stats()
    assert (hits, stats["hits"], stats["misses"], stats["evictions"], stats["entries"]) == (2, 2, 1, 1, 2)
    assert stats["bytes"] == 2 * (16 + 8 + 1)
    assert stats["table_bytes"] == 2 * 64


class Thing:
    pass


def test_values_are_held_while_they_are_kept_and_let_go_after() -> None:
    cache = ByteCache(3)
    random = Random(1)
    things = {b"%d" % number: Thing() for number in range(50)}
    watched = {key: weakref.ref(thing) for key, thing in things.items()}
    for key, thing in things.items():
        cache.put(key, thing)
        if random.random() < 0.2:
            cache.discard(key)
    del thing
    things.clear()
    gc.collect()
    alive = {key for key, ref in watched.items() if ref() is not None}
    assert alive == {key for key in watched if cache.get(key) is not None}
    assert len(alive) == len(cache) == 3 or len(alive) == len(cache) == 2
    del cache
    assert not any(ref() for ref in watched.values())


def test_a_value_that_uses_the_cache_when_it_dies_does_no_harm() -> None:
    cache = ByteCache(1)

    class Clinging:
        def __del__(self) -> None:
            cache.put(b"again", 1)
            cache.get(b"again")

    for number in range(10):
        cache.put(b"%d" % number, Clinging())
    cache.clear()
    assert len(cache) <= 1


@pytest.mark.parametrize(
    ("entries", "ttl_s", "hash_bits"), [(0, 0, 64), (-1, 0, 64), (1, -1, 64), (1, 0, 65), (1, 2e8, 64)]
)
def test_sizes_that_make_no_sense_are_refused(entries: int, ttl_s: float, hash_bits: int) -> None:
    with pytest.raises(ValueError, match="must lie between"):
        ByteCache(entries, ttl_s, hash_bits=hash_bits)


def test_every_entry_is_freed() -> None:
    if native.live_entries() < 0:
        pytest.skip("live objects are counted in a debug build (PORTCULLIS_DEBUG=1)")
    before = native.live_entries()
    cache = ByteCache(20, 60)
    for number in range(200):
        cache.put(b"%d" % (number % 30), number)
    assert native.live_entries() == before + len(cache)
    del cache
    assert native.live_entries() == before
