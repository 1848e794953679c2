"""The public vectors of C2SP/wycheproof, on both backends. Judged as ../shared/vectors/README.md says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway._native.verify import BACKEND
from gateway.tokens.jws import verify_jws
from tests.signers import NAMES

BACKENDS = ("libcrypto", "cryptography") if BACKEND == "libcrypto" else ("cryptography",)
each_backend = pytest.mark.parametrize("backend", BACKENDS)
pytestmark = pytest.mark.shared

# The six that contradict others, and what a strict verifier says.
CONTRADICTED = {
    346: "valid: signed with PS384, but its key says `alg` PS256",
    350: "valid: the same token and key, with key_ops",
    367: "invalid: but byte for byte the valid token 357",
    370: "invalid: but byte for byte the valid token 357",
    372: "valid: but there is a `?` inside the header's base64url",
    373: "valid: but there is a `?` inside the payload's base64url",
}


def cases(shared: Path, name: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Yield each case with the key, or set of keys, that it is about."""
    document = json.loads((shared / "vectors" / "wycheproof" / name).read_bytes())
    for group in document["testGroups"]:
        for case in group["tests"]:
            yield case, group.get("public") or group["private"]


def differing(shared: Path, name: str, backend: str) -> tuple[int, dict[int, str]]:
    """Return how many cases there are, and the expected result of those that were judged otherwise."""
    count, wrong = 0, {}
    for case, key in cases(shared, name):
        count += 1
        if verify_jws(case["jws"], key, NAMES, backend=backend) != (case["result"] == "valid"):
            wrong[case["tcId"]] = case["result"]
    return count, wrong


@each_backend
def test_395_of_401_signatures_are_judged_as_expected_and_the_six_others_as_explained(
    shared: Path, backend: str
) -> None:
    count, wrong = differing(shared, "json_web_signature_test.json", backend)
    assert count == 401
    assert {number: text.split(":")[0] for number, text in CONTRADICTED.items()} == wrong


def test_the_explanations_of_the_six_hold(shared: Path) -> None:
    by_number = {case["tcId"]: (case["jws"], key) for case, key in cases(shared, "json_web_signature_test.json")}
    assert by_number[367] == by_number[357] == by_number[370]
    assert all("?" in by_number[number][0] for number in (372, 373))
    for number in (346, 350):
        text, key = by_number[number]
        assert key["alg"] == "PS256"
        assert verify_jws(text, {**key, "alg": "PS384"}, NAMES)


@each_backend
def test_all_26_cases_of_keys_are_judged_as_expected(shared: Path, backend: str) -> None:
    assert differing(shared, "json_web_key_test.json", backend) == (26, {})


@each_backend
def test_no_signature_verifies_under_algorithms_that_are_not_allowed(shared: Path, backend: str) -> None:
    for case, key in cases(shared, "json_web_signature_test.json"):
        assert not verify_jws(case["jws"], key, (), backend=backend)
        assert not verify_jws(case["jws"], key, ("none", "None", "NONE", ""), backend=backend)
