"""Messages between regions: a log that each region reads at its own pace, and the laws of a store of it.

What is sent is a state and its version, never a change: whoever receives a message twice, or an old one late, compares
versions and is none the worse. `tests/contract/test_replication_queue.py` holds every backend to these laws.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

BATCH_MAX: Final = 1000  # messages published or received at once
KEY_BYTES_MAX: Final = 512
BODY_BYTES_MAX: Final = 256 * 1024
KEPT: Final = 1_000_000  # messages, where the backend counts them
GROUP_BYTES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Message:
    """The state of one thing. `at_s`: when it was sent, Unix seconds of the sender's clock."""

    key: str
    version: int
    body: bytes = field(repr=False)
    at_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """What a group received. `place`: after all of it, for `done`; it means nothing to anybody else."""

    group: str
    messages: tuple[Message, ...]
    place: str
    lost: bool = False  # some messages before these are not kept any more: what they told has to be learned otherwise


@dataclass(frozen=True, slots=True)
class Lag:
    """How far a group is behind. `seconds`: the age of the oldest message that it has not done, 0 for none."""

    messages: int
    seconds: float


class ReplicationQueue(Protocol):
    """A log of messages, read by groups, each of which has a place in it.

    Every group receives every message at least once, those of one key in the order in which they were published. What
    was received and not done comes again. Several processes may read for one group: each receives all, and the place
    moves forward only. A group that was never there begins with the oldest message that is kept.

    Methods end within a deadline and raise StoreUnavailable for whatever goes wrong in the store; whether a `publish`
    that failed took place is not known, and to publish again is harmless.
    """

    @property
    def shared(self) -> str:
        """Who sees the same queue: "process" or "network"."""

    async def publish(self, messages: Sequence[Message]) -> None:
        """Add messages, at most BATCH_MAX. When this has returned they are durable. Raises ValueError for too large."""

    async def receive(self, group: str, limit: int = 100, wait_s: float = 0.0) -> Batch:
        """Give what follows the group's place, in `wait_s` seconds at the latest; nothing where there is nothing."""

    async def done(self, batch: Batch) -> None:
        """Move the group's place behind a batch; never back."""

    async def lag(self, group: str) -> Lag:
        """Say how far the group is behind."""

    async def close(self) -> None:
        """Release everything. Never raises."""


def check_messages(messages: Sequence[Message]) -> None:
    """Raise ValueError for what cannot be published."""
    if len(messages) > BATCH_MAX:
        raise ValueError(f"at most {BATCH_MAX} messages at once")
    for message in messages:
        if not 0 < len(message.key.encode()) <= KEY_BYTES_MAX or len(message.body) > BODY_BYTES_MAX:
            raise ValueError(
                f"a message has a key of 1 to {KEY_BYTES_MAX} bytes and a body of at most {BODY_BYTES_MAX}"
            )


def check_group(name: str) -> None:
    """Raise ValueError for what cannot be the name of a group: it goes into names of keys."""
    if not 0 < len(name) <= GROUP_BYTES_MAX or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        raise ValueError(f"a group's name has 1 to {GROUP_BYTES_MAX} letters, digits, `-` and `_`")


__all__ = ["BATCH_MAX", "KEPT", "Batch", "Lag", "Message", "ReplicationQueue", "check_group", "check_messages"]
