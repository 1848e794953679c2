"""Entities of a real gateway that are kept elsewhere: fetched when asked for, followed, and never guessed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from signal import SIGHUP
from typing import Any, ClassVar

import pytest

from gateway._native.uid import EntityUid
from gateway.stores import open_attribute_source
from gateway.stores.attributes import FollowedSource
from tests.real.asker import Asker
from tests.real.gateway import Gateway, gateway, issuer_toml
from tests.real.http import Connection
from tests.real.process import wait_until
from tests.real.redis import RealRedis
from tests.real.workers import one_to_each

pytestmark = pytest.mark.journey

SCHEMA = """
entity Team in [Team];
entity User in [Team] { level: Long };
entity Doc { owner: User, team?: Team };
action read appliesTo { principal: User, resource: Doc, context: {} };
"""
POLICIES = """
permit (principal, action, resource) when { principal == resource.owner && resource.owner.level > 1 };
permit (principal, action, resource) when { resource has team && principal in resource.team };
"""
CONFIG = """
[policy]
path = "policies"
{policy}
{sources}
[authzen]
open_on_loopback = true

[[routes]]
path = "/docs/{{id}}"
methods = ["GET"]
action = 'Action::"read"'
resource = 'Doc::"{{id}}"'

[[routes]]
path = "/open"
"""
SOURCE = '[[policy.sources]]\nname = "{name}"\ntypes = {types}\nurl = "{url}"\n'
WITHIN_S = 0.25
ALICE, TEAM, ALL = EntityUid("User", "alice"), EntityUid("Team", "eng"), EntityUid("Team", "all")


def named(uid: EntityUid) -> dict[str, str]:
    return {"type": uid.type, "id": uid.id}


def user(level: int, *teams: EntityUid) -> bytes:
    return json.dumps({"attrs": {"level": level}, "parents": [named(each) for each in teams]}).encode()


def doc(owner: EntityUid, team: EntityUid | None = None) -> bytes:
    return json.dumps({"attrs": {"owner": named(owner), **({} if team is None else {"team": named(team)})}}).encode()


@contextlib.contextmanager
def serving(folder: Path, *sources: str, workers: int = 2, policy: str = "") -> Iterator[Gateway]:
    (folder / "policies").mkdir()
    (folder / "policies" / "docs.cedarschema").write_text(SCHEMA)
    (folder / "policies" / "docs.cedar").write_text(POLICIES)
    config = issuer_toml(folder) + CONFIG.format(sources="\n".join(sources), policy=policy)
    with gateway(folder, config, workers=workers) as running:
        yield running


def everything(url: str = "embedded") -> str:
    return SOURCE.format(name="all", types='["User", "Team", "Doc"]', url=url)


def write(folder: Path, *upserts: tuple[EntityUid, bytes], removals: tuple[EntityUid, ...] = (), url: str = "") -> None:
    """Write to the source of a gateway from another process, as its owner would."""

    async def run() -> None:
        source = open_attribute_source(url, folder / "run", name="all")
        assert isinstance(source, FollowedSource)
        try:
            await source.write(upserts, removals)
        finally:
            await source.close()

    asyncio.run(run())


def evaluate(connection: Connection, subject: str = "alice", resource: str = "1") -> Any:
    question = {
        "subject": {"type": "User", "id": subject},
        "action": {"name": "read"},
        "resource": {"type": "Doc", "id": resource},
    }
    headers = [("Content-Type", "application/json")]
    return connection.request("POST", "/access/v1/evaluation", headers, json.dumps(question).encode()).json


def test_entities_are_fetched_when_asked_for_and_changes_reach_every_worker(tmp_path: Path) -> None:
    late_s: list[float] = []
    with serving(tmp_path, everything()) as running, one_to_each(running.port, 2) as connections:
        askers = [Asker(connection) for connection in connections]
        assert [asker.status() for asker in askers] == [403, 403]  # the document does not exist
        write(tmp_path, (ALICE, user(2)), (EntityUid("Doc", "1"), doc(ALICE)))
        for asker in askers:
            asker.until(200)
        for _ in range(3):
            for status, level in ((403, 1), (200, 2)):
                write(tmp_path, (ALICE, user(level)))
                written_s = time.monotonic()
                late_s += [asker.until(status) - written_s for asker in askers]
                assert [asker.status() for asker in askers] == [status, status]
        write(tmp_path, removals=(ALICE,))
        for asker in askers:
            asker.until(403)
        assert statistics.median(late_s) <= WITHIN_S, late_s
        assert max(late_s) <= 4 * WITHIN_S, late_s  # the machine of a test may be busy with something else


def test_membership_is_asked_through_groups_that_are_kept_elsewhere(tmp_path: Path) -> None:
    with serving(tmp_path, everything(), workers=1) as running, Connection(running.port) as connection:
        asker = Asker(connection)
        write(
            tmp_path,
            (ALICE, user(1, TEAM)),
            (TEAM, json.dumps({"parents": [named(ALL)]}).encode()),
            (EntityUid("Doc", "1"), doc(EntityUid("User", "bob"), ALL)),
            (EntityUid("Doc", "2"), doc(EntityUid("User", "bob"), EntityUid("Team", "others"))),
        )
        asker.until(200)
        assert asker.status("/docs/2") == 403
        write(tmp_path, (TEAM, b"{}"))
        asker.until(403)
        answer = evaluate(connection)
        assert (answer["decision"], answer["context"]["reasons"]) == (False, [])
        write(tmp_path, (TEAM, json.dumps({"parents": [named(ALL)]}).encode()))
        asker.until(200)
        assert evaluate(connection)["decision"] is True


def test_a_source_that_is_away_refuses_what_rests_on_it_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    redis = RealRedis(tmp_path / "redis")
    try:
        with (
            serving(tmp_path, everything(redis.url), workers=1) as running,
            Connection(running.port) as connection,
        ):
            asker = Asker(connection)
            write(tmp_path, (ALICE, user(2)), (EntityUid("Doc", "1"), doc(ALICE)), url=redis.url)
            asker.until(200)
            redis.freeze()
            asker.until(503)
            assert asker.status("/open") == 200
            assert evaluate(connection)["context"]["code"] == "attributes_unavailable"
            shown = running.admin("/readyz")
            assert shown.status == 200
            assert shown.json["dependencies"]["source all"]["state"] == "unavailable"
            redis.thaw()
            asker.until(200)
            redis.kill()
            asker.until(503)
            redis.start()
            asker.until(200)  # it came back with what it had written down
    finally:
        redis.stop()


def test_a_new_config_may_keep_entities_elsewhere(tmp_path: Path) -> None:
    entities = [
        {"uid": named(ALICE), "attrs": {"level": 5}, "parents": []},
        {"uid": {"type": "Doc", "id": "1"}, "attrs": {"owner": named(ALICE)}, "parents": []},
    ]
    (tmp_path / "entities.json").write_text(json.dumps(entities))
    with (
        serving(tmp_path, workers=1, policy='entities = "entities.json"') as running,
        Connection(running.port) as connection,
    ):
        asker = Asker(connection)
        assert asker.status() == 200
        write(tmp_path, (ALICE, user(1)))
        path = tmp_path / "portcullis.toml"
        text = path.read_text()
        source = SOURCE.format(name="people", types='["User", "Team"]', url="embedded")
        path.write_text(text.replace("[authzen]", f"{source}\n[authzen]"))
        running.server.signal(SIGHUP)
        asker.until(403)  # her level is the source's from now on
        write(tmp_path, (ALICE, user(3)))
        asker.until(200)
        path.write_text(text)
        running.server.signal(SIGHUP)
        write(tmp_path, (ALICE, user(1)))
        wait_until(lambda: "sources" not in str(running.admin("/readyz").json), "the former config")
        assert asker.status() == 200


def test_lists_rest_on_what_is_kept_elsewhere_and_are_never_of_it(tmp_path: Path) -> None:
    entities = [
        {
            "uid": {"type": "Doc", "id": str(number)},
            "attrs": {"owner": named(ALICE), "team": named(team)},
            "parents": [],
        }
        for number, team in enumerate((TEAM, ALL, EntityUid("Team", "others")))
    ]
    (tmp_path / "entities.json").write_text(json.dumps(entities))
    source = SOURCE.format(name="all", types='["User", "Team"]', url="embedded")

    def search(connection: Connection, target: str, subject: str) -> Any:
        question = {
            "subject": {"type": "User", **({} if target == "subject" else {"id": subject})},
            "action": {"name": "read"},
            "resource": {"type": "Doc", **({} if target == "resource" else {"id": "1"})},
        }
        headers = [("Content-Type", "application/json")]
        return connection.request("POST", f"/access/v1/search/{target}", headers, json.dumps(question).encode())

    with (
        serving(tmp_path, source, workers=1, policy='entities = "entities.json"') as running,
        Connection(running.port) as connection,
    ):
        write(
            tmp_path,
            (EntityUid("User", "bob"), user(1, TEAM)),
            (TEAM, json.dumps({"parents": [named(ALL)]}).encode()),
            (ALICE, user(7)),
        )
        wait_until(lambda: len(search(connection, "resource", "alice").json["results"]) == 3, "her documents")
        assert [each["id"] for each in search(connection, "resource", "bob").json["results"]] == ["0", "1"]
        refused = search(connection, "subject", "alice")
        assert (refused.status, refused.json["code"]) == (501, "search_not_possible")


class _People(BaseHTTPRequestHandler):
    """A service that knows one user, and counts what it is asked."""

    asked: ClassVar[list[list[str]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append([each["id"] for each in body["uids"]])
        found = [{"uid": each, "attrs": {"level": 2}, "parents": []} for each in body["uids"] if each["id"] == "alice"]
        answer = json.dumps(found).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def test_entities_of_a_service_are_asked_for_once_and_then_known(tmp_path: Path) -> None:
    _People.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _People)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        people = SOURCE.format(name="people", types='["User"]', url=f"http://127.0.0.1:{server.server_port}/entities")
        docs = SOURCE.format(name="docs", types='["Doc", "Team"]', url="embedded")
        with serving(tmp_path, people, docs, workers=1) as running, Connection(running.port) as connection:
            write(tmp_path, (EntityUid("Doc", "1"), doc(ALICE)), (EntityUid("Doc", "2"), doc(ALICE, TEAM)))
            asker = Asker(connection)
            asker.until(200)
            assert {asker.status() for _ in range(20)} == {200}
            assert _People.asked == [["alice"]]
            assert Asker(connection, "mallory").status() == 403
            metrics = running.admin("/metrics").body.decode()
            assert "portcullis_attribute_reads_total" in metrics
            _People.asked.clear()
            people_asked = [f"user{number}" for number in range(20)]
            batch = {
                "action": {"name": "read"},
                "resource": {"type": "Doc", "id": "2"},
                "evaluations": [{"subject": {"type": "User", "id": each}} for each in ("alice", *people_asked)],
            }
            headers = [("Content-Type", "application/json")]
            answer = connection.request("POST", "/access/v1/evaluations", headers, json.dumps(batch).encode()).json
            assert [each["decision"] for each in answer["evaluations"]] == [True] + [False] * 20
            assert [sorted(asked) for asked in _People.asked] == [sorted(people_asked)]  # all of them at once
    finally:
        server.shutdown()
        server.server_close()
