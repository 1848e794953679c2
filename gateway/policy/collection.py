"""The cycle collector rests while trees grow: it would look through them again and again, which doubles the time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collection() -> Iterator[None]:
    """Let the collector rest for work that makes many objects and no cycles.

    Other threads' garbage waits for as long as that takes, a second for 10,000 policies. Where several threads are in
    here at once, the first to leave ends the rest for all of them: that costs time only.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
