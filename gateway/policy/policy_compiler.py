"""`PolicyCompiler`: policies to engines, with a cache of compiled sets on disk.

What: a file for each set, its name the hash of its sources, the schema's source and the compiler's version. Why these:
the same bytes compile to the same program, anything else is another name. How long: until `files_max` newer sets push
it out. Invalidation: none is needed. A file that is damaged, cut or forged is no bundle (`compiler.bundle`): the set is
compiled anew and written again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.policy.compiler.bundle import BundleError, bundle_key
from gateway.policy.engine import Engine

if TYPE_CHECKING:
    from gateway.policy.entities import Entities
    from gateway.policy.policy_set import PolicySet
    from gateway.policy.schema import Schema

SUFFIX: Final = ".pcb"
FILES_MAX: Final = 32
BUNDLE_BYTES_MAX: Final = 1024 * 1024 * 1024


class PolicyCompiler:
    """Makes engines; keeps what it compiled in `folder`, or nowhere where that is None.

    `reused` and `compiled` count engines. A cache that cannot be read or written costs time, never an engine:
    `cache_fault` holds the last reason, for whoever reports.
    """

    def __init__(self, folder: Path | None = None, *, files_max: int = FILES_MAX) -> None:
        if files_max < 1:
            raise ValueError("`files_max` of at least 1 is needed")
        self.folder = folder
        self.files_max = files_max
        self.reused = 0
        self.compiled = 0
        self.cache_fault: OSError | BundleError | None = None

    def engine(
        self,
        sources: Sequence[bytes],
        policies: Callable[[], PolicySet],
        entities: Entities,
        schema: Schema | None = None,
        *,
        schema_source: bytes = b"",
    ) -> Engine:
        """Give the engine for `sources`, compiled now or before.

        `policies` reads, and validates, what the sources say; it is called where the set must be compiled, or later
        when somebody asks for an explanation. `schema_source` is the text that `schema` was read from. Raises what
        `policies` raises, and PolicySyntaxError for a policy beyond the machine's limits.
        """
        key = bundle_key(sources, schema_source)
        data = self._read(key)
        if data is not None:
            try:
                made = Engine.from_bytes(data, key, policies, entities, schema)
            except BundleError as error:
                self.cache_fault = error
            else:
                self.reused += 1
                return made
        made = Engine(policies(), entities, schema)
        self.compiled += 1
        self._write(key, made)
        return made

    def _path(self, folder: Path, key: bytes) -> Path:
        return folder / (key.hex() + SUFFIX)

    def _read(self, key: bytes) -> bytes | None:
        if self.folder is None:
            return None
        path = self._path(self.folder, key)
        try:
            if path.stat().st_size > BUNDLE_BYTES_MAX:
                return None
            data = path.read_bytes()
            os.utime(path)  # the least used leave first
        except FileNotFoundError:
            return None
        except OSError as error:
            self.cache_fault = error
            return None
        return data

    def _write(self, key: bytes, made: Engine) -> None:
        """Write beside and rename, so that nobody reads half a file."""
        if self.folder is None:
            return
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self.folder, prefix=".writing-")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(made.to_bytes(key))
                os.replace(name, self._path(self.folder, key))
            except BaseException:
                os.unlink(name)
                raise
            self._drop_old(self.folder)
        except OSError as error:
            self.cache_fault = error

    def _drop_old(self, folder: Path) -> None:
        files = sorted(folder.glob(f"*{SUFFIX}"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in files[self.files_max :]:
            path.unlink(missing_ok=True)
