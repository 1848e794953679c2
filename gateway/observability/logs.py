"""The access log and the audit log: one JSON line a request, and one a denial or change.

No line holds a token: lines are made from named fields only, the path comes without its query, and what looks like a
JWT inside a path is blanked. The subject is a keyed hash unless the operator wants it plain: equal subjects of one
issuer are equal hashes, in all workers and after a restart, and nobody without the key can try names.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal, Protocol

import orjson

from gateway.observability.catalogue import decision_of
from gateway.observability.line_writer import LineWriter
from gateway.observability.redaction import redact, redact_field, redact_path
from gateway.types import AuditEvent, Clock, SystemClock

SubjectForm = Literal["hash", "plain", "none"]

PSEUDONYM_KEY_BYTES = 32
PSEUDONYMS_MAX = 4096  # hashes that are kept; another one costs a microsecond


_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


class Speaker(Protocol):
    """Who a verified token speaks for; `gateway._native.token.Identity`."""

    @property
    def subject(self) -> bytes: ...

    @property
    def issuer(self) -> bytes: ...


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Judged(Protocol):
    """One judged request; `gateway._native.front.Verdict`."""

    @property
    def door(self) -> str: ...

    @property
    def reason(self) -> str: ...

    @property
    def request_id(self) -> str: ...

    @property
    def method(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def issuer_index(self) -> int: ...

    @property
    def cached(self) -> bool: ...

    @property
    def route(self) -> Named | None: ...

    @property
    def identity(self) -> Speaker | None: ...


def load_pseudonym_key(path: Path) -> bytes:
    """Read the key of the subjects' hashes, or make one: a file that all workers share, readable by its user only.

    Safe when several processes start at once: one of them makes it. Raises OSError, or ValueError for a file that
    holds no key.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}.new")
    if not path.exists():
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, os.urandom(PSEUDONYM_KEY_BYTES))
        finally:
            os.close(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(fresh, path)
        fresh.unlink()
    key = path.read_bytes()
    if len(key) != PSEUDONYM_KEY_BYTES:
        raise ValueError(f"`{path}` holds no key of {PSEUDONYM_KEY_BYTES} bytes")
    return key


class Subjects:
    """How the logs name a subject: `~` and a keyed hash of issuer and subject (BLAKE2b), the subject itself, or not."""

    def __init__(self, form: SubjectForm, key: bytes = b"") -> None:
        """`key` is needed for `hash`."""
        if form == "hash" and len(key) < PSEUDONYM_KEY_BYTES:
            raise ValueError(f"a key of at least {PSEUDONYM_KEY_BYTES} bytes is needed")
        self._form = form
        self._key = key
        self._hashed = lru_cache(PSEUDONYMS_MAX)(self._hash)

    def name_of(self, identity: Speaker | None) -> str | None:
        if identity is None or self._form == "none":
            return None
        if self._form == "plain":
            return identity.subject.decode("utf-8", "replace")
        return self._hashed(identity.issuer, identity.subject)

    def _hash(self, issuer: bytes, subject: bytes) -> str:
        # The length first: no other pair of issuer and subject joins to the same bytes.
        text = len(issuer).to_bytes(4, "big") + issuer + subject
        return "~" + hashlib.blake2b(text, digest_size=16, key=self._key).hexdigest()


class RequestLines:
    """What access and audit lines share."""

    def __init__(self, subjects: Subjects, issuers: Sequence[str], clock: Clock | None = None) -> None:
        """`issuers` are named by their index in the configuration; a reload makes a new object."""
        self._subjects = subjects
        self._issuers = tuple(issuers)
        self._wall_s = (clock or SystemClock()).wall_s

    def now(self) -> datetime:
        """Give the time of a line, which orjson writes as RFC 3339 has it."""
        return datetime.fromtimestamp(self._wall_s(), UTC)

    def fields(self, judged: Judged, status: int) -> dict[str, object]:
        index = judged.issuer_index
        route = judged.route
        return {
            "ts": self.now(),
            "request_id": judged.request_id,
            "door": judged.door,
            "method": judged.method,
            "host": judged.host,
            "path": redact_path(judged.path),
            "status": status,
            "decision": decision_of(judged.reason),
            "reason": judged.reason,
            "subject": self._subjects.name_of(judged.identity),
            "issuer": self._issuers[index] if 0 <= index < len(self._issuers) else None,
            "route": None if route is None else route.name,
            "cached": judged.cached,
        }


class AccessLog:
    """One line a request. Called with the verdict, the status that was sent, and the time it took."""

    def __init__(self, writer: LineWriter, lines: RequestLines) -> None:
        self._writer = writer
        self._lines = lines

    def __call__(self, judged: Judged, status: int, elapsed_ns: int) -> None:
        fields = self._lines.fields(judged, status)
        fields["duration_us"] = elapsed_ns // 1000
        self._writer.write(orjson.dumps(fields, option=_LINE))


class AuditLog:
    """One line a denial, and one a change of what is allowed: keys, revocations, configuration."""

    def __init__(self, writer: LineWriter, lines: RequestLines) -> None:
        self._writer = writer
        self._lines = lines

    def __call__(self, judged: Judged, status: int) -> None:
        """Note a denial."""
        fields = {"event": "denied", **self._lines.fields(judged, status)}
        self._writer.write(orjson.dumps(fields, option=_LINE))

    def tell(self, event: AuditEvent) -> None:
        """Note an act that matters for security: a log-in, a session that ended, a change by an administrator."""
        fields: dict[str, object] = {
            "event": event.action,
            "ts": datetime.fromtimestamp(event.at_s, UTC),
            "id": event.id,
        }
        fields["outcome"] = event.outcome
        for name in ("tenant", "actor", "target", "address", "request_id", "reason"):
            if text := getattr(event, name):
                fields[name] = redact_field(name, text)
        fields.update((name, redact_field(name, value)) for name, value in event.details.items())
        self._writer.write(orjson.dumps(fields, option=_LINE))

    def change(self, event: str, reason: str, **details: str | int | float | bool | None) -> None:
        """Note a change: `event` names it (`keys_rotated`), `reason` says why; texts are redacted."""
        fields: dict[str, object] = {"event": event, "ts": self._lines.now(), "reason": redact(reason)}
        for name, detail in details.items():
            fields[name] = redact_field(name, detail)
        self._writer.write(orjson.dumps(fields, option=_LINE))
