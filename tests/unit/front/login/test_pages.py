"""Pages escape what they show, and are in the language that is liked best."""

from __future__ import annotations

import re

import pytest
from starlette.requests import Request

from gateway.front.login.pages import Pages, Way, qr_code
from gateway.front.login.texts import ENGLISH, LANGUAGES, texts_for
from tests.conftest import ROOT

FOLDER = ROOT / "gateway" / "front" / "login"


def request(language: str = "") -> Request:
    headers = [(b"accept-language", language.encode())]
    return Request({"type": "http", "method": "GET", "path": "/login", "query_string": b"", "headers": headers})


def test_what_is_shown_is_text_and_nothing_else() -> None:
    evil = "\"><script>alert('x')</script>"
    shown = Pages(ways=[Way("/login/sso/x", evil, is_name=True)]).page(
        request(), "login.html", csrf=evil, error=evil, fields={"rd": evil}, username=evil
    )
    assert b"<script" not in shown.body


def test_scripts_are_allowed_only_where_a_way_needs_one() -> None:
    def policy(*ways: Way) -> str:
        shown = Pages(ways=ways).page(request(), "login.html", csrf="x", fields={}, username="")
        return shown.headers["content-security-policy"]

    assert "script-src" not in policy()
    assert "script-src 'self'" in policy(Way("/login/passkey", "log_in", script="/login/passkeys.js"))


def test_templates_name_only_texts_that_there_are_and_hold_none_of_their_own() -> None:
    for path in (FOLDER / "templates").glob("*.html"):
        source = path.read_text()
        named = set(re.findall(r"\bt\.([a-z_]+)", source))
        assert named <= set(ENGLISH), path.name
        assert "style=" not in source, path.name
        assert " on" not in re.sub(r"\{[{%].*?[%}]\}", "", source).replace(" one-time", ""), path.name


def test_every_language_has_every_text() -> None:
    for language, texts in LANGUAGES.items():
        assert set(texts) == set(ENGLISH), language
        assert texts["lang"] == language
        for name, text in texts.items():
            assert set(re.findall(r"\{(\w+)\}", text)) == set(re.findall(r"\{(\w+)\}", ENGLISH[name])), name


@pytest.mark.parametrize("header", ["", "en", "de, en;q=0.5", "xx;q=nan", "en;q=x", "*", ",,;q=", "en;q=0"])
def test_whatever_a_browser_likes_there_is_a_language(header: str) -> None:
    assert texts_for(header)["lang"] in LANGUAGES


def test_a_qr_code_is_drawn_whole_and_says_what_it_is() -> None:
    drawn = qr_code("otpauth://totp/Acme:alice?secret=ABC", 'a "label"')
    assert 'aria-label="a &#34;label&#34;"' in drawn
    size = int(re.search(r'viewBox="0 0 (\d+) ', drawn)[1])  # type: ignore[index]
    assert (size - 8 - 17) % 4 == 0  # the sizes that QR codes have, with four modules around
    dark = {(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", drawn)}
    assert {(4, 4), (4, size - 5), (size - 5, 4)} <= dark  # corners of the three marks
    assert all(4 <= place < size - 4 for module in dark for place in module)
