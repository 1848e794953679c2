"""`portcullis audit verify` and `show`: over a log that holds, one that was changed, and none."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import portcullis
from gateway.stores.audit_log_files import FileAuditLog
from gateway.types import AuditEvent


def write(folder: Path, chain: str = "host-0", count: int = 3) -> None:
    async def writing() -> None:
        log = FileAuditLog(folder, chain)
        await log.append(
            [
                AuditEvent(
                    id=f"{chain}{number}",
                    at_s=1_700_000_000.0 + number,
                    action="session.begin" if number % 2 else "login.password",
                    outcome="success" if number % 2 else "failure",
                    actor=f"usr_{number}",
                    details={"amr": "pwd"},
                )
                for number in range(count)
            ]
        )
        await log.close()

    asyncio.run(writing())


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "portcullis.toml"
    path.write_text(f'[server]\nrun_dir = "{tmp_path / "run"}"\n[audit]\nurl = "folder:{tmp_path / "log"}"\n')
    return path


def run(config: Path, *words: str) -> Result:
    return CliRunner().invoke(portcullis, ["audit", *words, "-c", str(config)])


def test_a_log_that_holds_is_said_to_hold(config: Path, tmp_path: Path) -> None:
    write(tmp_path / "log")
    write(tmp_path / "log", "host-1", 2)
    result = run(config, "verify", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["ok"], document["entries"]) == (0, True, 5)
    assert {each["chain"]: each["number"] for each in document["heads"]} == {"host-0": 3, "host-1": 2}
    assert "5 entries in 2 chains hold" in run(config, "verify").stdout


def test_a_changed_entry_is_found_and_the_exit_status_says_so(config: Path, tmp_path: Path) -> None:
    write(tmp_path / "log")
    (segment,) = (tmp_path / "log" / "host-0").glob("*.jsonl")
    segment.write_text(segment.read_text().replace("usr_1", "usr_9"))
    result = run(config, "verify", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["ok"]) == (1, False)
    assert [(each["chain"], each["number"]) for each in document["faults"]] == [("host-0", 2)]
    assert "host-0, entry 2" in run(config, "verify").stderr


def test_a_cut_end_is_found_by_who_kept_it(config: Path, tmp_path: Path) -> None:
    write(tmp_path / "log")
    (head,) = json.loads(run(config, "verify", "--json").stdout)["heads"]
    (segment,) = (tmp_path / "log" / "host-0").glob("*.jsonl")
    segment.write_text("".join(segment.read_text().splitlines(keepends=True)[:2]))
    assert run(config, "verify").exit_code == 0
    known = f"{head['chain']}:{head['number']}:{head['hash']}"
    assert run(config, "verify", "--known", known).exit_code == 1
    assert run(config, "verify", "--known", "host-0:3").exit_code == 2


def test_entries_are_shown_in_the_order_of_their_time(config: Path, tmp_path: Path) -> None:
    write(tmp_path / "log")
    write(tmp_path / "log", "host-1", 2)
    shown = [json.loads(line) for line in run(config, "show", "--json").stdout.splitlines()]
    assert [(each["chain"], each["number"]) for each in shown] == [
        ("host-0", 1),
        ("host-1", 1),
        ("host-0", 2),
        ("host-1", 2),
        ("host-0", 3),
    ]
    assert shown[0]["actor"] == "usr_0"
    assert shown[0]["at"] == "2023-11-14T22:13:20.000+00:00"
    (line,) = run(config, "show", "--last", "1").stdout.splitlines()
    assert line == "2023-11-14T22:13:22Z host-0:3 login.password failure actor=usr_2 amr=pwd"


@pytest.mark.parametrize(
    ("words", "numbers"),
    [
        (("--action", "login."), [1, 3]),
        (("--action", "session.begin"), [2]),
        (("--actor", "usr_2"), [3]),
        (("--outcome", "success"), [2]),
        (("--after", "2"), [3]),
        (("--chain", "host-9"), []),
        (("--last", "2"), [2, 3]),
    ],
)
def test_only_what_was_asked_for_is_shown(
    config: Path, tmp_path: Path, words: tuple[str, ...], numbers: list[int]
) -> None:
    write(tmp_path / "log")
    assert [json.loads(line)["number"] for line in run(config, "show", "--json", *words).stdout.splitlines()] == numbers


def test_no_log_is_no_fault_but_a_log_that_is_off_is(config: Path) -> None:
    assert json.loads(run(config, "verify", "--json").stdout)["entries"] == 0
    config.write_text('[audit]\nurl = "off"\n')
    result = run(config, "verify", "--json")
    assert (result.exit_code, json.loads(result.stdout)["ok"]) == (1, False)
