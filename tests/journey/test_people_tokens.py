"""Tokens of the gateway's own token service provision and administer, with the scope, and end when somebody says so."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.real.gateway import gateway
from tests.real.process import wait_until

pytestmark = pytest.mark.journey

SECRET = "s" * 40
CONFIG = """
[directory]
url = "embedded"

[oauth]
issuer = "http://127.0.0.1:@PORT@"
encryption_key = "env:SEALING_KEY"

[[oauth.clients]]
id = "job"
secret = "env:JOB_SECRET"
grant_types = ["client_credentials"]
scopes = ["scim", "scim:read", "admin", "orders"]

[scim]
base_url = "http://127.0.0.1:@PORT@"

[[admin.roles]]
role = "owner"
clients = ["job"]
"""


def test_a_client_of_the_token_service_provisions_and_administers(tmp_path: Path) -> None:
    with gateway(tmp_path, CONFIG, env={"SEALING_KEY": "k" * 40, "JOB_SECRET": SECRET}) as running:
        doors, admin = f"http://127.0.0.1:{running.port}", f"http://127.0.0.1:{running.admin_port}"

        ends_s = time.monotonic() + 30

        def token(scope: str) -> str:
            form = {"grant_type": "client_credentials", "scope": scope}
            answer = httpx2.post(f"{doors}/oauth2/token", data=form, auth=("job", SECRET))
            return str(answer.json()["access_token"])

        def ask(address: str, scope: str) -> httpx2.Response:
            headers = {"Authorization": f"Bearer {token(scope)}"}
            answer = httpx2.get(address, headers=headers)
            while answer.status_code == 503 and time.monotonic() < ends_s:  # the machine of a test may be overloaded
                answer = httpx2.get(address, headers=headers)
            return answer

        # The tables are made at the first start, and the database counts as gone until they are there.
        wait_until(lambda: running.admin("/readyz").json["status"] == "ok", "the database")
        wait_until(lambda: ask(f"{doors}/scim/v2/Users", "scim").status_code == 200, "the directory")
        assert ask(f"{doors}/scim/v2/Users", "scim:read").status_code == 200
        assert ask(f"{doors}/scim/v2/Users", "orders").status_code == 403
        assert ask(f"{doors}/scim/v2/Users", "admin").status_code == 403
        me: dict[str, Any] = ask(f"{admin}/admin/v1/me", "admin").json()
        assert (me["id"], me["kind"], me["roles"]) == ("job", "client", ["owner"])
        assert ask(f"{admin}/admin/v1/me", "scim").status_code == 401
        clients = ask(f"{admin}/admin/v1/clients", "admin").json()["clients"]
        assert [(each["client_id"], each["source"]) for each in clients] == [("job", "config")]
        assert SECRET not in str(clients)
        assert ask(f"{admin}/admin/v1/clients/job", "admin").json()["grant_types"] == ["client_credentials"]

        held = token("admin scim")
        headers = {"Authorization": f"Bearer {held}"}
        assert httpx2.get(f"{admin}/admin/v1/users", headers=headers).status_code == 200
        httpx2.post(f"{doors}/oauth2/revoke", data={"token": held}, auth=("job", SECRET))
        ended_s = time.monotonic()
        for address in (f"{admin}/admin/v1/users", f"{doors}/scim/v2/Users"):
            while httpx2.get(address, headers=headers).status_code != 401:
                assert time.monotonic() - ended_s < 4.0
