"""Token validation and the compiled modules, in one process: `python -m bench micro`.

Every contestant proves its answers first. New tokens are new for the caches (which are emptied off the clock); known
ones are asked again. Times are from Python bytes to a verdict in Python.
"""

from __future__ import annotations

import base64
import threading
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench import machine
from bench.bars import MICRO_BARS, Verdicts
from bench.material import ALGORITHMS, Issuer, check_sizes, make_issuer, with_bad_signature
from bench.measure import (
    Contestant,
    Spread,
    calling,
    calling_fresh,
    difference_us,
    looping,
    proved,
    race,
    ratio,
    spread_of,
)
from bench.modules import Group, groups
from bench.table import Cell, Progress, print_table
from bench.verifiers import OURS, PYJWT, RUST_BACKED, others, our_validator, ours, pyjwt, pyjwt_by_kid
from gateway._native import base64url, verify
from gateway._native.token import TokenValidator
from gateway._native.verify import raw_verify_loop

FLOOR = "bare libcrypto"
HIT_SIZES = (500, 10_000, 60_000)


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try."""

    rounds: int
    tokens: int  # distinct ones of each algorithm
    cheap: int  # calls of what takes less than a microsecond, a round
    spread: int  # single calls that are timed
    batch: int  # tokens of one batch in the test of two threads
    hit_sizes: tuple[int, ...]


FULL = Effort(rounds=31, tokens=1_000, cheap=100_000, spread=10_000, batch=4_000, hit_sizes=HIT_SIZES)
QUICK = Effort(rounds=5, tokens=200, cheap=20_000, spread=2_000, batch=1_000, hit_sizes=HIT_SIZES[:2])


class Micro:
    """One run; collects what the tables, the bars and the JSON file need."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self.issuers = {algorithm: make_issuer(algorithm) for algorithm in ALGORITHMS}
        self.progress = Progress(len(ALGORITHMS) + 7 + len(effort.hit_sizes))
        self.rs256 = self.issuers["RS256"]
        self.bars: dict[str, float] = {}
        self.result: dict[str, Any] = {}

    # -- whole validation -----------------------------------------------------------------------------------------

    def validation(self) -> None:
        """Every algorithm: new tokens and known ones, beside the libraries and the bare public-key operation."""
        rows: list[list[Cell]] = []
        for algorithm, issuer in self.issuers.items():
            self.progress.step(f"{algorithm}: whole validation")
            contestants = self._validators(issuer)
            race(list(contestants.values()), self.effort.rounds)
            mine, known = contestants[OURS], contestants["known"]
            floor = contestants.get(FLOOR)
            theirs = [contestants[name].median_us if name in contestants else None for name in _LIBRARIES]
            floor_us = None if floor is None else floor.median_us
            rows.append([algorithm, floor_us, mine.median_us, known.median_us, *theirs])
            self.result.setdefault("validation", {})[algorithm] = {
                name: contestant.per_op_ns for name, contestant in contestants.items()
            }
            if algorithm == "RS256":
                self._take_rs256(contestants)
        self._validation_rows = rows

    def _validators(self, issuer: Issuer) -> dict[str, Contestant]:
        tokens = issuer.tokens(self.effort.tokens)
        check_sizes(tokens)
        bad = with_bad_signature(tokens[0])
        validator = our_validator(issuer)
        judge: Callable[[Any], object] = validator.judge_token
        proved(ours(validator), [(tokens[0], "ok"), (tokens[0], "ok"), (bad, "signature")])
        count = len(tokens)
        found = {OURS: Contestant(OURS, calling_fresh(validator.forget_all, judge, tokens), count)}
        if issuer.spki is not None:
            spki = issuer.spki
            signed, _, encoded = tokens[0].rpartition(b".")
            signature = base64url.decode(encoded)
            found[FLOOR] = Contestant(
                FLOOR, looping(lambda n: raw_verify_loop(issuer.algorithm, spki, signed, signature, n)), count
            )
        found["known"] = Contestant("known", calling(judge, tokens[:1]), self.effort.cheap)
        for name, check in others(issuer).items():
            proved(check, [(tokens[0], "ok"), (tokens[-1], "ok"), (bad, "no")])
            found[name] = Contestant(name, calling(check, tokens), count // 2)
        return found

    def _take_rs256(self, contestants: Mapping[str, Contestant]) -> None:
        mine, floor = contestants[OURS], contestants[FLOOR]
        rust = [contestants[name] for name in RUST_BACKED if name in contestants]
        self.bars["new / bare libcrypto"] = ratio(mine, floor)
        self.bars["PyJWT / new"] = ratio(contestants[PYJWT], mine)
        if rust:
            self.bars["Rust / new"] = min(ratio(other, mine) for other in rust)
        self.bars["known µs"] = contestants["known"].median_us
        self.bars["all but the signature µs"] = difference_us(mine, floor)

    # -- known tokens ---------------------------------------------------------------------------------------------

    def hits(self) -> None:
        """Known tokens in turn, more and more of them: from one line of cache to none."""
        rows: list[list[Cell]] = []
        for size in self.effort.hit_sizes:
            self.progress.step(f"{size:,} known tokens in turn")
            # HS256, because signing 60,000 tokens by RSA takes a minute; a hit does not look at the algorithm.
            issuer = self.issuers["HS256"]
            tokens = issuer.tokens(size)
            check_sizes(tokens)
            validator = our_validator(issuer, entries=2 * size)
            proved(ours(validator), [(token, "ok") for token in tokens])
            before = validator.stats()["hits"]
            contestant = Contestant(OURS, calling(validator.judge_token, tokens), max(size, self.effort.cheap))  # type: ignore[arg-type]
            race([contestant], self.effort.rounds)
            assert validator.stats()["hits"] - before >= contestant.count * self.effort.rounds, "not all were hits"
            rows.append([f"{size:,}", contestant.median_us])
            self.result.setdefault("hits", {})[str(size)] = contestant.per_op_ns
        self._hit_rows = rows

    # -- rejects --------------------------------------------------------------------------------------------------

    def rejects(self) -> None:
        """Tokens that are refused, beside PyJWT."""
        self.progress.step("rejects")
        now_s = int(time.time())
        issuer, stranger = self.rs256, make_issuer("RS256")
        good = issuer.tokens(100)
        _, body, _ = good[0].split(b".")
        none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=") + b"." + body + b"."
        renamed = Issuer("RS256", "another-kid", stranger.private_pem, stranger.spki, stranger.jwk)
        validator = our_validator(issuer)
        plain, by_kid = pyjwt(issuer), pyjwt_by_kid(issuer)
        cases: dict[str, tuple[str, Sequence[bytes], Callable[[Any], str]]] = {
            "expired": ("expired", issuer.tokens(100, change=lambda claims: claims.update(exp=now_s - 3600)), plain),
            "wrong audience": ("audience", issuer.tokens(100, change=lambda claims: claims.update(aud="other")), plain),
            "garbage": ("malformed", [f"{number:08d}{'x' * 780}".encode() for number in range(100)], plain),
            "alg none": ("algorithm", [none], plain),
            "unknown kid": ("kid_unknown", renamed.tokens(100), by_kid),
            "bad signature": ("signature", [with_bad_signature(token) for token in good], plain),
        }
        rows: list[list[Cell]] = []
        for name, (reason, tokens, theirs) in cases.items():
            judge: Callable[[Any], object] = validator.judge_token
            proved(ours(validator), [(token, reason) for token in tokens])
            proved(theirs, [(token, "no") for token in tokens])
            cheap = name != "bad signature"
            mine = Contestant(OURS, calling(judge, tokens), self.effort.cheap // 5 if cheap else self.effort.tokens)
            other = Contestant(PYJWT, calling(theirs, tokens), self.effort.tokens // 2)
            race([mine, other], self.effort.rounds)
            rows.append([name, mine.median_us, other.median_us, f"{ratio(other, mine):.1f} ×"])
            self.bars[f"reject {name}"] = ratio(other, mine)
            self.result.setdefault("rejects", {})[name] = {OURS: mine.per_op_ns, PYJWT: other.per_op_ns}
        self._reject_rows = rows

    # -- two threads ----------------------------------------------------------------------------------------------

    def threads(self) -> None:
        """Two threads, each with a batch, against one with one batch."""
        self.progress.step("two threads")
        issuer = self.rs256
        tokens = issuer.tokens(self.effort.tokens)
        validator = our_validator(issuer)
        batch = (tokens * -(-self.effort.batch // len(tokens)))[: self.effort.batch]
        assert validator.judge_batch([*batch[:3], with_bad_signature(tokens[0])]) == ["ok", "ok", "ok", "signature"]
        one = Contestant("one thread", lambda _: _batches(validator, batch, 1), len(batch))
        two = Contestant("two threads", lambda _: _batches(validator, batch, 2), 2 * len(batch))
        race([one, two], self.effort.rounds)
        self.bars["two threads / one"] = ratio(one, two)
        self._thread_rows: list[list[Cell]] = [[each.name, each.median_us, 1e6 / each.median_us] for each in (one, two)]
        self.result["threads"] = {each.name: each.per_op_ns for each in (one, two)}

    # -- single calls ---------------------------------------------------------------------------------------------

    def spreads(self) -> None:
        """The distribution of single calls."""
        self.progress.step("single calls")
        issuer = self.rs256
        tokens = issuer.tokens(min(self.effort.spread, 10_000))
        validator = our_validator(issuer)
        judge: Callable[[Any], object] = validator.judge_token
        proved(ours(validator), [(tokens[0], "ok")])
        many = tokens[:500] * -(-self.effort.spread // 500)
        validator.forget_all()
        new = spread_of(judge, tokens, validator.forget_all)
        proved(ours(validator), [(token, "ok") for token in tokens[:500]])
        known = spread_of(judge, many)
        self.bars["p99 new / median"] = new.p99_us / new.p50_us
        self.bars["p99 known µs"] = known.p99_us
        self._spread_rows = [_spread_row("new token", new), _spread_row("known token, 500 in turn", known)]
        self.result["spreads"] = {"new": asdict(new), "known": asdict(known)}

    # -- modules --------------------------------------------------------------------------------------------------

    def modules(self) -> None:
        """Each compiled module alone."""
        self.progress.step("compiled modules")
        tokens = self.rs256.tokens(1_000)
        self._groups: list[Group] = []
        for group in groups(self.rs256, tokens, self.effort.cheap // 5):
            race(group.contestants, self.effort.rounds)
            self._groups.append(group)
            self.result.setdefault("modules", {})[group.title] = {
                contestant.name: contestant.per_op_ns for contestant in group.contestants
            }

    # -- report ---------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        self.progress.end()
        described = machine.describe()
        print(machine.headline(described))
        print(
            f"tokens of 700 to 900 bytes, all distinct; {verify.BACKEND} ({verify.LIBCRYPTO_VERSION or 'not used'}); "
            f"CPU time of one thread, medians of {self.effort.rounds} interleaved rounds"
        )
        packages = described["packages"]
        assert isinstance(packages, dict)
        print(", ".join(f"{name} {packages[name.lower()]}" for name in _LIBRARIES))
        columns = ("µs a token", FLOOR, "new", "known", *_LIBRARIES)
        print_table("whole validation", columns, self._validation_rows)
        print_table("a known token among so many in turn", ("tokens", "µs"), self._hit_rows)
        print_table("refused tokens", ("µs a token", OURS, PYJWT, "ratio"), self._reject_rows)
        print_table("batches without the GIL, RS256", ("", "µs a token", "tokens/s"), self._thread_rows)
        print_table("single calls, RS256", ("µs", "p50", "p99", "slowest"), self._spread_rows)
        for group in self._groups:
            rows: list[list[Cell]] = [[each.name, each.median_us, each.note] for each in group.contestants]
            print_table(group.title, ("", "µs", ""), rows)
        verdicts = Verdicts(MICRO_BARS, self.bars)
        verdicts.print()
        return {
            "kind": "micro",
            "machine": described,
            "libcrypto": verify.LIBCRYPTO_VERSION,
            "effort": asdict(self.effort),
            "nanoseconds": self.result,
            "bars": verdicts.as_json(),
        }


_LIBRARIES = ("PyJWT", "joserfc", "webtoken", "jwtoxide")


def _spread_row(name: str, spread: Spread) -> list[Cell]:
    return [name, spread.p50_us, spread.p99_us, spread.max_us]


def _batches(validator: TokenValidator, batch: list[bytes], threads: int) -> int:
    """Judge a batch in each of some threads at once; give the time from the first start to the last end."""
    barrier = threading.Barrier(threads + 1)
    failed: list[str] = []

    def work() -> None:
        barrier.wait()
        failed.extend(reason for reason in validator.judge_batch(batch) if reason != "ok")
        barrier.wait()

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    started_ns = time.perf_counter_ns()
    barrier.wait()
    elapsed_ns = time.perf_counter_ns() - started_ns
    for worker in workers:
        worker.join()
    assert not failed, failed[:3]
    return elapsed_ns


def run(effort: Effort) -> dict[str, Any]:
    """Measure and report."""
    warnings.filterwarnings("ignore", module="joserfc")  # It warns of each EdDSA token (RFC 9864).
    micro = Micro(effort)
    micro.validation()
    micro.hits()
    micro.rejects()
    micro.threads()
    micro.spreads()
    micro.modules()
    return micro.report()
