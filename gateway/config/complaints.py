"""What a check has to say."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.config.toml_lines import Path


@dataclass(frozen=True, slots=True)
class Complaint:
    """One thing that is wrong or odd. `other` is a second place that the problem ends in, such as `… as`."""

    path: Path
    problem: str
    hint: str = ""
    is_warning: bool = False
    other: Path = ()
