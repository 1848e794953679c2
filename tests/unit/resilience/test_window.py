"""Counts of the last seconds are those of the slice that runs and the nine before it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.resilience.window import SLICES, SlidingCounts
from tests.unit.tokens.fakes import MovedClock


@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.0, 0.3, 0.9, 1.0, 2.5, 9.0, 10.0, 35.0]))))
def test_counts_are_those_of_a_list_of_all_events(events: list[tuple[int, float]]) -> None:
    clock = MovedClock()
    counts = SlidingCounts(3, 10.0, clock=clock)
    seen: list[tuple[int, int]] = []
    for kind, pause_s in events:
        clock.move(pause_s)
        counts.add(kind)
        seen.append((kind, int(clock.now_s)))
        for each in range(3):
            recent = [at for k, at in seen if k == each and at > int(clock.now_s) - SLICES]
            assert counts.total(each) == len(recent)


def test_everything_is_forgotten_on_demand() -> None:
    counts = SlidingCounts(2, 10.0, clock=MovedClock())
    counts.add(1)
    counts.clear()
    assert (counts.total(0), counts.total(1)) == (0, 0)


def test_a_clock_that_stands_or_goes_back_breaks_nothing() -> None:
    clock = MovedClock()
    counts = SlidingCounts(1, 10.0, clock=clock)
    counts.add(0)
    clock.move(-5.0)
    counts.add(0)
    assert counts.total(0) == 2
    clock.move(30.0)
    assert counts.total(0) == 0
