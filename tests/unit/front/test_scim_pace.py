"""The pace of provisioning: so many requests a second, whatever happens."""

from __future__ import annotations

import pytest

from gateway.errors import OverloadedError
from gateway.front.scim.pace import Pace
from tests.unit.tokens.fakes import MovedClock


def waits(pace: Pace, wanted: int) -> list[float]:
    """Ask for so many turns at once; give how long each that there was is waited for."""
    found = []
    for _ in range(wanted):
        try:
            pace.check()
        except OverloadedError as error:
            assert error.retry_after_s == 1.0
        else:
            found.append(round(pace.take(), 6))
    return found


def test_a_few_are_served_at_once_some_wait_for_a_second_and_the_rest_is_refused() -> None:
    clock = MovedClock()
    pace = Pace(20, clock)
    assert waits(pace, 60) == [0.0] * 2 + [each / 20 for each in range(1, 21)]
    with pytest.raises(OverloadedError):
        pace.check()
    clock.now_s += 0.5
    assert len(waits(pace, 60)) == 10
    clock.now_s += 3600
    assert waits(pace, 3) == [0.0, 0.0, 0.05]  # a quiet hour is worth no more than a tenth of a second


def test_what_cannot_be_refused_any_more_waits_for_as_long_as_it_takes() -> None:
    pace = Pace(10, MovedClock())
    assert [pace.take() for _ in range(31)][-1] == pytest.approx(3.0)


def test_who_asks_one_thing_after_the_other_is_slowed_down_and_never_refused() -> None:
    clock = MovedClock()
    pace = Pace(10, clock)
    begun_s = clock.now_s
    for _ in range(1000):
        clock.now_s += pace.take() + 0.001  # the answer takes that long
    assert 99.7 <= clock.now_s - begun_s <= 100.1
