"""What policies cost at the doors: inside one FrontDoor, and over HTTP beside the same gateway without them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench import door_policies, journey
from bench.front import Door, forward_scope
from bench.journey import DISTINCT, SAME, Figures
from bench.material import Issuer
from bench.measure import Contestant, calling, difference_us, race
from bench.peers.portcullis import Portcullis, PortcullisPolicy
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
HTTP_PEERS = (Portcullis(), PortcullisPolicy())


@dataclass(slots=True)
class DoorFigures:
    """One row for each number of tokens that come in turn."""

    rows: list[list[Cell]] = field(default_factory=list)
    more_us: dict[int, float] = field(default_factory=dict)
    per_op_ns: dict[str, list[float]] = field(default_factory=dict)


def doors(issuer: Issuer, tokens: list[bytes]) -> dict[str, Door]:
    """Make one door without policies and one with: everything else is the same."""
    schema = Schema.parse(door_policies.SCHEMA)
    policies = PolicySet.parse(door_policies.POLICIES)
    assert policies.validate(schema).ok
    entities = Entities.from_json(door_policies.entities_for(tokens), schema=schema)
    cell = DeciderCell(Engine(policies, entities, schema))
    principals = PrincipalClaims(PolicyConfig(), schema)
    plain = Door(our_validator(issuer), [ROUTES["without"]])
    asking = Door(
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


def _prove(door: Door, tokens: list[bytes]) -> None:
    """Who is no clerk of the order's team is refused, so the door does ask."""
    scope = forward_scope(tokens[0])
    assert door.status(scope) == 200
    other = [
        (name, value.replace(door_policies.ORDER.encode(), b"17")) if name == b"x-forwarded-uri" else (name, value)
        for name, value in scope["headers"]
    ]
    assert door.status({**scope, "headers": other}) == 403


def over_http(*, rounds: int, seconds: int) -> tuple[list[Figures], dict[str, str]]:
    """Load whole servers, one worker each: forward-auth and proxy door, with policies and without, in turn."""
    return journey.measure(
        journey.Plan(
            rounds=rounds,
            seconds=seconds,
            warm_up_s=1,
            peers=HTTP_PEERS,
            workloads=(SAME, DISTINCT),
        )
    )


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
