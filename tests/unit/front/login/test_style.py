"""The theme can be read: WCAG 2.2 §1.4.3 and §1.4.11, in the light and in the dark."""

from __future__ import annotations

import re

import pytest

from tests.conftest import ROOT

STYLE = (ROOT / "gateway" / "front" / "login" / "style.css").read_text()
TEXT = 4.5  # the contrast of text
EDGE = 3.0  # and of what shows where a field or button is

PAIRS = [
    *(("ink", ground, TEXT) for ground in ("page", "card", "field")),
    ("soft", "card", TEXT),
    ("act", "card", TEXT),
    ("on-act", "act", TEXT),
    ("bad", "bad-page", TEXT),
    ("good", "good-page", TEXT),
    ("soft", "field", EDGE),
    ("act", "page", EDGE),
]


def colours(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6});", block))


def light() -> dict[str, str]:
    return colours(STYLE.partition("@media")[0])


def dark() -> dict[str, str]:
    return {**light(), **colours(STYLE.partition("prefers-color-scheme: dark")[2].partition("\n}\n")[0])}


def luminance(colour: str) -> float:
    digits = colour.lstrip("#")
    if len(digits) == 3:
        digits = "".join(digit * 2 for digit in digits)
    shares = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    brighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (brighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize(("front", "ground", "least"), PAIRS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_written_stands_out_from_where_it_stands(scheme: str, front: str, ground: str, least: float) -> None:
    palette = light() if scheme == "light" else dark()
    assert contrast(palette[front], palette[ground]) >= least, (front, ground)


def test_the_theme_loads_nothing_from_anywhere() -> None:
    assert "url(" not in STYLE
    assert "@import" not in STYLE
