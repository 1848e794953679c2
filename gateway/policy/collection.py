"""The cycle collector rests while trees grow: it would look through them again and again, which doubles the time."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MANY: Final = 50_000  # objects; so many more are looked through in about 30 ms


@contextmanager
def without_collection(*, for_good: bool = False) -> Iterator[None]:
    """Let the collector rest for work that makes many objects and no cycles.

    Other threads' garbage waits for as long as that takes, a second for 10,000 policies. Where several threads are in
    here at once, the first to leave ends the rest for all of them: that costs time only.

    With `for_good`, what became MANY objects is never looked through: the first collection afterwards would stop all
    threads for it, measured 230 ms for 10,000 policies, and each full one again. Trees have no cycles, so they go as
    soon as nobody has them. What is in a cycle, and was there at that moment, stays, whoever's it is: a few kilobytes
    for each such load of a gateway, but nothing that a library does to the process that it is used by.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if for_good and gc.get_count()[0] > MANY:
            gc.freeze()
        gc.enable()
