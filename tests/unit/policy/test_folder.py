"""A folder of policies is read whole: ids, schema beside them, entities, and every fault with its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway._native.extensions import IPAddr
from gateway.policy import EntityUid, PolicySyntaxError, SchemaError
from gateway.policy.folder import read_folder

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
    with pytest.raises(PolicySyntaxError) as caught:
        read_folder(tmp_path)
    assert (caught.value.faults[0].code, caught.value.faults[0].file) == ("unreadable", str(tmp_path / "a.cedar"))


def test_a_schema_that_is_none_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text(ANY)
    (tmp_path / "s.cedarschema").write_text("entity User\n")
    with pytest.raises(SchemaError) as caught:
        read_folder(tmp_path)
    assert caught.value.faults[0].file == str(tmp_path / "s.cedarschema")
