"""The flows under load, in floods and beside a provider that misbehaves: `python -m bench flows`.

Requests come at a given rate, whether answers come or not (see `open_loop.py`); the load is on the other core. What is
compared takes turns, round after round, and all latencies of a kind are looked at together.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import load, machine
from bench.bars import FLOW_BARS, Verdicts
from bench.flow_provider import MODES, Mode, provider
from bench.flow_world import COOKIE, CROWD, HOST, LOGIN, SSO, World, world
from bench.journey import LOAD_CORE
from bench.material import Issuer, make_issuer
from bench.open_loop import Answers, Load, in_turn, request_bytes
from bench.table import Cell, Part, Progress, Table

ASKERS = 8  # of a closed loop, to find out what a server can do
PEOPLE_AT_ONCE = 2  # the same, where each waits for a hash: more would wait for longer than anybody may
SCIM_ASKERS = 300  # ten times the pool, each of which asks again as soon as it has its answer
LOGINS_PER_S = 5.0  # beside a flood
IN_TIME_S = 1.0  # an answer that came later was of no use
SETTLE_S = 3.0  # after too much: what is shed then falls with each tenth of a second
PROBE_S = 0.1  # between two looks at the health
TIMEOUT_S = 1.0  # of the identity provider
PAGES_PER_S = 30.0
SSO_PER_S = 10.0
LEFT_ALONE_S = 20  # until when a provider that fails all the time must be
SHARE = 0.8
QUESTIONS_MAX = 2000.0  # introspections a second that the load itself has time for

_PROVIDER = """\
[[sso]]
id = "corp"
issuer = "{issuer}"
client_id = "bench"
client_secret = "env:BENCH_SECRET"
pushed_requests = "always"
timeout_s = {timeout_s}
"""


@dataclass(frozen=True, slots=True)
class Effort:
    """How hard to try: rounds, and seconds of each run."""

    rounds: int
    seconds: float


FULL = Effort(rounds=4, seconds=15.0)
QUICK = Effort(rounds=1, seconds=4.0)


@dataclass(slots=True)
class Kind:
    """What is known of one kind of run, over all rounds."""

    name: str
    answers: list[Answers] = field(default_factory=list)

    @property
    def latencies(self) -> Answers:
        whole = Answers()
        for each in self.answers:
            for status, found in each.latencies_s.items():
                whole.latencies_s.setdefault(status, []).extend(found)
            whole.without_retry_after += each.without_retry_after
            whole.elapsed_s += each.elapsed_s
        return whole

    def row(self) -> list[Cell]:
        whole = self.latencies
        counts = ", ".join(f"{count:,} × {status}" for status, count in sorted(whole.counts.items()))
        total = sum(whole.counts.values())
        times = [whole.quantile_s(share) * 1000 for share in (0.5, 0.99, 1.0)]
        return [self.name, total / whole.elapsed_s if whole.elapsed_s else 0.0, *times, counts]


COLUMNS = ("", "asked a second", "p50 ms", "p99 ms", "max ms", "answers")


class WrongAnswers(Exception):
    """Something was answered that is not an answer to what was asked."""


def require(answers: Answers, *statuses: int) -> Answers:
    """Give the answers back where all are of these statuses."""
    wrong = {status: count for status, count in answers.counts.items() if status not in statuses}
    if wrong:
        raise WrongAnswers(f"answers that nobody asked for: {wrong}, where {statuses} are right")
    return answers


def at_rate(port: int, requests: Sequence[bytes], per_s: float, seconds: float) -> Answers:
    """Ask at a rate, with gaps by chance."""

    async def asking() -> Answers:
        return await Load(port, in_turn(list(requests))).at_rate(per_s, seconds, chance=random.Random(1))

    return asyncio.run(asking())


def capacity_per_s(port: int, requests: Sequence[bytes], seconds: float, status: int, *, askers: int = ASKERS) -> float:
    """Find out how many are answered in a second."""

    async def asking() -> Answers:
        return await Load(port, in_turn(list(requests))).in_circle(askers, seconds)

    answers = require(asyncio.run(asking()), status, 503)
    return answers.counts[status] / answers.elapsed_s


class FlowBench:
    """One run; collects its parts."""

    def __init__(self, effort: Effort, folder: Path) -> None:
        self.effort = effort
        self._folder = folder
        self._issuer: Issuer = make_issuer("RS256")
        self.parts: list[Part] = []
        self.progress = Progress(5 + len(MODES))

    def run(self) -> None:
        """Measure all."""
        self.sessions()
        with world(self._folder / "hashing", self._issuer, people=CROWD) as made:
            self.scim(made)
            hashed_per_s = self.overload(made)
        self.logins(hashed_per_s)
        for mode in MODES:
            self.provider(mode)

    # -- the doors

    def sessions(self) -> None:
        """A session's cookie beside a token, at forward-auth."""
        self.progress.step("sessions beside tokens")
        runs: dict[str, list[float]] = {"token": [], "session": []}
        cpu: dict[str, list[float]] = {"token": [], "session": []}
        with world(self._folder / "doors", self._issuer, hashing=False) as made:
            folder = self._folder / "wrk"
            folder.mkdir()
            lines = {
                "token": ("Authorization", "Bearer ", made.token, "/api/orders/4711"),
                "session": ("Cookie", f"{COOKIE}=", made.session.encode(), "/app/4711"),
            }
            for round_number in range(2 * self.effort.rounds + 1):
                for name, (header, prefix, value, path) in lines.items():
                    work = load.Workload(name, load.write_tokens(folder / name, [value]), 200, header, prefix)
                    headers = {**load.headers_for("forward"), "X-Forwarded-Uri": path}
                    before_s = made.server.usage().cpu_s
                    seconds = max(1, round(self.effort.seconds / 3))
                    run = load.run_wrk(
                        folder, made.port, "/auth/forward", headers, work, seconds=seconds, core=LOAD_CORE
                    )
                    if round_number:  # the first warms up
                        runs[name].append(run.requests / run.elapsed_s)
                        cpu[name].append((made.server.usage().cpu_s - before_s) / run.requests * 1e6)
        ratio = statistics.median(one / other for one, other in zip(runs["session"], runs["token"], strict=True))
        rows: list[list[Cell]] = [[name, statistics.median(runs[name]), statistics.median(cpu[name])] for name in runs]
        self.parts.append(
            Part(
                [Table("forward-auth", ("", "req/s", "CPU µs/req"), rows)],
                {"session / token": ratio},
                {"forward-auth": {"requests_per_s": runs, "cpu_us": cpu}},
            )
        )

    # -- people who log in

    def logins(self, hashed_per_s: float) -> None:
        """Log-ins and introspection at 80 % of what can be done. What argon2id costs is known; here is the rest."""
        self.progress.step("log-ins without argon2id, introspection")
        seconds = self.effort.seconds * self.effort.rounds / 2
        with world(self._folder / "unhashed", self._issuer, hashing=False) as made:
            logins = made.logins()
            whole_per_s = capacity_per_s(made.port, logins, 5, 303)
            at_rate(made.port, logins, hashed_per_s * SHARE, 2)
            login = require(at_rate(made.port, logins, hashed_per_s * SHARE, seconds), 303)
            questions = made.introspections(self._issuer.tokens(500))
            can_per_s = capacity_per_s(made.port, questions, 5, 200)
            per_s = min(QUESTIONS_MAX, can_per_s * SHARE)
            answered = require(at_rate(made.port, questions, per_s, seconds), 200)
        rows = [
            Kind(f"log-ins without argon2id, 80 % of {hashed_per_s:.0f}/s", [login]).row(),
            Kind(f"introspection, of {can_per_s:,.0f}/s", [answered]).row(),
        ]
        figures = {
            "login p99 ms": login.quantile_s(0.99) * 1000,
            "introspection p99 ms": answered.quantile_s(0.99) * 1000,
        }
        measured = {"log-ins a second without argon2id": whole_per_s, "introspections a second": can_per_s}
        self.parts.append(Part([Table("log-ins and introspection", COLUMNS, rows)], figures, {**figures, **measured}))

    def scim(self, made: World) -> None:
        """Log-ins while SCIM is asked ten times more than its pool takes, by askers who do not wait to be asked."""
        self.progress.step("log-ins beside a flood of SCIM")
        logins, provisionings = made.logins(), made.provisionings()
        calm, flooded, flood = Kind("log-ins"), Kind("log-ins beside the flood"), Kind("the flood")

        async def beside() -> tuple[Answers, Answers]:
            circle = Load(made.port, in_turn(provisionings))
            running = asyncio.create_task(circle.in_circle(SCIM_ASKERS, self.effort.seconds + 2))
            await asyncio.sleep(1)
            asked = Load(made.port, in_turn(logins))
            answers = await asked.at_rate(LOGINS_PER_S, self.effort.seconds, chance=random.Random(1))
            return answers, await running

        at_rate(made.port, logins, LOGINS_PER_S, 2)
        for _ in range(self.effort.rounds):
            calm.answers.append(require(at_rate(made.port, logins, LOGINS_PER_S, self.effort.seconds), 303, 503))
            answers, others = asyncio.run(beside())
            flooded.answers.append(require(answers, 303, 503))
            flood.answers.append(require(others, 200, 201, 409, 503))
        pools = ("user_auth", "admin_auth", "token_validation", "external_idp")
        refused = sum(made.metric("portcullis_pool_refused_total", pool=pool) for pool in pools)
        figures = {
            "scim: login p99 flooded / calm": flooded.latencies.quantile_s(0.99, 303)
            / calm.latencies.quantile_s(0.99, 303),
            "scim: refused elsewhere": refused,
            "scim: without Retry-After": flood.latencies.without_retry_after,
            "scim: refused": flood.latencies.counts[503],
        }
        rows = [each.row() for each in (calm, flooded, flood)]
        self.parts.append(Part([Table(f"SCIM, {SCIM_ASKERS} askers", COLUMNS, rows)], figures, figures))

    # -- too much of it

    def overload(self, made: World) -> float:
        """Twice and ten times as many log-ins as can be had; return how many that are."""
        self.progress.step("too many log-ins")
        logins, seconds = made.logins(), self.effort.seconds / 2
        kinds = {times: Kind(f"{times} × as many as can be had") for times in (1, 2, 10)}
        useful: dict[int, list[float]] = {times: [] for times in kinds}
        slowest_s = {times: 0.0 for times in kinds}
        memory = {times: 0.0 for times in kinds}
        capacities: list[float] = []

        def measure() -> None:
            time.sleep(SETTLE_S)
            capacities.append(capacity_per_s(made.port, logins, seconds / 2, 303, askers=PEOPLE_AT_ONCE))

        capacity_per_s(made.port, logins, 3, 303, askers=PEOPLE_AT_ONCE)
        measure()
        # What a hash costs changes with whoever else is on the machine: it is measured before and after each run.
        for _ in range(self.effort.rounds):
            for times, kind in kinds.items():
                before = made.server.usage().rss_bytes
                answers, probes = asyncio.run(_overloaded(made, logins, capacities[-1] * times, seconds))
                kind.answers.append(require(answers, 303, 503))
                memory[times] = max(memory[times], made.server.usage().rss_bytes / before)
                slowest_s[times] = max(slowest_s[times], *probes)
                measure()
                can_per_s = statistics.mean(capacities[-2:])
                useful[times].append(answers.in_time(303, IN_TIME_S) / answers.elapsed_s / can_per_s)
        figures: dict[str, float] = {}
        for times in (2, 10):
            figures[f"{times} ×: useful / capacity"] = statistics.median(useful[times])
            figures[f"{times} ×: probe ms"] = slowest_s[times] * 1000
            figures[f"{times} ×: memory"] = memory[times]
        rows = [kind.row() for kind in kinds.values()]
        title = f"overload, log-ins with argon2id, {statistics.median(capacities):.0f}/s can be had"
        measured = {**figures, "log-ins a second": capacities, "useful / capacity": useful}
        self.parts.append(Part([Table(title, COLUMNS, rows)], figures, measured))
        return statistics.median(capacities)

    # -- a provider that misbehaves

    def provider(self, mode: Mode) -> None:
        """Log-ins at a provider that misbehaves, and what others notice of it."""
        self.progress.step(f"a provider that {mode}")
        calm, beside = Kind("pages beside a good provider"), Kind(f"pages beside one that {mode}")
        begun, told = Kind("log-ins there, at first"), Kind("log-ins there, when it is left alone")
        pages = [request_bytes("GET", LOGIN, {"Accept": "text/html"}, host=HOST)]
        starts = [request_bytes("GET", SSO, {"Accept": "text/html"}, host=HOST)]

        async def both(port: int, seconds: float) -> tuple[Answers, Answers]:
            asked, others = Load(port, in_turn(pages)), Load(port, in_turn(starts))
            found = await asyncio.gather(
                asked.at_rate(PAGES_PER_S, seconds, chance=random.Random(1)),
                others.at_rate(SSO_PER_S, seconds, chance=random.Random(2)),
            )
            return found[0], found[1]

        half_s = self.effort.seconds / 2
        for round_number in range(self.effort.rounds):
            folder = self._folder / f"{MODES.index(mode)}-{round_number}"
            with provider() as served:
                config = _PROVIDER.format(issuer=served.issuer, timeout_s=TIMEOUT_S)
                with world(folder, self._issuer, hashing=False, more=config) as made:
                    asyncio.run(both(made.port, 2))
                    answers, starting = asyncio.run(both(made.port, half_s))
                    calm.answers.append(require(answers, 200))
                    require(starting, 303)
                    served.behave(mode)
                    answers, starting = asyncio.run(both(made.port, half_s))
                    beside.answers.append(require(answers, 200))
                    begun.answers.append(require(starting, 503))
                    _wait_until_left_alone(made.port, starts)
                    told.answers.append(require(at_rate(made.port, starts, SSO_PER_S, 3), 503))
        figures = {
            f"{mode}: beyond deadline ms": max(0.0, begun.latencies.quantile_s(1.0) - TIMEOUT_S) * 1000,
            f"{mode}: told ms": told.latencies.quantile_s(0.99) * 1000,
            f"{mode}: p99 / good": beside.latencies.quantile_s(0.99) / calm.latencies.quantile_s(0.99),
        }
        rows = [each.row() for each in (calm, beside, begun, told)]
        self.parts.append(Part([Table(f"a provider that {mode}", COLUMNS, rows)], figures, figures))


def _wait_until_left_alone(port: int, starts: Sequence[bytes]) -> None:
    """Ask until all of a second are told at once."""
    for _ in range(LEFT_ALONE_S):
        if require(at_rate(port, starts, SSO_PER_S, 1), 503).quantile_s(1.0) < TIMEOUT_S / 2:
            return
    raise WrongAnswers(f"a provider that fails is asked again and again for {LEFT_ALONE_S} s")


async def _overloaded(
    made: World, logins: Sequence[bytes], per_s: float, seconds: float
) -> tuple[Answers, list[float]]:
    """Ask too much; return the answers, and how long each look at the health took."""
    asked = Load(made.port, in_turn(list(logins)))
    probe = request_bytes("GET", "/livez", {}, host=HOST)
    probes = Load(made.admin_port, in_turn([probe]), connections_max=1)
    both: list[Awaitable[Answers]] = [
        asked.at_rate(per_s, seconds, chance=random.Random(1)),
        probes.at_rate(1 / PROBE_S, seconds),
    ]
    answers, healthy = await asyncio.gather(*both)
    return answers, require(healthy, 200).latencies_s[200]


def run(effort: Effort) -> dict[str, Any]:
    """Measure and report."""
    lacking = load.missing()
    if lacking is not None:
        raise SystemExit(f"bench: {lacking}; remedy: apt-get install wrk util-linux")
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {LOAD_CORE})
    try:
        with tempfile.TemporaryDirectory(prefix="portcullis-flows-") as name:
            bench = FlowBench(effort, Path(name))
            bench.run()
            bench.progress.end()
    finally:
        os.sched_setaffinity(0, allowed)
    described = machine.describe()
    print(machine.headline(described))
    for part in bench.parts:
        for table in part.tables:
            table.print()
    figures = {name: value for part in bench.parts for name, value in part.bars.items()}
    verdicts = Verdicts(FLOW_BARS, figures)
    verdicts.print()
    measured = {name: value for part in bench.parts for name, value in part.measured.items()}
    return {"kind": "flows", "machine": described, "measured": measured, "bars": verdicts.as_json()}
