"""The collector rests while many objects are made, and never looks through them afterwards."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from gateway.policy.collection import MANY, without_collection


@pytest.fixture(autouse=True)
def thawed() -> Iterator[None]:
    gc.collect()
    yield
    gc.unfreeze()
    gc.enable()


def test_few_objects_are_collected_as_ever() -> None:
    frozen = gc.get_freeze_count()
    with without_collection(for_good=True):
        assert not gc.isenabled()
        made: list[list[int]] = [[] for _ in range(MANY // 2)]
    assert gc.isenabled()
    assert gc.get_freeze_count() == frozen
    assert len(made) == MANY // 2


def test_many_objects_are_not_looked_through_and_go_when_nobody_has_them() -> None:
    frozen = gc.get_freeze_count()
    with without_collection(for_good=True):
        made: list[list[int]] = [[] for _ in range(MANY * 2)]
    assert gc.isenabled()
    with_them = gc.get_freeze_count()
    assert with_them > frozen + MANY
    del made
    assert gc.get_freeze_count() < with_them - MANY


def test_nothing_of_the_process_is_frozen_unless_that_is_asked_for() -> None:
    frozen = gc.get_freeze_count()
    with without_collection():
        made: list[list[int]] = [[] for _ in range(MANY * 2)]
    assert gc.get_freeze_count() == frozen
    assert len(made) == MANY * 2


def test_it_is_left_alone_where_somebody_else_has_it_rest() -> None:
    gc.disable()
    with without_collection(for_good=True):
        made: list[list[int]] = [[] for _ in range(MANY * 2)]
    assert not gc.isenabled()
    assert len(made) == MANY * 2


def test_it_comes_back_after_a_fault() -> None:
    with pytest.raises(KeyError), without_collection():
        raise KeyError
    assert gc.isenabled()
