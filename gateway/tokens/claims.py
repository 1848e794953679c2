"""The claims of a verified token, parsed when somebody looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson


class Claims(Mapping[str, Any]):
    """What a verified token says, as a read-only mapping with names for the registered claims (RFC 7519 §4.1).

    One object serves every caller with the same token, so what it hands out can be changed without harm: arrays and
    objects are copies. Made by TokenValidator.validate only: nothing here verifies anything.
    """

    __slots__ = ("_members", "_payload")

    def __init__(self, payload: bytes) -> None:
        self._payload = payload
        self._members: dict[str, Any] | None = None

    def _read(self) -> dict[str, Any]:
        if self._members is None:
            self._members = orjson.loads(self._payload)
        return self._members

    def __getitem__(self, name: str) -> Any:
        value = self._read()[name]
        return _copy(value) if isinstance(value, list | dict) else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __repr__(self) -> str:
        return f"Claims(issuer={self.issuer!r}, subject={self.subject!r})"

    @property
    def payload(self) -> bytes:
        """The JSON text that was signed."""
        return self._payload

    @property
    def subject(self) -> str | None:
        """`sub`"""
        subject: str | None = self._read().get("sub")
        return subject

    @property
    def issuer(self) -> str:
        """`iss`"""
        issuer: str = self._read()["iss"]
        return issuer

    @property
    def audience(self) -> tuple[str, ...]:
        """`aud`: always a tuple, empty where the token has none."""
        audience = self._read().get("aud", ())
        return (audience,) if isinstance(audience, str) else tuple(audience)

    @property
    def expires_at(self) -> int:
        """`exp`: Unix time in seconds."""
        return int(self._read()["exp"])

    @property
    def issued_at(self) -> int | None:
        """`iat`: Unix time in seconds."""
        return self._seconds("iat")

    @property
    def not_before(self) -> int | None:
        """`nbf`: Unix time in seconds."""
        return self._seconds("nbf")

    @property
    def token_id(self) -> str | None:
        """`jti`"""
        token_id: str | None = self._read().get("jti")
        return token_id

    @property
    def session_id(self) -> str | None:
        """`sid` (OpenID Connect Front-Channel Logout 1.0 §3)"""
        session_id: str | None = self._read().get("sid")
        return session_id

    @property
    def scopes(self) -> tuple[str, ...]:
        """`scope` (RFC 8693 §4.2), or `scp` where that is absent; in the token's order."""
        members = self._read()
        scopes = members.get("scope", members.get("scp", ()))
        return tuple(scope for scope in scopes.split(" ") if scope) if isinstance(scopes, str) else tuple(scopes)

    def _seconds(self, name: str) -> int | None:
        value = self._read().get(name)
        return None if value is None else int(value)


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_copy(item) for item in value]
    return value
