"""What is wrong with `[passkeys]` is told before anything is served."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config import Config, DirectoryConfig, LoginConfig, PasskeysConfig, SessionsConfig
from gateway.config.passkeys_checks import passkeys_complaints

AROUND: dict[str, Any] = {
    "sessions": SessionsConfig(url="embedded"),
    "directory": DirectoryConfig(url="embedded"),
    "login": LoginConfig(enabled=True),
}


def problems(passkeys: PasskeysConfig, **around: Any) -> list[str]:
    config = Config(passkeys=passkeys, **{**AROUND, **around})
    return [f"{'.'.join(map(str, each.path))}: {each.problem}" for each in passkeys_complaints(config)]


@pytest.mark.parametrize(
    ("rp_id", "origins"),
    [
        ("", ()),
        ("example.com", ()),
        ("example.com", ("https://login.example.com", "https://example.com:8443")),
        ("localhost", ("http://localhost:8080",)),
    ],
)
def test_pages_within_the_domain_may_ask(rp_id: str, origins: tuple[str, ...]) -> None:
    assert problems(PasskeysConfig(rp_id=rp_id, origins=origins)) == []


@pytest.mark.parametrize(
    "rp_id", ["127.0.0.1", "Example.com", "https://example.com", "com", "a_b.example", "-a.example"]
)
def test_what_is_no_domain_has_no_passkeys(rp_id: str) -> None:
    assert problems(PasskeysConfig(rp_id=rp_id))


@pytest.mark.parametrize(
    ("origin", "problem"),
    [
        ("https://example.com/", "`https://example.com/` is no origin"),
        ("example.com", "`example.com` is no origin"),
        ("http://example.com", "must be https"),
        ("https://evilexample.com", "`evilexample.com` is not within `example.com`"),
        ("https://example.com.evil.test", "`example.com.evil.test` is not within `example.com`"),
    ],
)
def test_other_pages_may_not(origin: str, problem: str) -> None:
    assert problems(PasskeysConfig(rp_id="example.com", origins=(origin,))) == [f"passkeys.origins.0: {problem}"]


def test_passkeys_need_users_and_sessions() -> None:
    found = problems(
        PasskeysConfig(rp_id="example.com"),
        sessions=SessionsConfig(),
        directory=DirectoryConfig(),
        login=LoginConfig(),
    )
    assert found == [
        "passkeys.rp_id: passkeys need the pages of log-in",
        "passkeys.rp_id: passkeys need `sessions.url`",
        "passkeys.rp_id: passkeys need `directory.url`",
    ]


def test_origins_without_a_domain_mean_nothing() -> None:
    assert problems(PasskeysConfig(origins=("https://example.com",))) == [
        "passkeys.origins: there are no passkeys: rp_id is missing"
    ]
