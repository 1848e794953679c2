from __future__ import annotations

import uuid

import pytest

from gateway.observability.request_id import REQUEST_ID_CHARACTERS_MAX, accepted_request_id


@pytest.mark.parametrize(
    "value",
    [
        str(uuid.UUID(int=7)).encode(),
        b"01JABCDEFGHJKMNPQRSTVWXYZ0",
        b"6f1c9a0b2d3e4f5061728394a5b6c7d8",
        b"Root=1-67891233-abcdef012345678912345678",
        b"a",
        b"x" * REQUEST_ID_CHARACTERS_MAX,
    ],
)
def test_an_id_that_proxies_send_is_taken_as_it_is(value: bytes) -> None:
    assert accepted_request_id(value) == value


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"x" * (REQUEST_ID_CHARACTERS_MAX + 1),
        b"a b",
        b"a\n",
        b"a\r\nx-evil: 1",
        b'a"b',
        b"a\x00",
        b"\xff",
        "ä".encode(),
        b"a,b",
        b"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
    ],
)
def test_anything_else_is_refused(value: bytes) -> None:
    assert accepted_request_id(value) is None
