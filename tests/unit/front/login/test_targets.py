"""Browsers are sent to paths of the host they are at, and to hosts of the config, whatever a link says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.front.login.targets import TARGET_BYTES_MAX, Targets

TARGETS = Targets(["app.test", "Shop.Test:8443"], "/account")
OWN = "auth.test"


@pytest.mark.parametrize(
    "target",
    [
        *("/", "/app/x?y=%2F#z", "/a//b", "https://app.test/x", "http://app.test/", "https://APP.test/x"),
        *("https://shop.test:8443/", "https://auth.test/back", "/oauth2/authorize?redirect_uri=https%3A%2F%2Fx"),
    ],
)
def test_good_targets_are_taken(target: str) -> None:
    assert TARGETS.judge(target, OWN) == target


@pytest.mark.parametrize(
    "target",
    [
        *(
            "",
            "x",
            "//evil.test",
            "///evil.test",
            "/\\evil.test",
            "\\/evil.test",
            "https://evil.test",
            "https:/evil.test",
        ),
        *("https:evil.test", "javascript:alert(1)", "https://app.test@evil.test/", "https://evil.test#@app.test"),
        *(
            "https://app.test.evil.test",
            "https://app.test:444/",
            "https://shop.test/",
            "https://[app.test",
            "ftp://app.test",
        ),
        *(
            "/\tevil",
            "/x\r\nset-cookie: a=b",
            " /x",
            "/x ",
            "https://ápp.test/",
            "/\u2028",
            "https://app.test\\@evil.test",
        ),
        "/" + "x" * TARGET_BYTES_MAX,
    ],
)
def test_bad_targets_lead_home(target: str) -> None:
    assert TARGETS.judge(target, OWN) == "/account"


def test_an_unnamed_host_is_nobodys() -> None:
    assert TARGETS.judge("https:///x", "") == "/account"


@given(st.text(alphabet="/\\:@?#.%;ehtpslvi \t\n", max_size=30))
def test_nothing_that_is_taken_leaves_the_host(target: str) -> None:
    if TARGETS.allows(target, OWN):
        assert target.startswith("/")
        assert target[1:2] not in ("/", "\\")


def test_what_sends_browsers_on_is_opened_by_a_page() -> None:
    assert Targets.is_near("/account")
    assert not Targets.is_near("/oauth2/authorize?x=y")
    assert not Targets.is_near("https://app.test/x")
