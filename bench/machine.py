"""What the figures were measured on and with: printed above each table, written into each JSON file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
import time
from pathlib import Path

_PACKAGES = (
    "granian",
    "starlette",
    "uvloop",
    "pyjwt",
    "joserfc",
    "webtoken",
    "jwtoxide",
    "cryptography",
    "orjson",
    "prometheus-client",
)


def first_match(command: list[str], pattern: str) -> str:
    """Run a command that prints its version, on either stream, and give what `pattern` finds; `?` where it does not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return "?"
    found = re.search(pattern, done.stdout + done.stderr)
    return found[1] if found else "?"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def package_version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def describe() -> dict[str, object]:
    """Collect machine, system and versions."""
    memory_kib = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    release = re.search(r'PRETTY_NAME="(.*)"', Path("/etc/os-release").read_text())
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(int(memory_kib[1]) / 2**20, 1) if memory_kib else None,
        "system": release[1] if release else platform.platform(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "packages": {name: package_version(name) for name in _PACKAGES},
    }


def headline(machine: dict[str, object]) -> str:
    """Say it in one line."""
    return (
        f"{machine['date']} · {machine['processor']}, {machine['cores']} cores, {machine['memory_gib']} GiB · "
        f"{machine['system']} · Python {machine['python']} · load before the start {machine['load_before']}"
    )
