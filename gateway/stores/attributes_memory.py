"""Entities of a source that live in this process alone: for tests, and for one worker that loads them itself."""

from __future__ import annotations

from gateway.stores.attributes_rows import LAYOUT, RowAttributeSource
from gateway.stores.rows_memory import MemoryRowStore
from gateway.types import Clock


class MemoryAttributeSource(RowAttributeSource):
    """A FollowedSource in a dict."""

    def __init__(self, name: str = "memory", *, clock: Clock | None = None) -> None:
        super().__init__(MemoryRowStore(LAYOUT, clock=clock), name)
