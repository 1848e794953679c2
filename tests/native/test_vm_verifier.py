"""The machine runs nothing that its verifier did not let through: programs come from disk too."""

from __future__ import annotations

import random
import struct
from array import array
from collections.abc import Callable, Iterator

import pytest

from gateway._native.entities import EntityStore
from gateway._native.uid import EntityUid
from gateway._native.vm import OPCODES, Decider, Program, Rule, run_expression
from gateway.policy.compiler.constants import encode_literal, encode_set
from gateway.policy.compiler.image import encode_image
from gateway.policy.compiler.instructions import OP, A, B, C
from gateway.policy.compiler.policies import compile_expression, compile_statement
from gateway.policy.language.statements import parse_expression, parse_policies

HEAD_BYTES = 44
ANY_HEAD = b"\x01\x00\x00\x00"  # permit(principal, action, resource)


def policy(*code: int, **tables: object) -> Program:
    return Program(encode_image([*code, OP["SATISFIED"]], clauses=[0, -1, -1], **tables))  # type: ignore[arg-type]


def expression(*code: int, **tables: object) -> Program:
    return Program(encode_image([*code, OP["RESULT"]], **tables))  # type: ignore[arg-type]


FALSE, TRUE, CLAUSE = OP["BOOL"], OP["BOOL"] | A, OP["CLAUSE"]

REFUSED: dict[str, tuple[str, Callable[[], Program]]] = {
    "an empty program": ("no instructions", lambda: Program(encode_image([]))),
    "code that runs off its end": ("runs off", lambda: Program(encode_image([FALSE]))),
    "an opcode beyond the list": ("no such instruction", lambda: expression(len(OPCODES))),
    "a pop from an empty stack": ("runs empty", lambda: expression(OP["NOT"])),
    "an addition of one value": ("runs empty", lambda: expression(OP["LONG"], OP["ADD"])),
    "a result with two values": ("left over", lambda: expression(FALSE, FALSE)),
    "a policy with a value left": ("left over", lambda: policy(FALSE)),
    "a clause under which values lie": ("left over", lambda: policy(FALSE, FALSE, CLAUSE)),
    "a constant beyond the table": ("no such constant", lambda: expression(OP["CONST"])),
    "a name beyond the table": ("no such name", lambda: expression(OP["VAR_ATTR"])),
    "a type beyond the table": ("no such type", lambda: expression(OP["VAR"], OP["IS"])),
    "a pattern beyond the table": ("no such pattern", lambda: expression(OP["VAR"], OP["LIKE"])),
    "a shape beyond the table": ("no such shape", lambda: expression(FALSE, OP["RECORD"] | B)),
    "a shape of another size": (
        "no such shape",
        lambda: expression(FALSE, OP["RECORD"] | B, keys=["a", "b"], shapes=[(0, 1)]),
    ),
    "a name of a shape beyond the table": (
        "shape is malformed",
        lambda: expression(FALSE, OP["RECORD"] | B, keys=["a"], shapes=[(1,)]),
    ),
    "a variable beyond the four": ("no such variable", lambda: expression(OP["VAR"] | 4 * A)),
    "a membership of the context": (
        "no such variable",
        lambda: expression(OP["VAR_IN"] | 3 * A, constants=[encode_literal(1)]),
    ),
    "a function beyond the list": ("no such function", lambda: expression(FALSE, OP["CALL"] | A | 99 * B)),
    "a clause beyond the table": ("no such clause", lambda: policy(FALSE, CLAUSE | B)),
    "a jump out of the code": ("out of the code", lambda: expression(FALSE, OP["AND"] | 9 * C, FALSE)),
    "a jump that wraps round": ("out of the code", lambda: expression(FALSE, OP["AND"] | 0xFFFFFFFF * C, FALSE)),
    "a step that jumps out of the code": (
        "out of the code",
        lambda: expression(FALSE, OP["HAS_STEP"] | 0xFFFF * B, keys=["a"]),
    ),
    "paths that meet with different stacks": (
        "different stacks",
        lambda: expression(FALSE, OP["UNLESS_JUMP"] | C, FALSE, FALSE, OP["AND"], FALSE),
    ),
    "a branch that takes what lies below it": (
        "runs empty",
        lambda: expression(FALSE, TRUE, OP["UNLESS_JUMP"] | 2 * C, OP["NOT"], OP["UNLESS_JUMP"], FALSE, FALSE),
    ),
    "an instruction that is never reached": (
        "never reached",
        lambda: expression(FALSE, OP["JUMP"] | C, TRUE),
    ),
    "a policy that ends as an expression": (
        "mixed",
        lambda: Program(encode_image([TRUE, OP["UNLESS_JUMP"] | C, OP["SATISFIED"], TRUE, OP["RESULT"]])),
    ),
    "sets nested too deeply": ("nested", lambda: expression(FALSE, *[OP["SET"] | C] * 200)),
    "more values than the stack holds": ("4096", lambda: expression(*[FALSE] * 4097, OP["SET"] | 4097 * C)),
    "a set of more values than there are": ("runs empty", lambda: expression(FALSE, OP["SET"] | 0xFFFFFFFF * C)),
    "too many instructions": ("65535", lambda: policy(*[FALSE, CLAUSE] * 40000)),
    "a boolean that is neither": ("constant is malformed", lambda: expression(OP["CONST"], constants=[b"\x01\x02"])),
    "a constant of no kind": ("constant is malformed", lambda: expression(OP["CONST"], constants=[b"\x00"])),
    "a text that is cut off": (
        "constant is malformed",
        lambda: expression(OP["CONST"], constants=[b"\x03\x09\0\0\0x"]),
    ),
    "a text that is no UTF-8": (
        "constant is malformed",
        lambda: expression(OP["CONST"], constants=[b"\x03\x03\0\0\0\xed\xa0\x80"]),
    ),
    "a network of 33 bits": (
        "constant is malformed",
        lambda: expression(OP["CONST"], constants=[b"\x08\x04\x21" + bytes(16)]),
    ),
    "a constant nested too deeply": (
        "constant is malformed",
        lambda: expression(OP["CONST"], constants=[b"\x05\x01\0\0\0" * 70 + b"\x01\0"]),
    ),
    "a pattern without pieces": (
        "pattern is malformed",
        lambda: Program(patched(expression(FALSE, patterns=[("x",)]).image, b"\x01\0\0\0\x01\0\0\0x", bytes(4))),
    ),
    "bytes behind its end": ("follows its end", lambda: Program(expression(FALSE).image + b"\0")),
    "another format": ("another version", lambda: Program(b"PCVM\xff" + expression(FALSE).image[5:])),
    "no program at all": ("no compiled program", lambda: Program(b"")),
}


def patched(image: bytes, old: bytes, new: bytes) -> bytes:
    assert image.count(old) == 1
    return image.replace(old, new)


@pytest.mark.parametrize("name", REFUSED)
def test_a_program_that_could_harm_is_refused(name: str) -> None:
    reason, build = REFUSED[name]
    with pytest.raises(ValueError, match=reason):
        build()


def test_a_record_with_a_name_twice_is_refused_when_it_is_bound() -> None:
    program = expression(FALSE, FALSE, OP["RECORD"] | 2 * B, keys=["a"], shapes=[(0, 0)])
    with pytest.raises(ValueError, match="twice"):
        run_expression(program, EntityStore(), None, None, None, None)


def test_an_expression_is_no_policy() -> None:
    with pytest.raises(ValueError, match="no policy"):
        Rule(ANY_HEAD, expression(TRUE))


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\x01",
        b"\x02\0\0\0",
        b"\x01\x05\0\0",
        b"\x01\0\0\x03",
        ANY_HEAD + b"\0",
        b"\x01\x01\x01\0\0\0U\0",
        b"\x01\0\0\x01\xff\xff\xff\xff",
    ],
)
def test_a_malformed_head_is_refused(head: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        Rule(head, policy())


SOURCES = """
permit(principal, action, resource) when { principal.a == 1 && (context.b || !context.c) && context.d.e.f };
permit(principal, action, resource) when { if context has a.b.c then context.a.b.c == "x" else [context.d, 2].contains(1) };
forbid(principal, action, resource) unless { context.s like "a*b*" && principal is User in resource.group };
permit(principal, action, resource) when { {a: context.x, b: 1}.a + 3 * context.y < 9 && resource.getTag("t") == 1 };
permit(principal, action, resource) when { ip("10.0.0.1").isInRange(context.net) && context.set.containsAll([1, context.z]) };
"""  # noqa: E501


def images() -> list[bytes]:
    return [compile_statement(parsed.statement).image for parsed in parse_policies(SOURCES)]


def mutations(image: bytes, random_source: random.Random, count: int) -> Iterator[bytes]:
    """Change code, heads and tables: single bits, whole operands, swapped instructions, cuts."""
    code_count = struct.unpack_from("<I", image, 8)[0]
    code_end = HEAD_BYTES + 8 * code_count
    for _ in range(count):
        data = bytearray(image)
        for _ in range(random_source.choice((1, 1, 1, 2, 4))):
            match random_source.randrange(6):
                case 0:
                    data[random_source.randrange(len(data))] ^= 1 << random_source.randrange(8)
                case 1:
                    at = HEAD_BYTES + 8 * random_source.randrange(code_count)
                    data[at] = random_source.randrange(len(OPCODES) + 1)
                case 2:
                    at = HEAD_BYTES + 8 * random_source.randrange(code_count)
                    data[at + 4] = random_source.randrange(12)
                case 3:
                    at = random_source.randrange(HEAD_BYTES, code_end)
                    data[at] = random_source.randrange(256)
                case 4:
                    one, other = [HEAD_BYTES + 8 * random_source.randrange(code_count) for _ in range(2)]
                    data[one : one + 8], data[other : other + 8] = data[other : other + 8], data[one : one + 8]
                case 5:
                    at = random_source.randrange(8, len(data) - 4)
                    data[at : at + 4] = array("I", [random_source.choice((0, 1, 2, 255, 65536, 0xFFFFFFFF))]).tobytes()
        yield bytes(data)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_programs_are_refused_or_run_without_harm(seed: int) -> None:
    random_source = random.Random(seed)
    user, view = EntityUid("User", "a"), EntityUid("Action", "view")
    contexts = [
        {},
        {"a": {"b": {"c": "x"}}, "b": True, "c": False, "d": {"e": {"f": True}}, "s": "axbx", "x": 1, "y": 2, "z": 1},
        {
            "a": 1,
            "b": "x",
            "c": user,
            "d": [1, 2],
            "s": 5,
            "x": {"a": 1},
            "y": "n",
            "z": [[1]],
            "set": [1, 2],
            "net": 1,
        },
    ]
    store = EntityStore()
    refused = ran = 0
    for image in images():
        for mutated in mutations(image, random_source, 400):
            try:
                decider = Decider(store, [Rule(ANY_HEAD, Program(mutated))], ["policy0"])
            except ValueError:
                refused += 1
                continue
            for context in contexts:
                decider.authorize(user, view, user, context)
                decider.allows(user, view, user, context)
            ran += 1
    assert refused > 100
    assert ran > 100


def test_what_the_compiler_writes_is_let_through() -> None:
    for image in images():
        assert Program(image).image == image
    assert compile_expression(parse_expression("1 + 2 == 3")).is_policy is False
    assert Program(expression(OP["CONST"], constants=[encode_set([encode_literal(1)])]).image).code_count == 2
