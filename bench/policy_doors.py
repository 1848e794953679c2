"""What policies cost at the doors: inside one FrontDoor, and over HTTP beside the same gateway without them."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench import door_policies, load
from bench.front import FrontDoorAsked, forward_scope
from bench.journey import DISTINCT, LOAD_CORE, SAME, SERVER_CORE, Figures, Tokens, check_answers
from bench.material import Issuer
from bench.measure import Contestant, calling, difference_us, race
from bench.peers.base import Door, Peer, Setup
from bench.peers.nginx import UpstreamApp
from bench.peers.portcullis import Portcullis, PortcullisPolicy
from bench.process import Server, free_port, serving
from bench.table import Cell, Part, Table
from bench.verifiers import our_validator
from gateway._native.route_policy import DeciderCell
from gateway.config import PolicyConfig, RouteConfig
from gateway.front.principals import PrincipalClaims
from gateway.front.route_policy import compile_route_policy
from gateway.policy import Engine, Entities, PolicySet, Schema

PATH = "/api/orders/{id}"
ROUTES = {
    "without": RouteConfig(path=PATH),
    "with": RouteConfig(
        path=PATH, action=door_policies.ACTION, resource=door_policies.RESOURCE, context=door_policies.CONTEXT
    ),
}
MANY = 10_000  # tokens
CHANNEL = (b"x-channel", b"web")
DOORS: tuple[Door, ...] = ("forward", "proxy")
HTTP_PEERS = (Portcullis(), PortcullisPolicy())


@dataclass(slots=True)
class DoorFigures:
    """One row for each number of tokens that come in turn."""

    rows: list[list[Cell]] = field(default_factory=list)
    more_us: dict[int, float] = field(default_factory=dict)
    per_op_ns: dict[str, list[float]] = field(default_factory=dict)


def doors(issuer: Issuer, tokens: list[bytes]) -> dict[str, FrontDoorAsked]:
    """Make one door without policies and one with: everything else is the same."""
    schema = Schema.parse(door_policies.SCHEMA)
    policies = PolicySet.parse(door_policies.POLICIES)
    assert policies.validate(schema).ok
    entities = Entities.from_json(door_policies.entities_for(tokens), schema=schema)
    cell = DeciderCell(Engine(policies, entities, schema))
    principals = PrincipalClaims(PolicyConfig(), schema)
    plain = FrontDoorAsked(our_validator(issuer), [ROUTES["without"]])
    asking = FrontDoorAsked(
        our_validator(issuer),
        [ROUTES["with"]],
        policies=cell,
        policy_of=lambda route, index: compile_route_policy(route, index, principals),
    )
    return {"without": plain, "with": asking}


def in_process(issuer: Issuer, tokens: list[bytes], *, rounds: int, count: int) -> DoorFigures:
    """Time known tokens, one again and again and many in turn, with policies and without."""
    figures = DoorFigures()
    both = doors(issuer, tokens)
    _prove(both["with"], tokens)
    for turn in (1, 500, len(tokens)):
        scopes = [forward_scope(token) for token in tokens[:turn]]
        for scope in scopes:
            scope["headers"].append(CHANNEL)
        for door in both.values():
            assert {door.status(scope) for scope in scopes * 2} == {200}
        pair = [Contestant(name, calling(door.call, scopes), max(count, turn)) for name, door in both.items()]
        race(pair, rounds)
        more = difference_us(pair[1], pair[0])
        figures.more_us[turn] = more
        figures.rows.append([f"{turn:,} tokens in turn", pair[0].median_us, pair[1].median_us, more])
        figures.per_op_ns |= {f"{turn} {each.name}": each.per_op_ns for each in pair}
    return figures


def _prove(door: FrontDoorAsked, tokens: list[bytes]) -> None:
    """Who is no clerk of the order's team is refused, so the door does ask."""
    scope = forward_scope(tokens[0])
    assert door.status(scope) == 200
    other = [
        (name, value.replace(door_policies.ORDER.encode(), b"17")) if name == b"x-forwarded-uri" else (name, value)
        for name, value in scope["headers"]
    ]
    assert door.status({**scope, "headers": other}) == 403


def over_http(*, bursts: int, seconds: int) -> list[Figures]:
    """Load both gateways, one worker each on one core, in short bursts that take turns: pairs had the same machine.

    Raises ServerFailed, and WrongAnswer for an answer that is not what it should be.
    """
    figures: list[Figures] = []
    with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as name:
        folder = Path(name)
        tokens = Tokens(folder, distinct=MANY, bad=1)
        for door in DOORS:
            own = folder / door
            own.mkdir()
            with contextlib.ExitStack() as stack:
                servers = _serve_both(stack, own, door, tokens)
                for workload in (SAME, DISTINCT):
                    both = [Figures(peer.name, door, workload) for peer in HTTP_PEERS]
                    for burst in range(bursts + 1):  # the first one warms up
                        for at in (0, 1) if burst % 2 else (1, 0):
                            _burst(servers[at], both[at] if burst else None, own, tokens, seconds)
                    figures += both
    return figures


@dataclass(frozen=True, slots=True)
class _Served:
    peer: Peer
    server: Server
    port: int


def _serve_both(stack: contextlib.ExitStack, folder: Path, door: Door, tokens: Tokens) -> list[_Served]:
    upstream_port = free_port()
    app = Setup(folder, upstream_port, door, tokens.issuer, 0)
    upstream = stack.enter_context(serving(UpstreamApp().command(app), folder, core=LOAD_CORE))
    upstream.wait_until_listening(upstream_port)
    made = []
    for number, peer in enumerate(HTTP_PEERS):
        own = folder / str(number)
        own.mkdir()
        setup = Setup(own, free_port(), door, tokens.issuer, upstream_port, tokens.good)
        command = peer.command(setup)
        server = stack.enter_context(serving(command, own, core=SERVER_CORE, environment=peer.environment))
        server.wait_until_listening(setup.port)
        check_answers(peer, door, setup.port, tokens)
        made.append(_Served(peer, server, setup.port))
    return made


def _burst(served: _Served, figures: Figures | None, folder: Path, tokens: Tokens, seconds: int) -> None:
    """Load one server for a moment. Without figures: to warm up, with all tokens."""
    door: Door = "forward" if folder.name == "forward" else "proxy"
    path, headers = served.peer.path(door), load.headers_for(door)
    asked = tokens.workloads[DISTINCT if figures is None else figures.workload]
    before = served.server.usage()
    run = load.run_wrk(folder, served.port, path, headers, asked, seconds=seconds, core=LOAD_CORE)
    served.server.require_alive()
    if figures is not None:
        figures.take(run, served.server.usage().cpu_s - before.cpu_s, served.server)


def part(inside: DoorFigures) -> Part:
    """Give what policies add to one request, in one process."""
    columns = ("µs a request", "without policies", "with", "more")
    bars = {"token known + policy: µs more": max(inside.more_us[turn] for turn in (1, 500))}
    if MANY in inside.more_us:
        bars["token known + policy, of many: µs more"] = inside.more_us[MANY]
    tables = [Table("forward-auth in the front door, tokens known", columns, inside.rows)]
    return Part(tables, bars, {"front door": inside.per_op_ns})


def http_part(figures: Sequence[Figures]) -> Part:
    """Give one row for each door and workload over HTTP: requests and CPU time, without policies and with."""
    found: dict[tuple[str, str], dict[str, Figures]] = {}
    for each in figures:
        found.setdefault((each.door, each.workload), {})[each.peer] = each
    rows: list[list[Cell]] = []
    for (door, workload), peers in found.items():
        both = [peers[peer.name] for peer in HTTP_PEERS if peer.name in peers]
        if len(both) == 2:
            cells = [each.median(name) for name in ("requests_per_s", "cpu_us") for each in both]
            rows.append([f"{'forward-auth' if door == 'forward' else 'proxy door'}, {workload}", *cells])
    columns = ("over HTTP", "req/s without", "with policies", "CPU µs without", "with policies")
    measured = {f"{each.peer}, {each.door}, {each.workload}": asdict(each) for each in figures}
    bars: Mapping[Any, Any] = {(each.peer, each.door, each.workload): each for each in figures}
    return Part([Table("whole requests, one worker", columns, rows)], bars, {"http": measured})
