"""What a real server wrote into its logs."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from tests.real.process import ServerProcess, wait_until

LOGGED_WITHIN_S = 5.0  # lines are written in bundles


def lines_of(server: ServerProcess) -> list[dict[str, Any]]:
    """Give all JSON lines of a server's output."""
    lines = []
    for text in server.output.splitlines():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(text))
    return lines


def logged(server: ServerProcess, **fields: object) -> dict[str, Any]:
    """Wait for a line that has all of `fields`, and give the newest."""
    found: list[dict[str, Any]] = []

    def is_there() -> bool:
        found[:] = [line for line in lines_of(server) if fields.items() <= line.items()]
        return bool(found)

    wait_until(is_there, f"a line with {fields}", LOGGED_WITHIN_S)
    return found[-1]


def metric(server_metrics: str, name: str, **labels: str) -> float:
    """Sum the samples of a metric that have these labels."""
    total = 0.0
    for line in server_metrics.splitlines():
        series, _, value = line.rpartition(" ")
        if series.partition("{")[0] == name and all(f'{key}="{text}"' in series for key, text in labels.items()):
            total += float(value)
    return total
