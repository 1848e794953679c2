"""Forms count from the browser and the session that were shown them, and from our own pages."""

from __future__ import annotations

import pytest
from starlette.requests import Request
from starlette.responses import Response

from gateway.front.login.cookies import FORM, Forms, drop, put

SESSION = "__Host-portcullis"
NONCE = "n" * 22


def request(cookies: dict[str, str] | None = None, **headers: str) -> Request:
    sent = {"host": "auth.test", **{name.replace("_", "-"): value for name, value in headers.items()}}
    if cookies:
        sent["cookie"] = "; ".join(f"{name}={value}" for name, value in cookies.items())
    raw = [(name.encode(), value.encode()) for name, value in sent.items()]
    return Request({"type": "http", "method": "POST", "path": "/login", "query_string": b"", "headers": raw})


@pytest.fixture
def forms() -> Forms:
    return Forms(bytes(32), SESSION)


def token(forms: Forms, cookies: dict[str, str]) -> str:
    asked = request(cookies)
    return forms.token(asked, forms.key_of(asked))


def test_a_form_counts_where_it_was_shown(forms: Forms) -> None:
    cookies = {FORM: NONCE, SESSION: "a"}
    assert forms.accepts(request(cookies), token(forms, cookies))
    assert forms.accepts(
        request(cookies, origin="https://auth.test", sec_fetch_site="same-origin"), token(forms, cookies)
    )


@pytest.mark.parametrize(
    "cookies", [{}, {FORM: "m" * 22, SESSION: "a"}, {FORM: NONCE}, {FORM: NONCE, SESSION: "b"}, {FORM: "short"}]
)
def test_a_form_counts_in_no_other_browser_and_no_other_session(forms: Forms, cookies: dict[str, str]) -> None:
    assert not forms.accepts(request(cookies), token(forms, {FORM: NONCE, SESSION: "a"}))


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.test"},
        {"origin": "null"},
        {"origin": "https://auth.test.evil.test"},
        {"origin": "https://[auth.test"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_a_form_of_another_site_does_not_count(forms: Forms, headers: dict[str, str]) -> None:
    cookies = {FORM: NONCE}
    assert not forms.accepts(request(cookies, **headers), token(forms, cookies))


@pytest.mark.parametrize("made_up", ["", "x", "ü", "A" * 43])
def test_a_token_that_is_made_up_does_not_count(forms: Forms, made_up: str) -> None:
    assert not forms.accepts(request({FORM: NONCE}), made_up)


def test_tokens_of_another_key_do_not_count(forms: Forms) -> None:
    cookies = {FORM: NONCE}
    assert not Forms(b"k" * 32, SESSION).accepts(request(cookies), token(forms, cookies))


def test_cookies_are_hidden_bound_and_dropped(forms: Forms) -> None:
    response = Response()
    put(response, "__Host-x", "v")
    drop(response, "__Host-y")
    kept, dropped = response.headers.getlist("set-cookie")
    for attribute in ("HttpOnly", "Secure", "Path=/", "SameSite=lax"):
        assert attribute in kept
    assert "Domain" not in kept
    assert "Max-Age=0" in dropped
