"""The keys of our own issuer: made when they are needed, announced before they sign, replaced by a schedule.

All workers of a machine share one folder. Private halves lie there sealed; what is published is `jwks.json`, from
which the doors of every worker judge our own tokens as they judge anybody's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.tokens.key_folder import KeyFolder
from gateway.tokens.sealing import Sealer
from gateway.tokens.signing import SigningKey, mint, new_key
from gateway.types import Clock


@dataclass(frozen=True, slots=True)
class KeySchedule:
    """How long the keys of an issuer live."""

    algorithm: str
    every_s: int  # a new one is made
    announce_s: int  # published before it signs: as long as anybody may keep a key set
    overlap_s: int  # published after another signs: as long as the longest token lives


@dataclass(frozen=True, slots=True)
class _Held:
    signer: SigningKey
    published: tuple[Mapping[str, Any], ...]


class IssuerKeys:
    """Sign with the key whose turn it is. `refresh` reads the folder and blocks; everything else only remembers."""

    def __init__(self, path: Path, sealer: Sealer, schedule: KeySchedule, clock: Clock) -> None:
        """Makes the first key. Raises KeyInvalid for a folder that cannot be read, or was sealed by another key."""
        self._folder = KeyFolder(path, sealer)
        self._schedule = schedule
        self._clock = clock
        self._held: _Held | None = None
        self.first = self.refresh()
        """The id of the key that was made at once, "" where there was one."""

    @property
    def jwks_path(self) -> Path:
        """The published set, for whoever judges our tokens on this machine."""
        return self._folder.jwks_path

    @property
    def algorithm(self) -> str:
        """What signs now; for a while after another was configured this is still the former."""
        return self._now().signer.algorithm

    def refresh(self) -> str:
        """Make the next key where it is due, and take note of what other processes made. Raises KeyInvalid.

        Returns the id of the key that this call made, "" where it made none.
        """
        schedule, now_s = self._schedule, int(self._clock.wall_s())
        has_made = self._folder.keep_fresh(
            lambda: new_key(schedule.algorithm),
            algorithm=schedule.algorithm,
            now_s=now_s,
            every_s=schedule.every_s,
            announce_s=schedule.announce_s,
            overlap_s=schedule.overlap_s,
        )
        published: tuple[Mapping[str, Any], ...] = tuple(
            key.jwk for key in self._folder.published() if key.state(now_s) != "retired"
        )
        if self._held is not None and self._held.published == published:
            published = self._held.published
        self._held = _Held(self._folder.signing_key(now_s), published)
        return str(published[0]["kid"]) if has_made else ""

    @property
    def published(self) -> tuple[Mapping[str, Any], ...]:
        """The public keys; the same object for as long as they are the same."""
        return self._now().published

    def jwks(self) -> dict[str, Any]:
        """Return the key set to publish (RFC 7517 §5)."""
        return {"keys": list(self._now().published)}

    def sign(self, claims: Mapping[str, Any], *, typ: str) -> str:
        """Return `claims`, which say `iat` and `exp` themselves, as a signed JWT of type `typ`."""
        return mint(claims, self._now().signer, typ=typ)

    def _now(self) -> _Held:
        assert self._held is not None  # `__init__` refreshes
        return self._held
