"""`portcullis demo`: the real gateway between an issuer and an app of its own, and the lines to try it with."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

PREFERRED_PORT = 8080
READY_TIMEOUT_S = 20.0
READY_STEP_S = 0.05

_CONFIG = """\
# Made by `portcullis demo`; gone when it ends.
[server]
listen = "{listen}"
admin_listen = "{admin}"
run_dir = "{folder}/run"

[[issuers]]
issuer = "{issuer}"
audiences = ["demo-api"]
algorithms = ["ES256"]

[policy]
path = "{folder}/policies"
entities = "{folder}/entities.json"

[log]
access = "off"
audit = "-"

[[routes]]
path = "/orders/{{*rest}}"
scopes = ["orders:read"]
upstream = "{app}"

[[routes]]
path = "/admin/{{*rest}}"
scopes = ["admin"]
upstream = "{app}"

[[routes]]
path = "/notes/{{id}}"
methods = ["GET"]
action = 'Action::"read"'
resource = 'Note::"{{id}}"'
upstream = "{app}"

[[routes]]
path = "/public/{{*rest}}"
auth = "none"
upstream = "{app}"
"""

_SCHEMA = """\
entity Team;
entity User in [Team];
entity Note { owner: User, team?: Team };
action read appliesTo { principal: User, resource: Note };
"""

_POLICIES = """\
// Everybody reads their own notes.
@id("owners")
permit (principal, action == Action::"read", resource) when { resource.owner == principal };

// A team reads what its members share with it.
@id("teams")
permit (principal, action == Action::"read", resource) when { resource has team && principal in resource.team };
"""

_ENTITIES = [
    {"uid": {"type": "User", "id": "alice"}, "attrs": {}, "parents": [{"type": "Team", "id": "blue"}]},
    {"uid": {"type": "Note", "id": "1"}, "attrs": {"owner": {"type": "User", "id": "alice"}}, "parents": []},
    {
        "uid": {"type": "Note", "id": "2"},
        "attrs": {"owner": {"type": "User", "id": "bob"}, "team": {"type": "Team", "id": "blue"}},
        "parents": [],
    },
    {"uid": {"type": "Note", "id": "3"}, "attrs": {"owner": {"type": "User", "id": "bob"}}, "parents": []},
]

_GUIDE = """
Portcullis demo
  browser, curl ──▸ gateway {gateway} ──▸ app {app}
                       └──▸ keys of the issuer {issuer}

  1. no token: 401
     curl -i {gateway}/orders/1

  2. get one from the demo's issuer
     TOKEN=$(curl -s '{issuer}/token?sub=alice&scope=orders:read')

  3. with it: 200, and the app sees who calls
     curl -i -H "Authorization: Bearer $TOKEN" {gateway}/orders/1

  4. where it lacks the scope: 403
     curl -i -H "Authorization: Bearer $TOKEN" {gateway}/admin/users

  5. where policies decide: her own note and her team's, 200; somebody else's, 403
     for note in 1 2 3; do
       curl -s -o /dev/null -w '%{{http_code}}\\n' -H "Authorization: Bearer $TOKEN" {gateway}/notes/$note
     done

  also: what nobody may pretend, and what proxies ask
     curl -s -H "X-Auth-Subject: root" {gateway}/public/hello
     curl -i -H "Authorization: Bearer $TOKEN" {gateway}/auth/envoy/orders/1
     curl -s {admin}/metrics | grep decisions_total | grep -v ' 0$'

Ctrl-C ends it.
"""


@dataclass(frozen=True, slots=True)
class Places:
    """Where everything of one demo listens."""

    gateway: str
    admin: str
    issuer: str
    app: str


@click.command()
@click.option(
    "--port", type=click.IntRange(1, 65535), help=f"Where the gateway listens; else {PREFERRED_PORT} or a free port."
)
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as one JSON document, not the guide.")
def demo(port: int | None, as_json: bool) -> None:
    """Run the gateway between an issuer and an app of its own; print what to try."""
    with tempfile.TemporaryDirectory(prefix="portcullis-demo-") as folder, _services() as (issuer, app):
        listen = f"127.0.0.1:{port or _free_port(PREFERRED_PORT)}"
        admin = f"127.0.0.1:{_free_port(PREFERRED_PORT + 1)}"
        _write_policies(Path(folder))
        config = Path(folder) / "portcullis.toml"
        config.write_text(_CONFIG.format(listen=listen, admin=admin, folder=folder, issuer=issuer, app=app))
        places = Places(f"http://{listen}", f"http://{admin}", issuer, app)
        with _announced(places, as_json):
            status = _serve(config)
    sys.exit(status)


def _write_policies(folder: Path) -> None:
    (folder / "policies").mkdir()
    (folder / "policies" / "notes.cedarschema").write_text(_SCHEMA)
    (folder / "policies" / "notes.cedar").write_text(_POLICIES)
    (folder / "entities.json").write_text(json.dumps(_ENTITIES))


def _serve(config: Path) -> int:
    """Run the gateway as `portcullis serve` does, in a process whose signals are ours to forward; give its status."""
    command = [sys.executable, "-m", "gateway", "serve", "-c", str(config)]
    server = subprocess.Popen(command, start_new_session=True)

    def forward(number: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            server.send_signal(number)

    former = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        return server.wait()
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _services() -> Iterator[tuple[str, str]]:
    """Run the issuer and the app for a while; give their addresses."""
    command = [sys.executable, "-m", "gateway.cli.demo_services"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdin is not None and process.stdout is not None
    try:
        places = json.loads(process.stdout.readline() or b"{}")
        if not places:
            raise click.ClickException("the demo's issuer did not start")
        yield places["issuer"], places["app"]
    finally:
        process.stdin.close()
        process.wait()
        process.stdout.close()


@contextlib.contextmanager
def _announced(places: Places, as_json: bool) -> Iterator[None]:
    """Print the guide from a child as soon as the gateway answers; the child ends with us."""
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            _announce(places, as_json)
        os._exit(0)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGTERM)
        os.waitpid(child, 0)


def _announce(places: Places, as_json: bool) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while time.monotonic() < deadline:
        if _is_ready(places.gateway):
            break
        time.sleep(READY_STEP_S)
    else:
        return
    if as_json:
        text = json.dumps({field: getattr(places, field) for field in ("gateway", "admin", "issuer", "app")}, indent=2)
    else:
        text = _GUIDE.format(gateway=places.gateway, admin=places.admin, issuer=places.issuer, app=places.app)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _is_ready(gateway: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{gateway}/readyz", timeout=1) as answer:  # noqa: S310
        return bool(answer.status == 200)
    return False


def _free_port(preferred: int) -> int:
    """Give the preferred loopback port where it is free, else any free one."""
    for port in (preferred, 0):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            found: int = probe.getsockname()[1]
            return found
    raise click.ClickException("no loopback port is free")
