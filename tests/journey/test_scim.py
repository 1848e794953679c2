"""SCIM at a real gateway: the protocol's own checks, who may call, and users that leave."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
from scim2_client.engines.httpx2 import SyncSCIMClient
from scim2_tester import Status, check_server

from tests.real.gateway import Gateway, gateway, issuer_toml

pytestmark = pytest.mark.journey

TOKEN = "t" * 40
READER = "r" * 40
CONFIG = """
[directory]
url = "embedded"

[sessions]
url = "embedded"

[scim]
base_url = "http://127.0.0.1:@PORT@"

[[scim.clients]]
id = "entra"
token = "env:SCIM_TOKEN"

[[scim.clients]]
id = "inventory"
token = "env:SCIM_READER"
read_only = true
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
