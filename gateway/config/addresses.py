"""Addresses of stores that lie on several servers: `redis://one:6379,two:6379`, `postgresql://user@one,two/database`."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit


def each_server(address: str) -> list[str]:
    """Return one address for each server that an address names, with the same user, path and options.

    One that names a single server, or none, comes back as it is. Ports are not looked at.
    """
    parts = urlsplit(address)
    user, at, places = parts.netloc.rpartition("@")
    if "," not in places:
        return [address]
    return [urlunsplit(parts._replace(netloc=f"{user}{at}{place}")) for place in places.split(",")]
