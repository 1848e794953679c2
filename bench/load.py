"""The load: wrk with 64 keep-alive connections, its requests made before the run, its answers counted.

wrk is a closed loop: a connection asks again when it has its answer. Its latencies are those of a server that is kept
busy by 64 askers, no more; they say nothing of a queue that grows.
"""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine import first_match

CONNECTIONS = 64

# What Traefik, Caddy and HAProxy say of the original request; all peers get it, so that all parse the same bytes.
FORWARD_HEADERS = {
    "X-Forwarded-Method": "GET",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "api.example.com",
    "X-Forwarded-Uri": "/api/orders/4711",
    "X-Forwarded-For": "203.0.113.7",
}
COMMON_HEADERS = {
    "Host": "api.example.com",
    "Accept": "application/json",
    "User-Agent": "bench/1.0",
}

_SCRIPT = """\
local requests = {{}}
local next_request = 0

function init(args)
  local headers = {{{headers}}}
  for token in io.lines("{tokens}") do
    headers["{header}"] = "{prefix}" .. token
    requests[#requests + 1] = wrk.format("GET", "{path}", headers)
  end
end

function request()
  next_request = next_request % #requests + 1
  return requests[next_request]
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\\nRESULT {{"requests": %d, "elapsed_us": %d, "refused": %d, "errors": %d, '
    .. '"p50_us": %d, "p99_us": %d, "max_us": %d}}\\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
"""


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of request: which tokens are sent in turn, and what must come back."""

    name: str
    tokens: Path  # one a line
    expected_status: int
    header: str = "Authorization"  # that carries them
    prefix: str = "Bearer "


@dataclass(frozen=True, slots=True)
class Run:
    """What wrk saw."""

    requests: int
    elapsed_s: float
    p50_us: int
    p99_us: int
    max_us: int


class WrongAnswer(Exception):
    """A server gave another answer than asked for: its time does not count."""


def missing() -> str | None:
    """Say what the load lacks here, or None."""
    for program in ("wrk", "taskset"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    return None


def version() -> str:
    return first_match(["wrk", "-v"], r"wrk (?:debian/)?(\S+)")


def headers_for(door: str) -> dict[str, str]:
    return {**COMMON_HEADERS, **FORWARD_HEADERS} if door == "forward" else dict(COMMON_HEADERS)


def ask(port: int, path: str, headers: Mapping[str, str], token: bytes | None) -> tuple[int, Mapping[str, str], bytes]:
    """Send one request; give status, headers (names in lower case) and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        sent = dict(headers)
        if token is not None:
            sent["Authorization"] = f"Bearer {token.decode()}"
        connection.request("GET", path, headers=sent)
        response = connection.getresponse()
        body = response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, body
    finally:
        connection.close()


def write_tokens(path: Path, tokens: Sequence[bytes]) -> Path:
    path.write_bytes(b"\n".join(tokens) + b"\n")
    return path


def run_wrk(
    folder: Path, port: int, path: str, headers: Mapping[str, str], load: Workload, *, seconds: int, core: int
) -> Run:
    """Load a server for some seconds. Raises WrongAnswer unless every single answer was the expected one."""
    script = folder / "load.lua"
    table = ", ".join(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items())
    script.write_text(
        _SCRIPT.format(headers=table, tokens=load.tokens, path=path, header=load.header, prefix=load.prefix)
    )
    command = ["taskset", "-c", str(core), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script)]
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{port}"], capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    found = re.search(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    if found is None:
        raise WrongAnswer(f"wrk gave no result: {done.stdout[-300:]} {done.stderr[-300:]}")
    result = json.loads(found[1])
    wrong = result["refused"] if load.expected_status < 400 else result["requests"] - result["refused"]
    if result["requests"] == 0 or wrong or result["errors"]:
        raise WrongAnswer(
            f"of {result['requests']} answers {wrong} were not {load.expected_status}; {result['errors']} errors"
        )
    return Run(result["requests"], result["elapsed_us"] / 1e6, result["p50_us"], result["p99_us"], result["max_us"])
