from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway._native.uid import EntityUid
from gateway.policy.compiler.bundle import bundle_key
from gateway.policy.engine import Engine
from gateway.policy.entities import Entities
from gateway.policy.faults import PolicySyntaxError
from gateway.policy.policy_compiler import SUFFIX, WRITING, PolicyCompiler
from gateway.policy.policy_set import PolicySet

TEXT = 'permit(principal == User::"a", action, resource) when { context.ok };'
ASKED = EntityUid("User", "a"), EntityUid("Action", "view"), EntityUid("Doc", "d"), {"ok": True}


def allows(compiler: PolicyCompiler, text: str = TEXT) -> bool:
    made = compiler.engine([text.encode()], lambda: PolicySet.parse(text), Entities())
    compiler.save()
    return made.allows(*ASKED)


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def test_a_set_is_compiled_once_for_all_processes(tmp_path: Path) -> None:
    first, second = PolicyCompiler(tmp_path / "cache"), PolicyCompiler(tmp_path / "cache")
    assert allows(first)
    assert allows(second)
    assert (first.compiled, first.reused, second.compiled, second.reused) == (1, 0, 0, 1)
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_other_sources_and_another_schema_are_another_set(tmp_path: Path) -> None:
    compiler = PolicyCompiler(tmp_path)
    assert allows(compiler)
    assert not allows(compiler, TEXT.replace('"a"', '"b"'))
    compiler.engine([TEXT.encode()], lambda: PolicySet.parse(TEXT), Entities(), schema_source=b"entity User;")
    compiler.save()
    assert compiler.compiled == 3
    assert len(files(tmp_path)) == 3


@pytest.mark.parametrize("damage", [b"", b"PCPB", b"x" * 1000])
def test_a_damaged_file_is_compiled_anew_and_written_again(tmp_path: Path, damage: bytes) -> None:
    compiler = PolicyCompiler(tmp_path)
    allows(compiler)
    (path,) = files(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage)
    assert allows(compiler)
    assert compiler.compiled == 2
    assert compiler.cache_fault is not None
    assert path.read_bytes() == whole


def test_the_set_that_was_not_used_for_longest_leaves(tmp_path: Path) -> None:
    compiler = PolicyCompiler(tmp_path, files_max=2)
    for number in range(2):
        allows(compiler, f"{TEXT} // {number}")
        for age, path in enumerate(files(tmp_path)):
            os.utime(path, ns=(1000 + age, 1000 + age))
    allows(compiler, f"{TEXT} // 2")
    assert len(files(tmp_path)) == 2
    allows(compiler, f"{TEXT} // 2")
    assert compiler.reused == 1


def test_what_a_killed_process_had_begun_to_write_leaves(tmp_path: Path) -> None:
    for name, age_s in (("old", 2 * 3600), ("new", 60)):
        path = tmp_path / f"{WRITING}{name}"
        path.write_bytes(b"half")
        now_s = path.stat().st_mtime
        os.utime(path, (now_s - age_s, now_s - age_s))
    allows(PolicyCompiler(tmp_path))
    assert [path.name for path in tmp_path.iterdir() if path.suffix != SUFFIX] == [f"{WRITING}new"]


def test_a_folder_that_cannot_be_written_costs_no_engine(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    compiler = PolicyCompiler(blocked / "cache")
    assert allows(compiler)
    assert isinstance(compiler.cache_fault, OSError)


def test_without_a_folder_nothing_is_kept() -> None:
    compiler = PolicyCompiler()
    assert allows(compiler)
    assert allows(compiler)
    assert (compiler.compiled, compiler.reused) == (2, 0)


def test_policies_that_cannot_be_read_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(PolicySyntaxError):
        allows(PolicyCompiler(tmp_path), "permit(")
    assert files(tmp_path) == []


def test_a_set_that_fails_its_check_is_neither_compiled_nor_kept(tmp_path: Path) -> None:
    compiler = PolicyCompiler(tmp_path)

    def refuse(_: PolicySet) -> None:
        raise PolicySyntaxError([])

    with pytest.raises(PolicySyntaxError):
        compiler.engine([b"1"], lambda: PolicySet.parse(TEXT), Entities(), check=refuse)
    compiler.save()
    assert (compiler.compiled, files(tmp_path)) == (0, [])


def test_policies_of_the_cache_are_read_when_asked_for_and_told_to_have_passed(tmp_path: Path) -> None:
    allows(PolicyCompiler(tmp_path))
    read: list[PolicySet] = []
    passed: list[PolicySet] = []

    def policies() -> PolicySet:
        read.append(PolicySet.parse(TEXT))
        return read[-1]

    def check(_: PolicySet) -> None:
        raise AssertionError("what is in the cache was checked")

    made = PolicyCompiler(tmp_path).engine([TEXT.encode()], policies, Entities(), check=check, passed=passed.append)
    assert made.allows(*ASKED)
    assert read == passed == []
    assert made.policies is made.policies is read[0] is passed[0]
    assert len(read) == 1


def test_a_change_compiles_only_what_changed_of_a_set_from_the_cache(tmp_path: Path) -> None:
    allows(PolicyCompiler(tmp_path), TEXT + TEXT.replace('"a"', '"b"'))
    compiler = PolicyCompiler(tmp_path)
    both = TEXT + TEXT.replace('"a"', '"b"')
    entities = Entities()
    first = compiler.engine([both.encode()], lambda: PolicySet.parse(both), entities)
    assert compiler.reused == 1
    other = TEXT + TEXT.replace('"a"', '"c"')
    second = compiler.engine([other.encode()], lambda: PolicySet.parse(other), entities, like=first)
    assert second.program("policy0") is first.program("policy0")
    assert second.program("policy1") is not first.program("policy1")
    assert not second.allows(EntityUid("User", "b"), *ASKED[1:])


def test_a_file_of_other_policies_is_compiled_anew_where_texts_are_read_now(tmp_path: Path) -> None:
    """Whoever can write the file can make it a bundle; the texts say what it should have been."""
    other = TEXT + TEXT
    forged = Engine(PolicySet.parse(other), Entities()).to_bytes(bundle_key([TEXT.encode()]))
    (tmp_path / f"{bundle_key([TEXT.encode()]).hex()}{SUFFIX}").write_bytes(forged)
    compiler = PolicyCompiler(tmp_path)
    made = compiler.engine([TEXT.encode()], lambda: PolicySet.parse(TEXT), Entities(), reads_now=True)
    assert list(made.policies.policies) == ["policy0"]
    assert (compiler.compiled, compiler.reused) == (1, 0)
    assert compiler.cache_fault is not None
