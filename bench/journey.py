"""Whole requests against whole servers: forward-auth and proxy door, each peer alone on core 0, the load on core 1.

Rounds go round robin over the peers, so that a slow minute of the machine hits all of them; medians are compared.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import load, machine
from bench.bars import JOURNEY_BARS, Verdicts
from bench.load import Run, Workload, WrongAnswer
from bench.material import Issuer, check_sizes, make_issuer, with_bad_signature
from bench.peers.base import Door, Peer, Setup
from bench.peers.envoy import Envoy, EnvoyFloor, EnvoyWithCache
from bench.peers.granian import GranianHello, StarlettePyJWT
from bench.peers.haproxy import HAProxy, HAProxyFloor
from bench.peers.nginx import Nginx, UpstreamApp
from bench.peers.portcullis import Portcullis, PortcullisPolicy, PortcullisPublic
from bench.process import Server, ServerFailed, free_port, serving
from bench.table import Progress, print_table

SERVER_CORE = 0
LOAD_CORE = 1
DISTINCT_TOKENS = 10_000
BAD_TOKENS = 1_000

PEERS: tuple[Peer, ...] = (
    Portcullis(),
    PortcullisPolicy(),
    PortcullisPublic(),
    HAProxy(),
    Envoy(),
    EnvoyWithCache(),
    StarlettePyJWT(),
    GranianHello(),
    Nginx(),
    HAProxyFloor(),
    EnvoyFloor(),
)
SAME, DISTINCT, BAD = "same token", "10,000 tokens", "bad signatures"
WORKLOADS = (SAME, DISTINCT, BAD)


@dataclass(slots=True)
class Figures:
    """One peer at one door under one workload, over all rounds."""

    peer: str
    door: Door
    workload: str
    requests_per_s: list[float] = field(default_factory=list)
    cpu_us: list[float] = field(default_factory=list)
    p50_us: list[float] = field(default_factory=list)
    p99_us: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)  # the whole tree
    worker_rss_mb: list[float] = field(default_factory=list)  # its largest process

    def take(self, run: Run, cpu_s: float, server: Server) -> None:
        usage = server.usage()
        self.requests_per_s.append(run.requests / run.elapsed_s)
        self.cpu_us.append(cpu_s / run.requests * 1e6)
        self.p50_us.append(run.p50_us)
        self.p99_us.append(run.p99_us)
        self.rss_mb.append(usage.rss_bytes / 1e6)
        self.worker_rss_mb.append(usage.largest_rss_bytes / 1e6)

    def median(self, figure: str) -> float:
        values: list[float] = getattr(self, figure)
        return statistics.median(values)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and for how long."""

    rounds: int = 3
    seconds: int = 5
    warm_up_s: int = 2
    peers: tuple[Peer, ...] = PEERS
    doors: tuple[Door, ...] = ("forward", "proxy")
    workloads: tuple[str, ...] = WORKLOADS

    def workloads_of(self, peer: Peer, door: Door) -> tuple[str, ...]:
        return tuple(each for each in workloads_of(peer, door) if each in self.workloads)


def quick_plan(peers: tuple[Peer, ...] = PEERS) -> Plan:
    return Plan(rounds=1, seconds=2, warm_up_s=1, peers=peers)


def choose_peers(words: Sequence[str]) -> tuple[Peer, ...]:
    """Give the peers whose names hold one of `words`, all for none. Raises ValueError for a word that names nobody."""
    for word in words:
        if not any(word.lower() in peer.name.lower() for peer in PEERS):
            raise ValueError(f"no peer is called `{word}`: {', '.join(peer.name for peer in PEERS)}")
    return tuple(peer for peer in PEERS if not words or any(word.lower() in peer.name.lower() for word in words))


class Tokens:
    """The tokens of all runs, on disk for wrk."""

    def __init__(self, folder: Path, *, distinct: int = DISTINCT_TOKENS, bad: int = BAD_TOKENS) -> None:
        self.issuer: Issuer = make_issuer("RS256")
        self.good = self.issuer.tokens(distinct)
        check_sizes(self.good)
        self.bad = [with_bad_signature(token) for token in self.good[:bad]]
        self.workloads = {
            SAME: Workload(SAME, load.write_tokens(folder / "same", self.good[:1]), 200),
            DISTINCT: Workload(DISTINCT, load.write_tokens(folder / "distinct", self.good), 200),
            BAD: Workload(BAD, load.write_tokens(folder / "bad", self.bad), 401),
        }


def check_answers(peer: Peer, door: Door, port: int, tokens: Tokens) -> None:
    """Ask with good, bad and no token. Raises WrongAnswer for any other answer than a gateway may give."""
    path, headers = peer.path(door), load.headers_for(door)
    cases = ((tokens.good[0], 200), (tokens.good[-1], 200))
    if peer.authenticates:
        cases += ((tokens.bad[0], 401), (None, 401))  # type: ignore[assignment]
    for token, expected in cases:
        status, _, body = load.ask(port, path, headers, token)
        if status != expected:
            said = body[:200].decode(errors="replace")
            raise WrongAnswer(f"{peer.name} answered {status} where {expected} is right: {said}")
        if door == "proxy" and expected == 200 and b"shipped" not in body:
            raise WrongAnswer(f"{peer.name} did not give the upstream's answer")


def workloads_of(peer: Peer, door: Door) -> tuple[str, ...]:
    if not peer.authenticates:
        return (SAME,)
    return WORKLOADS if door == "forward" else (SAME, DISTINCT)


def measure(plan: Plan) -> tuple[list[Figures], dict[str, str]]:
    """Run everything; give the figures, and for each peer that was left out the reason."""
    left_out = {peer.name: reason for peer in plan.peers if (reason := peer.missing()) is not None}
    runs = [
        (peer, door) for door in plan.doors for peer in plan.peers if door in peer.doors and peer.name not in left_out
    ]
    figures = {
        (peer.name, door, name): Figures(peer.name, door, name)
        for peer, door in runs
        for name in plan.workloads_of(peer, door)
    }
    progress = Progress(1 + plan.rounds * len(figures))
    with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as name:
        folder = Path(name)
        progress.step(f"signing {DISTINCT_TOKENS:,} tokens")
        tokens = Tokens(folder)
        for round_number in range(plan.rounds):
            for peer, door in runs:
                if peer.name in left_out:
                    continue
                own = folder / f"{round_number}-{door}-{plan.peers.index(peer)}"
                own.mkdir()
                try:
                    _measure_peer(plan, peer, door, tokens, own, figures, progress)
                except (ServerFailed, WrongAnswer) as error:
                    left_out[peer.name] = str(error)
    progress.end()
    return [each for each in figures.values() if each.requests_per_s and each.peer not in left_out], left_out


def _measure_peer(
    plan: Plan,
    peer: Peer,
    door: Door,
    tokens: Tokens,
    folder: Path,
    figures: dict[tuple[str, Door, str], Figures],
    progress: Progress,
) -> None:
    app_folder = folder / "app"
    app_folder.mkdir()
    setup = Setup(folder, free_port(), door, tokens.issuer, free_port(), tokens.good)
    app = Setup(app_folder, setup.upstream_port, door, tokens.issuer, 0)
    with serving(UpstreamApp().command(app), app_folder, core=LOAD_CORE) as upstream:
        upstream.wait_until_listening(app.port)
        with serving(peer.command(setup), folder, core=SERVER_CORE, environment=peer.environment) as server:
            server.wait_until_listening(setup.port)
            check_answers(peer, door, setup.port, tokens)
            path, headers = peer.path(door), load.headers_for(door)
            for workload in plan.workloads_of(peer, door):
                progress.step(f"{door}: {peer.name}, {workload}")
                asked = tokens.workloads[workload]
                load.run_wrk(folder, setup.port, path, headers, asked, seconds=plan.warm_up_s, core=LOAD_CORE)
                before = server.usage()
                run = load.run_wrk(folder, setup.port, path, headers, asked, seconds=plan.seconds, core=LOAD_CORE)
                cpu_s = server.usage().cpu_s - before.cpu_s
                server.require_alive()
                figures[peer.name, door, workload].take(run, cpu_s, server)


def report(plan: Plan, figures: list[Figures], left_out: dict[str, str]) -> dict[str, Any]:
    """Print the tables and the bars; give everything for the JSON file."""
    described = machine.describe()
    versions = {peer.name: peer.version() for peer in plan.peers}
    print(machine.headline(described))
    print(
        f"one worker on core {SERVER_CORE}; wrk {load.version()} with {load.CONNECTIONS} keep-alive connections (closed"
        f" loop) and the upstream on core {LOAD_CORE}; medians of {plan.rounds} rounds of {plan.seconds} s"
    )
    for door, title in (("forward", "forward-auth"), ("proxy", "proxy door")):
        for workload in WORKLOADS:
            rows = [each for each in figures if (each.door, each.workload) == (door, workload)]
            if rows:
                _print_figures(f"{title}, {workload}", rows)
    _print_notes(plan.peers, versions, left_out)
    verdicts = Verdicts(JOURNEY_BARS, {(each.peer, each.door, each.workload): each for each in figures})
    verdicts.print()
    return {
        "kind": "journey",
        "machine": described,
        "versions": versions,
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "figures": [asdict(each) for each in figures],
        "left_out": left_out,
        "bars": verdicts.as_json(),
    }


def _print_figures(title: str, rows: list[Figures]) -> None:
    columns = ("", "req/s", "CPU µs/req", "p50 µs", "p99 µs", "RSS MB", "largest process MB")
    names = ("requests_per_s", "cpu_us", "p50_us", "p99_us", "rss_mb", "worker_rss_mb")
    ordered = sorted(rows, key=lambda each: -each.median("requests_per_s"))
    print_table(title, columns, [[each.peer, *(each.median(name) for name in names)] for each in ordered])


def _print_notes(peers: Sequence[Peer], versions: dict[str, str], left_out: dict[str, str]) -> None:
    print("\nwhat each checks of a token")
    for peer in peers:
        skipped = f"; not: {peer.skips}" if peer.skips else ""
        print(f"  {peer.name} ({versions[peer.name]}): {peer.checks}{skipped}")
    for name, reason in left_out.items():
        print(f"  left out: {name}: {reason}")


def run(plan: Plan) -> dict[str, Any]:
    """Measure and report."""
    lacking = load.missing()
    if lacking is not None:
        raise SystemExit(f"bench: {lacking}; remedy: apt-get install wrk util-linux")
    figures, left_out = measure(plan)
    return report(plan, figures, left_out)
