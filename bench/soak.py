"""Minutes at full load with an eye on memory: `python -m bench soak`.

Good, distinct and bad tokens take turns; the resident memory is sampled all the time, and a line is fitted through the
samples after the caches are full. A slope that would matter within a day is a leak.
"""

from __future__ import annotations

import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import load, machine
from bench.journey import BAD, DISTINCT, LOAD_CORE, SAME, SERVER_CORE, Tokens, check_answers
from bench.peers.base import Setup
from bench.peers.nginx import UpstreamApp
from bench.peers.portcullis import Portcullis
from bench.process import Server, free_port, serving
from bench.table import Progress, print_table

SAMPLE_S = 1.0
SLICE_S = 10  # seconds of one kind of load
WARM_UP = 0.25  # of the samples, from the start: arenas fill
FLAT_MB_PER_HOUR = 6.0
WORKLOADS = (SAME, DISTINCT, BAD)
DOORS = ("forward", "proxy")


@dataclass(frozen=True, slots=True)
class Sample:
    at_s: float
    rss_mb: float


class Sampler(threading.Thread):
    """Notes the memory of a server's processes until it is stopped."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._stopped = threading.Event()
        self.samples: list[Sample] = []

    def run(self) -> None:
        started_s = time.monotonic()
        while not self._stopped.wait(SAMPLE_S):
            self.samples.append(Sample(time.monotonic() - started_s, self._server.usage().rss_bytes / 1e6))

    def stop(self) -> list[Sample]:
        self._stopped.set()
        self.join()
        return self.samples


def slope_mb_per_hour(samples: list[Sample]) -> float:
    """Fit a line by least squares; give its slope."""
    count = len(samples)
    mean_s = sum(sample.at_s for sample in samples) / count
    mean_mb = sum(sample.rss_mb for sample in samples) / count
    spread = sum((sample.at_s - mean_s) ** 2 for sample in samples)
    if spread == 0:
        return 0.0
    return sum((s.at_s - mean_s) * (s.rss_mb - mean_mb) for s in samples) / spread * 3600


def run(minutes: float) -> dict[str, Any]:
    """Soak each door for half of the time, and report."""
    lacking = load.missing() or Portcullis().missing()
    if lacking is not None:
        raise SystemExit(f"bench: {lacking}")
    results: dict[str, Any] = {"kind": "soak", "machine": machine.describe(), "minutes": minutes}
    slices = max(3, round(minutes * 60 / len(DOORS) / SLICE_S))
    progress = Progress((slices + len(WORKLOADS)) * len(DOORS))
    rows: list[list[str | float | int | None]] = []
    with tempfile.TemporaryDirectory(prefix="portcullis-soak-") as name:
        folder = Path(name)
        tokens = Tokens(folder)
        for door in DOORS:
            requests, samples = _soak(door, folder / door, tokens, slices, progress)
            settled = samples[int(len(samples) * WARM_UP) :]
            slope = slope_mb_per_hour(settled)
            flat = "✓" if slope <= FLAT_MB_PER_HOUR else "✗"
            rows.append([door, requests, settled[0].rss_mb, settled[-1].rss_mb, slope, flat])
            results[door] = {
                "requests": requests,
                "slope_mb_per_hour": slope,
                "samples": [(round(sample.at_s, 1), round(sample.rss_mb, 2)) for sample in samples],
            }
    progress.end()
    print(machine.headline(results["machine"]))
    columns = ("door", "requests", "RSS MB after warm-up", "RSS MB at the end", "MB an hour", "flat")
    print_table(
        f"soak, {minutes:g} minutes at full load; flat is at most {FLAT_MB_PER_HOUR:g} MB an hour", columns, rows
    )
    return results


def _soak(door: Any, folder: Path, tokens: Tokens, slices: int, progress: Progress) -> tuple[int, list[Sample]]:
    peer = Portcullis()
    app_folder = folder / "app"
    app_folder.mkdir(parents=True)
    setup = Setup(folder, free_port(), door, tokens.issuer, free_port())
    app = Setup(app_folder, setup.upstream_port, door, tokens.issuer, 0)
    requests = 0
    with serving(UpstreamApp().command(app), app_folder, core=LOAD_CORE) as upstream:
        upstream.wait_until_listening(app.port)
        with serving(peer.command(setup), folder, core=SERVER_CORE, environment=peer.environment) as server:
            server.wait_until_listening(setup.port)
            check_answers(peer, door, setup.port, tokens)

            def load_with(name: str) -> int:
                progress.step(f"{door}: {name}, {requests:,} requests so far")
                path, headers = peer.path(door), load.headers_for(door)
                done = load.run_wrk(
                    folder, setup.port, path, headers, tokens.workloads[name], seconds=SLICE_S, core=LOAD_CORE
                )
                server.require_alive()
                return done.requests

            for name in WORKLOADS:  # The caches fill before anything counts.
                requests += load_with(name)
            sampler = Sampler(server)
            sampler.start()
            for number in range(slices):
                requests += load_with(WORKLOADS[number % len(WORKLOADS)])
            return requests, sampler.stop()
