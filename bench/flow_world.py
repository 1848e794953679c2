"""A gateway with people, sessions, tokens and SCIM, as the bench of the flows asks it; and what is asked.

One worker on one core, everything embedded: what SQLite costs is in the figures. Nothing is measured of an answer that
was not the right one when it was asked for alone.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlencode

from bench.journey import SERVER_CORE
from bench.material import AUDIENCE, ISSUER, Issuer
from bench.open_loop import request_bytes
from bench.process import Server, free_port, serving
from gateway.config import load_config
from gateway.flows.password import PasswordHasher
from gateway.flows.sessions import Proof, SessionNames, Sessions
from gateway.flows.trail import AuditTrail
from gateway.front.directory import open_configured_directory
from gateway.front.login.part import hash_parameters
from gateway.front.own_keys import own_key
from gateway.front.sessions import KEY_FILE
from gateway.stores import open_session_store
from gateway.stores.directory import PasswordHash, Tenant, User, new_id
from gateway.types import AuditEvent, Secret, Subject, SystemClock

T = TypeVar("T")

HOST = "app.bench.example"
PASSWORD = "correct horse battery staple"
PEOPLE = 200
CROWD = 1000  # where there are so many log-ins that one of few would be in two of them
INTROSPECTOR, SECRET = "bench", "s" * 40
COOKIE = "__Host-portcullis"
LOGIN, INTROSPECT, SCIM, SSO = "/login", "/oauth2/introspect", "/scim/v2/Users", "/login/sso/corp"
READY_TIMEOUT_S = 30.0
_CHECKOUT = Path(__file__).resolve().parent.parent

_CONFIG = """\
[server]
listen = "127.0.0.1:{port}"
admin_listen = "127.0.0.1:{admin_port}"
workers = 1
run_dir = {run_dir}

[log]
level = "error"
access = "off"
audit = "off"

[[issuers]]
issuer = "{issuer}"
audiences = ["{audience}"]
jwks_file = {jwks}

[directory]
url = "embedded"

[sessions]
url = "embedded"

[login]
enabled = true
url = "https://{host}"

[introspection]
clients = [{{ id = "bench", secret = "env:BENCH_SECRET" }}]

[scim]
base_url = "https://{host}"

[[scim.clients]]
id = "bench"
token = "env:BENCH_SECRET"

{more}
[[routes]]
path = "/api/orders/{{id}}"

[[routes]]
path = "/app/{{id}}"
auth = "session"
"""


class _NoTrail:
    def tell(self, event: AuditEvent) -> None:
        """Take no note: the bench makes its own people."""


@dataclass(frozen=True, slots=True)
class World:
    """One running gateway. `names`: who can log in, by PASSWORD. `session`: the value of a cookie that holds."""

    port: int
    admin_port: int
    server: Server
    names: tuple[str, ...]
    session: str
    token: bytes

    def ask(
        self, method: str, target: str, headers: Mapping[str, str], body: bytes = b"", *, admin: bool = False
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Make one request of its own connection."""
        port = self.admin_port if admin else self.port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request(method, target, body or None, {"Host": HOST, **headers})
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def metric(self, name: str, **labels: str) -> float:
        """Give the sum of a metric's samples that have these labels."""
        text = self.ask("GET", "/metrics", {}, admin=True)[2].decode()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        lines = [line for line in text.splitlines() if re.match(rf"{name}[{{ ]", line)]
        return sum(float(line.rpartition(" ")[2]) for line in lines if all(each in line for each in wanted))

    def logins(self) -> list[bytes]:
        """Make a log-in of each of the people; each has a browser of its own that was shown the form."""
        made = []
        for name in self.names:
            _, headers, page = self.ask("GET", LOGIN, {"Accept": "text/html"})
            cookie = headers.get_all("set-cookie")[0].partition(";")[0]  # type: ignore[index]
            found = re.search(rb'name="csrf" value="([^"]+)"', page)
            assert found is not None, page
            form = urlencode({"csrf": found[1].decode(), "username": name, "password": PASSWORD}).encode()
            sent = {
                "Content-Type": "application/x-www-form-urlencoded",
                "Cookie": cookie,
                "Origin": f"https://{HOST}",
                "Sec-Fetch-Site": "same-origin",
                "Accept": "text/html",
                "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Firefox/140.0",
            }
            made.append(request_bytes("POST", LOGIN, sent, form, host=HOST))
        return made

    def introspections(self, tokens: list[bytes]) -> list[bytes]:
        """Make a question about each token."""
        basic = base64.b64encode(f"{INTROSPECTOR}:{SECRET}".encode()).decode()
        sent = {"Content-Type": "application/x-www-form-urlencoded", "Authorization": f"Basic {basic}"}
        return [request_bytes("POST", INTROSPECT, sent, b"token=" + token, host=HOST) for token in tokens]

    def provisionings(self) -> list[bytes]:
        """Make what a provisioning service asks all day: who has this name, and make this one."""
        sent = {"Authorization": f"Bearer {SECRET}", "Content-Type": "application/scim+json"}
        made = []
        for number in range(200):
            query = urlencode({"filter": f'userName eq "somebody{number}"'})
            made.append(request_bytes("GET", f"{SCIM}?{query}", sent, host=HOST))
            user = {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": f"new{number}"}
            made.append(request_bytes("POST", SCIM, sent, json.dumps(user).encode(), host=HOST))
        return made


@contextlib.contextmanager
def world(
    folder: Path, issuer: Issuer, *, hashing: bool = True, more: str = "", people: int = PEOPLE
) -> Iterator[World]:
    """Run a gateway with its people. `hashing`: with argon2id, or with what costs nothing in its place."""
    folder.mkdir(parents=True)
    jwks, run_dir = folder / "keys.json", folder / "run"
    issuer.write_jwks(jwks)
    run_dir.mkdir(mode=0o700)
    port, admin_port = free_port(), free_port()
    config = folder / "portcullis.toml"
    texts = {"run_dir": json.dumps(str(run_dir)), "jwks": json.dumps(str(jwks))}
    config.write_text(
        _CONFIG.format(
            port=port, admin_port=admin_port, issuer=ISSUER, audience=AUDIENCE, host=HOST, more=more, **texts
        )
    )
    environment = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(_CHECKOUT), os.environ.get("PYTHONPATH")])),
        "BENCH_SECRET": SECRET,
    }
    names, session = asyncio.run(_people(config, run_dir, environment, hashing=hashing, count=people))
    module = "gateway" if hashing else "bench.without_hashing"
    command = [sys.executable, "-m", module, "serve", "-c", str(config)]
    with serving(command, folder, core=SERVER_CORE, environment=environment) as server:
        server.wait_until_listening(port)
        made = World(port, admin_port, server, names, session, issuer.tokens(1)[0])
        _wait_until_ready(made)
        yield made


def _wait_until_ready(made: World) -> None:
    ends_s = time.monotonic() + READY_TIMEOUT_S
    while made.ask("GET", "/readyz", {}, admin=True)[0] != 200 or made.ask("GET", LOGIN, {})[0] != 200:
        made.server.require_alive()
        if time.monotonic() > ends_s:
            raise TimeoutError("the gateway does not get ready")
        time.sleep(0.1)


async def _people(
    config: Path, run_dir: Path, environment: Mapping[str, str], *, hashing: bool, count: int
) -> tuple[tuple[str, ...], str]:
    """Make the users, who have one password, and a session."""
    loaded = load_config(config, env={**os.environ, **environment})
    clock = SystemClock()
    directory = open_configured_directory(loaded.config.directory, base_dir=loaded.base_dir, run_dir=run_dir)
    try:
        if hashing:
            kept = await PasswordHasher(_at_once, hash_parameters(loaded.config.login)).hash(PASSWORD)
        else:
            from bench.without_hashing import hash_of

            kept = hash_of(PASSWORD.encode())
        await directory.put_tenant(Tenant("", ""))
        names = tuple(f"person{number}" for number in range(count))
        for name in names:
            user = await directory.add_user(User(id=new_id("usr_"), tenant="", user_name=name))
            await directory.set_password(PasswordHash(user_id=user.id, hash=kept, changed_s=clock.wall_s()))
    finally:
        await directory.close()
    store = open_session_store("", run_dir, clock)
    try:
        own = SessionNames("local", Secret(own_key(run_dir, KEY_FILE)))
        sessions = Sessions(store, own, clock=clock, trail=AuditTrail(_NoTrail(), clock))
        begun = await sessions.begin(Subject("", user.id), Proof(amr=("pwd",)))
    finally:
        await store.close()
    return names, begun.value


async def _at_once(work: Callable[[], T]) -> T:
    return work()
