"""Routes for sessions: whose cookie counts, that no token passes for a session, and no session for a token."""

from __future__ import annotations

import pytest

from gateway._native.token import IssuerRules, KeySnapshot, TokenValidator
from gateway.config import RouteConfig
from tests.native.front_harness import FAR_FUTURE_S, Harness
from tests.real.gateway import bearer, mint

NAME = "__Host-portcullis"
VALUE = "a" * 52
ROUTES = (RouteConfig(path="/app/{*rest}", auth="session"), RouteConfig(path="/api/{*rest}"))


class Door(Harness):
    """A front door that knows one session."""

    def __init__(self, *, sessions: bool = True) -> None:
        self.sessions = TokenValidator()
        rules = IssuerRules(b"https://app.test", audiences=(), any_audience=True, algorithms=(), opaque=True)
        self.sessions.publish(KeySnapshot((rules,), ((),), (FAR_FUTURE_S,)))
        self.remember()
        super().__init__(routes=ROUTES, sessions=self.sessions if sessions else None)

    def remember(self, version: int = 1) -> None:
        identity = self.sessions.remember(
            VALUE.encode(),
            issuer_index=0,
            subject=b"usr_alice",
            scopes=(),
            expires_at_s=FAR_FUTURE_S - 1,
            claims={},
            sid=b"s1",
            issued_at_s=version,  # a change of the session makes what was read before void
        )
        assert identity is not None

    def reason(self, *headers: tuple[str, str], path: str = "/app/x", method: str = "GET") -> str:
        verdict = self.door.judge_scope(self.scope(method, path, headers), final=True)
        return verdict.reason


def cookie(text: str) -> tuple[str, str]:
    return ("Cookie", text)


@pytest.mark.parametrize(
    "text",
    [
        f"{NAME}={VALUE}",
        f"a=b; {NAME}={VALUE}; c=d",
        f"a=b;{NAME}={VALUE}",
        f"  {NAME}={VALUE}  ",
        f"; ;{NAME}={VALUE};",
        f"{NAME}={VALUE}; {NAME}={VALUE}",
        f"novalue; {NAME}={VALUE}",
    ],
)
def test_the_session_is_found_among_other_cookies(text: str) -> None:
    door = Door()
    verdict = door.door.judge_scope(door.scope("GET", "/app/x", [cookie(text)]))
    assert (verdict.kind, verdict.reason, verdict.by_session, verdict.cached) == ("allow", "ok", True, True)
    assert verdict.identity is not None
    assert verdict.identity.subject == b"usr_alice"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no_credentials"),
        ("a=b", "no_credentials"),
        (f"x{NAME}={VALUE}", "no_credentials"),
        (f"{NAME}x={VALUE}", "no_credentials"),
        (f"{NAME.lower()}={VALUE}", "no_credentials"),
        (NAME, "no_credentials"),
        (f"{NAME}=", "no_credentials"),
        (f"a={NAME}={VALUE}", "no_credentials"),
        (f"{NAME}={VALUE}b", "session_invalid"),
        (f"{NAME}={VALUE[:-1]}", "session_invalid"),
        (f'{NAME}="{VALUE}"', "session_invalid"),
        (f"{NAME}={VALUE}; {NAME}=other", "credentials_malformed"),
    ],
)
def test_anything_else_is_no_session(text: str, reason: str) -> None:
    assert Door().reason(cookie(text)) == reason


def test_two_cookie_headers_are_read_as_one() -> None:
    door = Door()
    assert door.reason(cookie("a=b"), cookie(f"{NAME}={VALUE}")) == "ok"
    assert door.reason(cookie(f"{NAME}={VALUE}"), cookie(f"{NAME}=other")) == "credentials_malformed"


@pytest.mark.parametrize("name", ["C", "Coo", "Cooki", "Cookies", "Sec-Cookie", "X-A-Long-Name-Of-A-Header"])
def test_a_header_of_another_name_has_no_session(name: str) -> None:
    """Names that were shorter passed, and longer ones were read beyond what they were compared with."""
    assert Door().reason((name, f"{NAME}={VALUE}")) == "no_credentials"


def test_a_session_that_is_not_known_is_asked_for() -> None:
    door = Door()
    asked = door.door.judge_scope(door.scope("GET", "/app/x", [cookie(f"{NAME}=bbb")]))
    assert (asked.kind, asked.reason, asked.token, asked.by_session) == ("ask", "opaque", b"bbb", True)


def test_what_is_kept_of_a_session_ends_and_is_asked_for_again() -> None:
    door = Door()
    scope = door.scope("GET", "/app/x", [cookie(f"{NAME}={VALUE}")])
    door.engine.set_now(FAR_FUTURE_S + 1)
    assert door.door.judge_scope(scope).kind == "ask"
    assert door.door.judge_scope(scope, final=True).reason == "session_invalid"


def test_neither_passes_for_the_other() -> None:
    door = Door()
    token = mint(sub="alice")
    assert door.reason(bearer(token), path="/api/x") == "ok"
    assert door.reason(bearer(token)) == "no_credentials"
    assert door.reason(cookie(f"{NAME}={token}")) == "session_invalid"
    assert door.reason(bearer(VALUE), path="/api/x") != "ok"
    assert door.reason(cookie(f"{NAME}={VALUE}"), path="/api/x") == "no_credentials"


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "post", "ANYTHING"])
def test_another_sites_request_changes_nothing(method: str) -> None:
    door = Door()
    session = cookie(f"{NAME}={VALUE}")
    assert door.reason(session, ("Sec-Fetch-Site", "cross-site"), method=method) == "cross_site"
    for site in ("same-origin", "same-site", "none"):
        assert door.reason(session, ("Sec-Fetch-Site", site), method=method) == "ok"
    assert door.reason(session, method=method) == "ok"  # what is no browser sends no such header
    assert door.reason(session, ("Sec-Fetch-Site", "cross-site")) == "ok"  # GET: a link


def test_a_session_that_changed_must_be_read_anew_and_a_revoked_one_is_over() -> None:
    door = Door()
    session = cookie(f"{NAME}={VALUE}")
    scope = door.scope("GET", "/app/x", [session])
    door.sessions.revoke("sid", b"https://app.test", b"s1", until_s=FAR_FUTURE_S, issued_before_s=2)
    assert door.reason(session) == "session_invalid"
    assert door.door.judge_scope(scope).kind == "ask"
    door.remember(version=2)
    assert door.reason(session) == "ok"
    door.sessions.revoke("sid", b"https://app.test", b"s1", until_s=FAR_FUTURE_S)
    assert door.door.judge_scope(scope).kind == "ask"
    assert door.reason(session) == "session_invalid"


def test_without_sessions_the_route_is_closed() -> None:
    assert Door(sessions=False).reason(cookie(f"{NAME}={VALUE}")) == "auth_unsupported"
