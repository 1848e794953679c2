"""Copies of the source tree, each with its own build of the extensions, so that the normal one stays as it is."""

from __future__ import annotations

import fcntl
import filecmp
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("LICENSE", "README.md", "_native", "gateway", "pyproject.toml", "setup.py", "tests")
SKIPPED = shutil.ignore_patterns("*.so", "__pycache__", ".*_cache", ".hypothesis")


class Missing(Exception):
    """Something that the machine does not have; the message is one line with its remedy."""


def need(program: str, remedy: str) -> str:
    """Return the path of a program, or raise Missing."""
    found = shutil.which(program)
    if found is None:
        raise Missing(f"no {program} on this machine; remedy: {remedy}")
    return found


def copy_tree(target: Path) -> None:
    """Make `target` hold what the checkout holds; touch only files whose content differs.

    What is copied gets the present as its time, not the original's: a file that was edited while an older copy was
    being compiled must be newer than what came of that.
    """
    target.mkdir(parents=True, exist_ok=True)
    wanted: set[Path] = set()
    for top in COPIED:
        source = ROOT / top
        names = [source] if source.is_file() else _files(source)
        wanted.update(path.relative_to(ROOT) for path in names)
    for relative in wanted:
        copy = target / relative
        if not copy.exists() or not filecmp.cmp(ROOT / relative, copy, shallow=False):
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / relative, copy)
    for top in COPIED:
        if (target / top).is_dir():
            for path in _files(target / top):
                if path.relative_to(target) not in wanted:
                    path.unlink()
    _link_shared(target)


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        skipped = SKIPPED(place, [*folders, *files])
        folders[:] = [name for name in folders if name not in skipped]
        found += [Path(place, name) for name in files if name not in skipped]
    return found


def _link_shared(target: Path) -> None:
    """Let the copy find the public vectors beside it, where the checkout has them."""
    shared = ROOT.parent / "shared"
    link = target.parent / "shared"
    if shared.is_dir() and not link.exists():
        link.symlink_to(shared)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time copy and compile in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def build(target: Path, python: str, environment: Mapping[str, str]) -> None:
    """Compile the copy's extensions in place with `python`; stop with the compiler's words where that fails."""
    finished = subprocess.run(
        [python, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=target,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if finished.returncode != 0:
        sys.exit(f"{finished.stdout[-6000:]}\nportcullis: the extensions did not compile in {target}")


def compiled(source: Path = ROOT / "_native") -> list[str]:
    """Name the compiled modules."""
    return [path.stem for path in sorted(source.glob("*.pyx"))]
