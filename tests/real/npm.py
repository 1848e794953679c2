"""Packages of npm, for real clients in Node: installed once a machine, in exactly the versions that are asked for."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.real.process import find_binary

INSTALL_TIMEOUT_S = 180.0


def npm_packages(*packages: str) -> Path:
    """Give a folder whose `node_modules` holds `packages` (`name@version`); skip the test by name where that fails."""
    npm = find_binary("npm")
    find_binary("node")
    name = hashlib.sha256("\n".join(packages).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"portcullis-npm-{name}"
    if not folder.is_dir():
        _install(npm, packages, folder)
    return folder


def _install(npm: str, packages: Sequence[str], folder: Path) -> None:
    """Install beside, and put in place whole: many tests may do so at once."""
    draft = Path(tempfile.mkdtemp(prefix="portcullis-npm-"))
    try:
        (draft / "package.json").write_text('{"private": true, "type": "module"}')
        command = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", *packages]
        done = subprocess.run(command, cwd=draft, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S)
        if done.returncode != 0:
            pytest.skip(f"npm: {', '.join(packages)} cannot be installed")
        with contextlib.suppress(OSError):  # another test was faster
            draft.rename(folder)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm: {', '.join(packages)} cannot be installed")
    finally:
        shutil.rmtree(draft, ignore_errors=True)
