"""Who proves itself by HTTP Basic is known, and nobody else."""

from __future__ import annotations

import base64

import pytest

from gateway.front.clients import KnownClients, basic_credentials
from gateway.types import Secret


def basic(text: bytes) -> str:
    return "Basic " + base64.b64encode(text).decode()


def test_only_a_client_with_its_own_secret_is_known() -> None:
    clients = KnownClients({"a": Secret("one"), "b": Secret("two")})
    assert clients.knows(("a", "one"))
    for credentials in (("a", "two"), ("b", "one"), ("c", "one"), ("", ""), ("c", "no such client"), None):
        assert not clients.knows(credentials)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (basic(b"a:b"), ("a", "b")),
        (basic(b"a:b:c"), ("a", "b:c")),
        (basic(b"a%20b+c:%3A"), ("a b c", ":")),
        (basic(b"a:b").replace("Basic", "bAsIc"), ("a", "b")),
        (basic(b":"), ("", "")),
        (basic(b"ab"), None),
        (basic(b"\xff:\xff"), None),
        ("Basic !!!", None),
        ("Basic", None),
        ("", None),
        ("Bearer " + base64.b64encode(b"a:b").decode(), None),
    ],
)
def test_credentials_are_read_in_one_way(header: str, expected: tuple[str, str] | None) -> None:
    assert basic_credentials(header) == expected
