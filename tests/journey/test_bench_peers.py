"""Every peer of the benchmarks really starts as configured, and gives the answers that its times are counted for."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import load
from bench.journey import PEERS, Tokens, check_answers, workloads_of
from bench.load import run_wrk
from bench.peers.base import Door, Peer, Setup
from bench.peers.nginx import UpstreamApp
from bench.process import free_port, serving

pytestmark = pytest.mark.journey

CASES = [(peer, door) for peer in PEERS for door in peer.doors]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    return Tokens(tmp_path_factory.mktemp("tokens"), distinct=50, bad=20)


@pytest.mark.parametrize(("peer", "door"), CASES, ids=[f"{peer.name}, {door}" for peer, door in CASES])
def test_a_peer_answers_as_it_is_measured(peer: Peer, door: Door, tokens: Tokens, tmp_path: Path) -> None:
    for lacking in (peer.missing(), UpstreamApp().missing(), load.missing()):
        if lacking is not None:
            pytest.skip(lacking)
    app_folder = tmp_path / "app"
    app_folder.mkdir()
    setup = Setup(tmp_path, free_port(), door, tokens.issuer, free_port(), tokens.good)
    app = Setup(app_folder, setup.upstream_port, door, tokens.issuer, 0)
    with (
        serving(UpstreamApp().command(app), app_folder, core=0) as upstream,
        serving(peer.command(setup), tmp_path, core=0, environment=peer.environment) as server,
    ):
        upstream.wait_until_listening(app.port)
        server.wait_until_listening(setup.port)
        check_answers(peer, door, setup.port, tokens)
        for workload in workloads_of(peer, door):
            asked = tokens.workloads[workload]
            run = run_wrk(tmp_path, setup.port, peer.path(door), load.headers_for(door), asked, seconds=1, core=0)
            assert run.requests > 0
        assert server.usage().largest_rss_bytes > 1_000_000
