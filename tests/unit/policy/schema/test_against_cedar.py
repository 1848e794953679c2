"""Schemas, entities and requests are accepted where Cedar accepts them, and nowhere else.

`texts.txt` has one schema a line: each is a construct, or a slip. What is refused here and not by Cedar is listed
below, with its reason.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import cedarpy
import pytest

from gateway._native.uid import EntityUid
from gateway.policy.entities import Entities
from gateway.policy.faults import EntityError, PolicyFault
from gateway.policy.requests import parse_context, validate_request
from gateway.policy.schema import Schema
from tests.policy import corpus
from tests.unit.policy.schema.documents import ENTITIES, ENTITY_SCHEMAS, JSON_SCHEMAS, entity, holding

TEXTS = (Path(__file__).parent / "texts.txt").read_text(encoding="utf-8").splitlines()


def cedar_reads(text: str) -> bool:
    try:
        cedarpy.Schema.from_str(text)
    except ValueError:
        return False
    return True


def we_read(text: str) -> bool:
    try:
        Schema.parse(text)
    except PolicyFault:
        return False
    return True


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_accepted_as_cedar_does(text: str) -> None:
    assert we_read(text) == cedar_reads(text)


def test_the_table_of_texts_has_both_kinds() -> None:
    accepted = sum(map(we_read, TEXTS))
    assert accepted > 80 and len(TEXTS) - accepted > 80


@pytest.mark.parametrize("text", ["entity A { a: Long, a: Bool };", 'entity A {"\\u{41}": Long, A: Long};'])
def test_an_attribute_declared_twice_is_refused_where_cedar_keeps_the_last(text: str) -> None:
    assert cedar_reads(text)
    assert not we_read(text)


@pytest.mark.parametrize("document", JSON_SCHEMAS, ids=json.dumps)
def test_a_json_schema_is_accepted_as_cedar_does(document: Any) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    try:
        cedarpy.Schema.from_json_str(text)
        wanted = True
    except ValueError:
        wanted = False
    try:
        Schema.from_json(text)
        ours = True
    except PolicyFault:
        ours = False
    assert ours == wanted


@pytest.mark.parametrize(("schema", "document"), ENTITIES, ids=lambda each: json.dumps(each)[:60])
def test_entities_are_accepted_as_cedar_does(schema: str | None, document: Any) -> None:
    text = document if isinstance(document, str) else json.dumps(document)
    declared = None if schema is None else ENTITY_SCHEMAS.get(schema, schema)
    try:
        cedarpy.Entities.from_json_str(text, declared)
        wanted = True
    except ValueError:
        wanted = False
    try:
        Entities.from_json(text, schema=None if declared is None else Schema.parse(declared))
        ours = True
    except PolicyFault:
        ours = False
    assert ours == wanted


REQUEST_SCHEMA = """
entity User, Ghost; entity Doc { owner: User }; entity Colour enum ["red", "green"];
action view appliesTo { principal: [User, Colour], resource: [Doc, Colour], context: {
  at: datetime, ip?: ipaddr, tags?: Set<String>, colour?: Colour, deep?: { n: Long, more?: { d: decimal } } } };
action edit in view appliesTo { principal: User, resource: Doc };
action group;
"""


def cedar_takes(schema: cedarpy.Schema, request: dict[str, Any]) -> bool:
    found = cedarpy.is_authorized(request, "permit (principal, action, resource);", "[]", schema)
    return found.decision is not cedarpy.Decision.NoDecision


def test_requests_are_accepted_as_cedar_does() -> None:
    """Every part is drawn from right and wrong ones."""
    draw = random.Random(20260401)
    ours_schema, cedar_schema = Schema.parse(REQUEST_SCHEMA), cedarpy.Schema.from_str(REQUEST_SCHEMA)
    people = [("User", "a")] * 4 + [("Ghost", "g"), ("Colour", "red"), ("Colour", "blue"), ("Doc", "d"), ("Nope", "n")]
    things = [("Doc", "d")] * 4 + [("Colour", "green"), ("Colour", "grey"), ("User", "u"), ("Action", "view")]
    actions = [("Action", "view")] * 5 + [("Action", "edit"), ("Action", "group"), ("Action", "nope"), ("User", "a")]
    contexts: list[dict[str, Any]] = [
        {"at": "2024-01-01"},
        {"at": "2024-01-01", "ip": "10.0.0.1", "tags": ["a", "a"], "colour": {"type": "Colour", "id": "red"}},
        {"at": {"__extn": {"fn": "datetime", "arg": "2024-01-01"}}, "deep": {"n": 1, "more": {"d": "1.5"}}},
        {"at": "2024-01-01", "colour": {"type": "Colour", "id": "blue"}},
        {"at": "2024-01-01", "deep": {}},
        {"at": "2024-01-01", "deep": {"n": "1"}},
        {"at": "2024-01-01", "deep": {"n": True}},
        {"at": "2024-01-01", "other": 1},
        {"at": "2024-01-01", "tags": ["a", 1]},
        {"at": "yesterday"},
        {"at": 5},
        {},
    ]
    accepted = 0
    for _ in range(600):
        (p, a, r), context = (draw.choice(people), draw.choice(actions), draw.choice(things)), draw.choice(contexts)
        request = {
            name: {"type": kind, "id": each}
            for name, (kind, each) in zip(("principal", "action", "resource"), (p, a, r), strict=True)
        }
        wanted = cedar_takes(cedar_schema, {**request, "context": context})
        try:
            values = parse_context(context, ours_schema, EntityUid(*a))
            validate_request(ours_schema, EntityUid(*p), EntityUid(*a), EntityUid(*r), values)
            ours = True
        except PolicyFault:
            ours = False
        assert ours == wanted, (request, context)
        accepted += ours
    assert 30 < accepted < 400


@pytest.mark.parametrize("chunk", range(4))
def test_the_corpus_is_read_and_written_back(shared: Path, chunk: int) -> None:
    """Every tenth test: schema, entities, contexts; what is written is read the same, by Cedar as well."""
    checked = 0
    for number, test in enumerate(corpus.generated(shared / "vectors" / "cedar", chunk, 4)):
        if number % 10:
            continue
        schema = Schema.parse(test.schema)
        text, document = schema.to_text(), schema.to_json()
        assert Schema.parse(text) == Schema.from_json(document) == schema
        cedarpy.Schema.from_str(text)
        cedarpy.Schema.from_json_str(json.dumps(document))
        entities = Entities.from_json(test.entities, schema=schema)
        entities.validate(schema)
        again = Entities.from_json(json.dumps(entities.to_json()))
        assert by_uid(again) == by_uid(entities)
        for request in test.requests:
            principal, action, resource = (
                EntityUid(request[name]["type"], request[name]["id"]) for name in ("principal", "action", "resource")
            )
            context = parse_context(request["context"], schema, action)
            if request["validateRequest"]:
                validate_request(schema, principal, action, resource, context)
        checked += 1
    assert checked > 90


def by_uid(entities: Entities) -> dict[str, str]:
    return {json.dumps(each["uid"]): json.dumps(ordered(each), sort_keys=True) for each in entities.to_json()}


def ordered(value: Any) -> Any:
    """Give JSON with its arrays in one order: a store orders sets by what it holds."""
    if isinstance(value, dict):
        return {name: ordered(each) for name, each in value.items()}
    if isinstance(value, list):
        return sorted((ordered(each) for each in value), key=lambda each: json.dumps(each, sort_keys=True))
    return value


# What Cedar takes and is refused here: it would change, silently, what policies see.
SLIPS: list[Any] = [
    [{**entity(), "tag": {}}],
    [entity({"type": "A", "id": "x", "name": "y"})],
    holding({"__extn": {"fn": "ip", "arg": "1.1.1.1", "args": ["2.2.2.2"]}}),
    holding({"__entity": {"type": "B"}}),
    holding({"__entity": {"type": "B", "id": "y"}, "z": 1}),
    holding({"__extn": {"fn": "ip", "arg": "1.1.1.1"}, "z": 1}),
    holding({"__extn": {"fn": "isIpv4", "arg": {"__extn": {"fn": "ip", "arg": "1.1.1.1"}}}}),
]


@pytest.mark.parametrize("document", SLIPS, ids=json.dumps)
def test_a_slip_in_an_entity_is_refused_where_cedar_takes_it(document: Any) -> None:
    cedarpy.Entities.from_json_str(json.dumps(document))
    with pytest.raises(EntityError):
        Entities.from_json(document)
