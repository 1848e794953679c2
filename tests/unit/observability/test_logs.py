from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import jwt
import pytest

from gateway.observability.line_writer import LineWriter
from gateway.observability.logs import (
    PSEUDONYM_KEY_BYTES,
    AccessLog,
    AuditLog,
    RequestLines,
    SubjectForm,
    Subjects,
    load_pseudonym_key,
)
from gateway.observability.process_log import configure_process_log
from gateway.observability.redaction import REDACTED

CANARY = "canary7Qz"
TOKEN = jwt.encode({"sub": "alice"}, CANARY * 4, algorithm="HS256")
KEY = bytes(range(PSEUDONYM_KEY_BYTES))
ISSUERS = ("https://a.example", "https://b.example")
NOON_S = datetime(2026, 11, 23, 12, 0, 0, 250_000, tzinfo=UTC).timestamp()


class FixedClock:
    def __init__(self, wall_s: float) -> None:
        self.now_s = wall_s

    def wall_s(self) -> float:
        return self.now_s

    def monotonic_s(self) -> float:
        return self.now_s


@dataclass
class Identity:
    subject: bytes = b"alice"
    issuer: bytes = b"https://b.example"


@dataclass
class Route:
    name: str = "/api/{id}"


@dataclass
class Judgement:
    """What the front door hands over, with everything that must not reach a log."""

    door: str = "proxy"
    reason: str = "ok"
    request_id: str = "6f1c9a0b2d3e4f5061728394a5b6c7d8"
    method: str = "GET"
    host: str = "api.example.com"
    path: str = "/api/7"
    issuer_index: int = 1
    cached: bool = True
    route: Route | None = None
    identity: Identity | None = None
    token: bytes = TOKEN.encode()
    query: bytes = f"access_token={TOKEN}".encode()


def lines_of(form: SubjectForm = "hash") -> RequestLines:
    return RequestLines(Subjects(form, KEY), ISSUERS, FixedClock(NOON_S))


def written(path: Path, judged: Judgement, log: str = "access", form: SubjectForm = "hash") -> dict[str, object]:
    writer = LineWriter(str(path), name=log)
    if log == "access":
        AccessLog(writer, lines_of(form))(judged, 200, 1_234_567)
    else:
        AuditLog(writer, lines_of(form))(judged, 401)
    writer.close()
    (line,) = path.read_bytes().splitlines()
    fields: dict[str, object] = json.loads(line)
    return fields


def test_an_access_line_says_what_was_asked_and_how_it_was_judged(tmp_path: Path) -> None:
    line = written(tmp_path / "log", Judgement(route=Route(), identity=Identity()))
    subject = line.pop("subject")
    assert line == {
        "ts": "2026-11-23T12:00:00.250000Z",
        "request_id": "6f1c9a0b2d3e4f5061728394a5b6c7d8",
        "door": "proxy",
        "method": "GET",
        "host": "api.example.com",
        "path": "/api/7",
        "status": 200,
        "decision": "allow",
        "reason": "ok",
        "issuer": "https://b.example",
        "route": "/api/{id}",
        "cached": True,
        "duration_us": 1234,
    }
    assert isinstance(subject, str) and subject.startswith("~") and len(subject) == 33


def test_an_audit_line_is_a_denial_with_its_reason(tmp_path: Path) -> None:
    line = written(tmp_path / "log", Judgement(reason="expired", issuer_index=-1), "audit")
    assert (line["event"], line["decision"], line["reason"], line["status"]) == ("denied", "deny", "expired", 401)
    assert line["issuer"] is line["subject"] is line["route"] is None


def test_a_change_is_one_audit_line_without_secrets(tmp_path: Path) -> None:
    writer = LineWriter(str(tmp_path / "log"), name="audit")
    AuditLog(writer, lines_of()).change("revoked", f"leaked {TOKEN}", kind="jti", count=2, client_secret=CANARY)
    writer.close()
    text = (tmp_path / "log").read_text()
    assert json.loads(text) == {
        "event": "revoked",
        "ts": "2026-11-23T12:00:00.250000Z",
        "reason": f"leaked {REDACTED}",
        "kind": "jti",
        "count": 2,
        "client_secret": REDACTED,
    }


@pytest.mark.parametrize("log", ["access", "audit"])
@pytest.mark.parametrize("path", ["/api/7", f"/api/{TOKEN}", f"/{TOKEN}/x", ""])
def test_no_line_holds_a_token(tmp_path: Path, log: str, path: str) -> None:
    written(tmp_path / "log", Judgement(path=path, identity=Identity()), log)
    text = (tmp_path / "log").read_text()
    assert not any(segment in text for segment in TOKEN.split("."))
    assert "access_token" not in text


def test_a_line_stays_one_line_whatever_a_client_sends(tmp_path: Path) -> None:
    hostile = 'GET"}\n{"decision":"allow'
    line = written(tmp_path / "log", Judgement(method=hostile, host="\u2028\x00é", path="/\n"))
    assert line["method"] == hostile


# -- subjects ---------------------------------------------------------------------------------------------------------


def test_a_subject_is_one_hash_for_each_issuer_and_key() -> None:
    one, other_key = Subjects("hash", KEY), Subjects("hash", KEY[::-1])
    name = one.name_of(Identity())
    assert name == one.name_of(Identity()) == Subjects("hash", KEY).name_of(Identity())
    names = {
        name,
        other_key.name_of(Identity()),
        one.name_of(Identity(subject=b"bob")),
        one.name_of(Identity(issuer=b"https://a.example")),
        one.name_of(Identity(subject=b"ealice", issuer=b"https://b.exampl")),
    }
    assert len(names) == 5


def test_a_subject_is_plain_or_left_out_where_the_operator_wants_it() -> None:
    assert Subjects("plain").name_of(Identity()) == "alice"
    assert Subjects("plain").name_of(Identity(subject=b"\xff")) == "\ufffd"
    assert Subjects("none").name_of(Identity()) is None
    assert Subjects("hash", KEY).name_of(None) is None


def test_a_hash_without_a_key_is_refused() -> None:
    with pytest.raises(ValueError, match="key"):
        Subjects("hash", KEY[:-1])


def test_the_key_of_the_hashes_is_made_once_and_for_its_user_only(tmp_path: Path) -> None:
    path = tmp_path / "subjects.key"
    key = load_pseudonym_key(path)
    assert load_pseudonym_key(path) == key
    assert len(key) == PSEUDONYM_KEY_BYTES
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["subjects.key"]


def test_a_file_that_holds_no_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "subjects.key").write_bytes(b"short")
    with pytest.raises(ValueError, match="holds no key"):
        load_pseudonym_key(tmp_path / "subjects.key")


def test_workers_that_start_at_once_share_one_key(tmp_path: Path) -> None:
    code = (
        "import pathlib,sys; from gateway.observability.logs import load_pseudonym_key;"
        "sys.stdout.write(load_pseudonym_key(pathlib.Path(sys.argv[1])).hex())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "subjects.key")]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    keys = {process.communicate(timeout=30)[0] for process in processes}
    assert len(keys) == 1 and len(keys.pop()) == 2 * PSEUDONYM_KEY_BYTES


def test_a_time_stamp_follows_the_clock(tmp_path: Path) -> None:
    clock = FixedClock(NOON_S)
    writer = LineWriter(str(tmp_path / "log"), name="access")
    log = AccessLog(writer, RequestLines(Subjects("none"), ISSUERS, clock))
    for step_s in (0.0, 0.5, 0.75, -1.0):
        clock.now_s = NOON_S + step_s
        log(Judgement(), 200, 0)
    writer.close()
    assert [json.loads(line)["ts"] for line in (tmp_path / "log").read_text().splitlines()] == [
        "2026-11-23T12:00:00.250000Z",
        "2026-11-23T12:00:00.750000Z",
        "2026-11-23T12:00:01Z",
        "2026-11-23T11:59:59.250000Z",
    ]


# -- the process's own log --------------------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.usefixtures("restored_logging")
def test_the_process_log_is_json_for_machines() -> None:
    stream = io.StringIO()
    configure_process_log("info", stream)
    configure_process_log("info", stream)
    logging.getLogger("portcullis.test").info("started %d workers", 2, extra={"port": 8080, "token": TOKEN})
    logging.getLogger("portcullis.test").debug("not this")
    (line,) = stream.getvalue().splitlines()
    fields = json.loads(line)
    assert fields.pop("ts").endswith("Z")
    assert fields == {
        "level": "info",
        "logger": "portcullis.test",
        "pid": os.getpid(),
        "message": "started 2 workers",
        "port": 8080,
        "token": REDACTED,
    }


@pytest.mark.usefixtures("restored_logging")
def test_the_process_log_is_plain_on_a_terminal() -> None:
    stream = Terminal()
    configure_process_log("warning", stream)
    logging.getLogger("portcullis.test").warning("keys of `%s` are stale", "https://a.example")
    assert stream.getvalue().rstrip().endswith("warning portcullis.test: keys of `https://a.example` are stale")


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_a_token_in_a_message_or_traceback_is_blanked(stream: io.StringIO) -> None:
    configure_process_log("debug", stream)
    log = logging.getLogger("portcullis.test")
    try:
        raise ValueError(f"cannot judge {TOKEN}")
    except ValueError:
        log.exception("request with Authorization: Bearer %s failed", CANARY, extra={"headers": {"cookie": CANARY}})
    log.error("wrong arguments %d", "Bearer " + CANARY)
    text = stream.getvalue()
    assert "ValueError" in text and "cannot judge" in text
    assert CANARY not in text
    assert not any(segment in text for segment in TOKEN.split("."))
