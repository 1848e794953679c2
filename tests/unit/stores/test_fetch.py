"""Every way in which a peer can misbehave, against a real server on loopback."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from gateway.stores.fetch import Fetcher, FetchFailed, Problem, check_address
from tests.real.issuer import Mode, RealIssuer

DEADLINE_S = 0.3


@pytest.fixture
async def fetcher() -> AsyncIterator[Fetcher]:
    fetcher = Fetcher()
    yield fetcher
    await fetcher.aclose()


@pytest.fixture
async def issuer() -> AsyncIterator[RealIssuer]:
    async with RealIssuer([{"kty": "OKP", "kid": "a"}]) as issuer:
        yield issuer


async def get(fetcher: Fetcher, url: str, timeout_s: float = 5.0, bytes_max: int = 10_000) -> dict[str, object]:
    return await fetcher.get_json(url, timeout_s=timeout_s, bytes_max=bytes_max)


async def test_a_json_object_is_returned(fetcher: Fetcher, issuer: RealIssuer) -> None:
    assert await get(fetcher, issuer.jwks_uri) == {"keys": [{"kty": "OKP", "kid": "a"}]}
    assert issuer.headers[0]["accept-encoding"] == "identity"


@pytest.mark.parametrize("mode", ["hang", "drip", "drip_head"])
async def test_a_slow_peer_is_left_within_the_deadline(fetcher: Fetcher, issuer: RealIssuer, mode: Mode) -> None:
    await fetcher.open()
    issuer.mode = mode
    started = time.monotonic()
    with pytest.raises(FetchFailed) as failed:
        await get(fetcher, issuer.jwks_uri, timeout_s=DEADLINE_S)
    assert failed.value.problem == "timeout"
    assert DEADLINE_S <= time.monotonic() - started < DEADLINE_S + 0.1


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        ("huge", "too_large"),
        ("bomb", "too_large"),
        ("brotli", "encoding"),
        ("reset", "broken"),
        ("cut", "broken"),
        ("garbage", "broken"),
        ("500", "status"),
        ("404", "status"),
        ("bad_json", "not_json"),
        ("not_object", "not_json"),
        ("redirect_away", "redirect"),
        ("redirect_here", "redirect"),
    ],
)
async def test_a_faulty_peer_has_its_own_problem(
    fetcher: Fetcher, issuer: RealIssuer, mode: Mode, problem: Problem
) -> None:
    issuer.mode = mode
    with pytest.raises(FetchFailed) as failed:
        await get(fetcher, issuer.jwks_uri)
    assert failed.value.problem == problem
    issuer.mode = "ok"
    assert await get(fetcher, issuer.jwks_uri)


async def test_a_fair_gzip_body_is_read(fetcher: Fetcher, issuer: RealIssuer) -> None:
    issuer.mode = "gzip"
    assert "keys" in await get(fetcher, issuer.jwks_uri)


async def test_the_byte_cap_holds_to_the_byte(fetcher: Fetcher, issuer: RealIssuer) -> None:
    size_bytes = len('{"keys": [{"kty": "OKP", "kid": "a"}]}')
    assert await get(fetcher, issuer.jwks_uri, bytes_max=size_bytes)
    with pytest.raises(FetchFailed, match="more than"):
        await get(fetcher, issuer.jwks_uri, bytes_max=size_bytes - 1)


async def test_the_byte_cap_holds_after_decompression(fetcher: Fetcher, issuer: RealIssuer) -> None:
    issuer.mode = "bomb"  # 62 kB as sent
    with pytest.raises(FetchFailed) as failed:
        await get(fetcher, issuer.jwks_uri, bytes_max=1_000_000)
    assert failed.value.problem == "too_large"


async def test_redirects_are_followed_within_the_origin_where_asked(fetcher: Fetcher, issuer: RealIssuer) -> None:
    issuer.mode = "redirect_here"
    url = issuer.jwks_uri
    assert await fetcher.get_json(url, timeout_s=5, bytes_max=10_000, same_origin_redirects=True)
    for mode in ("redirect_away", "redirect_loop"):
        issuer.mode = mode
        with pytest.raises(FetchFailed) as failed:
            await fetcher.get_json(url, timeout_s=5, bytes_max=10_000, same_origin_redirects=True)
        assert failed.value.problem == "redirect"


async def test_a_refused_connection_is_unreachable(fetcher: Fetcher, issuer: RealIssuer) -> None:
    await issuer.stop()
    with pytest.raises(FetchFailed) as failed:
        await get(fetcher, issuer.jwks_uri)
    assert failed.value.problem == "unreachable"


async def test_cancellation_is_not_an_answer(fetcher: Fetcher, issuer: RealIssuer) -> None:
    issuer.mode = "hang"
    task = asyncio.create_task(get(fetcher, issuer.jwks_uri))
    while not issuer.total:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_form_is_posted_with_encoded_credentials(fetcher: Fetcher, issuer: RealIssuer) -> None:
    answer = await fetcher.post_form(
        f"{issuer.issuer}/introspect", {"token": "t&k=n"}, basic=("us%3Aer", "p%2Bw"), timeout_s=5, bytes_max=1000
    )
    assert answer == {"active": False}
    assert issuer.forms == [{"token": "t&k=n"}]
    assert issuer.credentials == [("us:er", "p+w")]


@pytest.mark.parametrize(
    "url",
    [
        "http://idp.example.com/jwks",
        "http://10.0.0.1/jwks",
        "http://127.0.0.1.example.com/",
        "file:///etc/passwd",
        "data:application/json,{}",
        "ftp://127.0.0.1/jwks",
        "https://",
        "https:///jwks",
        "//idp.example.com/jwks",
        "https://user:password@idp.example.com/",
        "https://user@idp.example.com/",
        "https://idp.example.com/#fragment",
        "https://idp.example.com:99999/",
        "https://idp.example.com:0/",
        "https://idp.example.com\\@127.0.0.1/",
        "https://idp.example.com/a b",
        "https://idp.example.com/\n",
        "https://ïdp.example.com/",
        "https://[::1/",
        "",
    ],
)
async def test_an_address_that_is_not_https_is_refused_before_anything_is_sent(fetcher: Fetcher, url: str) -> None:
    with pytest.raises(FetchFailed) as failed:
        await get(fetcher, url)
    assert failed.value.problem == "address"
    assert "password" not in str(failed.value).replace("a password", "")


@pytest.mark.parametrize(
    "url",
    [
        "https://idp.example.com/jwks?tenant=a",
        "https://idp.example.com:8443",
        "http://localhost:1/",
        "http://127.0.0.9/",
        "http://[::1]:8080/jwks",
    ],
)
def test_https_and_loopback_addresses_may_be_fetched(url: str) -> None:
    assert check_address(url).hostname


def tls_pair(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context for 127.0.0.1 and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return server, ssl.create_default_context(cafile=str(folder / "cert.pem"))


async def test_tls_is_verified_and_a_hanging_tls_peer_is_left_in_time(tmp_path: Path, fetcher: Fetcher) -> None:
    server, client = tls_pair(tmp_path)
    trusting = Fetcher(ssl_context=client)
    async with RealIssuer([], tls=server) as issuer:
        assert await get(trusting, issuer.jwks_uri) == {"keys": []}
        with pytest.raises(FetchFailed) as failed:
            await get(fetcher, issuer.jwks_uri)  # the system's trust store knows nothing of this certificate
        assert failed.value.problem == "tls"
        with pytest.raises(FetchFailed) as failed:
            await get(trusting, issuer.jwks_uri.replace("127.0.0.1", "localhost"))  # another name than certified
        assert failed.value.problem == "tls"
        for mode in ("hang", "drip"):
            issuer.mode = mode
            started = time.monotonic()
            with pytest.raises(FetchFailed) as failed:
                await get(trusting, issuer.jwks_uri, timeout_s=DEADLINE_S)
            assert failed.value.problem == "timeout"
            assert time.monotonic() - started < DEADLINE_S + 0.1
        started = time.monotonic()
        await trusting.aclose()
        assert time.monotonic() - started < 1


async def test_a_peer_that_never_finishes_the_tls_handshake_is_left_in_time() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.read(1000):
                pass
        finally:
            writer.close()

    listener = await asyncio.start_server(silent, "127.0.0.1", 0)
    fetcher = Fetcher()
    port = listener.sockets[0].getsockname()[1]
    await fetcher.open()
    started = time.monotonic()
    with pytest.raises(FetchFailed) as failed:
        await get(fetcher, f"https://127.0.0.1:{port}/jwks", timeout_s=DEADLINE_S)
    assert failed.value.problem == "timeout"
    assert time.monotonic() - started < DEADLINE_S + 0.1
    await fetcher.aclose()
    listener.close()
    await listener.wait_closed()


def test_a_fetcher_belongs_to_one_event_loop() -> None:
    fetcher = Fetcher()

    async def fail() -> None:
        with pytest.raises(FetchFailed):
            await get(fetcher, "ftp://x/")

    asyncio.run(fail())
    with pytest.raises(RuntimeError, match="event loop"):
        asyncio.run(get(fetcher, "https://idp.example.com/"))
