"""Where a request to an endpoint of ours comes from, as far as proxies that are trusted tell."""

from __future__ import annotations

import ipaddress
import secrets
from typing import Final

from starlette.requests import Request

from gateway.flows.trail import Caller
from gateway.front.trust import TrustedProxies

HOPS_MAX: Final = 32  # addresses of one X-Forwarded-For that are looked at, from the right


class Callers:
    """Tell who calls. What stands in X-Forwarded-For counts only as far as trusted proxies have written it."""

    def __init__(self, trusted: TrustedProxies) -> None:
        self._trusted = trusted

    def __call__(self, request: Request) -> Caller:
        """Return the caller, under an id for this request that it cannot choose."""
        return Caller(address=self._address(request), request_id=secrets.token_hex(16))

    def _address(self, request: Request) -> str:
        address = request.client.host if request.client is not None else ""
        forwarded = [hop.strip() for value in request.headers.getlist("x-forwarded-for") for hop in value.split(",")]
        # Each proxy appends whom it saw. From the right, the first that is no proxy of ours is the caller; what stands
        # left of it is anybody's claim.
        for hop in reversed(forwarded[-HOPS_MAX:]):
            if not self._trusted(address):
                break
            seen = _plain(hop)
            if not seen:
                break
            address = seen
        return address


def _plain(hop: str) -> str:
    """Return the address of a hop without port and brackets, "" for what is none."""
    text = hop.removeprefix("[").partition("]")[0] if hop.startswith("[") else hop
    if text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return ""
