from __future__ import annotations

import random
from hashlib import blake2b

import pytest

from gateway._native.vm import Rule
from gateway.policy.compiler.bundle import BundleError, bundle_from_bytes, bundle_key, bundle_to_bytes
from tests.policy.machine import rules_of

KEY = bundle_key([b"source"], b"schema")
TEXT = """
permit(principal in Team::"a", action == Action::"view", resource is Doc in Folder::"f") when { principal.level > 3 };
forbid(principal == User::"x", action in [Action::"view", Action::"edit"], resource) unless { context.ok };
permit(principal, action in [], resource is Doc) when { principal.level > 3 };
"""


def written() -> bytes:
    return bundle_to_bytes(KEY, ["a", "ü", ""], rules_of(TEXT))


def test_a_bundle_reads_as_it_was_written() -> None:
    bundle = bundle_from_bytes(KEY, written())
    assert bundle.ids == ("a", "ü", "")
    assert [(r.head, r.program) for r in bundle.rules] == [(r.head, r.program) for r in rules_of(TEXT)]


def test_rules_of_one_program_share_it_after_reading() -> None:
    one = rules_of(TEXT)[0]
    links = [Rule(one.head, one.program), Rule(rules_of(TEXT)[1].head, one.program)]
    bundle = bundle_from_bytes(KEY, bundle_to_bytes(KEY, ["a", "b"], links))
    assert bundle.rules[0].program is bundle.rules[1].program


def test_an_empty_bundle_is_one() -> None:
    assert bundle_from_bytes(KEY, bundle_to_bytes(KEY, [], [])).ids == ()


def test_a_bundle_of_another_key_is_refused() -> None:
    for other in (
        bundle_key([b"source2"], b"schema"),
        bundle_key([b"source"]),
        bundle_key([b"sour", b"ce"], b"schema"),
    ):
        with pytest.raises(BundleError, match="something else"):
            bundle_from_bytes(other, written())


def test_a_damaged_bundle_is_refused() -> None:
    data = written()
    source = random.Random(1)
    for _ in range(300):
        damaged = bytearray(data)
        damaged[source.randrange(len(data))] ^= 1 << source.randrange(8)
        with pytest.raises(BundleError):
            bundle_from_bytes(KEY, bytes(damaged))
    for length in range(0, len(data), 7):
        with pytest.raises(BundleError):
            bundle_from_bytes(KEY, data[:length])


def test_a_forged_bundle_never_gets_an_unverified_program_past() -> None:
    """The hash at the end can be computed by anyone: then the verifier and the tables' checks stand alone."""
    data = written()
    source = random.Random(2)
    refused = 0
    for _ in range(2000):
        forged = bytearray(data[:-32])
        for _ in range(source.choice((1, 2, 5))):
            forged[source.randrange(36, len(forged))] = source.choice((0, 1, 2, 127, 255))
        forged += blake2b(forged, digest_size=32).digest()
        try:
            bundle = bundle_from_bytes(KEY, bytes(forged))
        except BundleError:
            refused += 1
        else:
            assert all(rule.program.is_policy for rule in bundle.rules)
    assert refused > 500
