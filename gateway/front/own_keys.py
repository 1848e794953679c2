"""Keys that the workers of one gateway share, made by whoever is first and kept in the run dir."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

KEY_BYTES: Final = 32


def own_key(run_dir: Path, name: str) -> bytes:
    """Give the key of this name. Raises ValueError for a file that is no key, OSError where it cannot be kept."""
    path = run_dir / name
    draft = run_dir / f"{name}.{os.getpid()}"
    if not path.exists():
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(os.urandom(KEY_BYTES))
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)  # unlike a rename, it leaves the key of a worker that was faster
        finally:
            draft.unlink()
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise ValueError(f"`{path}` is no key of ours: remove it")
    return key
