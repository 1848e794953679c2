"""What a proxy must know of a config: where the gateway is, which apps are behind it, which headers are ours."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from gateway.cli.render.placement import Pattern, kinds, parse_pattern, shortest
from gateway.config import Config, RouteConfig

PLACEHOLDER = "http://127.0.0.1:9000"
BUILT_IN_HEADERS = ("X-Auth-Subject", "X-Auth-Issuer", "X-Auth-Scopes")
DECISION_HEADER = "X-Auth-Decision-Id"
# What apps may believe of a proxy, and no client may say; those that a snippet sets itself are not in here.
UNTRUSTED_HEADERS = (
    "Forwarded",
    "X-Forwarded-Method",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "X-Forwarded-Uri",
    "X-Original-Method",
    "X-Original-Url",
    "X-Real-Ip",
    "X-Rewrite-Url",
)
AUTH_TIMEOUT_S = 10  # for one question to the gateway: it may wait for an issuer's keys (fetch_timeout_s, 5 by default)
RETRY_AFTER_S = 5  # where a proxy must say by itself what the gateway says with a 503

_PLAIN_SOCKET = re.compile(r"/[A-Za-z0-9_./@+-]+")


class CannotRender(ValueError):
    """The config has something that a proxy's config cannot express."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """An address that a proxy connects to: host and port, or the path of a socket."""

    host: str = ""
    port: int = 0
    tls: bool = False
    socket: str = ""

    @property
    def authority(self) -> str:
        """`host:port`, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """`http://host:port`."""
        return f"{'https' if self.tls else 'http'}://{self.authority}"


Target = tuple[Upstream, str]  # and what is taken off the path


@dataclass(frozen=True, slots=True)
class App:
    """Where requests go whose path has this pattern; `strip_prefix` is taken off it first."""

    pattern: Pattern
    upstream: Upstream
    strip_prefix: str = ""


@dataclass(frozen=True, slots=True)
class Host:
    """One host name ("" = any, `*.` = all below) and its apps: the first that fits is meant, and the last takes all."""

    name: str
    apps: tuple[App, ...]


@dataclass(frozen=True, slots=True)
class Site:
    """All of it. `listen` is where the proxy listens."""

    gateway: Upstream
    listen: Upstream
    hosts: tuple[Host, ...]
    identity: tuple[str, ...]

    def upstreams(self) -> dict[Upstream, str]:
        """Name each upstream of the apps once, in a stable order."""
        found = dict.fromkeys(app.upstream for host in self.hosts for app in host.apps)
        return {upstream: f"portcullis_app_{number}" for number, upstream in enumerate(found)}


def site_of(config: Config, *, listen: str, fallback: str = PLACEHOLDER) -> Site:
    """Gather what the snippets need. `fallback` is the app behind routes that name no upstream.

    Raises CannotRender for what no snippet can say.
    """
    names = list(dict.fromkeys(route.host.lower() for route in config.routes)) or [""]
    # A proxy asks the most specific name first; `""` must come last, where order decides.
    names.sort(key=lambda name: (name == "", name.startswith("*"), -len(name) if name.startswith("*") else 0))
    return Site(
        gateway=_gateway(config.server.listen),
        listen=parse_listen(listen),
        hosts=tuple(Host(name, _apps(_levels(name, config.routes, names), fallback)) for name in names),
        identity=(
            *BUILT_IN_HEADERS,
            *((DECISION_HEADER,) if config.identity.decision_id else ()),
            *sorted(config.identity.headers),
        ),
    )


def parse_listen(address: str) -> Upstream:
    """Read `host:port` or `:port`."""
    host, colon, port = address.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or not re.fullmatch(r"[A-Za-z0-9_.:\[\]-]*", host):
        raise CannotRender(f"`{address}` is no address; write `host:port`")
    return Upstream(host.strip("[]") or "0.0.0.0", int(port))


def _gateway(listen: str) -> Upstream:
    address = parse_listen(listen)
    return Upstream({"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host), address.port)


def _apps(levels: list[list[RouteConfig]], fallback: str) -> tuple[App, ...]:
    """Place the routes that count for a host: its own first, then those of wider names."""
    rules: list[tuple[Pattern, Target]] = []
    for routes in levels:
        targets: dict[Pattern, Target] = {}
        for route in routes:
            pattern = parse_pattern(route.path)
            target = (parse_upstream(route.upstream or fallback), unquote(route.strip_prefix.rstrip("/")))
            if targets.setdefault(pattern, target) != target:
                raise CannotRender(
                    f"routes of path `{route.path}` go to different upstreams, which only the proxy door can tell apart"
                )
        rules += sorted(targets.items(), key=lambda rule: (kinds(rule[0]), str(rule[0])))
    rest = next((target for _, target in rules if not target[1]), (parse_upstream(fallback), ""))
    return tuple(App(pattern, *target) for pattern, target in shortest(rules, rest))


def _levels(name: str, routes: Iterable[RouteConfig], names: Iterable[str]) -> list[list[RouteConfig]]:
    """Give the routes that the gateway asks for a host, in its order: the name itself, wildcards above it, any."""
    wider = [other for other in names if other.startswith("*.") and other != name and name.endswith(other[1:])]
    order = dict.fromkeys([name, *sorted(wider, key=len, reverse=True), ""])
    return [[route for route in routes if route.host.lower() == level] for level in order]


def parse_upstream(url: str) -> Upstream:
    """Read the address of an upstream as the config has it."""
    if url.startswith("unix:"):
        path = url.removeprefix("unix:")
        if not _PLAIN_SOCKET.fullmatch(path):
            raise CannotRender(f"`{path}`: letters, digits and `/_.@+-` only, in the path of a socket")
        return Upstream(socket=path)
    parts = urlsplit(url)
    tls = parts.scheme == "https"
    return Upstream(parts.hostname or "", parts.port or (443 if tls else 80), tls)


def indented(lines: Iterable[str], depth: int, width: int = 4) -> str:
    """Join lines, each `depth` steps in."""
    return "".join(f"{' ' * width * depth}{line}\n" for line in lines)
