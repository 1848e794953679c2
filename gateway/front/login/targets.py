"""Where a browser may be sent after a login or logout: paths of this host, and hosts that the config names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit

TARGET_BYTES_MAX: Final = 8 * 1024

# Browsers read `\\` as `/`, and drop tabs and line ends (WHATWG URL §4.4).
_UNCLEAN: Final = re.compile(r"[\x00-\x20\x7f\\]")


class Targets:
    """Tells good targets from others. A bad one is no error: the browser goes home instead."""

    def __init__(self, hosts: Iterable[str], home: str) -> None:
        """`hosts`: those of `[forward_auth] login_hosts`."""
        self._hosts = frozenset(host.lower() for host in hosts)
        self.home = home

    def judge(self, wanted: str, own_host: str) -> str:
        """Give `wanted` where the browser may go there, else home. `own_host`: by which it sees this gateway."""
        return wanted if self.allows(wanted, own_host) else self.home

    def allows(self, wanted: str, own_host: str) -> bool:
        """Tell whether the browser may go there."""
        if not wanted or len(wanted.encode("utf-8", "replace")) > TARGET_BYTES_MAX or _UNCLEAN.search(wanted):
            return False
        try:
            wanted.encode("ascii")
            parts = urlsplit(wanted)
            host, has_user = parts.netloc.lower(), "@" in parts.netloc
        except ValueError:
            return False
        if not parts.scheme and not host:
            return wanted.startswith("/") and not wanted.startswith("//")
        if parts.scheme not in ("https", "http") or not host or has_user:
            return False
        return host in self._hosts or (bool(own_host) and host == own_host.lower())

    @staticmethod
    def is_near(target: str) -> bool:
        """Tell whether a form may be answered by a redirect there.

        Browsers hold a page's `form-action` against every redirect that follows the form. A path of ours that sends
        the browser on to an application, or another host, is opened by a page instead.
        """
        return target.startswith("/") and not target.startswith("/oauth2/")
