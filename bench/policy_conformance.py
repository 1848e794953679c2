"""Whether decisions are right at all: the shared corpus, AuthZEN's Todo, and cedarpy over generated cases.

These are the house's tests, counted here so that one table says everything.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import deque
from pathlib import Path
from xml.etree import ElementTree

from bench.table import Cell, Part, Table

GENERATED = 100_000  # requests that the bar asks for: `python -m tests.policy.differential` has no end
_CHECKOUT = Path(__file__).resolve().parents[1]
_SUITES = {
    "shared corpus: validation, decision, reasons, errors": "tests/policy/test_corpus.py",
    "AuthZEN Todo": "tests/policy/test_authzen_todo.py",
}


def _passed_percent(path: str) -> float:
    """Run a file of tests; give how many of them passed. What was skipped did not pass."""
    with tempfile.TemporaryDirectory(prefix="portcullis-bench-") as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", path, f"--junitxml={report}"]
        subprocess.run(command, cwd=_CHECKOUT, capture_output=True, timeout=300, check=False)
        suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    count = int(suite.attrib["tests"])
    bad = sum(int(suite.attrib[name]) for name in ("errors", "failures", "skipped"))
    return 100 * (count - bad) / count


def conformance(requests: int) -> Part:
    """Run the suites, and compare `requests` generated decisions with cedarpy's; a difference is an AssertionError."""
    from tests.policy.differential import compare

    bars = {name: _passed_percent(path) for name, path in _SUITES.items()}
    done, allowed, erring = deque(compare(2, requests), maxlen=1)[0]
    if done >= GENERATED:
        bars["generated requests equal to cedarpy's"] = done
    rows: list[list[Cell]] = [[name, f"{percent:g} %"] for name, percent in list(bars.items())[:2]]
    rows.append(["equal to cedarpy's, with reasons and errors", f"{done:,} generated requests"])
    rows.append(["  of them allowed / with errors", f"{allowed:,} / {erring:,}"])
    return Part([Table("right answers", ("", ""), rows)], bars, {"conformance": dict(bars)})
