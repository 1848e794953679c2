from __future__ import annotations

import base64
import json

import jwt
import pytest

from gateway.observability.redaction import REDACTED, redact, redact_field, redact_path

CANARY = "canary7Qz"
TOKEN = jwt.encode({"sub": CANARY}, "k" * 32, algorithm="HS256")
SEGMENTS = TOKEN.split(".")


def header_of(text: bytes) -> str:
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "text",
    [
        TOKEN,
        f"could not judge `{TOKEN}`",
        f"{SEGMENTS[0]}.{SEGMENTS[1]}.",
        f"{SEGMENTS[0]}.{SEGMENTS[1]}",
        f"{TOKEN}..",
        f"/api/{TOKEN}/more",
        header_of(b'{ "alg":"none"}') + f".{SEGMENTS[1]}.{SEGMENTS[2]}",
        header_of(b'{\n"alg":"none"}') + f".{SEGMENTS[1]}.{SEGMENTS[2]}",
        header_of(b'{\r\n"alg":"none"}') + f".{SEGMENTS[1]}.{SEGMENTS[2]}",
        header_of(b'{\t"alg":"none"}') + f".{SEGMENTS[1]}.{SEGMENTS[2]}",
    ],
)
def test_no_jwt_passes(text: str) -> None:
    redacted = redact(text)
    assert REDACTED in redacted
    assert not any(segment in redacted for segment in SEGMENTS)
    assert redact_path(text) == redacted


@pytest.mark.parametrize(
    "text",
    [
        f"Authorization: Bearer {CANARY}",
        f"authorization: digest {CANARY}",
        f"BEARER  {CANARY}",
        f"got bearer {CANARY}, expected another",
        f"Basic {CANARY}==",
        f"?q=Bearer%20{CANARY}",
        f"access_token={CANARY}&x=1",
        f"/cb?id_token_hint={CANARY}",
        f"client_secret={CANARY}",
        f"Password={CANARY}",
        f"{{'token': '{CANARY}'}}",
        f'{{"password": "{CANARY}"}}',
        f'{{\\"password\\": \\"{CANARY}\\"}}',
        f"[(b'authorization', b'Bearer {CANARY}'), (b'cookie', b'a={CANARY}')]",
        f"{{b'cookie': b'session={CANARY}'}}",
        f"Cookie: a=1; session={CANARY}",
        f"redis://:{CANARY}@127.0.0.1/0",
        f"https://user:{CANARY}@idp.example.com/keys",
    ],
)
def test_no_credential_passes(text: str) -> None:
    redacted = redact(text)
    assert CANARY not in redacted
    assert REDACTED in redacted


@pytest.mark.parametrize(
    "text",
    [
        "unknown key `a.b.c` in token: signature",
        "the token expired",
        "portcullis.toml:7: server.listen: expected host:port",
        "fetched https://idp.example.com/keys@2 in 3.5 s",
        "/api/eyes/evening/new.html",
        "a bearer, walking",
        "send an access token as a bearer token",
        'WWW-Authenticate: Bearer realm="portcullis"',
    ],
)
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert redact(text) == text


def test_redacting_twice_is_redacting_once() -> None:
    text = f"Bearer {CANARY} token={CANARY} Cookie: {CANARY}"
    assert redact(redact(text)) == redact(text)


def test_a_field_is_blanked_by_its_name_and_redacted_at_any_depth() -> None:
    field = redact_field("request", {"path": "/x", "list": [TOKEN, 7, None], "client_secret": CANARY, "n": 1.5})
    assert field == {"path": "/x", "list": [REDACTED, 7, None], "client_secret": REDACTED, "n": 1.5}
    assert redact_field("password", CANARY) == redact_field("set_token", 5) == REDACTED
    assert CANARY not in json.dumps(redact_field("error", ValueError(f"token={CANARY}")))
