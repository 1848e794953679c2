"""The command itself: verbs by name, loaded when called."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway import __version__, cli

ROOT = Path(__file__).resolve().parents[3]


def portcullis(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "gateway", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_help_names_every_verb_and_says_what_it_does(run: Callable[..., Result]) -> None:
    text = run("--help").output
    for verb, (_, does) in cli.VERBS.items():
        assert f"{verb} " in text
        assert does in text


def test_help_imports_no_verb() -> None:
    code = (
        "import sys\nfrom gateway.cli import portcullis\n"
        "try: portcullis(['--help'])\nexcept SystemExit: pass\n"
        "heavy = ('gateway.', 'jwt', 'cryptography', 'msgspec', 'rich')\n"
        "print([name for name in sys.modules if name.startswith(heavy)])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['gateway.cli']"


def test_help_comes_soon() -> None:
    def once() -> float:
        begin = time.perf_counter()
        assert portcullis("--help").returncode == 0
        return time.perf_counter() - begin

    # Under 100 ms on a quiet machine; the best of several runs, and room for a busy one.
    assert min(once() for _ in range(5)) < 0.4


def test_the_version_is_the_packages(run: Callable[..., Result]) -> None:
    assert run("--version").output == f"portcullis {__version__}\n"


def test_an_unknown_verb_is_wrong_usage_with_a_guess(run: Callable[..., Result]) -> None:
    assert "no verb `chek`; did you mean `check`?" in run("chek", status=2).stderr


def test_a_verb_that_is_not_installed_says_so_and_breaks_no_other(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(cli.VERBS, "bench", ("gateway.cli.absent", "Measure it."))
    assert "`bench` is not part of this installation" in run("bench", status=2).stderr
    run("keys", "--help")
    run("--help")


def test_a_verb_that_is_broken_is_not_taken_for_a_missing_one(
    run: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "broken_verb.py").write_text("import absent_library")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(cli.VERBS, "bench", ("broken_verb", "Measure it."))
    with pytest.raises(ModuleNotFoundError, match="absent_library"):
        run("bench")


@pytest.mark.parametrize(
    "verb",
    ["init", "check", "keys new", "keys list", "keys rotate", "token mint", "token inspect", "token verify", "render"],
)
def test_every_verb_has_help_and_json(verb: str, run: Callable[..., Result]) -> None:
    text = run(*verb.split(), "--help").output
    assert "--json" in text


@pytest.mark.parametrize(
    "arguments", [(), ("check", "--absent"), ("render",), ("render", "apache"), ("keys", "rotate", "--overlap", "soon")]
)
def test_wrong_usage_ends_with_2(arguments: tuple[str, ...], run: Callable[..., Result]) -> None:
    run(*arguments, status=2)


def test_no_color_is_obeyed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b" in CliRunner().invoke(cli.portcullis, ["check"], color=True).output
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in CliRunner().invoke(cli.portcullis, ["check"], color=True).output


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    done = subprocess.run(
        f"{sys.executable} -m gateway check --schema | head -c 1",
        shell=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    assert done.stdout == "{"
