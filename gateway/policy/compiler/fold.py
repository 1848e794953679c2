"""Constant folding: the machine computes what is known when a policy is compiled."""

from __future__ import annotations

from functools import lru_cache

from gateway._native.vm import fold as _run
from gateway.policy.compiler.image import encode_image
from gateway.policy.compiler.instructions import OP, C

_CONST, _RESULT = OP["CONST"], OP["RESULT"]
_CACHED_RESULTS = 4096  # policies of one set repeat the same few networks and amounts


@lru_cache(maxsize=_CACHED_RESULTS)
def fold(operands: tuple[bytes, ...], instruction: int, name: str | None = None) -> bytes | None:
    """Give what `instruction` makes of encoded `operands`, encoded; None where it fails: it then does at run time too.

    `name` is the attribute of an instruction that has one.
    """
    constants = dict.fromkeys(operands)
    number = {operand: index for index, operand in enumerate(constants)}
    code = [_CONST | number[operand] * C for operand in operands]
    code += (instruction, _RESULT)
    return _run(encode_image(code, constants=constants, keys=() if name is None else (name,)))
