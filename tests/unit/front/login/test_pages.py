"""Pages escape what they show, and are in the language that is liked best."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from urllib.parse import urlencode

import pytest
from starlette.requests import Request

from gateway.front.login.cookies import LANGUAGE
from gateway.front.login.pages import Pages, Way, qr_code
from gateway.front.login.texts import SHIPPED, read_catalogue
from tests.conftest import ROOT

FOLDER = ROOT / "gateway" / "front" / "login"
CATALOGUE = read_catalogue()
ENGLISH = CATALOGUE.languages["en"]


def request(language: str = "", query: str = "", cookie: str = "") -> Request:
    headers = [(b"accept-language", language.encode()), (b"cookie", f"{LANGUAGE}={cookie}".encode())]
    scope = {"type": "http", "method": "GET", "path": "/login", "query_string": query.encode(), "headers": headers}
    return Request(scope)


def holes(text: str) -> list[str]:
    return sorted(set(re.findall(r"\{(\w+)\}", text)))


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


def test_every_text_is_shown_somewhere() -> None:
    pages = [*FOLDER.glob("*.py"), *FOLDER.glob("templates/*.html"), FOLDER.parent / "oauth" / "pages.py"]
    sources = "".join(path.read_text() for path in pages)
    named = set(re.findall(r"\bt\.([a-z_]+)", sources)) | set(re.findall(r"""["']([a-z_]+)["']""", sources))
    unused = {name for name in ENGLISH if name not in named and not name.startswith("error_")}
    assert unused == set()


@pytest.mark.parametrize("language", ["de", "en", "es", "fr"])
def test_every_language_has_every_text_and_its_holes(language: str) -> None:
    texts = tomllib.loads((SHIPPED / f"{language}.toml").read_text())
    assert list(texts) == ["lang", *sorted(set(texts) - {"lang"})]
    assert set(texts) == set(ENGLISH)
    assert texts["lang"] == language
    for name, text in texts.items():
        assert text.strip() == text != "", name
        assert holes(text) == holes(ENGLISH[name]), name
        text.format(**dict.fromkeys(holes(text), "x"))
    same = {name for name in texts if texts[name] == ENGLISH[name]}
    assert language == "en" or len(same) < 10, same  # names of things may be


def test_all_that_come_with_the_gateway_are_known() -> None:
    assert (
        sorted(CATALOGUE.languages) == sorted(path.stem for path in SHIPPED.glob("*.toml")) == ["de", "en", "es", "fr"]
    )


@pytest.mark.parametrize(
    ("header", "language"),
    [
        *(("", "en"), ("en", "en"), ("de", "de"), ("de-CH, fr;q=0.5", "de"), ("FR-ca", "fr")),
        *(("it, es;q=0.4, de;q=0.3", "es"), ("de;q=0, es;q=0.1", "es"), ("xx;q=nan", "en"), ("de;q=x, fr", "fr")),
        *(("*", "en"), (",,;q=", "en"), ("en;q=0", "en"), ("de" * 20_000, "en"), ("de-" * 100, "de")),
    ],
)
def test_whatever_a_browser_likes_there_is_a_language(header: str, language: str) -> None:
    assert CATALOGUE.texts(header)["lang"] == language
    shown = Pages().page(request(header), "login.html", csrf="x", fields={}, username="")
    assert f'<html lang="{language}">'.encode() in shown.body
    assert "set-cookie" not in shown.headers


@pytest.mark.parametrize(
    ("asked", "language"), [("de", "de"), ("it fr-CA de", "fr"), ("it", ""), ("x" * 9000, ""), ("de\r\nx: y", "de")]
)
def test_what_an_application_asks_for_goes_first_and_is_kept_for_the_next_pages(asked: str, language: str) -> None:
    pages = Pages()
    shown = pages.page(request("es", urlencode({"ui_locales": asked})), "login.html", csrf="x", fields={}, username="")
    assert f'<html lang="{language or "es"}">'.encode() in shown.body
    kept = shown.headers.get("set-cookie", "")
    assert kept.startswith(f"{LANGUAGE}={language};") if language else kept == ""
    after = pages.page(request("es", cookie=language), "login.html", csrf="x", fields={}, username="")
    assert f'<html lang="{language or "es"}">'.encode() in after.body


@pytest.mark.parametrize("cookie", ["xx", "../../etc", 'de"><script>', "d" * 4000])
def test_a_made_up_cookie_is_no_language(cookie: str) -> None:
    assert Pages().texts(request("fr", cookie=cookie))["lang"] == "fr"


def test_an_operators_texts_replace_ours_and_add_languages(tmp_path: Path) -> None:
    (tmp_path / "de.toml").write_text('login_title = "Willkommen bei Acme"\n')
    (tmp_path / "pt-BR.toml").write_text('login_title = "Entrar"\nremember = "Lembrar {days} dias"\n')
    catalogue = read_catalogue(tmp_path)
    german = catalogue.texts("de")
    assert (german["login_title"], german["logout"]) == ("Willkommen bei Acme", "Abmelden")
    brazilian = catalogue.texts("pt-br")
    assert (brazilian["lang"], brazilian["login_title"], brazilian["logout"]) == ("pt-BR", "Entrar", "Log out")
    assert catalogue.texts("pt")["lang"] == "en"
    shown = Pages(catalogue=catalogue).page(request("de"), "login.html", csrf="x", fields={}, username="")
    assert "Willkommen bei Acme" in bytes(shown.body).decode()


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("de.toml", 'login_titel = "x"', "has a text `login_titel` that no page shows"),
        ("de.toml", "login_title = 7", "`login_title` in .* is no text"),
        ("de.toml", 'remember = "{tage} Tage"', "has holes that nothing fills: tage"),
        ("de.toml", 'sso_use = "{name.__class__}"', "has holes that nothing fills"),
        ("de.toml", 'login_title = "{}"', "has holes that nothing fills"),
        ("de.toml", 'login_title = "a { b"', "has holes that nothing fills"),
        ("de.toml", "login_title = ", "cannot be read"),
        ("de.toml", "x" * 300_000, "is larger than"),
        ("Deutsch!.toml", 'login_title = "x"', "is named after no language"),
    ],
)
def test_texts_that_a_page_could_fail_by_are_refused(tmp_path: Path, name: str, text: str, problem: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_catalogue(tmp_path)


def test_a_folder_that_is_none_or_holds_too_much_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no folder"):
        read_catalogue(tmp_path / "none")
    for number in range(101):
        (tmp_path / f"aa-{number:04}.toml").touch()
    with pytest.raises(ValueError, match="more than 100 files"):
        read_catalogue(tmp_path)


def test_a_qr_code_is_drawn_whole_and_says_what_it_is() -> None:
    drawn = qr_code("otpauth://totp/Acme:alice?secret=ABC", 'a "label"')
    assert 'aria-label="a &#34;label&#34;"' in drawn
    size = int(re.search(r'viewBox="0 0 (\d+) ', drawn)[1])  # type: ignore[index]
    assert (size - 8 - 17) % 4 == 0  # the sizes that QR codes have, with four modules around
    dark = {(int(x), int(y)) for x, y in re.findall(r"M(\d+) (\d+)h1v1h-1z", drawn)}
    assert {(4, 4), (4, size - 5), (size - 5, 4)} <= dark  # corners of the three marks
    assert all(4 <= place < size - 4 for module in dark for place in module)
