"""The token service as a part of a worker: what it is made of, what it trusts, and how it begins and ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gateway._native.token import TokenValidator
from gateway.config import (
    DirectoryConfig,
    OAuthClientConfig,
    OAuthConfig,
    OAuthResourceConfig,
    ResilienceConfig,
    SessionsConfig,
)
from gateway.errors import KeyInvalid, StoreUnavailable
from gateway.flows.oauth import LoginWish
from gateway.flows.sessions import SessionNames, Sessions
from gateway.flows.trail import AuditTrail
from gateway.front.callers import Callers
from gateway.front.oauth import part
from gateway.front.oauth.part import OAuthNeighbours, OAuthWish, OpenedOAuth
from gateway.front.trust import TrustedProxies
from gateway.resilience import Resilience
from gateway.stores import open_session_store
from gateway.types import Secret
from tests.unit.flows.oauth.world import Events
from tests.unit.tokens.fakes import MovedClock

ISSUER = "https://auth.example"


def opened(folder: Path, *, sessions: Sessions | None = None, login_url: str = "", **changes: Any) -> OpenedOAuth:
    clock = MovedClock()
    (folder / "secret").write_text("s" * 32)
    plain = {"issuer": ISSUER, "encryption_key": "file:secret", "store_url": "memory:", "algorithm": "ES256"}

    async def revoke(*_: object, **__: object) -> None:
        return None

    around = OAuthNeighbours(
        resilience=Resilience(ResilienceConfig(), clock=clock),
        clock=clock,
        auditor=Events(),
        revoke=revoke,
        sessions=None if sessions is None else (sessions, "cookie"),
        new_validator=TokenValidator,
        caller_of=Callers(TrustedProxies([])),
    )
    wish = OAuthWish(
        OAuthConfig(**{**plain, **changes}),
        5.0,
        login_url,
        "rd",
        "",
        (),
        SessionsConfig(),
        DirectoryConfig(),
        (),
        around,
    )
    return OpenedOAuth(wish, base_dir=folder, run_dir=folder)


def new_sessions() -> Sessions:
    clock = MovedClock()
    store = open_session_store("memory:", Path(), clock)
    return Sessions(store, SessionNames("x", Secret(bytes(32))), clock=clock, trail=AuditTrail(Events(), clock))


async def test_the_doors_trust_it_for_all_that_its_tokens_are_for(tmp_path: Path) -> None:
    made = opened(tmp_path, resources=(OAuthResourceConfig(id="https://a.example"),), audience="https://b.example")
    issuer = made.issuer
    assert (issuer.issuer, issuer.algorithms, issuer.types) == (ISSUER, ("ES256",), ("at+jwt",))
    assert issuer.audiences == ("https://b.example", "https://a.example")
    assert Path(issuer.jwks_file).is_file()
    assert not issuer.allow_sender_constrained
    assert made.resource_metadata_url == "https://a.example/.well-known/oauth-protected-resource"


def test_the_languages_of_its_pages_are_told(tmp_path: Path) -> None:
    assert opened(tmp_path).service.metadata()["ui_locales_supported"] == ["de", "en", "es", "fr"]
    with_sessions = opened(tmp_path, sessions=new_sessions()).service.metadata()
    assert with_sessions["end_session_endpoint"] == f"{ISSUER}/oauth2/logout"
    assert "end_session_endpoint" not in opened(tmp_path).service.metadata()


async def test_with_several_resources_each_host_says_it_itself(tmp_path: Path) -> None:
    resources = (OAuthResourceConfig(id="https://a.example"), OAuthResourceConfig(id="https://b.example"))
    assert opened(tmp_path, resources=resources).resource_metadata_url == ""


@pytest.mark.parametrize(
    ("login_url", "address"),
    [
        (
            "",
            "/login?rd=%2Foauth2%2Fauthorize%3Fa%3Db&prompt=login&acr_values=2+1&login_hint=a%40b&ui_locales=de+fr&tenant=acme",
        ),
        (
            "https://login.example/?x=1",
            "https://login.example/?x=1&rd=https%3A%2F%2Fauth.example%2Foauth2%2Fauthorize%3Fa%3Db"
            "&prompt=login&acr_values=2+1&login_hint=a%40b&ui_locales=de+fr&tenant=acme",
        ),
    ],
)
async def test_a_login_page_is_told_what_is_asked_of_it(tmp_path: Path, login_url: str, address: str) -> None:
    wish = LoginWish(
        return_to="/oauth2/authorize?a=b",
        reauthenticate=True,
        acr_values=("2", "1"),
        login_hint="a@b",
        ui_locales="de fr",
        tenant="acme",
    )
    for sessions in (None, new_sessions()):
        made = opened(tmp_path, sessions=sessions, login_url=login_url)
        assert made.service._approvals._authenticator.login_url(wish) == address


async def test_sessions_tell_the_service_in_force_of_their_end(tmp_path: Path) -> None:
    sessions = new_sessions()
    first = opened(tmp_path, sessions=sessions)
    second = opened(tmp_path, sessions=sessions)
    await first.stop()
    assert sessions.grants is second.service
    await second.stop()
    assert sessions.grants is None


async def test_what_is_over_is_forgotten_also_after_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part, "PURGE_S", 0.0)
    made = opened(tmp_path)
    done = asyncio.Event()
    calls = []

    async def purge(now_s: float) -> int:
        calls.append(now_s)
        if len(calls) == 1:
            raise StoreUnavailable("gone")
        done.set()
        return 0

    monkeypatch.setattr(made._store, "purge", purge)
    await made.start()
    await asyncio.wait_for(done.wait(), 5.0)
    await made.stop()
    assert len(calls) >= 2


async def test_secrets_and_files_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    client = OAuthClientConfig(id="x", auth="private_key_jwt", jwks_file="none.json")
    with pytest.raises(KeyInvalid, match=r"none\.json"):
        opened(tmp_path, clients=(client,))
    (tmp_path / "none.json").write_text("[]")
    with pytest.raises(KeyInvalid, match="no JSON object"):
        opened(tmp_path, clients=(client,))
    with pytest.raises(ValueError, match="unknown kind of store"):
        opened(tmp_path, store_url="mysql://x")
    with pytest.raises(ValueError, match="environment has no"):
        opened(tmp_path, clients=(OAuthClientConfig(id="x", secret="env:NOT_THERE"),))
