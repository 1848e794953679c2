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
            found.append(round(pace.take(), 6))
        except OverloadedError as error:
            assert error.retry_after_s == 1.0
    return found


def test_so_many_are_served_at_once_some_wait_for_a_second_and_the_rest_is_refused() -> None:
    clock = MovedClock()
    pace = Pace(10, clock)
    assert waits(pace, 30) == [0.0] * 10 + [each / 10 for each in range(1, 11)]
    with pytest.raises(OverloadedError):
        pace.take()
    clock.now_s += 0.5
    assert len(waits(pace, 30)) == 5
    clock.now_s += 3600
    assert waits(pace, 10) == [0.0] * 10  # a quiet hour is worth no more than a quiet second


def test_who_asks_one_thing_after_the_other_is_slowed_down_and_never_refused() -> None:
    clock = MovedClock()
    pace = Pace(10, clock)
    begun_s = clock.now_s
    for _ in range(1000):
        clock.now_s += pace.take() + 0.001  # the answer takes that long
    assert 98.9 <= clock.now_s - begun_s <= 99.2
