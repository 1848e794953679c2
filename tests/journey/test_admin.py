"""The admin API of a real gateway: who may do what, what becomes of users, and what the audit log says of it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.flows.sessions import Proof
from gateway.types import Subject
from tests.conftest import ROOT
from tests.journey.test_sessions import NAME, WITHIN_S, asked, cookie, with_sessions
from tests.real.gateway import Gateway, gateway, issuer_toml
from tests.real.http import Connection

pytestmark = pytest.mark.journey

TOKENS = {role: f"{role}-" + "t" * 40 for role in ("reader", "helpdesk", "auditor", "operator", "owner")}
SCIM = "s" * 40
ADMINISTRATOR = "usr_administrator"
CONFIG = """
[directory]
url = "embedded"

[sessions]
url = "embedded"

[scim]
base_url = "http://127.0.0.1:@PORT@"

[[scim.clients]]
id = "hr"
token = "env:SCIM_TOKEN"

[[routes]]
path = "/app/{*rest}"
auth = "session"
"""


def variable(role: str) -> str:
    return f"ADMIN_{role.upper()}"


ENV = {"SCIM_TOKEN": SCIM, **{variable(role): token for role, token in TOKENS.items()}}


def admin_toml(*, group: str = "") -> str:
    tokens = "".join(
        f'\n[[admin.tokens]]\nid = "{role}"\ntoken = "env:ADMIN_{role.upper()}"\nroles = ["{role}"]\n'
        for role in TOKENS
    )
    return f'{tokens}\n[[admin.roles]]\nrole = "operator"\ngroups = ["{group}"]\n' if group else tokens


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("admin")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Gateway]:
    with gateway(folder, issuer_toml(folder) + CONFIG + admin_toml(), env=ENV) as made:
        made.server.wait_for(lambda: scim(made, "GET", "/Users").status_code == 200, "the directory")
        yield made


def scim(running: Gateway, method: str, path: str, **options: Any) -> httpx2.Response:
    """Ask as a provisioning service does: where there is too much work it comes again when it was told to."""
    url, headers = f"http://127.0.0.1:{running.port}/scim/v2{path}", {"Authorization": f"Bearer {SCIM}"}
    answer = httpx2.request(method, url, headers=headers, timeout=30, **options)
    if answer.status_code == 503:
        time.sleep(float(answer.headers["retry-after"]))
        answer = httpx2.request(method, url, headers=headers, timeout=30, **options)
    return answer


def call(running: Gateway, role: str, method: str, path: str, **headers: str) -> httpx2.Response:
    known = {"Authorization": f"Bearer {TOKENS[role]}"} if role else {}
    return httpx2.request(
        method, f"http://127.0.0.1:{running.admin_port}/admin/v1{path}", headers={**known, **headers}, timeout=30
    )


def new_user(running: Gateway, name: str) -> str:
    schemas = ["urn:ietf:params:scim:schemas:core:2.0:User"]
    made = scim(running, "POST", "/Users", json={"schemas": schemas, "userName": name})
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def logged_in(folder: Path, user_id: str) -> str:
    proof = Proof(amr=("pwd",))
    return with_sessions(folder / "run", lambda sessions: sessions.begin(Subject("", user_id), proof)).value


def test_nobody_administers_without_a_token(running: Gateway) -> None:
    refused = call(running, "", "GET", "/users")
    assert (refused.status_code, refused.json()["code"]) == (401, "invalid_token")
    assert refused.headers["www-authenticate"] == 'Bearer realm="admin"'
    assert call(running, "", "GET", "/nothing").status_code == 401
    assert call(running, "", "GET", "/me", Authorization="Bearer wrong").status_code == 401
    assert call(running, "", "GET", "/me", Authorization=f"Bearer {SCIM}").status_code == 401
    assert running.ask("GET", "/admin/v1/me").status == 404  # the doors know nothing of it


def test_every_role_may_do_what_it_is_for(running: Gateway) -> None:
    actions = {role: call(running, role, "GET", "/me").json()["actions"] for role in TOKENS}
    assert actions["auditor"] == ["state.read", "user.read", "audit.read"]
    assert "session.end" in actions["helpdesk"]
    assert "user.deactivate" not in actions["helpdesk"]
    user_id = new_user(running, "erin")
    assert call(running, "helpdesk", "POST", f"/users/{user_id}/deactivate").status_code == 403
    assert call(running, "reader", "DELETE", f"/users/{user_id}/sessions").status_code == 403
    assert call(running, "reader", "GET", f"/users/{user_id}/devices").json() == {"devices": []}
    assert call(running, "reader", "DELETE", f"/users/{user_id}/devices/dev_x").status_code == 403
    assert call(running, "helpdesk", "DELETE", f"/users/{user_id}/devices/dev_x").status_code == 404
    assert call(running, "reader", "GET", "/audit").json()["code"] == "admin_forbidden"
    assert call(running, "reader", "GET", "/nothing").status_code == 404
    wrong = call(running, "owner", "PUT", f"/users/{user_id}")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "GET")


def test_who_is_deactivated_is_out_within_a_second(running: Gateway, folder: Path) -> None:
    user_id = new_user(running, "frank")
    value = logged_in(folder, user_id)
    with Connection(running.port) as connection:
        assert asked(connection, cookie(value)).status == 200
        shown = call(running, "operator", "GET", f"/users/{user_id}/sessions").json()["sessions"]
        assert [each["amr"] for each in shown] == [["pwd"]]
        done = call(running, "operator", "POST", f"/users/{user_id}/deactivate")
        assert (done.status_code, done.json()["active"], done.json()["ended_sessions"]) == (200, False, 1)
        ended_s = time.monotonic()
        while asked(connection, cookie(value)).status == 200:
            assert time.monotonic() - ended_s < 4 * WITHIN_S
    assert call(running, "operator", "GET", f"/users/{user_id}/sessions").json()["sessions"] == []
    assert scim(running, "GET", f"/Users/{user_id}").json()["active"] is False
    assert call(running, "operator", "POST", f"/users/{user_id}/reactivate").json()["active"] is True


def test_a_single_session_can_be_ended(running: Gateway, folder: Path) -> None:
    user_id = new_user(running, "grace")
    values = [logged_in(folder, user_id) for _ in range(2)]
    path = f"/users/{user_id}/sessions"
    shown = call(running, "helpdesk", "GET", path).json()["sessions"]
    assert call(running, "helpdesk", "DELETE", f"{path}/{shown[0]['id']}").status_code == 204
    assert call(running, "helpdesk", "DELETE", f"{path}/{shown[0]['id']}").status_code == 404
    assert [each["id"] for each in call(running, "helpdesk", "GET", path).json()["sessions"]] == [shown[1]["id"]]
    assert len(values) == 2


def test_people_administer_by_their_session(running: Gateway, folder: Path) -> None:
    user_id = new_user(running, "olga")
    schemas = ["urn:ietf:params:scim:schemas:core:2.0:Group"]
    members = [{"value": user_id}]
    made = scim(running, "POST", "/Groups", json={"schemas": schemas, "displayName": "ops", "members": members})
    running.write_config(issuer_toml(folder) + CONFIG + admin_toml(group=made.json()["id"]))
    running.restart()
    value = logged_in(folder, user_id)
    guard = {"X-Portcullis-Admin": "1"}

    def mine(**headers: str) -> httpx2.Response:
        return call(running, "", "GET", "/me", Cookie=f"{NAME}={value}", **headers)

    running.server.wait_for(lambda: mine(**guard).status_code == 200, "the directory")
    assert mine(**guard).json()["roles"] == ["operator"]
    assert mine().status_code == 401  # a page of another site could have sent that
    assert mine(**guard, **{"Sec-Fetch-Site": "cross-site"}).status_code == 401
    themselves = call(running, "", "POST", f"/users/{user_id}/deactivate", Cookie=f"{NAME}={value}", **guard)
    assert (themselves.status_code, themselves.json()["code"]) == (403, "admin_forbidden")
    other = call(running, "helpdesk", "DELETE", f"/users/{user_id}/sessions")
    assert other.status_code == 403  # helpdesk ends no administrator's sessions
    assert call(running, "owner", "DELETE", f"/users/{user_id}/sessions").status_code == 200
    assert mine(**guard).status_code == 401


def test_state_is_shown_and_every_act_is_in_the_audit_log(running: Gateway) -> None:
    running.server.wait_for(lambda: call(running, "owner", "GET", "/users").status_code == 200, "the directory")
    state = call(running, "owner", "GET", "/state").json()
    assert len(state["config"]) == 64
    assert state["draining"] is False
    user_id = new_user(running, "heidi")
    call(running, "operator", "POST", f"/users/{user_id}/deactivate")
    call(running, "reader", "POST", f"/users/{user_id}/reactivate")
    wanted = f"/audit?target={user_id}"
    running.server.wait_for(lambda: len(call(running, "auditor", "GET", wanted).json()["entries"]) >= 4, "the log")
    told = [
        (each["action"], each["outcome"], each["actor"])
        for each in call(running, "auditor", "GET", wanted).json()["entries"]
    ]
    assert told == [
        ("scim.user.create", "success", "hr"),
        ("session.end_all", "success", "operator"),
        ("admin.user.deactivate", "success", "operator"),
        ("admin.authorize", "refused", "reader"),
    ]
    running.server.stop()
    command = [sys.executable, "-m", "gateway", "audit", "verify", "--json", "-c", str(running.path)]
    checked = subprocess.run(command, capture_output=True, cwd=ROOT, check=False, env=ENV, timeout=60)
    document = json.loads(checked.stdout)
    assert (checked.returncode, document["ok"]) == (0, True)
    assert document["entries"] > 20
