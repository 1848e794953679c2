"""The decision API of a real gateway: its callers, its policies, and what a reload does to both (AuthZEN 1.0)."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from signal import SIGHUP
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.real.gateway import Gateway, gateway
from tests.real.http import Answer
from tests.real.lines import logged
from tests.real.process import wait_until

pytestmark = pytest.mark.journey

FIXTURE = ROOT / "tests" / "policy" / "certification"
SECRET = "s:p%+/é"
ALICE, BOB = {"type": "user", "id": "alice"}, {"type": "user", "id": "bob"}
ONE = {"type": "record", "id": "record-1"}
GOOD = {"subject": ALICE, "action": {"name": "read"}, "resource": ONE}
CONFIG = """
[policy]
path = "policies"
entities = "policies/entities.json"

[authzen]
base_url = "https://pdp.example.com"
types = { user = "User", record = "Record" }

[[authzen.clients]]
id = "pep"
secret = "env:PEP_SECRET"
trust_properties = "all"

[[authzen.clients]]
id = "stranger"
secret = "env:STRANGER_SECRET"
trust_properties = "none"
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Gateway]:
    shutil.copytree(FIXTURE, tmp_path / "policies")
    with gateway(tmp_path, CONFIG, workers=2, env={"PEP_SECRET": SECRET, "STRANGER_SECRET": "other"}) as started:
        yield started


def basic(client: str = "pep", secret: str = "s%3Ap%25%2B%2F%C3%A9") -> tuple[str, str]:
    return ("Authorization", f"Basic {base64.b64encode(f'{client}:{secret}'.encode()).decode()}")


def post(running: Gateway, path: str, data: Any, *headers: tuple[str, str]) -> Answer:
    body = json.dumps(data).encode()
    return running.ask("POST", f"/access/v1/{path}", ("Content-Type", "application/json"), *headers, body=body)


def test_known_callers_get_decisions_and_strangers_nothing(running: Gateway) -> None:
    answer = post(running, "evaluation", GOOD, basic(), ("X-Request-ID", "my-1"))
    assert (answer.status, answer.json["decision"]) == (200, True)
    assert answer.json["context"]["reasons"] == ["alice-reads"]
    assert answer.one("x-request-id") == "my-1"
    assert answer.one("cache-control") == "no-store"
    batch = post(running, "evaluations", {**GOOD, "evaluations": [{}, {"subject": BOB}]}, basic())
    assert [one["decision"] for one in batch.json["evaluations"]] == [True, True]
    question = {"subject": {"type": "user"}, "action": {"name": "read"}, "resource": ONE, "page": {"limit": 1}}
    first = post(running, "search/subject", question, basic()).json
    seen = first["results"]
    while first["page"]["next_token"]:  # each page may come from another worker
        first = post(
            running, "search/subject", {**question, "page": {"token": first["page"]["next_token"]}}, basic()
        ).json
        seen += first["results"]
    assert [one["id"] for one in seen] == ["alice", "bob"]
    assert running.ask("GET", "/.well-known/authzen-configuration").json["policy_decision_point"]
    for headers in ([], [basic(secret="wrong")], [basic("nobody")], [basic(), basic()]):
        refused = post(running, "evaluation", GOOD, *headers)
        assert refused.status in {400, 401}
        assert "decision" not in refused.json
    refused = post(running, "evaluation", GOOD)
    assert (refused.status, refused.json["code"]) == (401, "invalid_client")
    assert refused.one("www-authenticate") == 'Basic realm="authzen"'
    logged(running.server, logger="portcullis.authzen", request_id=refused.json["request_id"])


def test_only_a_trusted_callers_properties_count(running: Gateway) -> None:
    admin = {**ALICE, "properties": {"role": "admin"}}
    data = {
        "subject": admin,
        "action": {"name": "write"},
        "resource": {"type": "record", "id": "record-2"},
    }
    assert post(running, "evaluation", data, basic()).json["decision"] is True
    assert post(running, "evaluation", data, basic("stranger", "other")).json["decision"] is False


def test_a_reload_takes_new_policies_whole_and_leaves_broken_ones(running: Gateway) -> None:
    policies = running.folder / "policies" / "records.cedar"
    before = post(running, "evaluation", GOOD, basic()).json["context"]["revision"]
    text = policies.read_text()
    policies.write_text(text + '\n@id("nobody")\nforbid (principal, action, resource);\n')
    running.server.signal(SIGHUP)
    wait_until(
        lambda: all(not post(running, "evaluation", GOOD, basic()).json["decision"] for _ in range(20)),
        "the new policy",
    )
    answer = post(running, "evaluation", {**GOOD, "context": {"at_least": before + 1}}, basic()).json
    assert (answer["decision"], answer["context"]["reasons"]) == (False, ["nobody"])
    assert answer["context"]["revision"] > before
    ahead = post(running, "evaluation", {**GOOD, "context": {"at_least": 2**60}}, basic())
    assert (ahead.status, ahead.json["code"]) == (503, "revision_unavailable")

    for broken in (
        "permit (principal, action resource);",
        "permit (principal, action, resource) when { principal.x };",
    ):
        refusals = running.server.output.count("the running config stays") + running.server.output.count("former one")
        policies.write_text(f"{text}\n{broken}\n")
        running.server.signal(SIGHUP)
        wait_until(
            lambda refusals=refusals: (  # type: ignore[misc]
                running.server.output.count("the running config stays") + running.server.output.count("former one")
                > refusals
            ),
            "a refusal",
        )
        assert post(running, "evaluation", GOOD, basic()).json["context"]["reasons"] == ["nobody"]
    assert f"{policies}:{text.count(chr(10)) + 2}" in running.server.output.replace("\\/", "/")
