from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.bars import JOURNEY_BARS, MICRO_BARS, Bar, Verdicts
from bench.journey import BAD, DISTINCT, PEERS, SAME, Figures, choose_peers, workloads_of
from bench.load import Workload, WrongAnswer, run_wrk
from bench.material import ALGORITHMS, check_sizes, make_issuer, with_bad_signature
from bench.measure import Contestant, calling, calling_fresh, difference_us, proved, race, ratio, spread_of
from bench.process import usage_of
from bench.soak import FLAT_MB_PER_HOUR, Sample, slope_mb_per_hour
from bench.table import print_table, save
from bench.verifiers import others, our_validator, ours


def contestant(name: str, *per_op_ns: float) -> Contestant:
    made = Contestant(name, lambda count: count, 1)
    made.per_op_ns = list(per_op_ns)
    return made


def test_contestants_take_turns_and_have_one_figure_a_round() -> None:
    order: list[str] = []

    def running(name: str) -> Contestant:
        def run(count: int) -> int:
            order.append(name)
            return 5 * count

        return Contestant(name, run, 10)

    pair = [running("a"), running("b")]
    race(pair, 4)
    assert order[2:] == ["a", "b", "b", "a", "a", "b", "b", "a"]
    assert pair[0].per_op_ns == pair[1].per_op_ns == [5.0] * 4


def test_ratios_and_differences_are_medians_over_rounds() -> None:
    one, other = contestant("one", 10, 20, 1000), contestant("other", 5, 10, 10)
    assert ratio(one, other) == 2
    assert difference_us(one, other) == 0.010


def test_a_call_is_made_as_often_as_asked_with_each_argument_in_turn() -> None:
    seen: list[object] = []
    calling(seen.append, ["a", "b", "c"])(7)
    assert "".join(str(each) for each in seen) == "abcabca"


def test_cold_runs_prepare_before_each_pass() -> None:
    seen: list[object] = []
    calling_fresh(lambda: seen.append("|"), seen.append, ["a", "b"])(5)
    assert "".join(str(each) for each in seen) == "|ab|ab|a"


def test_a_wrong_answer_is_never_timed() -> None:
    with pytest.raises(AssertionError, match="is right"):
        proved(lambda _: "no", [("token", "ok")])


def test_a_spread_is_ordered() -> None:
    spread = spread_of(lambda _: None, range(1000))
    assert 0 <= spread.p50_us <= spread.p99_us <= spread.max_us


@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")  # It warns of each EdDSA token.
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_all_libraries_agree_on_good_and_bad_tokens(algorithm: str) -> None:
    issuer = make_issuer(algorithm)
    tokens = issuer.tokens(3)
    check_sizes(tokens)
    expired = issuer.tokens(1, change=lambda claims: claims.update(exp=1))[0]
    elsewhere = issuer.tokens(1, change=lambda claims: claims.update(aud="other"))[0]
    bad = [with_bad_signature(tokens[0]), expired, elsewhere]
    for name, verify in others(issuer).items():
        assert [verify(token) for token in tokens] == ["ok"] * 3, name
        assert [verify(token) for token in bad] == ["no"] * 3, name
    verify = ours(our_validator(issuer))
    assert [verify(token) for token in tokens + bad] == ["ok"] * 3 + ["signature", "expired", "audience"]


def test_tokens_of_another_size_or_twice_the_same_are_refused() -> None:
    tokens = make_issuer("HS256").tokens(2)
    for wrong in ([tokens[0], tokens[0]], [tokens[0][:600]], [tokens[0] + b"x" * 200]):
        with pytest.raises(AssertionError):
            check_sizes(wrong)


# -- bars -------------------------------------------------------------------------------------------------------------


def figures(peer: str, door: str, workload: str, requests_per_s: float) -> Figures:
    return Figures(peer, door, workload, [requests_per_s], [1.0], [1.0], [1.0], [60.0], [60.0])  # type: ignore[arg-type]


def test_every_bar_of_the_journey_asks_for_peers_that_exist() -> None:
    measured = {
        (peer.name, door, workload): figures(peer.name, door, workload, 100.0)
        for peer in PEERS
        for door in peer.doors
        for workload in workloads_of(peer, door)
    }
    assert all(row["measured"] == 1.0 for row in Verdicts(JOURNEY_BARS, measured).as_json())


def test_a_bar_that_was_not_measured_does_not_hold(capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = Verdicts(MICRO_BARS, {})
    assert not verdicts.all_hold()
    assert {row["holds"] for row in verdicts.as_json()} == {None}
    verdicts.print()
    assert "not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("relation", "value", "holds"),
    [("≥", 2.0, True), ("≥", 1.99, False), ("≤", 2.0, True), ("≤", 2.01, False)],
)
def test_a_bar_holds_at_its_bound(relation: str, value: float, holds: bool) -> None:
    bar = Bar("figure", relation, 2.0, lambda measured: float(measured))  # type: ignore[arg-type]
    assert Verdicts([bar], value).all_hold() is holds


# -- journeys ---------------------------------------------------------------------------------------------------------


def test_peers_are_chosen_by_words_and_an_unknown_word_is_refused() -> None:
    assert {peer.name for peer in choose_peers(["jwt_verify", "NGINX"])} == {
        "HAProxy jwt_verify",
        "nginx, a fixed answer",
    }
    assert choose_peers([]) == PEERS
    with pytest.raises(ValueError, match="no peer"):
        choose_peers(["apache"])


def test_floors_are_asked_with_one_token_only() -> None:
    for peer in PEERS:
        expected = (SAME, DISTINCT, BAD) if peer.authenticates else (SAME,)
        if "forward" in peer.doors:
            assert workloads_of(peer, "forward") == expected


def test_a_run_with_a_wrong_answer_has_no_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "taskset"
    tool.write_text('#!/bin/sh\necho "$WRK_SAYS"\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    result = {"requests": 10, "elapsed_us": 1_000_000, "refused": 0, "errors": 0, "p50_us": 1, "p99_us": 2, "max_us": 3}

    def run(load: Workload, **changes: int) -> float:
        monkeypatch.setenv("WRK_SAYS", "RESULT " + json.dumps({**result, **changes}))
        return run_wrk(tmp_path, 1, "/", {}, load, seconds=1, core=0).requests

    good, bad = Workload("good", tmp_path / "tokens", 200), Workload("bad", tmp_path / "tokens", 401)
    assert run(good) == run(bad, refused=10) == 10
    for load, changes in (
        (good, {"refused": 1}),
        (good, {"errors": 1}),
        (bad, {"refused": 9}),
        (good, {"requests": 0}),
    ):
        with pytest.raises(WrongAnswer):
            run(load, **changes)
    monkeypatch.setenv("WRK_SAYS", "unable to connect")
    with pytest.raises(WrongAnswer, match="no result"):
        run_wrk(tmp_path, 1, "/", {}, good, seconds=1, core=0)


def test_the_usage_of_a_process_includes_its_children() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        alone, both = usage_of(child.pid), usage_of(os.getpid())
        assert both.rss_bytes > alone.rss_bytes > 0
        assert both.largest_rss_bytes < both.rss_bytes
        assert both.cpu_s >= alone.cpu_s
    finally:
        child.kill()
        child.wait()


# -- soak, tables -----------------------------------------------------------------------------------------------------


def test_a_leak_has_a_slope_and_noise_has_none() -> None:
    leak = [Sample(second, 50 + second * 10 / 3600) for second in range(300)]
    noise = [Sample(second, 50 + (second % 2) * 0.1) for second in range(300)]
    assert slope_mb_per_hour(leak) == pytest.approx(10)
    assert abs(slope_mb_per_hour(noise)) < FLAT_MB_PER_HOUR
    assert slope_mb_per_hour([Sample(1, 50)]) == 0


def test_a_table_aligns_its_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("title", ("", "req/s"), [["one", 12345.6], ["two", 0.1234], ["three", None]])
    assert capsys.readouterr().out.splitlines()[1:] == [
        "title",
        "        req/s",
        "─────────────",
        "one    12,346",
        "two     0.123",
        "three",
    ]


def test_a_result_is_json_where_it_was_asked_for(tmp_path: Path) -> None:
    path = save("micro", {"kind": "micro"}, tmp_path / "new" / "result.json")
    assert json.loads(path.read_text()) == {"kind": "micro"}
