"""People log in at a real gateway, go where they wanted, and are gone within a second after they logged out."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from signal import SIGHUP
from urllib.parse import urlencode

import pyotp
import pytest

from tests.real.browser import Browser, Page
from tests.real.gateway import Gateway, gateway, issuer_toml
from tests.real.http import Answer, Connection
from tests.real.people import PASSWORD, add_user, portcullis
from tests.real.process import wait_until

pytestmark = pytest.mark.journey

CONFIG = """
[sessions]
url = "embedded"

[directory]
url = "embedded"

[login]
enabled = true
url = "https://app.test"
throttle_address_from = 1000

[forward_auth]
login_hosts = ["app.test"]

[[routes]]
path = "/app/{*rest}"
auth = "session"
"""
COOKIE = "__Host-portcullis"
WITHIN_S = 4.0  # a second is the law; the machine of a test may be busy with something else


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("login")
    with gateway(folder, issuer_toml(folder) + CONFIG, workers=2) as made:
        yield made


def forwarded(running: Gateway, browser: Browser) -> Answer:
    """Ask as a proxy does whether the browser may have a page."""
    told = [("X-Forwarded-Method", "GET"), ("X-Forwarded-Uri", "/app/x"), ("X-Forwarded-Host", "app.test")]
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    sent = [*told, ("X-Forwarded-Proto", "https"), ("Accept", "text/html"), ("Sec-Fetch-Mode", "navigate")]
    return running.ask("GET", "/auth/forward", *sent, *([("Cookie", cookie)] if cookie else []))


def logged_in(
    running: Gateway, name: str = "alice", password: str = PASSWORD, address: str = "/login"
) -> tuple[Browser, Page]:
    browser = Browser(running.port)
    page = browser.get(address)
    return browser, browser.submit(page, "/login", username=name, password=password)


def test_a_browser_logs_in_goes_where_it_wanted_and_is_out_within_a_second(running: Gateway) -> None:
    user_id = add_user(running, "alice")
    browser = Browser(running.port)
    sent_away = forwarded(running, browser)
    assert sent_away.status == 302
    page = browser.get(sent_away.one("location"))
    assert page.status == 200
    page = browser.submit(page, "/login", username="alice", password=PASSWORD)
    assert page.refresh == "https://app.test/app/x"
    answer = forwarded(running, browser)
    assert (answer.status, answer.one("x-auth-subject")) == (200, user_id)

    stolen = Browser(running.port)
    stolen.cookies = dict(browser.cookies)
    page = browser.get("/logout")
    browser.submit(page, "/logout")
    assert COOKIE not in browser.cookies
    out_s = time.monotonic()
    # Each worker has to hear of it; which one answers is chance.
    wait_until(lambda: all(forwarded(running, stolen).status == 302 for _ in range(8)), "the session is over")
    assert time.monotonic() - out_s < WITHIN_S


def page_of(browser: Browser, address: str) -> Page:
    """Open an address without following where it leads."""
    return Page(address, browser.ask("GET", address))


def secret_of(page: Page) -> str:
    """Read the key that an authenticator app is told."""
    found = re.search(r"<code>([A-Z2-7]{32})</code>", page.text)
    assert found is not None, page.text
    return found[1]


def codes_of(page: Page) -> list[str]:
    """Read the recovery codes that a page shows."""
    return re.findall(r"<code>([a-z2-7-]{19})</code>", page.text)


def code_of(secret: str, steps: int = 0) -> str:
    """Give the code that an app shows, `steps` of 30 s from now."""
    return pyotp.TOTP(secret).at(int(time.time()) + 30 * steps)


def enrolled(browser: Browser) -> tuple[str, list[str]]:
    """Set an authenticator app up; return its key, and the recovery codes."""
    page = browser.get("/account/mfa")
    secret = secret_of(page)
    page = browser.submit(page, "/account/mfa", code=code_of(secret, -1))
    codes = codes_of(page)
    assert (page.status, len(codes)) == (200, 10), page.text
    return secret, codes


def test_whoever_is_refused_learns_the_same_whether_the_user_exists_or_not(running: Gateway) -> None:
    add_user(running, "bob")
    add_user(running, "gone")
    portcullis(running, "user", "disable", "gone")
    answers = []
    for name, password in (("bob", "not the password"), ("nobody", PASSWORD), ("gone", PASSWORD), ("x" * 600, "x")):
        _, page = logged_in(running, name, password)
        shown = page.text.replace(name, "NAME")
        answers.append((page.status, re.sub(r'(name="csrf" value=)"[^"]*"', r"\1", shown)))
        headers = dict(page.answer.headers)
        assert "set-cookie" not in headers
    assert len(set(answers)) == 1
    assert answers[0][0] == 401
    assert "These credentials are not accepted." in answers[0][1]


def test_guessing_is_slowed_down_and_says_when_to_come_again(running: Gateway) -> None:
    add_user(running, "carol")
    regular, _ = logged_in(running, "carol")
    regular.cookies.pop(COOKIE)
    strangers = Browser(running.port)
    page = strangers.get("/login")
    statuses = []
    for _ in range(7):
        page = strangers.submit(page, "/login", username="carol", password="wrong")
        statuses.append(page.status)
    assert statuses[:5] == [401] * 5
    assert 429 in statuses
    page = strangers.submit(page, "/login", username="carol", password="wrong")
    if page.status == 429:
        assert int(page.answer.one("retry-after")) >= 1
    # The browser from which carol logged in before is not kept out by what strangers do.
    page = regular.submit(regular.get("/login"), "/login", username="carol", password=PASSWORD)
    assert (page.address, page.status) == ("/account", 200)


def test_cookies_are_bound_to_the_host_and_hidden_from_scripts(running: Gateway) -> None:
    add_user(running, "dave")
    browser, _ = logged_in(running, "dave")
    names = set()
    for line in browser.set_cookies:
        name, *attributes = [part.strip() for part in line.split(";")]
        names.add(name.partition("=")[0])
        folded = {attribute.lower() for attribute in attributes}
        assert name.startswith("__Host-")
        assert {"secure", "httponly", "samesite=lax", "path=/"} <= folded
        assert not any(attribute.startswith("domain") for attribute in folded)
    assert {COOKIE, "__Host-portcullis-form", "__Host-portcullis-known"} <= names


def test_the_id_of_a_session_changes_with_every_proof(running: Gateway) -> None:
    add_user(running, "erin")
    planted = Browser(running.port)
    planted.cookies[COOKIE] = "local_" + "a" * 78
    page = planted.submit(planted.get("/login"), "/login", username="erin", password=PASSWORD)
    first = planted.cookies[COOKIE]
    assert first != "local_" + "a" * 78
    page = planted.get("/login?prompt=login&rd=/account")
    planted.submit(page, "/login", username="erin", password=PASSWORD)
    second = planted.cookies[COOKIE]
    assert second != first
    enrolled(planted)
    page = planted.get("/login?acr_values=2fa&rd=/account")
    assert page.form("/mfa")
    old = Browser(running.port)
    old.cookies[COOKIE] = first
    assert page_of(old, "/account").status == 303  # the former id is worth nothing


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("/login", {"username": "frank", "password": PASSWORD}),
        ("/logout", {}),
        ("/account/password", {"current": PASSWORD, "new": "x" * 20, "repeat": "x" * 20}),
        ("/account/sessions/end-all", {}),
        ("/account/mfa/codes", {}),
        ("/account/devices/forget", {"id": "dev_x"}),
    ],
)
def test_no_form_counts_that_this_browser_was_not_shown(running: Gateway, path: str, fields: dict[str, str]) -> None:
    add_user(running, f"frank{path.replace('/', '-')}")
    browser, _ = logged_in(running, f"frank{path.replace('/', '-')}")
    own = browser.get("/account").forms[0].fields["csrf"]
    other, _ = logged_in(running, f"frank{path.replace('/', '-')}")
    foreign = other.get("/account").forms[0].fields["csrf"]
    before = dict(browser.cookies)
    for token in ({}, {"csrf": ""}, {"csrf": foreign}):
        assert browser.ask("POST", path, form={**fields, **token}).status in (400, 403), token
    cross = (("Origin", "https://evil.test"), ("Sec-Fetch-Site", "cross-site"))
    assert browser.ask("POST", path, *cross, form={**fields, "csrf": own}).status in (400, 403)
    assert browser.ask("POST", path, ("Origin", "null"), form={**fields, "csrf": own}).status in (400, 403)
    assert browser.cookies == before
    assert browser.get("/account").status == 200


@pytest.mark.parametrize(
    "target",
    [
        *(
            "https://evil.test/",
            "//evil.test/",
            "/\\evil.test",
            "\\\\evil.test",
            "https:evil.test",
            "javascript:alert(1)",
        ),
        *(
            "https://app.test@evil.test/",
            "https://app.test.evil.test/",
            "http:///evil.test",
            "/\t/evil.test",
            "data:,x",
        ),
        *("https://evil.test\\@app.test/", "https://APP.test:444/", "ftp://app.test/", "x" * 9000),
    ],
)
def test_browsers_are_sent_nowhere_else(running: Gateway, target: str) -> None:
    add_user(running, "grace") if not portcullis(running, "user", "list", "--name", "grace")["users"] else None
    browser = Browser(running.port)
    page = browser.get(f"/login?{urlencode({'rd': target})}")
    page = browser.submit(page, "/login", username="grace", password=PASSWORD)
    assert (page.address, page.status) == ("/account", 200)
    assert browser.get(f"/login?{urlencode({'rd': target})}").address == "/account"
    page = browser.submit(browser.get(f"/logout?{urlencode({'rd': target})}"), "/logout")
    assert page.status == 200
    assert "evil" not in page.text


def test_a_second_factor_is_asked_for_once_and_then_remembered(running: Gateway) -> None:
    add_user(running, "heidi")
    browser, _ = logged_in(running, "heidi")
    secret, codes = enrolled(browser)

    other, page = logged_in(running, "heidi")
    assert COOKIE not in other.cookies
    assert page.form("/mfa")
    page = other.submit(page, "/mfa", code="000000")
    assert page.status == 401
    page = other.submit(page, "/mfa", code=code_of(secret), remember="yes")
    assert (page.address, page.status) == ("/account", 200)
    assert "Firefox on Linux" in page.text

    third, page = logged_in(running, "heidi")
    page = third.submit(page, "/mfa", code=code_of(secret))
    assert page.status == 401  # a code counts once
    page = third.submit(page, "/mfa", code=codes[0])
    assert page.address == "/account"
    fourth, page = logged_in(running, "heidi")
    assert fourth.submit(page, "/mfa", code=codes[0]).status == 401  # and so does a recovery code

    other.cookies.pop(COOKIE)
    page = other.submit(other.get("/login"), "/login", username="heidi", password=PASSWORD)
    assert page.address == "/account"  # a device that is remembered is not asked again
    thief = Browser(running.port)
    thief.cookies["__Host-portcullis-device"] = other.cookies["__Host-portcullis-device"]
    assert page_of(thief, "/account").status == 303  # and is nobody's proof
    page = other.get("/login?acr_values=2fa&rd=/account")
    assert page.form("/mfa")  # what asks for two factors gets them

    page = other.get("/account")
    other.submit(page, "/account/devices/forget", **page.form("/account/devices/forget").fields)
    other.cookies.pop(COOKIE)
    page = other.submit(other.get("/login"), "/login", username="heidi", password=PASSWORD)
    assert page.form("/mfa")


def test_sessions_are_listed_and_ended_by_their_owner(running: Gateway) -> None:
    add_user(running, "ivan")
    first, _ = logged_in(running, "ivan")
    second, _ = logged_in(running, "ivan")
    page = first.get("/account")
    assert page.text.count('/account/sessions/end"') == 1
    first.submit(page, "/account/sessions/end", **page.form("/account/sessions/end").fields)
    assert page_of(second, "/account").status == 303
    assert first.get("/account").status == 200
    third, _ = logged_in(running, "ivan")
    first.submit(first.get("/account"), "/account/sessions/end-all")
    assert page_of(third, "/account").status == 303
    assert page_of(first, "/account").status == 303


def test_a_password_is_changed_by_its_owner_and_other_sessions_end(running: Gateway) -> None:
    add_user(running, "judy")
    first, _ = logged_in(running, "judy")
    second, _ = logged_in(running, "judy")
    page = first.get("/account/password")
    new = "a horse of another colour"
    for fields, status in (
        ({"current": "wrong", "new": new, "repeat": new}, 401),
        ({"current": PASSWORD, "new": new, "repeat": "another"}, 400),
        ({"current": PASSWORD, "new": "short", "repeat": "short"}, 400),
        ({"current": PASSWORD, "new": PASSWORD, "repeat": PASSWORD}, 400),
    ):
        assert first.submit(page, "/account/password", **fields).status == status
    page = first.submit(page, "/account/password", current=PASSWORD, new=new, repeat=new)
    assert page.status == 200
    assert first.get("/account").status == 200
    assert page_of(second, "/account").status == 303
    assert logged_in(running, "judy")[1].status == 401
    assert logged_in(running, "judy", new)[1].address == "/account"


def test_an_operators_link_sets_a_password_once(running: Gateway) -> None:
    add_user(running, "kim")
    there, _ = logged_in(running, "kim")
    link = portcullis(running, "user", "reset", "kim")["link"]
    assert link.startswith("https://app.test/login/reset?token=")
    browser = Browser(running.port)
    page = browser.get(link.removeprefix("https://app.test"))
    assert (page.address, page.status) == ("/login/reset", 200)
    page = browser.submit(page, "/login/reset", new="short", repeat="short")
    assert page.status == 400
    new = "seven wet otters in a boat"
    page = browser.submit(page, "/login/reset", new=new, repeat=new)
    assert page.status == 200
    assert COOKIE not in browser.cookies  # nobody is logged in by a link
    assert page_of(there, "/account").status == 303
    again = Browser(running.port).get(link.removeprefix("https://app.test"))
    assert again.status == 400
    assert logged_in(running, "kim")[1].status == 401
    # What was verified in the second in which everything ended begins no session.
    wait_until(lambda: logged_in(running, "kim", new)[1].address == "/account", "kim is let in")


def test_who_is_disabled_is_out_at_every_door(running: Gateway) -> None:
    add_user(running, "leo")
    browser, _ = logged_in(running, "leo")
    assert forwarded(running, browser).status == 200
    ended = portcullis(running, "user", "disable", "leo")
    assert ended["sessions_ended"] == 1
    wait_until(lambda: all(forwarded(running, browser).status == 302 for _ in range(8)), "the session is over")
    assert logged_in(running, "leo")[1].status == 401
    portcullis(running, "user", "enable", "leo")
    wait_until(lambda: logged_in(running, "leo")[1].address == "/account", "leo is let in")


def test_a_password_that_must_be_changed_is_changed_before_anything_else(running: Gateway) -> None:
    portcullis(running, "user", "add", "mia", "--must-change", given=f"{PASSWORD}\n")
    browser, page = logged_in(running, "mia")
    assert COOKIE not in browser.cookies
    new = "a pebble in a new shoe"
    page = browser.submit(page, "/login/change", new=new, repeat=new)
    assert (page.address, page.status) == ("/account", 200)
    assert logged_in(running, "mia", new)[1].address == "/account"


def test_pages_let_nothing_else_happen_on_them(running: Gateway) -> None:
    browser = Browser(running.port)
    for path in ("/login", "/logout", "/mfa", "/login/reset"):
        headers = dict(browser.ask("GET", path).headers)
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'"), path
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["x-frame-options"] == "DENY"
        assert headers["cache-control"] == "no-store"
    style = browser.ask("GET", "/login/style.css")
    assert (style.status, style.one("content-type")) == (200, "text/css; charset=utf-8")


def test_what_users_do_is_in_the_metrics_and_in_the_audit_log(running: Gateway) -> None:
    add_user(running, "nina")
    logged_in(running, "nina", "wrong")
    logged_in(running, "nina")
    wait_until(
        lambda: b'portcullis_logins_total{method="password",outcome="failure"}' in running.admin("/metrics").body,
        "a failure is counted",
    )
    told = running.server.output
    assert '"event":"login.password"' in told
    assert PASSWORD not in told


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ((("Content-Type", "application/json"),), b"{}", 415),
        ((("Content-Type", "application/x-www-form-urlencoded"),), b"username=%ff&password=%fe", 400),
        ((("Content-Type", "application/x-www-form-urlencoded"),), b"a=1&a=2", 400),
        ((("Content-Type", "application/x-www-form-urlencoded"),), b"a=" + b"x" * 40_000, 413),
    ],
)
def test_bodies_that_are_no_form_of_ours_are_refused(
    running: Gateway, headers: tuple[tuple[str, str], ...], body: bytes, status: int
) -> None:
    assert running.ask("POST", "/login", *headers, body=body).status == status


def test_more_logins_than_can_be_hashed_are_sent_away_and_nothing_else_is(tmp_path: Path) -> None:
    config = CONFIG.replace("[login]\n", "[login]\nargon2_passes = 60\nthrottle_account_from = 1000\n")
    config += "[resilience.pools]\nuser_auth = 6\n"
    with gateway(tmp_path, issuer_toml(tmp_path) + config) as running:
        add_user(running, "alice")
        browser = Browser(running.port)
        form = browser.get("/login").form("/login").fields

        def attempt(number: int) -> tuple[int, list[str], bytes]:
            own = Browser(running.port)
            own.cookies = dict(browser.cookies)
            answer = own.ask("POST", "/login", form={**form, "username": f"user{number}", "password": "wrong"})
            return answer.status, answer.all("retry-after"), answer.body

        with ThreadPoolExecutor(24) as threads:
            flood = [threads.submit(attempt, number) for number in range(24)]
            while not all(each.done() for each in flood):
                asked_s = time.monotonic()
                assert running.ask("GET", "/livez").status == 200
                assert running.ask("GET", "/auth/envoy/app/x").status == 401
                assert time.monotonic() - asked_s < 1.0
            answers = [each.result() for each in flood]
        statuses = {status for status, _, _ in answers}
        assert statuses == {401, 503}
        for status, retry_after, body in answers:
            if status == 503:
                assert int(retry_after[0]) >= 1
                assert b"Try again in a while." in body

        def gets_in() -> bool:
            page = browser.get("/login")
            if page.status == 200:
                page = browser.submit(page, "/login", username="alice", password=PASSWORD)
            assert page.status in (200, 503), page.text
            return page.address == "/account"

        wait_until(gets_in, "the next one gets in")


def test_a_reload_that_changes_what_doors_must_know_leaves_people_logged_in(tmp_path: Path) -> None:
    config = issuer_toml(tmp_path) + CONFIG
    with gateway(tmp_path, config) as running:
        add_user(running, "alice")
        before, _ = logged_in(running)
        running.write_config(config + '[[routes]]\npath = "/new/{*rest}"\nscopes = ["orders:read"]\n')
        running.server.signal(SIGHUP)
        wait_until(lambda: "reloaded: generation" in running.server.output, "the reload")
        for _ in range(5):
            assert before.get("/account").status == 200
            after, page = logged_in(running)
            assert page.address == "/account", page.text
            assert forwarded(running, after).status == 200


def test_asking_for_the_head_of_a_page_does_nothing_and_shows_nothing(running: Gateway) -> None:
    for path in ("/login", "/logout", "/mfa", "/account"):
        with Connection(running.port) as connection:
            connection.send(f"HEAD {path} HTTP/1.1\r\nHost: app.test\r\n\r\n".encode())
            head = connection.read_answer("HEAD")
            seen = Browser(running.port).ask("GET", path)
            assert (head.status, head.body) == (seen.status, b"")


def test_a_link_sets_no_cookie_but_for_what_it_is_for(running: Gateway) -> None:
    browser = Browser(running.port)
    assert browser.get("/login/reset?token=made-up").status == 400
    assert browser.cookies == {}


def test_every_form_on_every_page_has_a_token_without_which_it_does_nothing(running: Gateway) -> None:
    add_user(running, "olga")
    account, _ = logged_in(running, "olga")
    enrolled(account)
    pages = [(account, account.get(path)) for path in ("/account", "/account/password", "/account/mfa", "/logout")]
    stranger = Browser(running.port)
    pages.append((stranger, stranger.get("/login")))
    pages.append(logged_in(running, "olga"))  # asks for a code
    portcullis(running, "user", "add", "pia", "--must-change", given=f"{PASSWORD}\n")
    pages.append(logged_in(running, "pia"))
    add_user(running, "quinn")
    pages.append(logged_in(running, "quinn", address="/login?acr_values=2fa"))
    reset = Browser(running.port)
    link = portcullis(running, "user", "reset", "quinn")["link"]
    pages.append((reset, reset.get(link.removeprefix("https://app.test"))))
    seen = set()
    for browser, page in pages:
        assert page.status == 200, page.text
        assert page.forms, page.address
        for form in page.forms:
            seen.add(form.action)
            assert len(form.fields["csrf"]) >= 43, form.action
            for token in ("", "A" * 43):
                fields = {**form.fields, "csrf": token, "code": "000000", "new": "x" * 20, "repeat": "x" * 20}
                assert browser.ask("POST", form.action, form=fields).status in (400, 403), form.action
    assert seen >= {
        *("/login", "/mfa", "/mfa/enrol", "/login/change", "/login/reset", "/logout", "/account/password"),
        *("/account/mfa", "/account/mfa/remove", "/account/mfa/codes", "/account/sessions/end-all"),
    }
    assert logged_in(running, "quinn")[1].address == "/account"  # no password was set
    assert account.get("/account").status == 200


@pytest.mark.parametrize("odd", ["a\0b", "\n", "x" * 500, "ü" * 60, "' OR 1=1 --", "\ufffd"])
def test_odd_texts_in_any_field_are_somebody_who_does_not_exist(running: Gateway, odd: str) -> None:
    browser = Browser(running.port)
    asked = {"tenant": odd, "acr_values": odd, "max_age": odd, "prompt": odd, "login_hint": odd, "rd": odd}
    page = browser.get(f"/login?{urlencode(asked)}")
    assert page.status == 200
    page = browser.submit(page, "/login", username=odd, password=odd)
    assert (page.status, "These credentials are not accepted." in page.text) == (401, True)


def test_odd_ids_name_nothing(running: Gateway) -> None:
    add_user(running, "rita") if not portcullis(running, "user", "list", "--name", "rita")["users"] else None
    browser, _ = logged_in(running, "rita")
    csrf = browser.get("/account").forms[0].fields["csrf"]
    for path in ("/account/sessions/end", "/account/devices/forget", "/account/mfa/remove"):
        for odd in ("", "a\0b", "x" * 500, "f" * 64, "dev_" + "a" * 26, "ü"):
            answer = browser.ask("POST", path, form={"csrf": csrf, "id": odd})
            assert (answer.status, answer.one("location")) == (303, "/account"), (path, odd)
    assert browser.get("/account").status == 200
