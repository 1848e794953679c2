"""A folder of policies is read whole: ids, schema beside them, entities, and every fault with its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway._native.extensions import IPAddr
from gateway.policy import EntityUid, PolicySyntaxError, SchemaError
from gateway.policy.folder import PolicyFolder, read_folder
from gateway.policy.policy_files import RepositoryError
from gateway.policy.related_entities import RelatedEntities

ANY = "permit (principal, action, resource);\n"


def test_ids_of_one_file_are_plain(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text(ANY + '@id("named")\n' + ANY)
    assert list(read_folder(tmp_path).policies.policies) == ["policy0", "named"]
    assert list(read_folder(tmp_path / "a.cedar").policies.policies) == ["policy0", "named"]


def test_ids_of_several_files_carry_the_file_but_for_named_ones(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.cedar").write_text(ANY)
    (tmp_path / "b" / "c.cedar").write_text('@id("named")\n' + ANY + ANY)
    assert list(read_folder(tmp_path).policies.policies) == ["a/policy0", "named", "b/c/policy1"]


def test_two_policies_of_one_name_in_two_files_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.cedar").write_text('@id("same")\n' + ANY)
    with pytest.raises(PolicySyntaxError) as caught:
        read_folder(tmp_path)
    assert caught.value.faults[0].code == "duplicate_policy_id"


def test_faults_of_all_files_are_told_at_once(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.cedar").write_text("permit (principal, action resource);")
    with pytest.raises(PolicySyntaxError) as caught:
        read_folder(tmp_path)
    assert [Path(fault.file or "").name for fault in caught.value.faults] == ["a.cedar", "b.cedar"]


def test_the_schema_beside_the_policies_guides_the_entities(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text(ANY)
    (tmp_path / "s.cedarschema").write_text("entity User = { address: ipaddr };")
    (tmp_path / "e.json").write_text(
        '[{"uid": {"type": "User", "id": "a"}, "attrs": {"address": "10.0.0.1"}, "parents": []}]'
    )
    folder = read_folder(tmp_path, entities=tmp_path / "e.json")
    assert folder.schema is not None
    entity = folder.entities.get(EntityUid("User", "a"))
    assert entity is not None
    assert entity.attributes["address"] == IPAddr("10.0.0.1")


def test_a_file_that_is_no_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_bytes(b"\xff")
    with pytest.raises(RepositoryError) as caught:
        read_folder(tmp_path)
    assert (caught.value.faults[0].code, caught.value.faults[0].file) == ("no_utf8", str(tmp_path / "a.cedar"))


def test_a_schema_that_is_none_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text(ANY)
    (tmp_path / "s.cedarschema").write_text("entity User\n")
    with pytest.raises(SchemaError) as caught:
        read_folder(tmp_path)
    assert caught.value.faults[0].file == str(tmp_path / "s.cedarschema")


def test_a_schema_lies_beside_a_file_and_not_below_it(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text(ANY)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "s.cedarschema").write_text("entity User;")
    assert read_folder(tmp_path / "a.cedar").schema is None
    (tmp_path / "s.cedarschema").write_text("entity Beside;")
    beside = read_folder(tmp_path / "a.cedar").schema
    assert beside is not None
    assert set(beside.entities) == {"Beside"}


def test_a_schema_may_be_another_folder_or_one_in_json(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text(ANY)
    (tmp_path / "schema").mkdir()
    (tmp_path / "schema" / "s.cedarschema.json").write_text('{"": {"entityTypes": {"User": {}}, "actions": {}}}')
    for place in (tmp_path / "schema", None):
        found = read_folder(tmp_path, schema=place).schema
        assert found is not None
        assert set(found.entities) == {"User"}


def test_what_begins_with_a_dot_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text(ANY)
    (tmp_path / ".git").mkdir()
    for hidden in (".b.cedar", ".s.cedarschema", ".git/c.cedar"):
        (tmp_path / hidden).write_text("not a policy")
    assert list(read_folder(tmp_path).files) == [tmp_path / "a.cedar"]


RELATED = """
entity User;
entity Doc { title?: String, @relation viewers: Set<User> };
action view appliesTo { principal: User, resource: Doc };
"""


def related(folder: Path, *, schema: str = RELATED, condition: str = "principal in resource.viewers") -> PolicyFolder:
    (folder / "a.cedar").write_text(f"permit (principal, action, resource) when {{ {condition} }};")
    (folder / "s.cedarschema").write_text(schema)
    attributes = '{"title": "x"}'
    (folder / "e.json").write_text(f'[{{"uid": {{"type": "Doc", "id": "1"}}, "attrs": {attributes}, "parents": []}}]')
    return read_folder(folder, entities=folder / "e.json")


def test_relations_are_there_for_policies_and_not_to_be_written_into_entities(tmp_path: Path) -> None:
    folder = related(tmp_path)
    assert isinstance(folder.entities, RelatedEntities)
    assert folder.schema is not None
    assert folder.policies.validate(folder.schema).ok
    doc = folder.entities.get(EntityUid("Doc", "1"))
    assert doc is not None
    assert doc.attributes == {"title": "x", "viewers": EntityUid("Relation::Doc::viewers", "1")}
    as_set = related(tmp_path, condition="resource.viewers.contains(principal)")
    assert as_set.schema is not None
    assert not as_set.policies.validate(as_set.schema).ok


def test_a_fault_of_a_relation_names_the_schema(tmp_path: Path) -> None:
    with pytest.raises(SchemaError) as caught:
        related(tmp_path, schema=RELATED.replace("Set<User>", "String"))
    assert (caught.value.faults[0].code, Path(caught.value.faults[0].file or "").name) == (
        "relation_type",
        "s.cedarschema",
    )


def test_entities_of_a_folder_without_a_file_can_have_relations_too(tmp_path: Path) -> None:
    related(tmp_path)
    entities = read_folder(tmp_path).entities
    assert isinstance(entities, RelatedEntities)
    assert len(entities.graph.rules) == 1
