"""Clients that prove themselves to our own endpoints by HTTP Basic, or by their secret in a form (RFC 6749 §2.3.1)."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Mapping
from urllib.parse import unquote_plus

from gateway.types import Secret


class KnownClients:
    """Ids and secrets; compares in constant time, for unknown clients too."""

    __slots__ = ("_clients", "_decoy")

    def __init__(self, clients: Mapping[str, Secret]) -> None:
        self._clients = {client: hashlib.sha256(secret.reveal()).digest() for client, secret in clients.items()}
        self._decoy = hashlib.sha256(b"no such client").digest()

    def knows(self, credentials: tuple[str, str] | None) -> bool:
        """Tell whether these are a client's id and its secret."""
        if credentials is None:
            return False
        client, secret = credentials
        expected = self._clients.get(client, self._decoy)
        given = hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(expected, given) and client in self._clients


def basic_credentials(header: str) -> tuple[str, str] | None:
    """Read the value of an Authorization header: id and secret, or None where it is no Basic one."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client, mark, secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:  # no base64, no ASCII, or no UTF-8 inside
        return None
    return (unquote_plus(client), unquote_plus(secret)) if mark else None
