"""What the gateway asks of a store of decisions: made once, used by all gateways for a while.

The comments are laws: `tests/contract/test_decision_store.py` holds every backend to each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

KEYS_MAX: Final = 256  # of one question
KEY_BYTES_MAX: Final = 512
VALUE_BYTES_MAX: Final = 16 * 1024
TTL_S_MAX: Final = 86_400.0

Epoch = str
"""What was put under one epoch is found under that one alone; opaque."""

NO_EPOCH: Final[Epoch] = ""
"""The store cannot be asked now; what is put under this is not kept."""


class DecisionsFound(NamedTuple):
    """The values of the keys asked for, in their order, None for each that is not there; and the epoch they are of."""

    values: tuple[bytes | None, ...]
    epoch: Epoch


@dataclass(frozen=True, slots=True)
class DecisionStoreState:
    """How the store stands, for metrics. It is never a reason not to be ready."""

    status: Literal["off", "starting", "ok", "away"]
    error: str  # of the last fault, "" where it is not away
    shared: str
    # totals since start
    faults: int  # times that it was found to be away
    dropped: int  # values that were not put, because it was away or could not follow


class DecisionStore(Protocol):
    """Values by keys, for a while; an aid to speed alone. Belongs to one event loop.

    A store that is away costs nothing but what it holds: no method raises for it, a question to one that has just
    frozen ends within the backend's small deadline, and from then on every question ends at once, until the store has
    answered again in the background. Whatever may have been missed meanwhile, and before the start, is made up for by
    another epoch. Cancelling a call leaves the store usable.
    """

    @property
    def shared(self) -> str:
        """Who sees the same decisions: "process" or "network"."""

    async def get_many(self, keys: Sequence[bytes]) -> DecisionsFound:
        """Return what is there under `keys` in the present epoch, in one round trip; nothing, and NO_EPOCH, if away.

        The epoch is to be read before what a decision rests on: whoever makes it puts it under this epoch, and when
        something changed in between it lands where nobody looks. Raises ValueError for more than KEYS_MAX keys.
        """

    def put(self, key: bytes, value: bytes, ttl_s: float, epoch: Epoch) -> None:
        """Let `value` be found under `key`, soon, until `ttl_s` from now, as long as `epoch` is the present one.

        Returns at once; a store that is away, or cannot follow, forgets it. Raises ValueError for a key, a value or a
        time that is no good.
        """

    async def invalidate(self) -> None:
        """Begin another epoch: nothing that was put before, or is put under an earlier epoch, is found any more.

        That holds here from the moment of the call, and for all who share the store when it returns; if it is away,
        for this process. Others hear of the same change by themselves.
        """

    def state(self) -> DecisionStoreState:
        """Say how the store stands."""

    async def close(self) -> None:
        """Release everything; the store is not used afterwards. Never raises."""


class NoDecisionStore:
    """A DecisionStore that holds nothing: where none is configured."""

    shared = "process"

    async def get_many(self, keys: Sequence[bytes]) -> DecisionsFound:
        check_keys(keys)
        return nothing(keys)

    def put(self, key: bytes, value: bytes, ttl_s: float, epoch: Epoch) -> None:
        check_value(key, value, ttl_s)

    async def invalidate(self) -> None:
        return

    def state(self) -> DecisionStoreState:
        return DecisionStoreState("off", "", self.shared, 0, 0)

    async def close(self) -> None:
        return


def nothing(keys: Sequence[bytes], epoch: Epoch = NO_EPOCH) -> DecisionsFound:
    """Say that none of `keys` is there."""
    return DecisionsFound((None,) * len(keys), epoch)


def check_keys(keys: Sequence[bytes]) -> None:
    """Raise ValueError for a question that is too large."""
    if len(keys) > KEYS_MAX or any(len(key) > KEY_BYTES_MAX for key in keys):
        raise ValueError(f"a question has at most {KEYS_MAX} keys of {KEY_BYTES_MAX} bytes")


def check_value(key: bytes, value: bytes, ttl_s: float) -> None:
    """Raise ValueError for what cannot be put."""
    check_keys((key,))
    if len(value) > VALUE_BYTES_MAX:
        raise ValueError(f"a decision has at most {VALUE_BYTES_MAX} bytes")
    if not 0 < ttl_s <= TTL_S_MAX:
        raise ValueError(f"a decision is kept for more than 0 and at most {TTL_S_MAX:g} s")
