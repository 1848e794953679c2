from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from gateway.cli import bench


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """One round of few tokens: the answers are under test here, not the times."""
    monkeypatch.setattr(bench, "QUICK_ROUNDS", 1)
    monkeypatch.setattr(bench, "QUICK_TOKENS", 3)
    monkeypatch.setattr(bench, "KNOWN_CALLS", 10)


def test_micro_gives_a_figure_for_each_algorithm() -> None:
    done = CliRunner().invoke(bench.bench, ["micro", "--quick", "--json"])
    document = json.loads(done.output)
    assert done.exit_code == 0
    assert document["ok"] is True
    assert [row["algorithm"] for row in document["microseconds"]] == list(bench.ALGORITHMS)
    for row in document["microseconds"]:
        assert row["new_us"] > 0 and row["known_us"] > 0 and row["refused_us"] > 0
    assert document["two_threads"] > 0


def test_micro_is_a_table_for_people() -> None:
    done = CliRunner().invoke(bench.bench, ["micro", "--quick"])
    assert done.exit_code == 0
    lines = [line.split()[0] for line in done.output.splitlines() if line]
    assert list(bench.ALGORITHMS) == [word for word in lines if word in bench.ALGORITHMS]


def test_a_wrong_answer_is_a_fault_and_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    made = bench._make

    def swapped(algorithm: str, count: int) -> bench.Subject:
        subject = made(algorithm, count)
        return bench.Subject(subject.validator, subject.tokens, subject.tokens, subject.handle)

    monkeypatch.setattr(bench, "_make", swapped)
    done = CliRunner().invoke(bench.bench, ["micro", "--quick", "--json"])
    assert done.exit_code == 1
    assert "was not refused" in json.loads(done.output)["error"]


@pytest.mark.parametrize("verb", ["journey", "soak", "all"])
def test_whole_servers_need_a_checkout_and_say_so(verb: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(bench, "__file__", str(tmp_path / "site-packages" / "gateway" / "cli" / "bench.py"))
    done = CliRunner().invoke(bench.bench, [verb])
    assert done.exit_code == 2
    assert "source checkout" in done.output
