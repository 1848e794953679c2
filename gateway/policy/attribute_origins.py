"""Sources of attributes as decisions see them: which types they have, and whether what was read may be believed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Literal

from gateway._native.uid import EntityUid
from gateway.errors import GatewayError
from gateway.policy.attribute_follower import LEASE_S, AttributeFollower
from gateway.stores.attributes import AttributeSource, FollowedSource
from gateway.stores.base import Revision
from gateway.types import Clock

TTL_S: Final = 60.0
UNAVAILABLE: Final = "attributes_unavailable"

Reason = Literal[
    "unavailable",  # the source could not be asked
    "too_slow",
    "untrusted",  # its log cannot be read, so that nobody knows what changed
    "invalid",  # an entity does not fit the schema
    "no_source",
    "too_many",
    "too_deep",
    "internal",
]


class AttributeUnavailable(GatewayError):
    """What a decision needs could not be had: it denies. `source` is "" where it is none's fault."""

    code = UNAVAILABLE
    status = 503
    retry_after_s = 1.0

    def __init__(self, source: str, reason: Reason) -> None:
        super().__init__(f"attributes of `{source}` are unavailable: {reason}" if source else f"attributes: {reason}")
        self.source = source
        self.reason = reason

    def __reduce__(self) -> tuple[type[AttributeUnavailable], tuple[str, Reason]]:
        return type(self), (self.source, self.reason)


@dataclass(frozen=True, slots=True)
class SourcedTypes:
    """Entity types that are kept in a source. `lease_s` is of its log; `ttl_s` counts only where it has none."""

    source: AttributeSource
    types: frozenset[str]
    ttl_s: float = TTL_S
    lease_s: float = LEASE_S


class Origin:
    """A source and what is needed to trust it."""

    def __init__(
        self,
        sourced: SourcedTypes,
        *,
        clock: Clock,
        on_change: Callable[[Origin, Sequence[EntityUid]], None],
        on_doubt: Callable[[Origin], None],
    ) -> None:
        """`on_doubt` is called when nobody knows any more whether what was read is still so."""
        self.source = sourced.source
        self.name = sourced.source.name
        self.ttl_s = sourced.ttl_s
        self.follower: AttributeFollower | None = None
        if isinstance(self.source, FollowedSource):
            self.follower = AttributeFollower(
                self.source,
                clock=clock,
                on_change=lambda uids: on_change(self, uids),
                on_lost=lambda: on_doubt(self),
                on_trust=lambda: None if self.trusted else on_doubt(self),
                lease_s=sourced.lease_s,
            )

    async def start(self) -> None:
        """Follow its log, or open it; return after the first look, or when it is open."""
        if self.follower is not None:
            await self.follower.start()
            return
        with suppress(GatewayError):  # it is opened, so that the first decision need not wait for that
            await self.source.read(())

    @property
    def trusted(self) -> bool:
        """Whether what was read of it is believed."""
        return self.follower is None or self.follower.trusted

    def covers(self, revision: Revision) -> bool:
        """Tell whether what was read may be kept: every later change will be told, or it ends by itself."""
        return self.follower is None or self.follower.covers(revision)
