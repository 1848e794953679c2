"""Page tokens serve one caller, one question and a short time."""

from __future__ import annotations

import base64
import stat
from pathlib import Path
from typing import Any

import pytest

from gateway.front.authzen.messages import BadRequest, SearchQuestion, parse_search
from gateway.front.authzen.paging import PageTokens, Position, page_key
from tests.policy.decision_api import SetClock

DATA: dict[str, Any] = {
    "subject": {"type": "user", "id": "a", "properties": {"x": 1, "y": [1.5, None]}},
    "action": {"name": "read"},
    "resource": {"type": "doc"},
    "context": {"big": 10**30},
}
PLACE = Position("é/\0", 7)


def question(token: str = "", **changes: Any) -> SearchQuestion:
    return parse_search({**DATA, **changes, "page": {"token": token, "limit": 3}}, "resource", limit_max=9)


def tokens(key: bytes = b"k" * 32) -> tuple[PageTokens, SetClock]:
    clock = SetClock()
    return PageTokens(key, clock, lifetime_s=60.0), clock


def test_a_token_leads_to_its_place_whatever_the_order_of_members() -> None:
    pages, _ = tokens()
    token = pages.make(PLACE, question(), "pep")
    assert pages.read(question(token), "pep") == PLACE
    turned = {"type": "user", "properties": {"y": [1.5, None], "x": 1}, "id": "a"}
    assert pages.read(question(token, subject=turned), "pep") == PLACE
    assert pages.read(question(), "pep") is None


@pytest.mark.parametrize(
    "change",
    [
        {"subject": {"type": "user", "id": "b"}},
        {"action": {"name": "write"}},
        {"action": {"name": "read", "properties": {"soft": True}}},
        {"resource": {"type": "pic"}},
        {"context": {}},
        {"context": {"big": 10**30 + 1}},
    ],
)
def test_a_token_is_for_its_question_only(change: dict[str, Any]) -> None:
    pages, _ = tokens()
    token = pages.make(PLACE, question(), "pep")
    with pytest.raises(BadRequest):
        pages.read(question(token, **change), "pep")


def test_a_token_is_for_its_caller_its_key_and_its_time_only() -> None:
    pages, clock = tokens()
    token = pages.make(PLACE, question(), "pep")
    with pytest.raises(BadRequest):
        pages.read(question(token), "other")
    with pytest.raises(BadRequest):
        tokens(b"x" * 32)[0].read(question(token), "pep")
    clock.now_s += 59.0
    assert pages.read(question(token), "pep") == PLACE
    clock.now_s += 1.0
    with pytest.raises(BadRequest):
        pages.read(question(token), "pep")


def test_no_changed_token_is_taken() -> None:
    pages, _ = tokens()
    token = pages.make(PLACE, question(), "pep")
    raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    for at in range(len(raw)):
        changed = bytearray(raw)
        changed[at] ^= 1
        with pytest.raises(BadRequest):
            pages.read(question(base64.urlsafe_b64encode(bytes(changed)).decode().rstrip("=")), "pep")
    for bad in ("x", "!!!!", "é", token[:-4], "A" * 9000, token + "AAAA", "\n" + token):
        with pytest.raises(BadRequest):
            pages.read(question(bad), "pep")


def test_the_key_is_made_once_and_nobody_elses(tmp_path: Path) -> None:
    key = page_key(tmp_path)
    assert page_key(tmp_path) == key
    [file] = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(b"short")
    with pytest.raises(ValueError, match="no key of ours"):
        page_key(tmp_path)
