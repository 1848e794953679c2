"""Who calls is who trusted proxies saw, and nobody that a caller makes up."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from gateway.front.callers import Callers
from gateway.front.trust import TrustedProxies


def request(peer: str, *forwarded: str) -> Request:
    headers = [(b"x-forwarded-for", value.encode()) for value in forwarded]
    return Request({"type": "http", "client": (peer, 1234), "headers": headers})


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("192.0.2.7", (), "192.0.2.7"),
        ("192.0.2.7", ("198.51.100.1",), "192.0.2.7"),
        ("10.0.0.1", ("198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("203.0.113.9, 198.51.100.1",), "198.51.100.1"),
        ("10.0.0.1", ("203.0.113.9", "198.51.100.1, 10.0.0.2"), "198.51.100.1"),
        ("10.0.0.1", ("10.0.0.3, 10.0.0.2",), "10.0.0.3"),
        ("10.0.0.1", ("198.51.100.1:4711",), "198.51.100.1"),
        ("10.0.0.1", ("[2001:db8::1]:4711",), "2001:db8::1"),
        ("10.0.0.1", ("2001:db8::1",), "2001:db8::1"),
        ("10.0.0.1", ("nonsense",), "10.0.0.1"),
        ("10.0.0.1", ("203.0.113.9, nonsense",), "10.0.0.1"),
        ("10.0.0.1", ("",), "10.0.0.1"),
        ("10.0.0.1", (", ".join(["10.0.0.2"] * 5000),), "10.0.0.2"),
    ],
)
def test_the_caller_is_the_first_that_is_no_proxy_of_ours(peer: str, forwarded: tuple[str, ...], address: str) -> None:
    callers = Callers(TrustedProxies(["10.0.0.0/8"]))
    assert callers(request(peer, *forwarded)).address == address


def test_each_request_has_an_id_of_its_own() -> None:
    callers = Callers(TrustedProxies([]))
    assert callers(request("192.0.2.7")).request_id != callers(request("192.0.2.7")).request_id
