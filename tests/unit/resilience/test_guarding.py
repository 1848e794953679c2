"""A guarded store has the store's methods, with everything that keeps its faults from spreading."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

import pytest

from gateway.config import Config
from gateway.errors import CircuitOpenError, DeadlineExceededError, StoreUnavailable, TokenRejected
from gateway.resilience.assembly import Resilience
from gateway.resilience.deadlines import deadline
from gateway.resilience.guarding import guarded
from tests.unit.resilience.parts import CLOCK
from tests.virtual_time import run_virtual


@runtime_checkable
class Readable(Protocol):
    async def read(self, name: str, *, deep: bool = False) -> str: ...


@runtime_checkable
class Burnable(Protocol):
    async def burn(self) -> None: ...


class Shelf:
    """A store with every kind of member."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.faults: list[Exception] = []
        self.shared = "process"
        self.hangs = False

    async def read(self, name: str, *, deep: bool = False) -> str:
        """Read one."""
        self.calls.append("read")
        if self.hangs:
            await asyncio.sleep(3600)
        if self.faults:
            raise self.faults.pop(0)
        return f"{name}{'!' if deep else ''}"

    async def write(self, name: str) -> None:
        self.calls.append("write")
        if self.hangs:
            await asyncio.sleep(3600)
        if self.faults:
            raise self.faults.pop(0)

    async def wait(self) -> None:
        self.calls.append("wait")
        await asyncio.sleep(100)

    async def pages(self) -> AsyncIterator[int]:
        yield 1

    def size(self) -> int:
        return 7


def new_world(limit_s: float | None = None) -> tuple[Shelf, Shelf, Resilience]:
    shelf, resilience = Shelf(), Resilience(Config().resilience, clock=CLOCK)
    return shelf, guarded(shelf, resilience, "database", name="shelf", reads=("read",), limit_s=limit_s), resilience


def test_methods_and_members_are_those_of_the_store() -> None:
    async def main() -> None:
        _, store, _ = new_world()
        assert await store.read("a", deep=True) == "a!"
        assert store.read.__doc__ == "Read one."
        assert (store.size(), store.shared) == (7, "process")
        assert [page async for page in store.pages()] == [1]
        with pytest.raises(AttributeError):
            store.absent  # type: ignore[attr-defined]  # noqa: B018

    run_virtual(main())


def test_reads_are_repeated_and_writes_are_not() -> None:
    async def main() -> None:
        shelf, store, _ = new_world()
        shelf.faults = [StoreUnavailable(), StoreUnavailable()]
        assert await store.read("a") == "a"
        shelf.faults = [StoreUnavailable()]
        with pytest.raises(StoreUnavailable):
            await store.write("a")
        assert shelf.calls == ["read", "read", "read", "write"]

    run_virtual(main())


def test_a_store_that_is_down_is_left_alone_by_operation() -> None:
    async def main() -> None:
        shelf, store, resilience = new_world()
        shelf.faults = [StoreUnavailable() for _ in range(10)]
        for _ in range(10):
            with pytest.raises(StoreUnavailable):
                await store.write("a")
        with pytest.raises(StoreUnavailable, match="`shelf` is not asked: `database` is left alone") as caught:
            await store.write("a")
        assert isinstance(caught.value.__cause__, CircuitOpenError)
        assert caught.value.retry_after_s == caught.value.__cause__.retry_after_s
        assert await store.read("a") == "a"
        (key, _, _) = resilience.state().breakers[0].not_closed[0]
        assert key.operation == "shelf.write"

    run_virtual(main())


def test_answers_that_mean_no_open_nothing() -> None:
    async def main() -> None:
        shelf, store, _ = new_world()
        shelf.faults = [TokenRejected() for _ in range(50)]
        for _ in range(50):
            with pytest.raises(TokenRejected):
                await store.write("a")
        await store.write("a")

    run_virtual(main())


def test_a_store_that_hangs_is_given_up() -> None:
    async def main() -> None:
        shelf, store, _ = new_world(limit_s=0.5)
        shelf.hangs = True
        began_s = CLOCK.monotonic_s()
        with pytest.raises(StoreUnavailable, match="did not answer in time"):
            await store.write("a")
        assert CLOCK.monotonic_s() - began_s <= 0.56

    run_virtual(main())


def test_a_request_whose_time_is_over_is_told_so() -> None:
    async def main() -> None:
        shelf, store, _ = new_world(limit_s=5.0)
        shelf.hangs = True
        with pytest.raises(DeadlineExceededError):
            async with deadline(0.5, clock=CLOCK):
                await store.write("a")

    run_virtual(main())


def test_a_request_without_time_is_told_so_before_the_store_is_asked() -> None:
    async def main() -> None:
        shelf, store, _ = new_world()
        with pytest.raises(DeadlineExceededError):
            async with deadline(0.5, clock=CLOCK):
                try:
                    await asyncio.sleep(1.0)
                except asyncio.CancelledError:
                    await store.write("a")
        assert shelf.calls == []

    run_virtual(main())


def test_only_what_is_named_is_guarded() -> None:
    async def main() -> None:
        shelf, resilience = Shelf(), Resilience(Config().resilience, clock=CLOCK)
        store = guarded(shelf, resilience, "attribute_source", name="shelf", only=("read",), limit_s=0.5)
        shelf.hangs = True
        with pytest.raises(StoreUnavailable):
            await store.read("a")
        began_s = CLOCK.monotonic_s()
        await store.write("a")
        assert CLOCK.monotonic_s() - began_s == 3600

    run_virtual(main())


def test_a_guarded_store_is_of_the_protocols_that_the_store_is_of() -> None:
    async def main() -> None:
        _, store, _ = new_world()
        assert isinstance(store, Readable)
        assert not isinstance(store, Burnable)
        for name in ("read", "write", "size", "wait"):
            assert inspect.getattr_static(store, name) is not None  # how Python 3.12 looks

    run_virtual(main())


def test_waiting_takes_no_permit_and_has_no_deadline() -> None:
    async def main() -> None:
        _, store, resilience = new_world(limit_s=0.5)
        task = asyncio.create_task(store.wait())
        await asyncio.sleep(50)
        assert not any(share.in_use for share in resilience.state().permits)
        await task

    run_virtual(main())


def test_a_read_that_the_store_does_not_have_is_noticed_at_once() -> None:
    async def main() -> None:
        resilience = Resilience(Config().resilience, clock=CLOCK)
        with pytest.raises(AttributeError):
            guarded(Shelf(), resilience, "database", name="shelf", reads=("peruse",))

    run_virtual(main())
