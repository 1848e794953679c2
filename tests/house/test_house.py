"""The house rules, checked by the tools that know them: lint, format, types, stubs, imports, and what loads when."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


def run(*command: str) -> str:
    """Run a tool of this environment in the checkout; fail with its output."""
    finished = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)
    output = finished.stdout + finished.stderr
    assert finished.returncode == 0, f"{' '.join(command)}\n{output[-8000:]}"
    return output


def test_lint_is_clean() -> None:
    run("ruff", "check", "--no-cache", ".")


def test_format_is_clean() -> None:
    run("ruff", "format", "--no-cache", "--check", ".")


def test_types_hold() -> None:
    run("mypy")


def compiled_modules() -> list[str]:
    return [path.stem for path in sorted((ROOT / "_native").glob("*.pyx"))]


def test_stubs_fit_the_compiled_modules() -> None:
    run("mypy.stubtest", *(f"gateway._native.{name}" for name in compiled_modules()))


def test_imports_go_down_only() -> None:
    finished = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command; lint_imports_command()",
            "--no-cache",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize("name", compiled_modules())
def test_each_compiled_module_has_its_table_of_contents_and_its_typed_face(name: str) -> None:
    assert (ROOT / "_native" / f"{name}.pxd").is_file()
    assert (ROOT / "gateway" / "_native" / f"{name}.pyi").is_file()


def loaded_after(statement: str) -> set[str]:
    code = f"{statement}; import sys, json; print(json.dumps(sorted(sys.modules)))"
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(json.loads(finished.stdout))


def test_the_compiled_core_loads_alone() -> None:
    loaded = {name for name in loaded_after("import gateway._native.token") if name.startswith("gateway")}
    assert loaded <= {"gateway", "gateway._native"} | {f"gateway._native.{name}" for name in compiled_modules()}


def test_a_sidecar_does_not_load_what_it_does_not_use() -> None:
    loaded = loaded_after("import gateway.app")
    heavy = {
        "redis",
        "sqlalchemy",
        "webauthn",
        "jinja2",
        "opentelemetry",
        "confluent_kafka",
        "rich",
        "httpx2",
        "websockets",
    }
    assert not heavy & loaded


def test_the_documentation_names_only_files_that_exist() -> None:
    missing = []
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "_native" / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            if not (page.parent / target).exists():
                missing.append(f"{page.relative_to(ROOT)}: {target}")
    assert missing == []


def test_each_promise_of_security_names_tests_that_exist() -> None:
    page = (ROOT / "SECURITY.md").read_text()
    promises = re.findall(r"^(\d+)\. \*\*", page, re.MULTILINE)
    rows = dict(re.findall(r"^\| (\d+) \| (.+) \|$", page, re.MULTILINE))
    assert list(rows) == promises
    for number, row in rows.items():
        named = re.findall(r"`(tests/\S+)::(test_\w+)`", row)
        assert named, f"promise {number} names no test"
        for file, name in named:
            assert re.search(rf"def {name}\(", (ROOT / file).read_text()), f"{file}::{name}"


def test_no_generated_or_binary_files_are_kept() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    for name in listed.stdout.decode().split("\0"):
        path = Path(name)
        assert path.suffix not in {".c", ".so", ".pyc", ".o", ".whl", ".gz", ".bin"}, name
