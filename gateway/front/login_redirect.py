"""Where browsers without a valid token are sent, and with which way back."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote, urlsplit

from gateway._native.front import Verdict
from gateway.config import ForwardAuthConfig

OWN_PAGE = "/login"


def login_redirect(config: ForwardAuthConfig, *, own_pages: bool = False) -> Callable[[Verdict], bytes | None] | None:
    """Give the function that makes the Location for a verdict, or None where no login is configured.

    The address to come back to is carried only for hosts in `login_hosts` (no open redirect, design §13.8), and only
    for requests that can be made again (GET, HEAD). `own_pages`: where no page is named, it is our own.
    """
    url = config.login_url or (OWN_PAGE if own_pages else "")
    if not url:
        return None
    joint = "&" if urlsplit(url).query else "?"
    hosts = frozenset(host.lower() for host in config.login_hosts)

    def location(verdict: Verdict) -> bytes | None:
        if verdict.method not in {"GET", "HEAD"}:
            return None
        if verdict.host not in hosts or verdict.scheme not in {"http", "https"}:
            return url.encode()
        query = f"?{verdict.query.decode('latin-1')}" if verdict.query else ""
        back = quote(f"{verdict.scheme}://{verdict.host}{verdict.path}{query}", safe="")
        return f"{url}{joint}{config.login_parameter}={back}".encode()

    return location
