from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway._native.uid import EntityUid
from gateway.policy.entities import Entities
from gateway.policy.faults import PolicySyntaxError
from gateway.policy.policy_compiler import SUFFIX, PolicyCompiler
from gateway.policy.policy_set import PolicySet

TEXT = 'permit(principal == User::"a", action, resource) when { context.ok };'
ASKED = EntityUid("User", "a"), EntityUid("Action", "view"), EntityUid("Doc", "d"), {"ok": True}


def allows(compiler: PolicyCompiler, text: str = TEXT) -> bool:
    return compiler.engine([text.encode()], lambda: PolicySet.parse(text), Entities()).allows(*ASKED)


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
