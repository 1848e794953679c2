"""A folder becomes an engine: whole, with places in its faults, and only by what changed."""

from __future__ import annotations

import importlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from gateway._native.uid import EntityUid
from gateway.policy.faults import EntityError, PolicyFault, PolicySyntaxError, SchemaError
from gateway.policy.policy_set import PolicySet
from gateway.policy.repository import PolicyInvalid, PolicyRepository, RepositoryError, Sources
from tests.files import rewrite

A, READ, ONE = EntityUid("User", "a"), EntityUid("Action", "read"), EntityUid("Doc", "1")
READERS = '@id("readers")\npermit (principal in Group::"readers", action == Action::"read", resource);\n'
ANY = "permit (principal, action, resource);\n"
SCHEMA = (
    "entity Group; entity User in [Group]; entity Doc;\naction read appliesTo { principal: User, resource: Doc };\n"
)
MEMBERS = (
    '[{"uid": {"type": "User", "id": "a"}, "attrs": {}, "parents": [{"type": "Group", "id": "readers"}]},'
    ' {"uid": {"type": "Group", "id": "readers"}, "attrs": {}, "parents": []}]'
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rewrite(tmp_path / "a.cedar", READERS)
    rewrite(tmp_path / "x.cedarschema", SCHEMA)
    rewrite(tmp_path / "entities.json", MEMBERS)
    return tmp_path


def repository(folder: Path) -> PolicyRepository:
    return PolicyRepository(Sources(folder, entities=folder / "entities.json"))


def test_policies_schema_and_entities_decide_together(folder: Path) -> None:
    engine = repository(folder).load().engine
    assert engine.authorize(A, READ, ONE).reasons == {"readers"}
    assert not engine.allows(EntityUid("User", "b"), READ, ONE)
    assert engine.schema is not None


def test_one_file_alone_may_be_the_policies(tmp_path: Path) -> None:
    rewrite(tmp_path / "p.cedar", ANY)
    engine = PolicyRepository(Sources(tmp_path / "p.cedar")).load().engine
    assert engine.authorize(A, READ, ONE).reasons == {"policy0"}


def test_ids_that_count_carry_their_file_where_there_are_several(folder: Path) -> None:
    (folder / "deep").mkdir()
    rewrite(folder / "deep" / "b.cedar", READERS.replace('@id("readers")\n', ""))
    (folder / ".hidden").mkdir()
    rewrite(folder / ".hidden" / "c.cedar", "not read")
    assert list(repository(folder).load().engine.policies.policies) == ["readers", "deep/b/policy0"]


def test_what_did_not_change_is_the_same_object(folder: Path) -> None:
    rewrite(folder / "b.cedar", READERS.replace("readers", "writers"))
    repo = repository(folder)
    first = repo.load()
    assert repo.load() is first
    rewrite(folder / "b.cedar", READERS.replace("readers", "writers"))  # another time, the same text
    assert repo.load() is first
    rewrite(folder / "b.cedar", READERS.replace('@id("readers")', '@id("other")'))
    second = repo.load()
    assert list(second.engine.policies.policies) == ["readers", "other"]
    assert second.engine.policies.policies["readers"] is first.engine.policies.policies["readers"]
    assert second.engine.program("readers") is first.engine.program("readers")
    assert second.engine.entities is first.engine.entities
    assert second.engine.schema is first.engine.schema
    assert second.digest != first.digest


def test_other_entities_are_another_store(folder: Path) -> None:
    repo = repository(folder)
    first = repo.load()
    rewrite(folder / "entities.json", "[]")
    second = repo.load()
    assert not second.engine.allows(A, READ, ONE)
    assert second.engine.program("readers") is first.engine.program("readers")
    assert first.engine.allows(A, READ, ONE)


def test_entities_are_read_again_for_another_schema(folder: Path) -> None:
    repo = repository(folder)
    first = repo.load()
    rewrite(folder / "x.cedarschema", SCHEMA + "entity Later;\n")
    second = repo.load()
    assert second.engine.allows(A, READ, ONE)
    assert second.engine.program("readers") is first.engine.program("readers")
    rewrite(folder / "x.cedarschema", SCHEMA.replace("entity User in [Group]", "entity User"))
    with pytest.raises(PolicyFault):
        repo.load()


@pytest.mark.parametrize(
    ("name", "text", "error", "line"),
    [
        ("a.cedar", "\n\npermit (principal, action resource);", PolicySyntaxError, 3),
        ("a.cedar", "\npermit (principal, action, resource)\nwhen { principal.nothing };", PolicyInvalid, 3),
        ("x.cedarschema", "\nentity User {", SchemaError, 2),
        ("x.cedarschema", SCHEMA + "entity Late in [Nowhere];", SchemaError, 3),
        ("entities.json", '[{"uid": 1}]', EntityError, None),
        ("entities.json", "[", EntityError, 1),
    ],
)
def test_a_fault_names_its_file_and_changes_nothing(
    folder: Path, name: str, text: str, error: type[PolicyFault], line: int | None
) -> None:
    repo = repository(folder)
    first = repo.load()
    good = (folder / name).read_text()
    rewrite(folder / name, text)
    with pytest.raises(error) as caught:
        repo.load()
    assert caught.value.faults[0].file == str(folder / name)
    assert caught.value.faults[0].line == line
    rewrite(folder / name, good)
    assert repo.load() is first


def test_every_broken_file_is_named_at_once(folder: Path) -> None:
    for name in ("a.cedar", "b.cedar"):
        rewrite(folder / name, "permit")
    with pytest.raises(PolicySyntaxError) as caught:
        repository(folder).load()
    assert [fault.file for fault in caught.value.faults] == [str(folder / "a.cedar"), str(folder / "b.cedar")]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    for sources in (
        Sources(tmp_path / "absent"),
        Sources(tmp_path),  # no policy in it
        Sources(tmp_path, schema=tmp_path / "absent"),
    ):
        with pytest.raises(RepositoryError):
            PolicyRepository(sources).load()
    (tmp_path / "a.cedar").write_bytes(b"// ok\n// \xff\n")
    with pytest.raises(RepositoryError, match=r"a\.cedar:2:1: is no UTF-8"):
        PolicyRepository(Sources(tmp_path)).load()
    rewrite(tmp_path / "a.cedar", ANY)
    with pytest.raises(RepositoryError, match="more than 10 bytes"):
        PolicyRepository(Sources(tmp_path, policy_bytes_max=10)).load()
    rewrite(tmp_path / "e.json", "[" + " " * 100 + "]")
    with pytest.raises(RepositoryError, match="more than 100 bytes"):
        PolicyRepository(Sources(tmp_path, entities=tmp_path / "e.json", entity_bytes_max=100)).load()


def test_two_schemas_in_json_and_text_are_refused(folder: Path) -> None:
    rewrite(folder / "y.cedarschema.json", "{}")
    with pytest.raises(SchemaError, match="stands beside another"):
        repository(folder).load()


def test_watching_gives_what_rests(folder: Path) -> None:
    repo = repository(folder)
    first = repo.load()
    assert [repo.look() for _ in range(3)] == [None, first, first]
    rewrite(folder / "a.cedar", READERS.replace("permit", "forbid"))
    assert repo.look() is None  # it may still be being written
    second = repo.look()
    assert second is not None
    assert not second.engine.allows(A, READ, ONE)
    assert second.stamp > first.stamp
    assert [repo.look() for _ in range(3)] == [second] * 3


def test_watching_tells_of_a_broken_folder_once_and_recovers(folder: Path) -> None:
    repo = repository(folder)
    repo.load()
    repo.look()
    rewrite(folder / "a.cedar", "permit")
    assert repo.look() is None
    with pytest.raises(PolicySyntaxError):
        repo.look()
    assert [repo.look() for _ in range(3)] == [None] * 3
    rewrite(folder / "a.cedar", READERS + READERS.replace("readers", "others"))
    assert repo.look() is None
    mended = repo.look()
    assert mended is not None
    assert len(mended.engine.policies) == 2
    assert repo.look() is mended


def refuse_to_parse(*_: object, **__: object) -> PolicySet:
    raise AssertionError("policies were parsed")


def test_a_process_that_starts_takes_what_another_one_compiled(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("run") / "compiled"
    rewrite(folder / "b.cedar", READERS.replace("readers", "writers"))
    sources = Sources(folder, entities=folder / "entities.json")
    PolicyRepository(sources, cache=cache).load()
    assert cache.stat().st_mode & 0o077 == 0
    repo = PolicyRepository(sources, cache=cache, is_start=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PolicySet, "parse", refuse_to_parse)
        first = repo.load()
        assert first.engine.allows(A, READ, ONE)
    repo.read_texts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PolicySet, "parse", refuse_to_parse)
        assert list(first.engine.policies.policies) == ["readers", "writers"]
    rewrite(folder / "b.cedar", READERS.replace("readers", "others"))
    second = repo.load()
    assert second.engine.program("readers") is first.engine.program("readers")
    assert list(second.engine.policies.policies) == ["readers", "others"]
    assert repo.cache_fault is None


def test_a_compiled_set_is_taken_only_for_the_very_same_files(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("run") / "compiled"

    def files() -> int:
        PolicyRepository(Sources(folder), cache=cache).load()
        return len(list(cache.iterdir()))

    assert (files(), files()) == (1, 1)
    rewrite(folder / "x.cedarschema", SCHEMA + "entity Later;\n")
    assert files() == 2
    rewrite(folder / "b.cedar", ANY)
    assert files() == 3  # one more file, and ids that count carry their file now
    (folder / "b.cedar").rename(folder / "c.cedar")
    assert files() == 4
    PolicyRepository(Sources(folder, validation="permissive"), cache=cache).load()
    assert len(list(cache.iterdir())) == 5


def test_policies_of_the_cache_are_not_validated_again_but_a_changed_one_is(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    cache = tmp_path_factory.mktemp("run") / "compiled"
    PolicyRepository(Sources(folder), cache=cache).load()
    repo = PolicyRepository(Sources(folder), cache=cache)
    first = repo.load()
    rewrite(folder / "b.cedar", "permit (principal, action, resource) when { principal.nothing };")
    with pytest.raises(PolicyInvalid) as caught:
        repo.load()
    assert [fault.policy_id for fault in caught.value.faults] == ["b/policy0"]
    (folder / "b.cedar").unlink()
    assert repo.load() is first


def test_a_cache_that_cannot_be_written_is_told_and_costs_nothing_else(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    blocked = tmp_path_factory.mktemp("run") / "file"
    blocked.write_text("no folder")
    repo = PolicyRepository(Sources(folder), cache=blocked / "compiled")
    assert repo.load().engine.schema is not None
    assert isinstance(repo.cache_fault, OSError)


def test_one_change_among_many_reads_validates_and_compiles_that_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = Counter[str]()

    def counted(target: str, name: str) -> None:
        module, _, attribute = target.rpartition(".")
        real = getattr(importlib.import_module(module), attribute)

        def call(*args: Any, **more: Any) -> Any:
            counts[name] += 1
            return real(*args, **more)

        monkeypatch.setattr(target, call)

    counted("gateway.policy.language.statements._read", "read")
    counted("gateway.policy.engine.compile_statement", "compiled")
    counted("gateway.policy.validator.validator.check_lookalikes", "validated")
    rewrite(tmp_path / "x.cedarschema", SCHEMA)
    texts = [READERS.replace("readers", f"{tmp_path.name}{n}") for n in range(50)]
    rewrite(tmp_path / "a.cedar", "".join(texts[:25]))
    rewrite(tmp_path / "b.cedar", "".join(texts[25:]))
    repo = PolicyRepository(Sources(tmp_path))
    repo.load()
    assert counts == {"read": 50, "compiled": 50, "validated": 50}
    counts.clear()
    rewrite(tmp_path / "b.cedar", "".join(texts[25:]).replace("permit", "forbid", 1))
    repo.load()
    assert counts == {"read": 1, "compiled": 1, "validated": 1}


def test_only_a_start_leaves_texts_for_later(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    cache = tmp_path_factory.mktemp("run") / "compiled"
    sources = Sources(folder, entities=folder / "entities.json")
    PolicyRepository(sources, cache=cache).load()
    loaded = PolicyRepository(sources, cache=cache).load()
    starting = PolicyRepository(sources, cache=cache, is_start=True)
    starting.load()
    rewrite(folder / "x.cedarschema", SCHEMA + "entity Later;\n")
    PolicyRepository(sources, cache=cache).load()  # another worker was quicker
    again = starting.load()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PolicySet, "parse", refuse_to_parse)
        assert list(loaded.engine.policies.policies) == ["readers"]
        assert list(again.engine.policies.policies) == ["readers"]
