"""Several texts make one schema, and a schema is written in both syntaxes."""

from __future__ import annotations

import pytest

from gateway.policy.faults import SchemaError
from gateway.policy.schema import Schema

TEXT = """
@first("1") namespace App {
  @who entity User in Group { @note("n") name: String, friends?: Set<User>, age: Long } tags String;
  entity Group; entity Colour enum ["red"];
  @what("see") action view in all appliesTo { principal: User, resource: [Group, Colour], context: { ip: ipaddr } };
  action all;
}
namespace Empty {}
entity Top { act?: App::Action };
"""


def test_a_schema_is_written_and_read_the_same() -> None:
    schema = Schema.parse(TEXT)
    text = schema.to_text()
    assert Schema.parse(text) == Schema.from_json(schema.to_json()) == schema
    for annotation in ('@first("1")', '@who("")', '@note("n")', '@what("see")'):
        assert annotation in text
    document = schema.to_json()
    assert document["App"]["annotations"] == {"first": "1"}
    assert document["App"]["entityTypes"]["User"]["annotations"] == {"who": ""}
    assert document["Empty"] == {"entityTypes": {}, "actions": {}}


def test_an_action_that_applies_to_nothing_is_written_as_a_group() -> None:
    applies = {"principalTypes": ["A"], "resourceTypes": []}
    schema = Schema.from_json({"": {"entityTypes": {"A": {}}, "actions": {"a": {"appliesTo": applies}}}})
    assert "appliesTo" not in schema.to_text()
    assert Schema.from_json(schema.to_json()) == schema


def test_several_texts_are_one_schema() -> None:
    schema = Schema.parse_files(
        [("namespace N { entity A in B; }", "a"), ("namespace N { entity B; } entity C {n: N::A};", "b")]
    )
    assert set(schema.entities) == {"N::A", "N::B", "C"}


def test_what_two_texts_declare_is_told_in_the_second() -> None:
    files = [("entity A; action a; type T = Long;", "one"), ("type T = Long;\nentity A; action a;", "two")]
    with pytest.raises(SchemaError) as caught:
        Schema.parse_files(files)
    found = {(fault.code, fault.file, fault.line, fault.column) for fault in caught.value.faults}
    assert found == {
        ("duplicate_entity", "two", 2, 8),
        ("duplicate_action", "two", 2, 18),
        ("duplicate_type", "two", 1, 6),
    }


def test_a_fault_of_names_is_told_in_its_own_text() -> None:
    with pytest.raises(SchemaError) as caught:
        Schema.parse_files([("entity A;", "one"), ("entity B {\n  a: Nope };", "two")])
    (fault,) = caught.value.faults
    assert (fault.file, fault.line, fault.column, fault.excerpt) == ("two", 2, 6, "  a: Nope };")
