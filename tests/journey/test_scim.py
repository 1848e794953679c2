"""SCIM at a real gateway: the protocol's own checks, who may call, and users that leave."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest
from scim2_client.engines.httpx2 import SyncSCIMClient
from scim2_tester import Status, check_server

from gateway.flows.sessions import Proof
from gateway.types import Subject
from tests.journey.test_sessions import WITHIN_S, asked, cookie, with_sessions
from tests.real.gateway import ISSUER, Gateway, gateway, issuer_toml, mint
from tests.real.http import Connection
from tests.real.lines import metric

pytestmark = pytest.mark.journey

TOKEN = "t" * 40
READER = "r" * 40
USER = "urn:ietf:params:scim:schemas:core:2.0:User"
POOL = 6
FLOOD = 10 * POOL
CONFIG = f"""
[directory]
url = "embedded"

[sessions]
url = "embedded"

[scim]
base_url = "http://127.0.0.1:@PORT@"
issuers = ["{ISSUER}"]

[[scim.clients]]
id = "entra"
token = "env:SCIM_TOKEN"

[[scim.clients]]
id = "inventory"
token = "env:SCIM_READER"
read_only = true

[[routes]]
path = "/app/{{*rest}}"
auth = "session"

[[routes]]
path = "/api/{{*rest}}"

[resilience.pools]
scim_provisioning = {POOL}
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("scim")
    env = {"SCIM_TOKEN": TOKEN, "SCIM_READER": READER}
    with gateway(folder, issuer_toml(folder) + CONFIG, env=env) as made:
        made.server.wait_for(lambda: is_ready(made), "the directory")
        yield made


def is_ready(running: Gateway) -> bool:
    with http(running) as client:
        return client.get("/Users").status_code == 200


def http(running: Gateway, token: str = TOKEN) -> httpx2.Client:
    return httpx2.Client(
        base_url=f"http://127.0.0.1:{running.port}/scim/v2",
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/scim+json"},
        timeout=30,
    )


def test_all_of_the_protocols_own_checks_pass(running: Gateway) -> None:
    with http(running) as client:
        results = check_server(SyncSCIMClient(client))
    wrong = [f"{each.title}: {each.reason}" for each in results if each.status not in (Status.SUCCESS, Status.SKIPPED)]
    assert wrong == []
    assert [each.title for each in results if each.status == Status.SKIPPED] == []
    assert len(results) > 100


def new_user(running: Gateway, name: str, **more: Any) -> dict[str, Any]:
    with http(running) as client:
        made = client.post("/Users", json={"schemas": [USER], "userName": name, **more})
    assert made.status_code == 201, made.text
    found: dict[str, Any] = made.json()
    return found


@pytest.mark.parametrize(
    ("token", "get", "post"),
    [
        (TOKEN, 200, 400),
        (READER, 200, 403),
        ("x" * 40, 401, 401),
        ({"scope": "scim"}, 200, 400),
        ({"scope": "openid scim:read"}, 200, 403),
        ({"scope": "orders:read"}, 403, 403),
        ({"key": "two", "scope": "scim"}, 401, 401),
        ({"scope": "scim", "exp": 1}, 401, 401),
    ],
)
def test_only_who_may_provisions(running: Gateway, token: str | dict[str, Any], get: int, post: int) -> None:
    """A dict is what a token is made of, now: one that was made when tests were collected may be over."""
    with http(running, token if isinstance(token, str) else mint(**token)) as client:
        read = client.get("/Users", params={"count": 1})
        written = client.post("/Users", json={"schemas": [USER]})
    assert (read.status_code, written.status_code) == (get, post)
    for answer in (read, written):
        assert answer.headers["content-type"] == "application/scim+json"
        if answer.status_code == 401:
            assert answer.headers["www-authenticate"].startswith('Bearer realm="scim"')
            assert answer.json()["schemas"] == ["urn:ietf:params:scim:api:messages:2.0:Error"]


def test_who_is_deactivated_is_out_within_a_second(running: Gateway) -> None:
    user_id = new_user(running, "gone")["id"]
    subject, proof = Subject("", user_id), Proof(amr=("pwd",))
    value = with_sessions(running.folder / "run", lambda sessions: sessions.begin(subject, proof)).value
    operation = {"op": "Replace", "path": "active", "value": "False"}
    with http(running) as client, Connection(running.port) as connection:
        assert asked(connection, cookie(value)).status == 200
        patch = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [operation]}
        assert client.patch(f"/Users/{user_id}", json=patch).status_code == 200
        ended_s = time.monotonic()
        while asked(connection, cookie(value)).status == 200:
            assert time.monotonic() - ended_s < 4 * WITHIN_S


def test_bodies_are_read_within_limits_and_in_one_way(running: Gateway) -> None:
    with http(running) as client:
        large = client.post("/Users", content=b'{"userName": "' + b"x" * (1 << 20) + b'"}')
        assert (large.status_code, large.json()["status"]) == (413, "413")
        for body in (b"{", b"[]", b'{"userName": "a", "userName": "b"}', b"", b'{"userName": "\xff"}'):
            assert client.post("/Users", content=body).status_code == 400
        form = client.post("/Users", content=b"{}", headers={"Content-Type": "text/plain"})
        assert form.status_code == 415
        assert client.put("/Users").status_code == 405
        assert client.get("/Nothing").json()["status"] == "404"
        assert client.post("/Bulk", json={"schemas": [], "Operations": []}).status_code == 400
        assert client.get("/Schemas", params={"filter": "id pr"}).status_code == 403


def test_a_flood_is_told_to_come_again_and_nobody_else_is_refused(running: Gateway) -> None:
    def judged() -> float:
        began_s = time.monotonic()
        token = ("Authorization", f"Bearer {mint()}")
        headers = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/api/x"), ("X-Forwarded-Host", "app.test")]
        with Connection(running.port) as connection:
            answer = connection.request("GET", "/auth/forward", [*headers, ("X-Forwarded-Proto", "https"), token])
        assert answer.status == 200
        return time.monotonic() - began_s

    def provision(number: int) -> httpx2.Response:
        with http(running) as client:
            return client.get("/Users", params={"filter": f'title eq "{number}"', "sortBy": "userName"})

    alone = [judged() for _ in range(20)]
    with ThreadPoolExecutor(FLOOD) as pool:
        flood = [pool.submit(provision, number) for number in range(3 * FLOOD)]
        beside = [judged() for _ in range(20)]
        answers = [each.result() for each in flood]
    counted = Counter(answer.status_code for answer in answers)
    assert set(counted) == {200, 503}
    assert counted[503] > 0
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert int(refused.headers["retry-after"]) >= 1
    assert refused.json()["detail"].startswith(("pool_full", "overloaded"))
    text = running.admin("/metrics").body.decode()
    for name in ("user_auth", "admin_auth", "token_validation", "external_idp"):
        for reason in ("full", "waited", "shed"):
            assert metric(text, "portcullis_pool_refused_total", pool=name, reason=reason) == 0
    # Both run on the machine of the test, together with sixty clients: what is looked for here is a standstill.
    assert statistics.median(beside) < 20 * statistics.median(alone) + 0.5
