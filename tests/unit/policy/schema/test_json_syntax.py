"""Every fault of a schema in JSON has its code, and a pointer to its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.policy.faults import SchemaError
from gateway.policy.schema import Schema
from gateway.policy.schema.limits import NESTING_MAX
from tests.unit.policy.schema.documents import LONG, applies, attribute, group, space

FAULTS: list[tuple[str, str | None, Any]] = [
    ("ill_typed", "/", []),
    ("ill_typed", "/N", {"N": None}),
    ("missing_member", "/N", {"N": {"actions": {}}}),
    ("unknown_member", "/N/foo~1bar", {"N": {"entityTypes": {}, "actions": {}, "foo/bar": 1}}),
    ("no_name", "/a b", space(name="a b")),
    ("no_name", "/if", space(name="if")),
    ("no_name", "//entityTypes/A::B", space({"A::B": {}})),
    ("no_name", "//entityTypes/A/annotations/a b", space({"A": {"annotations": {"a b": ""}}})),
    ("no_namespace", "//annotations", space(annotations={"a": ""})),
    ("reserved_name", "//entityTypes/__cedar", space({"__cedar": {}})),
    ("reserved_name", "//entityTypes/Action", space({"Action": {}})),
    ("reserved_name", "//commonTypes/Long", space(commonTypes={"Long": LONG})),
    ("reserved_name", "/__cedar", space(name="__cedar")),
    ("ill_formed_enum", "//entityTypes/A", space({"A": {"enum": []}})),
    (
        "open_record",
        "//entityTypes/A/shape/attributes/x/additionalAttributes",
        attribute({"type": "Record", "attributes": {}, "additionalAttributes": True}),
    ),
    ("unknown_type", "//entityTypes/A/shape/attributes/x", attribute({"type": "Extension", "name": "ip"})),
    ("unknown_type", "//entityTypes/A/shape/attributes/x", attribute({"type": "Entity", "name": "T"})),
    ("unknown_type", "//actions/a/appliesTo/principalTypes/0", applies(principalTypes=["Z"], resourceTypes=[])),
    ("no_record", "//actions/a/appliesTo/context", applies(principalTypes=[], resourceTypes=[], context=LONG)),
    ("unknown_action", "//actions/a/memberOf/0", group([{"id": "c"}])),
    ("ill_typed", "//actions/a/memberOf", group({})),
    ("ill_typed", "//actions/a/memberOf/0/type", group([{"id": "b", "type": 1}])),
    ("action_cycle", "//actions/a", group([{"id": "a"}])),
    ("action_attributes", "//actions/a/attributes", space({}, {"a": {"attributes": {}}})),
    ("type_cycle", "//commonTypes/T", space(commonTypes={"T": {"type": "T"}})),
    ("shadowed_name", "/N/entityTypes/A", {**space({"A": {}}), **space({"A": {}}, name="N")}),
]


@pytest.mark.parametrize(("code", "pointer", "document"), FAULTS)
def test_a_fault_is_told_with_its_code_and_pointer(code: str, pointer: str, document: Any) -> None:
    with pytest.raises(SchemaError) as caught:
        Schema.from_json(json.dumps(document))
    assert (caught.value.faults[0].code, caught.value.faults[0].pointer) == (code, pointer)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("no_json", "{"),
        ("no_json", "{} x"),
        ("duplicate_name", '{"":{"entityTypes":{"A":{},"A":{}},"actions":{}}}'),
        ("no_unicode", '{"\\ud800":{}}'),
        ("no_whole_number", "NaN"),
        ("too_deep", "[" * 100_000),
        (
            "too_deep",
            json.dumps(
                attribute(json.loads('{"type":"Set","element":' * NESTING_MAX + '{"type":"Long"}' + "}" * NESTING_MAX))
            ),
        ),
    ],
)
def test_what_is_no_json_is_refused(code: str, text: str) -> None:
    with pytest.raises(SchemaError) as caught:
        Schema.from_json(text)
    assert caught.value.faults[0].code == code
