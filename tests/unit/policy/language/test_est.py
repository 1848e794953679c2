from __future__ import annotations

import json
from typing import Any

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policy import EntityUid, PolicySyntaxError
from gateway.policy.language import limits, tree
from gateway.policy.language.est import (
    entity_from_json,
    expression_from_json,
    expression_to_json,
    statement_from_json,
    statement_to_json,
)
from gateway.policy.language.statements import parse_expression, parse_policies
from tests.unit.policy.language.texts import HEAD, TRICKY

STATEMENTS = [
    text
    for text in TRICKY
    if text.startswith(("permit", "@", "forbid")) and text.count(HEAD) <= 1 and " has a.b.c" not in text
]


@pytest.mark.parametrize("text", STATEMENTS)
def test_json_reads_back_as_the_same_statement(text: str) -> None:
    try:
        parsed = parse_policies(text)
    except PolicySyntaxError:
        return
    for each in parsed:
        data = json.loads(json.dumps(statement_to_json(each.statement)))
        again = statement_from_json(data)
        # One action in brackets is the same as without them, and so Cedar writes it.
        again.action.listed = each.statement.action.listed
        assert again == each.statement


def test_a_statement_has_the_documented_shape() -> None:
    [parsed] = parse_policies(
        '@id("x") @note forbid (principal is User in ?principal, action in [Action::"a", Action::"b"], '
        'resource == Doc::"d") unless { context.n < 3 };'
    )
    assert statement_to_json(parsed.statement) == {
        "effect": "forbid",
        "principal": {"op": "is", "entity_type": "User", "in": {"slot": "?principal"}},
        "action": {"op": "in", "entities": [{"type": "Action", "id": "a"}, {"type": "Action", "id": "b"}]},
        "resource": {"op": "==", "entity": {"type": "Doc", "id": "d"}},
        "conditions": [
            {
                "kind": "unless",
                "body": {"<": {"left": {".": {"left": {"Var": "context"}, "attr": "n"}}, "right": {"Value": 3}}},
            }
        ],
        "annotations": {"id": "x", "note": None},
    }


def test_a_path_of_has_is_spelled_out() -> None:
    assert expression_to_json(parse_expression("context has a.b")) == {
        "&&": {
            "left": {"has": {"left": {"Var": "context"}, "attr": "a"}},
            "right": {"has": {"left": {".": {"left": {"Var": "context"}, "attr": "a"}}, "attr": "b"}},
        }
    }


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"Value": [1, {"a": "x"}]}, '[1, {"a": "x"}]'),
        ({"Value": {"__entity": {"type": "A::B", "id": "x"}}}, 'A::B::"x"'),
        ({"Value": {"__extn": {"fn": "ip", "arg": "::1"}}}, 'ip("::1")'),
        ({"like": {"left": {"Var": "context"}, "pattern": [{"Literal": "a"}, {"Literal": "*"}, "Wildcard"]}},
         r'context like "a\**"'),
        ({"isInRange": [{"ip": [{"Value": "::1"}]}, {"ip": [{"Value": "::/8"}]}]}, 'ip("::1").isInRange(ip("::/8"))'),
        ({"is": {"left": {"Var": "principal"}, "entity_type": "A", "in": {"Var": "resource"}}},
         "principal is A in resource"),
    ],
)  # fmt: skip
def test_spellings_of_other_writers_are_read(data: Any, text: str) -> None:
    assert expression_from_json(data) == parse_expression(text)


VAR = {"Var": "context"}


@pytest.mark.parametrize(
    ("data", "pointer", "code"),
    [
        (None, "/", "ill_formed_json"),
        ({}, "/", "ill_formed_json"),
        ({"Var": "a", "Value": 1}, "/", "ill_formed_json"),
        ({"unknown": []}, "/unknown", "unknown_operator"),
        ({"Var": "user"}, "/Var", "unknown_variable"),
        ({"Var": ["user"]}, "/Var", "unknown_variable"),
        ({"Slot": "?principal"}, "/Slot", "slot_in_condition"),
        ({"Value": None}, "/Value", "ill_typed"),
        ({"Value": 1.5}, "/Value", "ill_typed"),
        ({"Value": 2**63}, "/Value", "number_too_large"),
        ({"Value": [1, {"a/b": None}]}, "/Value/1/a~1b", "ill_typed"),
        ({"Value": "\ud800"}, "/Value", "lone_surrogate"),
        ({"Value": {"\ud800": 1}}, "/Value", "lone_surrogate"),
        ({"Value": {"__entity": {"type": "if", "id": "x"}}}, "/Value/__entity/type", "no_type"),
        ({"Value": {"__entity": {"type": "A", "id": 1}}}, "/Value/__entity/id", "ill_typed"),
        ({"Value": {"__extn": {"fn": "exec", "arg": "x"}}}, "/Value/__extn", "unknown_function"),
        ({"==": {"left": VAR}}, "/==", "missing_member"),
        ({"==": {"left": VAR, "right": VAR, "more": 1}}, "/==/more", "unknown_member"),
        ({"==": [VAR, VAR]}, "/==", "ill_typed"),
        ({"&&": {"left": VAR, "right": {"!": {"arg": 1}}}}, "/&&/right/!/arg", "ill_formed_json"),
        ({".": {"left": VAR, "attr": 1}}, "/./attr", "ill_typed"),
        ({"has": {"left": VAR, "attr": None}}, "/has/attr", "ill_typed"),
        ({"like": {"left": VAR, "pattern": "a*"}}, "/like/pattern", "ill_formed_json"),
        ({"like": {"left": VAR, "pattern": [{"Literal": 1}]}}, "/like/pattern", "ill_formed_json"),
        ({"is": {"left": VAR, "entity_type": "A::"}}, "/is/entity_type", "no_type"),
        ({"Set": {}}, "/Set", "ill_typed"),
        ({"Record": []}, "/Record", "ill_typed"),
        ({"ip": {"Value": "x"}}, "/ip", "ill_typed"),
        ({"isIpv4": []}, "/isIpv4", "ill_typed"),
        ({"if-then-else": {"if": VAR, "then": VAR}}, "/if-then-else", "missing_member"),
    ],
)
def test_a_faulty_expression_is_refused_with_its_place(data: Any, pointer: str, code: str) -> None:
    with pytest.raises(PolicySyntaxError) as caught:
        expression_from_json(data)
    [fault] = caught.value.faults
    assert (fault.pointer, fault.code) == (pointer, code)


ALL: dict[str, Any] = {
    "effect": "permit",
    "principal": {"op": "All"},
    "action": {"op": "All"},
    "resource": {"op": "All"},
    "conditions": [],
}
ENTITY = {"type": "A", "id": "x"}


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"effect": "allow"}, "/effect"),
        ({"effect": ["permit"]}, "/effect"),
        ({"conditions": {}}, "/conditions"),
        ({"conditions": [{"kind": "if", "body": VAR}]}, "/conditions/0/kind"),
        ({"conditions": [{"kind": "when", "body": 1}]}, "/conditions/0/body"),
        ({"conditions": [{"kind": "when"}]}, "/conditions/0"),
        ({"annotations": []}, "/annotations"),
        ({"annotations": {"a b": "x"}}, "/annotations/a b"),
        ({"annotations": {"a": 1}}, "/annotations/a"),
        ({"annotations": {"a": "\ud800"}}, "/annotations/a"),
        ({"principal": {"op": "<"}}, "/principal/op"),
        ({"principal": 1}, "/principal/op"),
        ({"principal": {"op": "=="}}, "/principal"),
        ({"principal": {"op": "==", "entity": {"type": "A"}}}, "/principal/entity"),
        ({"principal": {"op": "in", "entities": [ENTITY]}}, "/principal"),
        ({"principal": {"op": "==", "slot": "?resource"}}, "/principal/slot"),
        ({"principal": {"op": "is", "entity_type": 1}}, "/principal/entity_type"),
        ({"principal": {"op": "All", "entity": ENTITY}}, "/principal/entity"),
        ({"action": {"op": "is", "entity_type": "Action"}}, "/action/op"),
        ({"action": {"op": "==", "slot": "?action"}}, "/action"),
        ({"action": {"op": "==", "entity": ENTITY}}, "/action"),
        ({"action": {"op": "==", "entities": [ENTITY]}}, "/action"),
        ({"more": 1}, "/more"),
    ],
)
def test_a_faulty_statement_is_refused_with_its_place(change: dict[str, Any], pointer: str) -> None:
    statement_from_json(ALL)
    with pytest.raises(PolicySyntaxError) as caught:
        statement_from_json(ALL | change)
    assert [fault.pointer for fault in caught.value.faults] == [pointer]


@pytest.mark.parametrize("data", [None, [], "x", 1, {}])
def test_what_is_no_statement_is_refused(data: Any) -> None:
    with pytest.raises(PolicySyntaxError):
        statement_from_json(data)


def test_nesting_in_json_is_bounded() -> None:
    def nested(depth: int) -> Any:
        data: Any = {"Value": True}
        for _ in range(depth):
            data = {"!": {"arg": data}}
        return data

    expression_from_json(nested(limits.JSON_NESTING_MAX))
    for depth in (limits.JSON_NESTING_MAX + 1, 50_000):
        with pytest.raises(PolicySyntaxError, match="nested more than"):
            expression_from_json(nested(depth))
    value: Any = 1
    for _ in range(50_000):
        value = [value]
    with pytest.raises(PolicySyntaxError, match="nested more than"):
        expression_from_json({"Value": value})


def test_an_entity_is_read_in_both_spellings() -> None:
    assert entity_from_json(ENTITY) == entity_from_json({"__entity": ENTITY}) == EntityUid("A", "x")
    entity: Any = ENTITY
    for _ in range(50_000):
        entity = {"__entity": entity}
    with pytest.raises(PolicySyntaxError):
        entity_from_json(entity)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.sampled_from(["principal", "A"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            [
                "Value", "Var", "==", "&&", "left", "right", "arg", "!", ".", "attr", "like", "pattern", "is", "Set",
                "Record", "entity_type", "if-then-else", "ip", "isIpv4", "__entity", "__extn", "type", "id", "op",
                "effect", "has", "Slot",
            ]
        ),
        inner,
        max_size=3,
    ),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_any_json_is_read_or_refused(data: Any) -> None:
    for read in (statement_from_json, expression_from_json, entity_from_json):
        try:
            read(data)
        except PolicySyntaxError as error:
            assert error.faults[0].pointer


@given(JSON)
def test_an_expression_that_we_read_is_one_that_cedar_reads(data: Any) -> None:
    try:
        node: tree.Expr = expression_from_json(data)
    except PolicySyntaxError:
        return
    statement = ALL | {"conditions": [{"kind": "when", "body": expression_to_json(node)}]}
    whole = {"staticPolicies": {"p": statement}, "templates": {}, "templateLinks": []}
    assert cedarpy.policies_from_json_str(json.dumps(whole))
