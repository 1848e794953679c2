"""Canonical paths and route choice, written for reading: every fault is collected, every route is tried."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple
from urllib.parse import quote, unquote_to_bytes

PCHARS = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@"
)  # RFC 3986 §3.3, no `;`
HEX = b"0123456789abcdefABCDEF"
PATH_BYTES_MAX = 4096

LITERAL, PARAMETER, REST = range(3)


class Unit(NamedTuple):
    """One character of a raw path: where it stands, the byte it means, and whether it was escaped."""

    offset: int
    byte: int
    escaped: bool


def units_of(raw: bytes) -> tuple[list[Unit], list[tuple[int, str]]]:
    """Split a raw path into units and the places where a `%` is none."""
    units, faults, at = [], [], 0
    while at < len(raw):
        if raw[at] != 0x25:
            units.append(Unit(at, raw[at], False))
            at += 1
        elif len(raw) - at >= 3 and raw[at + 1] in HEX and raw[at + 2] in HEX:
            units.append(Unit(at, int(raw[at + 1 : at + 3], 16), True))
            at += 3
        else:
            faults.append((at, "path_escape"))
            units.append(Unit(at, 0x25, False))
            at += 1
    return units, faults


def utf8_faults(units: Sequence[Unit]) -> Iterable[tuple[int, str]]:
    """Name the escaped bytes at which Python's own strict decoder stops. Plain bytes end a character."""
    at = 0
    while at < len(units):
        run = at
        while run < len(units) and units[run].escaped:
            run += 1
        try:
            bytes(unit.byte for unit in units[at:run]).decode()
        except UnicodeDecodeError as error:
            yield units[at + error.start].offset, "path_utf8"
        at = run + 1


def faults_of(raw: bytes) -> set[tuple[int, str]]:
    """Return all that is wrong with a raw path, as (offset, code)."""
    if len(raw) > PATH_BYTES_MAX:
        return {(PATH_BYTES_MAX, "path_too_long")}
    if not raw.startswith(b"/"):
        return {(0, "path_not_absolute")}
    units, found = units_of(raw)
    faults = set(found)
    for offset, byte, escaped in units:
        if byte < 0x20 or byte == 0x7F:
            faults.add((offset, "path_control"))
        elif byte == 0x5C or (byte == 0x2F and escaped):
            faults.add((offset, "path_separator"))
        elif byte == 0x3B:
            faults.add((offset, "path_parameter"))
        elif not escaped and byte not in PCHARS and byte not in b"/%":
            faults.add((offset, "path_raw"))
    faults.update(utf8_faults(units))
    for first, second, third in zip(units, units[1:], units[2:], strict=False):
        if first.escaped and first.byte == 0x25 and second.byte in HEX and third.byte in HEX:
            faults.add((first.offset, "path_escape"))
    slashes = [i for i, unit in enumerate(units) if unit.byte == 0x2F and not unit.escaped] + [len(units)]
    for here, following in pairwise(slashes):
        segment = bytes(unit.byte for unit in units[here + 1 : following])
        if segment in (b".", b".."):
            faults.add((units[here + 1].offset, "path_dot_segment"))
        if not segment and following < len(units):
            faults.add((units[following].offset, "path_double_slash"))
    return faults


def canonical_path(raw: bytes) -> bytes | tuple[int, str]:
    """Return the canonical form, or the first fault."""
    faults = faults_of(raw)
    if faults:
        return min(faults)
    return quote(unquote_to_bytes(raw), safe=bytes(PCHARS) + b"/").encode()


class Pattern(NamedTuple):
    """One route as the oracle knows it; `methods` () means any."""

    path: str
    host: str
    methods: tuple[str, ...]

    def kinds(self) -> tuple[int, ...]:
        """Say for each segment how specific it is: less is more specific."""
        return tuple(
            REST if s.startswith("{*") else PARAMETER if s.startswith("{") else LITERAL for s in self.segments()
        )

    def segments(self) -> list[str]:
        return self.path[1:].split("/")

    def place(self) -> tuple[str, tuple[str, ...]]:
        """Return what two routes share when they name the same place: parameters' names do not count."""
        shape = (
            "{*}" if kind == REST else "{}" if kind == PARAMETER else text
            for kind, text in zip(self.kinds(), self.segments(), strict=True)
        )
        return self.host, tuple(shape)

    def match_path(self, path: str) -> dict[str, str] | None:
        expression = ""
        for kind, text in zip(self.kinds(), self.segments(), strict=True):
            name = text.strip("{*}")
            expression += (
                "/" + {LITERAL: re.escape(text), PARAMETER: f"(?P<{name}>[^/]+)", REST: f"(?P<{name}>.*)"}[kind]
            )
        found = re.fullmatch(expression, path)
        return None if found is None else found.groupdict()

    def host_rank(self, host: str) -> int | None:
        """Return 0 for the host itself, less specific suffixes and then any host higher; None where it is another."""
        if not self.host:
            return 1000
        if self.host.startswith("*."):
            return 500 - len(self.host) if host.endswith(self.host[1:]) and len(host) > len(self.host) - 1 else None
        return 0 if self.host == host else None


def conflicts(patterns: Sequence[Pattern]) -> bool:
    """Say whether two of the routes claim one method of one place."""
    seen = set()
    for pattern in patterns:
        for method in pattern.methods or ("",):
            if (pattern.place(), method) in seen:
                return True
            seen.add((pattern.place(), method))
    return False


def find(patterns: Sequence[Pattern], host: str, path: str, method: str) -> tuple[int, dict[str, str]] | str:
    """Return the route's position and its parameters, or "no_route", or "no_method"."""
    host = host.lower().removesuffix(".")
    candidates = []
    for pattern in patterns:
        rank, parameters = pattern.host_rank(host), pattern.match_path(path)
        if rank is not None and parameters is not None:
            candidates.append((rank, pattern.kinds(), pattern.place()))
    if not candidates:
        return "no_route"
    place = min(candidates)[2]
    here = [(i, pattern) for i, pattern in enumerate(patterns) if pattern.place() == place]
    for wanted in (method, "GET" if method == "HEAD" else method, None):
        for i, pattern in here:
            if (wanted is None and not pattern.methods) or wanted in pattern.methods:
                parameters = pattern.match_path(path)
                assert parameters is not None
                return i, parameters
    return "no_method"
