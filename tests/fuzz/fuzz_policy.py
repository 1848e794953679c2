"""The policy engine's readers and its machine, each by the first byte of the input.

| byte % 9 | what the rest is | laws |
|---|---|---|
| 0, 1 | policy text | read, printed, written as JSON it stays the same; the machine decides as the oracle does |
| 2 | policy JSON | as JSON again it stays the same |
| 3 | schema text | as text and as JSON it stays the same |
| 4 | schema JSON | as above |
| 5 | entities JSON, or a context | written and read again it is the same |
| 6 | a program's image | the verifier refuses it, or it runs within its limits and denies at a fault |
| 7 | a bundle without its digest | as above |
| 8 | which program of ours, then places in its code and what to put there, two bytes and one each | as above |
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from gateway._native.uid import EntityUid
from gateway._native.vm import Decider, Program, Rule
from gateway.policy.compiler.bundle import BundleError, bundle_from_bytes, bundle_key, bundle_to_bytes
from gateway.policy.compiler.policies import compile_expression
from gateway.policy.entities import Entities
from gateway.policy.faults import EntityError, PolicySyntaxError, RequestError, SchemaError
from gateway.policy.language.format import format_policies
from gateway.policy.language.statements import parse_expression
from gateway.policy.policy_set import PolicySet
from gateway.policy.requests import parse_context
from gateway.policy.schema import Schema
from tests.oracle import policy as oracle
from tests.policy import generate
from tests.policy.machine import decider_of, rules_of, store_of

LENGTH_MAX = 4096
DIGEST_BYTES = 32
KEY = bundle_key([b"fuzz"])
WORDS = (
    b"permit", b"forbid", b"(principal, action, resource)", b"when {", b"unless {", b"principal == ", b"?principal",
    b"in [", b" is User in ", b" has a.b.c", b' like "a*\\*"', b'User::"alice"', b'ip("::1/8")', b'decimal("1.5")',
    b".isInRange(", b'datetime("2024-02-29T00:00:00.000+0100")', b'duration("-1d2h")', b".containsAny(",
    b'.getTag("a")', b"if true then ", b" else ", b"&&", b"||", b"!", b"-9223372036854775808", b'"\\u{1f600}"',
    b'@id("a")', b"//", b"};", b"entity A in [B] ", b"action a appliesTo {principal: A, resource: [A], context: {}};",
    b"namespace N {", b"tags Set<Long>", b'enum ["a"]', b"type T = ", b"__cedar::",
    b'{"__extn":{"fn":"ip","arg":"::"}}',
    b'{"__entity":{"type":"User","id":"a"}}', b'"uid":', b'"attrs":{', b'"parents":[', b'"effect":"permit"',
    b'"op":"=="', b'"conditions":[', b'"Var":"context"', b"PCVM", b"PCPB", b"\xff\xff\xff\xff", b"\x00\x00\x00\x00",
    b"\x01\x00\x00\x00", b"((((((((((((((((((((", b"[[[[[[[[[[[[[[[[[[[[",
)  # fmt: skip

KNOWN = generate.entities(random.Random(1))
ASKED = [generate.request(random.Random(seed)) for seed in range(2)]


def seeds() -> Iterable[bytes]:
    for number in range(12):
        chooser = random.Random(number)
        text, _ = generate.policies(chooser, 2)
        yield bytes([number % 2]) + text.encode()[: LENGTH_MAX - 1]
        policies = PolicySet.parse(text)
        yield b"\x02" + json.dumps(policies.to_json()).encode()
        for rule in rules_of(policies):
            yield b"\x06" + rule.program.image
        yield b"\x06" + compile_expression(parse_expression(generate.Writer(chooser).of("set", 3))).image
        yield b"\x07" + bundle_to_bytes(KEY, list(policies.policies), rules_of(policies))[:-DIGEST_BYTES]
    schema = """
        namespace N { type T = {a: Long, "b c"?: Set<decimal>}; entity U, V in [G] = {t: T, ip?: ipaddr} tags String;
        entity G; entity E enum ["a", "b"]; }
        @doc("x") entity A in N::G {n: __cedar::Long};
        action all; action v, "w x" in [all] appliesTo {principal: [N::U, A], resource: N::V, context: N::T};
    """
    yield b"\x03" + schema.encode()
    yield b"\x04" + json.dumps(Schema.parse(schema).to_json()).encode()
    yield b"\x08\x00"
    yield b"\x08\x05\x00\x00\x01\x00\x09\x02\x00\x0c\x03"
    some = dict(list(KNOWN.items())[:4])
    yield b"\x05" + json.dumps(generate.entities_json(some)).encode()
    yield b"\x05" + json.dumps(generate.spelled(ASKED[0].context)).encode()


def target(data: bytes) -> object:
    kind, rest = data[0] % 9 if data else 0, data[1:]
    if kind >= 6:
        return (program, bundle, patched)[kind - 6](rest)
    try:
        text = rest.decode()
    except UnicodeDecodeError:
        return json_bytes(rest) if kind == 5 else None
    return (policy_text, policy_text, policy_json, schema_text, schema_json, json_bytes)[kind](text)


def codes(fault: PolicySyntaxError | SchemaError | EntityError | RequestError) -> object:
    """Give the outcome of a refusal; each has its words."""
    assert fault.faults
    for each in fault.faults:
        assert each.message
        assert str(each)
    return tuple(each.code for each in fault.faults[:3])


def policy_text(text: str) -> object:
    try:
        policies = PolicySet.parse(text)
    except PolicySyntaxError as fault:
        return codes(fault)
    formatted = format_policies(text)
    assert format_policies(formatted) == formatted
    statements = {policy_id: policy.statement for policy_id, policy in policies.policies.items()}
    again = PolicySet.parse(formatted)
    assert {policy_id: policy.statement for policy_id, policy in again.policies.items()} == statements
    assert PolicySet.from_json(policies.to_json()).to_json() == policies.to_json()
    return decided(policies)


def decided(policies: PolicySet) -> object:
    decider = decider_of(store_of(KNOWN), policies)
    outcomes = []
    for asked in ASKED:
        answer = decider.authorize(asked.principal, asked.action, asked.resource, dict(asked.context))
        outcomes.append((answer.allowed, len(answer.reasons), len(answer.errors), answer.faults))
        assert not (answer.allowed and answer.faults)
        if answer.faults:
            continue
        try:
            slow = oracle.authorize(policies.policies, asked, KNOWN)
        except RecursionError:  # the slow twin's own limit
            continue
        assert (answer.allowed, answer.reasons, answer.errors) == (slow.allowed, slow.reasons, slow.errors)
    return tuple(outcomes)


def policy_json(text: str) -> object:
    try:
        policies = PolicySet.from_json(json.loads(text))
    except PolicySyntaxError as fault:
        return codes(fault)
    except (ValueError, RecursionError):  # no JSON; the reader of trees gets what was read
        return "no JSON"
    written = policies.to_json()
    assert PolicySet.from_json(written).to_json() == written
    return decided(policies)


def schema_text(text: str) -> object:
    try:
        schema = Schema.parse(text)
    except SchemaError as fault:
        return codes(fault)
    return same_schema(schema)


def schema_json(text: str) -> object:
    try:
        schema = Schema.from_json(text)
    except SchemaError as fault:
        return codes(fault)
    return same_schema(schema)


def same_schema(schema: Schema) -> object:
    written = schema.to_text()
    assert Schema.parse(written).to_text() == written
    data = schema.to_json()
    assert Schema.from_json(data).to_json() == data
    return len(schema.entities), len(schema.actions)


def json_bytes(data: str | bytes) -> object:
    outcome: list[Any] = []
    try:
        known = Entities.from_json(data)
    except EntityError as fault:
        outcome.append(codes(fault))
    else:
        written = known.to_json()
        assert sorted(map(str, Entities.from_json(written).to_json())) == sorted(map(str, written))
        outcome.append(len(known))
    try:
        context = parse_context(data)
    except RequestError as fault:
        outcome.append(codes(fault))
    else:
        allowed = Decider(store_of(KNOWN), [], []).allows(
            EntityUid("U", "a"), EntityUid("Action", "b"), EntityUid("R", "c"), context
        )
        assert not allowed
        outcome.append(len(context))
    return tuple(outcome)


def run(programs: list[Program]) -> object:
    """Run programs that the verifier took: as the conditions of a permit, or as expressions."""
    head = rules_of(PolicySet.parse("permit(principal, action, resource);"))[0].head
    rules = [Rule(head, each) for each in programs if each.is_policy]
    decider = Decider(store_of(KNOWN), rules, [f"p{number}" for number in range(len(rules))], steps_max=20_000)
    outcomes: list[object] = []
    for asked in ASKED:
        answer = decider.authorize(asked.principal, asked.action, asked.resource, dict(asked.context))
        assert not (answer.allowed and answer.faults)
        assert decider.allows(asked.principal, asked.action, asked.resource, dict(asked.context)) == answer.allowed
        outcomes.append((answer.allowed, answer.faults))
        ready = decider.prepare(asked.principal, asked.action, asked.resource, dict(asked.context))
        outcomes += [decider.evaluate(each, ready)[0] for each in programs if not each.is_policy]
    return tuple(outcomes)


def program(image: bytes) -> object:
    try:
        made = Program(image)
    except ValueError as refusal:
        return str(refusal)
    return run([made])


CODE_START = 44  # bytes of the head of an image
IMAGES: list[bytes] = []


def patched(data: bytes) -> object:
    """Change instructions of a program of ours: most of what comes out, the verifier must judge by its meaning."""
    if not IMAGES:
        writer = generate.Writer(random.Random(2))
        texts = [f"permit(principal, action, resource) when {{ {writer.of('bool', 4)} }};" for _ in range(32)]
        IMAGES.extend(rules_of(PolicySet.parse(text))[0].program.image for text in texts)
        IMAGES.extend(compile_expression(parse_expression(writer.of(kind, 3))).image for kind in generate.KINDS)
    image = bytearray(IMAGES[data[0] % len(IMAGES) if data else 0])
    code_bytes = 8 * int.from_bytes(image[8:12], "little")
    for at in range(1, len(data) - 2, 3):
        image[CODE_START + int.from_bytes(data[at : at + 2], "big") % code_bytes] = data[at + 2]
    return program(bytes(image))


def bundle(body: bytes) -> object:
    data = body + blake2b(body, digest_size=DIGEST_BYTES).digest()
    try:
        made = bundle_from_bytes(KEY, data)
    except BundleError as refusal:
        return str(refusal)
    return run([rule.program for rule in made.rules])
