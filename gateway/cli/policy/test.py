"""`portcullis policy test`: run tests of policies, and tell what they do not cover."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.output import as_json_option, fail, mark, say, table
from gateway.cli.policy.input import POLICIES, fail_policy, many, read

if TYPE_CHECKING:
    from gateway.policy.testing import Run


@click.command("test")
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--coverage", is_flag=True, help="Show for every policy how often it held, and how often not.")
@click.option("--fail-uncovered", is_flag=True, help="Exit status 1 where a policy is not covered.")
@as_json_option
def command(paths: tuple[Path, ...], coverage: bool, fail_uncovered: bool, as_json: bool) -> None:
    """Run the tests in PATHS: files, or folders with *.test.toml [policies].

    A policy is covered when some test saw it hold, and some test saw it not hold.
    """
    from gateway.policy.faults import PolicyFault
    from gateway.policy.testing import load_cases, run_cases
    from gateway.policy.testing.cases import SUFFIX

    files: list[Path] = []
    for path in paths or (POLICIES,):
        files.extend(sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path])
    if not files:
        fail(f"no *{SUFFIX} in {', '.join(map(str, paths or (POLICIES,)))}", as_json)
    runs: dict[Path, Run] = {}
    for file in files:
        try:
            loaded = load_cases(file)
            folder = read(loaded.policies, loaded.schema, loaded.entities, as_json)
            runs[file] = run_cases(folder.policies, folder.entities, folder.schema, loaded.cases, loaded.relations)
        except PolicyFault as error:
            fail_policy(error, as_json)
    uncovered = {
        str(file): [each.policy_id for each in run.coverage if not each.is_covered] for file, run in runs.items()
    }
    ok = all(run.passed for run in runs.values()) and not (fail_uncovered and any(uncovered.values()))
    document = {"ok": ok, "files": [_document(file, run) for file, run in runs.items()]}

    def speak() -> None:
        for file, run in runs.items():
            _speak(file, run)
            if coverage:
                _speak_coverage(run)
            elif uncovered[str(file)]:
                click.echo(f"· not covered: {', '.join(uncovered[str(file)])}")

    say(document, as_json, speak)
    if not ok:
        sys.exit(1)


def _speak(file: Path, run: Run) -> None:
    for outcome in run.outcomes:
        for problem in outcome.problems:
            click.echo(f"{mark(False)} {file}:{outcome.case.line}: {outcome.case.name}: {problem}", err=True)
    failed = sum(not outcome.passed for outcome in run.outcomes)
    passed = many(len(run.outcomes) - failed, "test")
    click.echo(f"{mark(not failed)} {file}: {passed} passed" + (f", {failed} failed" if failed else ""))


def _speak_coverage(run: Run) -> None:
    rows = [
        (
            each.policy_id,
            str(each.satisfied),
            str(each.unsatisfied),
            str(each.erred),
            "yes" if each.is_covered else "no",
        )
        for each in run.coverage
    ]
    table(("policy", "held", "did not", "erred", "covered"), rows)


def _document(file: Path, run: Run) -> dict[str, object]:
    return {
        "file": str(file),
        "tests": [
            {
                "name": outcome.case.name,
                "line": outcome.case.line,
                "passed": outcome.passed,
                "decision": "allow" if outcome.allowed else "deny",
                "reasons": sorted(outcome.reasons),
                "errors": sorted(outcome.errors),
                "problems": list(outcome.problems),
            }
            for outcome in run.outcomes
        ],
        "coverage": [
            {
                "policy": each.policy_id,
                "satisfied": each.satisfied,
                "unsatisfied": each.unsatisfied,
                "erred": each.erred,
                "covered": each.is_covered,
            }
            for each in run.coverage
        ],
    }
