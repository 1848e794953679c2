"""Every fault of a schema's text has its code, its place and, where there is one, a remedy."""

from __future__ import annotations

import pytest

from gateway._native.uid import EntityUid
from gateway.policy.faults import SchemaError
from gateway.policy.schema import Schema
from gateway.policy.schema.limits import DECLARATIONS_MAX, FAULTS_MAX, NESTING_MAX, TEXT_CHARACTERS_MAX
from gateway.policy.schema.model import BoolType, EntityType, ExtensionType, LongType, RecordType, SetType, StringType

# One text a code; `^` stands before the place where it is told.
FAULTS = [
    ("unexpected_token", "entity A ^B;"),
    ("unexpected_token", "^entit A;"),
    ("unexpected_token", "entity A {a: Long^;};"),
    ("unexpected_token", "entity A in [A,^];"),
    ("unexpected_token", "entity A;^;"),
    ("unexpected_token", "^/* c */ entity A;"),
    ("unexpected_token", "entity ^é;"),
    ("unexpected_token", "entity A = ^Shape;"),
    ("unexpected_end", "entity A {^"),
    ("unexpected_end", "namespace N { entity A;^"),
    ("unterminated_string", 'action ^"a;'),
    ("invalid_escape", r'action "a^\q";'),
    ("reserved_name", "entity ^in;"),
    ("reserved_name", "entity A {^if: Long};"),
    ("reserved_name", "type ^Set = Long;"),
    ("reserved_name", "entity ^Action;"),
    ("reserved_name", "namespace ^__cedar { entity A; }"),
    ("reserved_name", "entity ^__cedar;"),
    ("duplicate_entity", "entity A; entity ^A;"),
    ("duplicate_entity", "entity A, ^A;"),
    ("duplicate_action", 'action a; action ^"a";'),
    ("duplicate_type", "type A = Long; type ^A = Long;"),
    ("duplicate_attribute", 'entity A {a: Long, ^"a": Long};'),
    ("duplicate_annotation", '@a @^a("x") entity A;'),
    ("duplicate_namespace", "namespace N {} namespace ^N {}"),
    ("duplicate_key", "entity A; action a appliesTo {principal: A, ^principal: A, resource: A};"),
    ("duplicate_key", "entity A; action a appliesTo {context: {}, ^context: {}, principal: A, resource: A};"),
    ("missing_key", "entity A; action a ^appliesTo {principal: A};"),
    ("empty_list", "entity A; action a appliesTo {^principal: [], resource: A};"),
    ("empty_enum", "entity A enum [^];"),
    ("action_attributes", "action a attributes ^{a: Long};"),
    ("unknown_type", "entity A {a: ^Lang};"),
    ("unknown_type", "entity A in [^B];"),
    ("unknown_type", "type T = Long; entity A in ^T;"),
    ("unknown_type", "entity A; action a appliesTo {principal: ^Action, resource: A};"),
    ("unknown_action", "action a in ^b;"),
    ("unknown_action", 'action a in ^N::Action::"b";'),
    ("shadowed_name", "entity A; namespace N { type ^A = Long; }"),
    ("shadowed_name", "action a; namespace N { action ^a; }"),
    ("type_cycle", "type ^A = Set<A>;"),
    ("action_cycle", "action ^a in a;"),
    ("no_record", "entity A; type T = Long; action a appliesTo {principal: A, resource: A, context: ^T};"),
    ("too_deep", "type A = " + "Set<" * (NESTING_MAX - 1) + "Set<^Set<Long>>" + ">" * (NESTING_MAX - 1) + ";"),
    (
        "too_deep",
        "type A0 = {};" + "".join(f"type A{i} = {{a: A{i - 1}}};" for i in range(1, 100)) + "type B = ^{a: A99};",
    ),
    (
        "too_large",
        "type A0 = {};"
        + "".join(f"type A{i} = {{a: A{i - 1}, b: A{i - 1}}};" for i in range(1, 16))
        + "type B = ^{a: A15, b: A15};",
    ),
]


def faults_of(text: str) -> SchemaError:
    with pytest.raises(SchemaError) as caught:
        Schema.parse(text, file="s.cedarschema")
    return caught.value


@pytest.mark.parametrize(("code", "marked"), FAULTS)
def test_a_fault_is_told_with_its_code_and_place(code: str, marked: str) -> None:
    at = marked.index("^")
    text = "// a comment\n" + marked.replace("^", "", 1)
    fault = faults_of(text).faults[0]
    assert (fault.code, fault.file, fault.line, fault.column) == (code, "s.cedarschema", 2, at + 1)
    assert fault.message[0] in "`abcdefghijklmnopqrstuvwxyz" and fault.message[-1] != "."
    assert str(fault).startswith("s.cedarschema:2:")


def test_a_line_stands_under_its_fault_with_a_caret() -> None:
    text = str(faults_of("entity User;\nentity Doc { owner: Usr };"))
    assert text == (
        "s.cedarschema:2:21: undeclared type `Usr`\n"
        "    entity Doc { owner: Usr };\n"
        "                        ^^^\n"
        "  hint: did you mean `User`?"
    )


def test_faults_of_several_declarations_are_told_at_once() -> None:
    text = "entity A in [B;\nentit C;\nnamespace N {\n  type Set = Long;\n  entity D {a};\n  entity E;\n}\n"
    text += "action a appliesTo {};\n"
    found = [(fault.code, fault.line) for fault in faults_of(text).faults]
    assert found == [
        ("unexpected_token", 1),
        ("unexpected_token", 2),
        ("reserved_name", 4),
        ("unexpected_token", 5),
        ("missing_key", 8),
    ]


def test_faults_of_names_are_told_at_once() -> None:
    error = faults_of("entity A {a: X, b: Long}; entity B in Y; action a in z;")
    assert [fault.code for fault in error.faults] == ["unknown_type", "unknown_type", "unknown_action"]


def test_a_type_that_names_a_broken_one_is_not_told_as_well() -> None:
    error = faults_of("type A = Nope; type B = A; entity C {b: B};")
    assert [fault.message for fault in error.faults] == ["undeclared type `Nope`"]


def test_no_more_faults_are_told_than_the_limit() -> None:
    assert len(faults_of("entity;" * 100).faults) == FAULTS_MAX
    assert len(faults_of("".join(f"entity A{i} in X{i};" for i in range(100))).faults) == FAULTS_MAX


def test_limits_are_told_by_their_codes() -> None:
    assert faults_of(" " * (TEXT_CHARACTERS_MAX + 1)).faults[0].code == "text_too_large"
    assert faults_of("type T = Long;" * (DECLARATIONS_MAX + 1)).faults[-1].code in {
        "too_many_declarations",
        "duplicate_type",
    }
    names = ", ".join(f"A{i}" for i in range(10))
    many = "".join(f"action a{i};" for i in range(DECLARATIONS_MAX + 1)) + f"entity {names};"
    assert faults_of(many).faults[0].code == "too_many_declarations"
    chain = "entity A0;" + "".join(f"entity A{i} in A{i - 1};" for i in range(1, 5000))
    assert faults_of(chain).faults[0].code == "too_large"


@pytest.mark.parametrize(
    "text",
    [
        "{" * 5000,
        "entity A {a:" * 5000,
        "@" * 5000,
        "[" * 5000,
        "}" * 5000,
        "namespace N {" * 900,
        '"' * 999,
        "\0",
        "\ud800",
    ],
)
def test_hostile_texts_are_refused_and_nothing_else(text: str) -> None:
    assert faults_of(text).faults


def test_a_chain_of_common_types_may_be_long() -> None:
    links = "".join(f"type A{i} = A{i + 1};" for i in range(5000))
    schema = Schema.parse(links + "type A5000 = Long; entity X { a: A0 };")
    assert schema.entities["X"].attributes.attributes["a"].type == LongType()


def test_types_are_resolved() -> None:
    schema = Schema.parse("""
        @doc("what there is") namespace N::M {
          type Pair = { first: Long, "second one"?: Set<String> };
          @kind entity User in [Group, N::M::User] = { @why("x") pair: Pair, flag: Bool, ip?: ipaddr } tags Set<User>;
          entity Group;
          entity Colour enum ["red", "green", "red"];
          action read, "write it" in [all, N::M::Action::"every"] appliesTo {
            principal: User, resource: [User, Group], context: Pair,
          };
          action all in every; action every;
        }
        entity N { m: N::M::Group, act: N::M::Action, __cedar: __cedar::Long, when: datetime };
    """)
    user = schema.entities["N::M::User"]
    assert user.parents == {"N::M::Group", "N::M::User"} == user.ancestors
    pair = user.attributes.attributes["pair"]
    assert pair.annotations == {"why": "x"} and pair.required
    assert isinstance(pair.type, RecordType)
    assert pair.type.attributes["first"].type == LongType()
    assert pair.type.attributes["second one"].type == SetType(StringType())
    assert not pair.type.attributes["second one"].required
    assert user.attributes.attributes["flag"].type == BoolType()
    assert user.attributes.attributes["ip"].type == ExtensionType("ipaddr")
    assert user.tags == SetType(EntityType("N::M::User"))
    assert user.annotations == {"kind": ""}
    assert schema.entities["N::M::Colour"].choices is not None
    assert set(schema.entities["N::M::Colour"].choices) == {"red", "green"}
    plain = schema.entities["N"].attributes.attributes
    assert plain["act"].type == EntityType("N::M::Action")
    assert plain["when"].type == ExtensionType("datetime")
    write = schema.actions[EntityUid("N::M::Action", "write it")]
    every, everything = EntityUid("N::M::Action", "every"), EntityUid("N::M::Action", "all")
    assert write.parents == {every, everything} == write.ancestors
    assert write.principals == {"N::M::User"}
    assert write.resources == {"N::M::User", "N::M::Group"}
    assert write.context == pair.type
    assert schema.actions[EntityUid("N::M::Action", "read")].context == pair.type
    assert schema.actions[everything].ancestors == {every}
    assert not schema.actions[every].principals and not schema.actions[every].resources
    assert schema.namespaces["N::M"] == {"doc": "what there is"}
