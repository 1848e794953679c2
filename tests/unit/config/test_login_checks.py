"""What is wrong with `[login]` and `[deferred]` is told before anybody logs in."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.config import (
    Config,
    DeferredConfig,
    DirectoryConfig,
    LoginConfig,
    ResilienceConfig,
    RouteConfig,
    SessionsConfig,
)
from gateway.config.knobs import HealthConfig
from gateway.config.login_checks import deferred_complaints, login_complaints

URLS = {"LOGINS": "redis://127.0.0.1:6379/0"}


def config_of(login: LoginConfig, *routes: RouteConfig) -> Config:
    return Config(
        login=login,
        sessions=SessionsConfig(url="embedded"),
        directory=DirectoryConfig(url="embedded"),
        routes=routes,
    )


def problems(config: Config, base_dir: Path) -> list[str]:
    return [
        f"{'.'.join(map(str, each.path))}: {each.problem}"
        for each in login_complaints(config, base_dir, URLS)
        if not (each.is_warning and "leaked" in each.problem)
    ]


def test_pages_that_are_off_ask_for_nothing(tmp_path: Path) -> None:
    assert problems(Config(), tmp_path) == []
    assert problems(Config(login=LoginConfig(home="/x")), tmp_path) == ["login.enabled: the pages are off"]


def test_nobody_logs_in_without_sessions_and_a_directory(tmp_path: Path) -> None:
    assert problems(Config(login=LoginConfig(enabled=True)), tmp_path) == [
        "login.enabled: nobody can log in without sessions",
        "login.enabled: nobody can log in without a directory",
    ]
    assert problems(config_of(LoginConfig(enabled=True)), tmp_path) == []


@pytest.mark.parametrize(
    ("login", "problem"),
    [
        (LoginConfig(enabled=True, url="auth.example.com"), "login.url: `auth.example.com` is no address of a gateway"),
        (
            LoginConfig(enabled=True, url="https://auth.example.com/x"),
            "login.url: `https://auth.example.com/x` is no address of a gateway",
        ),
        (LoginConfig(enabled=True, url="http://auth.example.com"), "login.url: passwords would travel in plain text"),
        (LoginConfig(enabled=True, home="//evil.test"), "login.home: `//evil.test` is no path of this host"),
        (LoginConfig(enabled=True, home="https://x"), "login.home: `https://x` is no path of this host"),
        (LoginConfig(enabled=True, risk_code=90), "login.risk_refused: not above risk_code"),
        (LoginConfig(enabled=True, addresses="none.mmdb"), "login.addresses: there is no file `none.mmdb`"),
        (LoginConfig(enabled=True, texts="none"), "login.texts: there is no folder `none`"),
        (LoginConfig(enabled=True, leaked_passwords="none"), "login.leaked_passwords: there is no file `none`"),
        (
            LoginConfig(enabled=True, provisional_device_s=60, remember_s=0, store_url="memory:"),
            "login.provisional_device_s: no device is remembered",
        ),
        (LoginConfig(enabled=True, store_url="mysql://x"), "login.store_url: no store of log-ins"),
    ],
)
def test_what_cannot_work_is_refused(login: LoginConfig, problem: str, tmp_path: Path) -> None:
    given = config_of(login)
    if login.provisional_device_s:
        health = HealthConfig(provisional=True)
        given = replace(
            given, resilience=ResilienceConfig(health=health), sessions=SessionsConfig(url="redis://127.0.0.1")
        )
    assert problems(given, tmp_path) == [problem]


def test_devices_that_could_not_go_on_during_an_outage_are_told_of(tmp_path: Path) -> None:
    login = LoginConfig(enabled=True, provisional_device_s=3600, store_url="env:LOGINS")
    config = config_of(login)
    path = "login.provisional_device_s"
    assert problems(config, tmp_path) == [
        f"{path}: provisional sessions are off",
        f"{path}: sessions.url is a database: while one is down no session begins by a device",
    ]
    health = ResilienceConfig(health=HealthConfig(provisional=True))
    sound = replace(config, resilience=health, sessions=SessionsConfig(url="env:LOGINS"))
    assert problems(sound, tmp_path) == []


@pytest.mark.parametrize("url", ["https://auth.example.com", "https://auth.example.com/", "http://localhost:8080"])
def test_addresses_of_a_gateway_are_taken(url: str, tmp_path: Path) -> None:
    assert problems(config_of(LoginConfig(enabled=True, url=url, store_url="env:LOGINS")), tmp_path) == []


def test_a_route_that_the_pages_hide_is_told_of(tmp_path: Path) -> None:
    routes = (RouteConfig(path="/account/orders"), RouteConfig(path="/accounts/{id}"), RouteConfig(path="/login"))
    assert problems(config_of(LoginConfig(enabled=True), *routes), tmp_path) == [
        "routes.0.path: the pages of `[login]` come first there",
        "routes.2.path: the pages of `[login]` come first there",
    ]


def test_that_leaked_passwords_are_not_looked_at_is_told(tmp_path: Path) -> None:
    told = [each.problem for each in login_complaints(config_of(LoginConfig(enabled=True)), tmp_path, {})]
    assert told == ["new passwords are not held against leaked ones"]
    (tmp_path / "leaked.bin").touch()
    known = config_of(LoginConfig(enabled=True, leaked_passwords="leaked.bin"))
    assert list(login_complaints(known, tmp_path, {})) == []


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        *((good, "") for good in ("", "embedded", "sqlite:jobs.sqlite3", "env:LOGINS")),
        *((bad, "no store of deferred work") for bad in ("memory:", "postgresql://localhost/x", "kafka://127.0.0.1/x")),
    ],
)
def test_deferred_work_lies_where_it_survives(url: str, problem: str, tmp_path: Path) -> None:
    config = Config(deferred=DeferredConfig(url=url))
    assert [each.problem for each in deferred_complaints(config, tmp_path, URLS)] == ([problem] if problem else [])
