"""The pace of provisioning: so many requests a second, whatever happens."""

from __future__ import annotations

import pytest

from gateway.errors import OverloadedError
from gateway.front.scim.pace import Pace
from tests.unit.tokens.fakes import MovedClock


def taken(pace: Pace, wanted: int) -> int:
    """Try so often; give how often there was a turn."""
    count = 0
    for _ in range(wanted):
        try:
            pace.take()
        except OverloadedError as error:
            assert error.retry_after_s == 1.0
        else:
            count += 1
    return count


def test_so_many_are_served_in_a_second_and_no_more_after_a_quiet_hour() -> None:
    clock = MovedClock()
    pace = Pace(10, clock)
    assert taken(pace, 30) == 10
    with pytest.raises(OverloadedError):
        pace.take()
    clock.now_s += 0.5
    assert taken(pace, 30) == 5
    clock.now_s += 3600
    assert taken(pace, 30) == 10
    total = 0
    for _ in range(100):
        clock.now_s += 0.1
        total += taken(pace, 7)
    assert 99 <= total <= 101
