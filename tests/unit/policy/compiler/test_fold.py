from __future__ import annotations

import pytest

from gateway.policy.compiler.constants import encode_literal, encode_record, encode_set
from gateway.policy.compiler.fold import fold
from gateway.policy.compiler.instructions import FUNCTION, OP, A, B


def test_the_machine_computes_what_is_constant() -> None:
    assert fold((encode_literal(2), encode_literal(3)), OP["MULTIPLY"]) == encode_literal(6)
    assert fold((encode_literal("a"), encode_literal("a")), OP["EQ"]) == encode_literal(True)
    assert fold((encode_record([("x", encode_literal(1))]),), OP["ATTR"], "x") == encode_literal(1)
    twice = encode_set([encode_literal(1), encode_literal(1)])
    assert fold((twice, encode_set([encode_literal(1)])), OP["EQ"]) == encode_literal(True)


@pytest.mark.parametrize(
    ("operands", "instruction"),
    [
        ((encode_literal(True), encode_literal(3)), OP["ADD"]),
        ((encode_literal(2**63 - 1), encode_literal(1)), OP["ADD"]),
        ((encode_literal("10.0.0.300"),), OP["CALL"] | A | FUNCTION["ip"][0] * B),
    ],
)
def test_what_fails_is_left_to_fail_when_it_runs(operands: tuple[bytes, ...], instruction: int) -> None:
    assert fold(operands, instruction) is None


def test_an_address_is_read_once() -> None:
    folded = fold((encode_literal("10.1.0.0/16"),), OP["CALL"] | A | FUNCTION["ip"][0] * B)
    assert folded == b"\x08\x04\x10" + bytes((10, 1)) + bytes(14)
