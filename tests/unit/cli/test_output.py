"""Tables: drawn on a terminal, aligned elsewhere."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from gateway.cli import output

ROWS = [("alpha", "1"), ("b", "[bold]2")]


def test_elsewhere_columns_are_aligned_by_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    output.table(("name", "n"), ROWS)
    assert capsys.readouterr().out == "name   n\nalpha  1\nb      [bold]2\n"


def test_on_a_terminal_rich_draws_and_markup_is_text(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rich")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output.table(("name", "n"), ROWS)
    text = capsys.readouterr().out
    assert "alpha" in text
    assert "[bold]2" in text


@pytest.mark.parametrize(("is_terminal", "no_color", "rich"), [(False, "", True), (True, "1", True), (True, "", False)])
def test_rich_is_used_where_all_agree_only(
    is_terminal: bool, no_color: str, rich: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if rich else None)
    assert not output.is_rich_terminal()
