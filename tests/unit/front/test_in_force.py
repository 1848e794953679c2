"""What is in force over reloads: kept where nothing changed, replaced where something did."""

from __future__ import annotations

import asyncio

import pytest

from gateway.front.in_force import InForce


class Part:
    """Counts its life."""

    def __init__(self, wish: str) -> None:
        if wish == "bad":
            raise ValueError("cannot be")
        self.wish = wish
        self.life: list[str] = []

    async def start(self) -> None:
        self.life.append("start")

    async def stop(self) -> None:
        self.life.append("stop")


def in_force(parts: InForce[str, Part]) -> list[Part]:
    """Give the part in force, if there is one."""
    return [] if parts.now is None else [parts.now]


async def test_an_equal_wish_is_served_by_the_same_part() -> None:
    parts: InForce[str, Part] = InForce(Part)
    first = parts.of("a")
    assert parts.of("a") is first  # planned, and not yet in force
    parts.take(first)
    assert (parts.now, parts.of("a")) == (first, first)
    await parts.start()
    await parts.start()
    parts.take(first)
    await asyncio.sleep(0)
    assert first.life == ["start"]


async def test_another_wish_replaces_what_was_in_force() -> None:
    parts: InForce[str, Part] = InForce(Part)
    first = parts.of("a")
    parts.take(first)
    await parts.start()
    second = parts.of("b")
    assert in_force(parts) == [first]  # a plan serves nobody
    parts.take(second)
    await asyncio.sleep(0)
    assert (in_force(parts), first.life, second.life) == ([second], ["start", "stop"], ["start"])
    parts.take(None)
    await asyncio.sleep(0)
    assert (in_force(parts), second.life) == ([], ["start", "stop"])


async def test_nothing_starts_before_the_worker_does_and_all_ends_with_it() -> None:
    parts: InForce[str, Part] = InForce(Part)
    first, second = parts.of("a"), None
    parts.take(first)
    second = parts.of("b")
    parts.take(second)
    assert (first.life, second.life) == ([], [])
    await parts.start()
    await parts.stop()
    assert parts.now is None
    assert (first.life, second.life) == ([], ["start", "stop"])


def test_a_wish_that_cannot_be_leaves_everything_as_it_is() -> None:
    parts: InForce[str, Part] = InForce(Part)
    first = parts.of("a")
    parts.take(first)
    with pytest.raises(ValueError, match="cannot be"):
        parts.of("bad")
    assert parts.now is first
