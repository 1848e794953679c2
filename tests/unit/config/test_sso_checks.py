"""What is wrong with `[[sso]]` is told before anything is served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, DirectoryConfig, LoginConfig, OAuthConfig, SessionsConfig, SSOConfig
from gateway.config.sso_checks import sso_complaints

ENV = {"SECRET": "s" * 32}


def provider(**changes: Any) -> SSOConfig:
    given = {"id": "corp", "issuer": "https://idp.example", "client_id": "portcullis", "client_secret": "env:SECRET"}
    return SSOConfig(**{**given, **changes})


def problems(folder: Path, *providers: SSOConfig, **around: Any) -> list[str]:
    given: dict[str, Any] = {
        "sessions": SessionsConfig(url="embedded"),
        "directory": DirectoryConfig(url="embedded"),
        "oauth": OAuthConfig(issuer="https://auth.example"),
        "login": LoginConfig(enabled=True),
    }
    config = Config(sso=providers, **{**given, **around})
    return [f"{'.'.join(map(str, each.path))}: {each.problem}" for each in sso_complaints(config, folder, ENV)]


def test_a_provider_needs_few_words(tmp_path: Path) -> None:
    assert problems(tmp_path, provider()) == []
    assert problems(tmp_path, provider(client_auth="none", client_secret="", issuer="http://127.0.0.1:9000")) == []
    link = {"link_email": True, "email_domains": ("corp.example",)}
    assert problems(tmp_path, provider(redirect_uri="https://auth.example/login/sso/corp/callback", **link)) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"id": "Corp/../x"}, "sso.0.id: `Corp/../x` cannot stand in an address"),
        ({"issuer": "http://idp.example"}, "sso.0.issuer: must be https"),
        ({"issuer": "https://idp.example?x=1"}, "sso.0.issuer: `https://idp.example?x=1` is no issuer"),
        ({"client_id": ""}, "sso.0.client_id: missing"),
        ({"client_secret": ""}, "sso.0.client_secret: missing"),
        ({"client_auth": "none"}, 'sso.0.client_secret: has no meaning with client_auth = "none"'),
        ({"link_email": True}, "sso.0.email_domains: missing with link_email"),
        ({"email_domains": ("corp.example",)}, "sso.0.email_domains: has no meaning without link_email or provision"),
        ({"link_email": True, "email_domains": ("*.example",)}, "sso.0.email_domains.0: `*.example` is no domain"),
        ({"logout_uri": "javascript:alert(1)"}, "sso.0.logout_uri: `javascript:alert(1)` is no address"),
        (
            {"redirect_uri": "https://auth.example/elsewhere"},
            "sso.0.redirect_uri: `https://auth.example/elsewhere` leads elsewhere",
        ),
        (
            {"redirect_uri": "http://auth.example/login/sso/corp/callback"},
            "sso.0.redirect_uri: codes would travel in plain text",
        ),
    ],
)
def test_what_could_not_work_or_lets_others_in_is_refused(
    tmp_path: Path, changes: dict[str, Any], problem: str
) -> None:
    assert problem in problems(tmp_path, provider(**changes))


def test_a_provider_needs_users_sessions_and_an_address_to_come_back_to(tmp_path: Path) -> None:
    around: dict[str, Any] = {"sessions": SessionsConfig(), "directory": DirectoryConfig(), "oauth": OAuthConfig()}
    around["login"] = LoginConfig()
    assert problems(tmp_path, provider(), **around) == [
        "sso.0.redirect_uri: missing, and there is no login.url to make it of",
        "sso.0.id: identity providers need the pages of log-in",
        "sso.0.id: identity providers need `sessions.url`",
        "sso.0.id: identity providers need `directory.url`",
    ]


def test_two_providers_have_two_names(tmp_path: Path) -> None:
    assert problems(tmp_path, provider(), provider()) == ["sso.1.id: the same id stands at"]
