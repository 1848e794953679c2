"""JSON that Cedar reads, or does not: schemas, and entities with the schema that they are read by."""

from __future__ import annotations

from typing import Any

LONG = {"type": "Long"}


def space(
    entities: dict[str, Any] | None = None, actions: dict[str, Any] | None = None, *, name: str = "", **more: Any
) -> dict[str, Any]:
    return {name: {"entityTypes": entities or {}, "actions": actions or {}, **more}}


def attribute(kind: Any) -> dict[str, Any]:
    shape = {"type": "Record", "attributes": {"x": kind}}
    return space({"A": {"shape": shape}, "B": {}}, commonTypes={"T": LONG})


def applies(**members: Any) -> dict[str, Any]:
    common = {"T": {"type": "Record", "attributes": {}}}
    return space({"A": {}, "B": {}}, {"a": {"appliesTo": members}}, commonTypes=common)


def group(reference: Any) -> dict[str, Any]:
    return space({}, {"a": {"memberOf": reference}, "b": {}})


TYPES: list[Any] = [
    LONG,
    {"type": "String"},
    {"type": "Boolean"},
    {"type": "Bool"},
    {"type": "Set", "element": LONG},
    {"type": "Set"},
    {"type": "Record", "attributes": {}},
    {"type": "Record"},
    {"type": "Record", "attributes": {}, "additionalAttributes": False},
    {"type": "Record", "attributes": {}, "additionalAttributes": True},
    {"type": "Entity", "name": "B"},
    {"type": "Entity", "name": "ZZ"},
    {"type": "Entity"},
    {"type": "Entity", "name": "Long"},
    {"type": "Entity", "name": "a b"},
    {"type": "Entity", "name": "T"},
    {"type": "Extension", "name": "ipaddr"},
    {"type": "Extension", "name": "ip"},
    {"type": "Extension", "name": "foo"},
    {"type": "EntityOrCommon", "name": "B"},
    {"type": "EntityOrCommon", "name": "Long"},
    {"type": "EntityOrCommon", "name": "__cedar::Long"},
    {"type": "EntityOrCommon", "name": "T"},
    {"type": "T"},
    {"type": "B"},
    {"type": "ipaddr"},
    {"type": "__cedar::Long"},
    {"type": "__cedar::ipaddr"},
    {"type": "Long", "name": "x"},
    {"type": "Long", "required": False},
    {"type": "Long", "required": "x"},
    {"type": "Long", "foo": 1},
    {"type": 1},
    {},
    "Long",
    None,
    {"type": "Long", "annotations": {"a": "b"}},
    {"type": "T", "element": LONG},
    {"type": "Set", "element": {"type": "Long", "required": True}},
    {"type": "Record", "attributes": {"q": {"type": "Long", "required": False, "annotations": {"z": "1"}}}},
    {"type": "a b"},
    {"type": "if"},
]

JSON_SCHEMAS: list[Any] = [
    {},
    space(),
    space(foo=1),
    {"": {"entityTypes": {}}},
    {"": {"actions": {}}},
    {"": None},
    [],
    "NaN",
    '"x"',
    "{",
    "",
    space(annotations={"a": "b"}),
    space(name="N", annotations={"a": "b"}),
    space({"A": {"annotations": {"a": None}}}),
    space({"A": {"annotations": {"a b": "x"}}}),
    space({"A": {"annotations": {"a": 1}}}),
    space(name="a b"),
    space(name="if"),
    space(name="__cedar"),
    space(name="N::__cedar"),
    space(name="N::M"),
    space({"a b": {}}),
    space({"if": {}}),
    space({"A::B": {}}),
    space({"__cedar": {}}),
    space({"Action": {}}),
    space({"A": {"foo": 1}}),
    space({"A": {"memberOfTypes": ["B"]}, "B": {}}),
    space({"A": {"memberOfTypes": ["B"]}}),
    space({"A": {"memberOfTypes": ["T"]}}, commonTypes={"T": LONG}),
    space({"A": {"memberOfTypes": None}}),
    space({"A": {"enum": ["a"]}}),
    space({"A": {"enum": []}}),
    space({"A": {"enum": ["a"], "memberOfTypes": []}}),
    space({"A": {"enum": [1]}}),
    space({"A": {"enum": ["a"], "annotations": {"q": "z"}}}),
    *map(attribute, TYPES),
    space({"A": {"shape": {"type": "T"}}}, commonTypes={"T": {"type": "Record", "attributes": {}}}),
    space({"A": {"shape": LONG}}),
    space({"A": {"shape": {"type": "T"}}}, commonTypes={"T": LONG}),
    space({"A": {"tags": LONG}}),
    space({"A": {"tags": 1}}),
    space(commonTypes={"T": {**LONG, "annotations": {"a": "b"}}}),
    space(commonTypes={"Long": LONG}),
    space(commonTypes={"EntityOrCommon": LONG}),
    space(commonTypes={"__cedar": LONG}),
    space(commonTypes={"if": LONG}),
    space(commonTypes={"T": {"type": "T"}}),
    space(commonTypes={"T": {**LONG, "required": True}}),
    space({}, {"a": {}}),
    space({}, {"a": {"appliesTo": None}}),
    space({}, {"a b\n": {}}),
    space({}, {"a": {"foo": 1}}),
    space({}, {"a": {"attributes": {}}}),
    space({}, {"a": {"attributes": {"x": 1}}}),
    space({}, {"a": {"attributes": None}}),
    applies(principalTypes=[], resourceTypes=[]),
    applies(principalTypes=["A"], resourceTypes=[]),
    applies(principalTypes=["A"]),
    applies(principalTypes=["A"], resourceTypes=["B"]),
    applies(principalTypes=["A"], resourceTypes=["ZZ"]),
    applies(principalTypes=["T"], resourceTypes=["B"]),
    applies(principalTypes=["A"], resourceTypes=["B"], context={"type": "Record", "attributes": {"q": LONG}}),
    applies(principalTypes=["A"], resourceTypes=["B"], context=LONG),
    applies(principalTypes=["A"], resourceTypes=["B"], context={"type": "T"}),
    applies(principalTypes=["A"], resourceTypes=["B"], context=None),
    group([{"id": "b"}]),
    group([{"id": "b", "type": "Action"}]),
    group(None),
    group([{"id": "b", "type": None}]),
    group([{"id": "c"}]),
    group([{"id": "a"}]),
    group(["b"]),
    group([{"id": "b", "type": 1}]),
    group([{"id": "b", "z": 1}]),
    group([]),
    group([{"id": "b", "type": "a b"}]),
    group([{"id": 1}]),
    group({}),
    '{"":{"entityTypes":{"A":{},"A":{}},"actions":{}}}',
    '{"":{"entityTypes":{},"actions":{}},"":{"entityTypes":{},"actions":{}}}',
    '{"":{"entityTypes":{"A":{"shape":{"type":"Record","attributes":{"a":{"type":"Long"},'
    '"a":{"type":"Long"}}}}},"actions":{}}}',
]

ONE = {"type": "A", "id": "x"}
_SCHEMA = """
entity B; entity C enum ["c"]; entity G in H; entity H in K; entity K; entity A in [G, C] {{ v?: {} }} tags Long;
action a in b; action b in c; action c; action z appliesTo {{ principal: A, resource: A }};
"""
GUIDED: list[tuple[str, Any]] = [
    ("B", {"type": "B", "id": "y"}),
    ("B", {"__entity": {"type": "B", "id": "y"}}),
    ("B", {"__entity": {"type": "K", "id": "y"}}),
    ("B", 'B::"y"'),
    ("C", {"type": "C", "id": "c"}),
    ("C", {"type": "C", "id": "d"}),
    ("decimal", "0.6"),
    ("decimal", {"fn": "decimal", "arg": "0.6"}),
    ("decimal", {"__extn": {"fn": "decimal", "arg": "0.6"}}),
    ("decimal", "x"),
    ("decimal", 1),
    ("ipaddr", "1.1.1.1"),
    ("ipaddr", {"fn": "decimal", "arg": "0.6"}),
    ("datetime", "2024-01-01"),
    ("duration", "1h"),
    ("datetime", {"fn": "offset", "args": [{"fn": "datetime", "arg": "2024-01-01"}, {"fn": "duration", "arg": "1h"}]}),
    ("datetime", {"fn": "offset", "args": ["2024-01-01", "1h"]}),
    ("Long", "1"),
    ("Long", True),
    ("Bool", 1),
    ("String", 1),
    ("Set<Long>", [1, "a"]),
    ("Set<decimal>", ["0.5"]),
    ("Set<Long>", 1),
    ("Set<Long>", []),
    ("Set<{a: Long}>", [{"a": 1}]),
    ("{a: Long}", {}),
    ("{a?: Long}", {}),
    ("{a?: Long}", {"b": 1}),
    ("{a: decimal}", {"a": "0.5"}),
    ("{__entity: Long}", {"__entity": 1}),
    ("{type: String, id: String}", {"type": "B", "id": "y"}),
    ("String", None),
    ("Long", 1.5),
    ("Action", {"type": "Action", "id": "a"}),
    ("Action", {"type": "Action", "id": "nope"}),
    ("Set<B>", [{"type": "B", "id": "x"}]),
]
ENTITY_SCHEMAS = {kind: _SCHEMA.format(kind) for kind, _ in GUIDED}


def entity(uid: Any = ONE, attrs: Any = None, parents: Any = None, **more: Any) -> dict[str, Any]:
    return {"uid": uid, "attrs": {} if attrs is None else attrs, "parents": [] if parents is None else parents, **more}


def holding(value: Any) -> list[dict[str, Any]]:
    return [entity(attrs={"v": value})]


def action(name: str, *parents: str, attrs: Any = None) -> dict[str, Any]:
    return entity({"type": "Action", "id": name}, attrs, [{"type": "Action", "id": each} for each in parents])


def call(function: str, *arguments: Any) -> dict[str, Any]:
    return {"__extn": {"fn": function, "args": list(arguments)}}


_DAY, _HOUR = call("datetime", "2024-01-01"), call("duration", "1h")
_PLAIN: list[Any] = [
    [{"uid": ONE, "parents": []}],
    [{"uid": ONE, "attrs": {}}],
    [{"attrs": {}, "parents": []}],
    [1],
    {},
    1,
    "",
    "[",
    "[]x",
    [entity({"__entity": ONE}, parents=[{"__entity": {"type": "B", "id": "y"}}])],
    [entity('A::"x"')],
    [entity({"__expr": 'A::"x"'})],
    *([entity({"type": kind, "id": "x"})] for kind in ("A B", "", "if", "__cedar::A", "A :: B")),
    [entity({"type": "N::M::A", "id": ""})],
    [entity({"type": "A", "id": 1})],
    [entity({"type": "A"})],
    *map(
        holding,
        [
            None,
            1.5,
            2**63,
            2**63 - 1,
            -(2**63),
            -(2**63) - 1,
            {"type": "B", "id": "y"},
            {"__entity": {"type": "B", "id": "y"}},
            {"__extn": {"fn": "ip", "arg": "1.1.1.1"}},
            call("ip", "1.1.1.1"),
            call("ip", "x"),
            call("foo", "x"),
            call("offset", _DAY, _HOUR),
            call("offset", "2024-01-01", "1h"),
            call("offset", _DAY),
            call("offset", _HOUR, _DAY),
            call("offset", call("datetime", "9999-12-31"), call("duration", "106751991167d")),
            call("toDate", _DAY),
            call("toTime", _DAY),
            call("durationSince", _DAY, _DAY),
            call("ip", 1),
            call("ip", None),
            {"fn": "ip", "arg": "1.1.1.1"},
            {"__extn": None},
            {"__expr": "1+1"},
            [1, 1, [2], {"a": 1}],
            {},
            [],
            "",
            "\0",
            "é",
        ],
    ),
    '[{"uid":{"type":"A","id":"x"},"attrs":{"v":1e0},"parents":[]}]',
    '[{"uid":{"type":"A","id":"x"},"attrs":{"v":NaN},"parents":[]}]',
    '[{"uid":{"type":"A","id":"\\ud800"},"attrs":{},"parents":[]}]',
    '[{"uid":{"type":"A","id":"\\ud83d\\ude00"},"attrs":{},"parents":[]}]',
    '[{"uid":{"type":"A","id":"\\\\ud800"},"attrs":{},"parents":[]}]',
    '[{"uid":{"type":"A","id":"a\tb"},"attrs":{},"parents":[]}]',
    '[{"uid":{"type":"A","id":"x"},"attrs":{"a":1,"a":2},"parents":[]}]',
    '[{"uid":{"type":"A","id":"x"},"attrs":{},"attrs":{},"parents":[]}]',
    holding(1) + holding(1),
    holding(1) + holding(2),
    holding([1, 2]) + holding([2, 1, 1]),
    holding(1) + holding(True),
    [entity(parents=[ONE])],
    [entity(parents=[{"type": "A", "id": "y"}]), entity({"type": "A", "id": "y"}, parents=[ONE])],
    [entity(parents=[{"type": "B", "id": "b"}] * 2)],
    [{**entity(), "parents": None}],
    [entity(tags=None)],
    [entity(tags={"t": 1})],
    [action("a", "b")],
    [action("a", "b", attrs={"x": 1})],
    [entity({"type": "Action", "id": "a"}, parents=[{"type": "B", "id": "b"}])],
]
_DECLARED: list[Any] = [
    [entity({"type": "ZZ", "id": "x"})],
    [entity(attrs={"w": 1})],
    [entity({"type": "C", "id": "d"})],
    *([entity(parents=[{"type": kind, "id": name}])] for kind, name in ("Gg", "Kk", "Bb", "Cc", "Cd", "ZZ")),
    [entity({"type": "C", "id": "c"})],
    [entity({"type": "C", "id": "c"}, {"a": 1})],
    [entity(tags={"t": 1})],
    [entity(tags={"t": "x"})],
    [entity({"type": "B", "id": "x"}, tags={"t": 1})],
    [entity({"type": "B", "id": "x"}, tags={})],
    [],
    [action("a", "b")],
    [action("a", "b", "c")],
    [action("a", "c")],
    [action("a")],
    [action("a", "b", "c", attrs={"x": 1})],
    [action("nope")],
    [action("c")],
    [action("a", "b"), action("b", "c")],
    [action("a", "b", "c")] * 2,
    [action("a", "b"), action("a", "b", "c")],
]

ENTITIES: list[tuple[str | None, Any]] = [
    *((None, document) for document in _PLAIN),
    *((kind, holding(value)) for kind, value in GUIDED),
    *(("Long", document) for document in _DECLARED),
    ("entity A {a: Long, b?: {c: Long}};", [entity()]),
    ("entity A {a: Long, b?: {c: Long}};", [entity(attrs={"a": 1, "b": {}})]),
    ("entity A tags B; entity B;", [entity(tags={"t": {"type": "B", "id": "y"}})]),
    ("entity A in B; entity B in C; entity C;", [entity(parents=[{"type": "B", "id": "x"}, {"type": "C", "id": "x"}])]),
    ("entity A in B; entity B; entity D in A;", [entity(parents=[{"type": "A", "id": "y"}])]),
]
