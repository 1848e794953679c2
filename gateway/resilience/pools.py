"""The names of the pools, and which of them the work runs in that asks."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import Literal, get_args

PoolName = Literal["user_auth", "admin_auth", "token_validation", "scim_provisioning", "external_idp"]
POOLS: tuple[PoolName, ...] = get_args(PoolName)

ShareName = Literal[PoolName, "background"]
BACKGROUND: ShareName = "background"  # work that runs in no pool: refreshes, audit, what was put off

# Work in bulk, that nobody waits for at a screen: it gives way to all other work where they meet.
BULK: frozenset[ShareName] = frozenset({"scim_provisioning"})

_current: ContextVar[ShareName] = ContextVar("portcullis_pool", default=BACKGROUND)


def current_pool() -> ShareName:
    """Return the name of the pool that this work runs in, or `background`."""
    return _current.get()


def enter_pool(name: ShareName) -> Token[ShareName]:
    """Have what follows, and the tasks that it makes, run in a pool; return what `leave_pool` takes."""
    return _current.set(name)


def leave_pool(token: Token[ShareName]) -> None:
    """Undo `enter_pool`, in the same context."""
    _current.reset(token)
