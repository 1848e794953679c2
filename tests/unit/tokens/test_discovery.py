"""Issuer metadata: where it lies, whose it is, and which addresses it may name."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.stores.fetch import Fetcher, FetchFailed, Problem
from gateway.tokens.discovery import check_named_address, discover, metadata_addresses
from tests.real.issuer import RealIssuer


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    fetcher = Fetcher()
    yield fetcher
    await fetcher.aclose()


@pytest.fixture
async def issuer() -> AsyncIterator[RealIssuer]:
    async with RealIssuer() as issuer:
        yield issuer


async def problem_of(fetcher: Fetcher, issuer: str) -> Problem:
    with pytest.raises(FetchFailed) as failed:
        await discover(fetcher, issuer, timeout_s=5)
    return failed.value.problem


@pytest.mark.parametrize(
    ("issuer", "openid", "oauth"),
    [
        (
            "https://a.example",
            "https://a.example/.well-known/openid-configuration",
            "https://a.example/.well-known/oauth-authorization-server",
        ),
        (
            "https://a.example/",
            "https://a.example/.well-known/openid-configuration",
            "https://a.example/.well-known/oauth-authorization-server",
        ),
        (
            "https://a.example:8443/realms/b",
            "https://a.example:8443/realms/b/.well-known/openid-configuration",
            "https://a.example:8443/.well-known/oauth-authorization-server/realms/b",
        ),
    ],
)
def test_metadata_lies_where_oidc_discovery_4_1_and_rfc_8414_3_1_say(issuer: str, openid: str, oauth: str) -> None:
    assert metadata_addresses(issuer) == (openid, oauth)


async def test_the_openid_form_is_asked_first_and_alone(fetcher: Fetcher, issuer: RealIssuer) -> None:
    metadata = await discover(fetcher, issuer.issuer, timeout_s=5)
    assert metadata.jwks_uri == issuer.jwks_uri
    assert dict(issuer.fetches) == {"/.well-known/openid-configuration": 1}


async def test_the_oauth_form_is_asked_when_the_first_has_nothing(fetcher: Fetcher, issuer: RealIssuer) -> None:
    issuer.modes["/.well-known/openid-configuration"] = "404"
    assert (await discover(fetcher, issuer.issuer, timeout_s=5)).jwks_uri == issuer.jwks_uri
    assert dict(issuer.fetches) == {
        "/.well-known/openid-configuration": 1,
        "/.well-known/oauth-authorization-server": 1,
    }


async def test_a_server_fault_is_not_an_absent_document(fetcher: Fetcher, issuer: RealIssuer) -> None:
    issuer.modes["/.well-known/openid-configuration"] = "500"
    assert await problem_of(fetcher, issuer.issuer) == "status"
    assert issuer.total == 1


@pytest.mark.parametrize("named", ["https://evil.example", "", None, 7, ["x"]])
async def test_metadata_of_another_issuer_is_refused(fetcher: Fetcher, issuer: RealIssuer, named: object) -> None:
    issuer.metadata["issuer"] = named
    assert await problem_of(fetcher, issuer.issuer) == "issuer_mismatch"


async def test_the_issuer_is_compared_exactly(fetcher: Fetcher, issuer: RealIssuer) -> None:
    assert await problem_of(fetcher, issuer.issuer + "/") == "issuer_mismatch"
    assert await problem_of(fetcher, issuer.issuer.replace("http", "HTTP")) == "issuer_mismatch"


@pytest.mark.parametrize("uri", [None, 7, {}])
async def test_metadata_without_a_key_set_address_is_refused(fetcher: Fetcher, issuer: RealIssuer, uri: object) -> None:
    issuer.metadata["jwks_uri"] = uri
    assert await problem_of(fetcher, issuer.issuer) == "no_jwks_uri"


@pytest.mark.parametrize("uri", ["http://idp.example.com/jwks", "file:///etc/passwd", "/jwks", ""])
async def test_a_key_set_address_that_is_not_https_is_refused(
    fetcher: Fetcher, issuer: RealIssuer, uri: object
) -> None:
    issuer.metadata["jwks_uri"] = uri
    assert await problem_of(fetcher, issuer.issuer) == "address"


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080/jwks",
        "https://localhost/jwks",
        "https://127.0.0.1/jwks",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/jwks",
        "https://[fd00::1]/jwks",
        "https://[::ffff:10.0.0.1]/jwks",
        "https://0.0.0.0/jwks",
    ],
)
def test_metadata_of_a_public_issuer_may_not_point_inside(url: str) -> None:
    with pytest.raises(FetchFailed) as failed:
        check_named_address(url, "https://idp.example.com")
    assert failed.value.problem == "address"


def test_metadata_may_name_another_public_host_or_the_issuers_own() -> None:
    for url, issuer in (
        ("https://www.googleapis.com/oauth2/v3/certs", "https://accounts.google.com"),
        ("https://10.0.0.5/keys", "https://10.0.0.5:8443/realm"),
    ):
        assert check_named_address(url, issuer) == url


async def test_an_issuer_with_a_query_is_not_asked(fetcher: Fetcher) -> None:
    assert await problem_of(fetcher, "https://idp.example.com/?tenant=a") == "address"
