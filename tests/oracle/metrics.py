"""The log-linear histogram by its definition: a list of bounds, searched from the front."""

from __future__ import annotations

from fractions import Fraction

FIRST_BOUND_S = Fraction(1, 1_000_000)
OCTAVES = 24
QUARTERS = (Fraction(5, 4), Fraction(6, 4), Fraction(7, 4), Fraction(8, 4))


def bounds_s() -> list[Fraction]:
    """Return the upper bounds: 1 µs, then four equal steps through each doubling."""
    bounds = [FIRST_BOUND_S]
    for octave in range(OCTAVES):
        bounds += [FIRST_BOUND_S * 2**octave * quarter for quarter in QUARTERS]
    return bounds


def bucket_of(elapsed_ns: int) -> int:
    """Return the first bucket whose bound is at least the duration, or the one after all bounds."""
    elapsed_s = Fraction(elapsed_ns, 1_000_000_000)
    bounds = bounds_s()
    return next((index for index, bound in enumerate(bounds) if elapsed_s <= bound), len(bounds))
