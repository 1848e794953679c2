"""`PolicyCompiler`: policies to engines, with a cache of compiled sets on disk.

What: a file for each set, its name the hash of its sources, the schema's source and the compiler's version. Why these:
the same bytes compile to the same program, anything else is another name. How long: until `files_max` newer sets push
it out. Invalidation: none is needed. A file that is damaged, cut or forged is no bundle (`compiler.bundle`): the set is
compiled anew and written again.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
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
WRITING: Final = ".writing-"
WRITING_NS_MAX: Final = 3_600 * 10**9  # older than the newest: nobody writes so long
BUNDLE_BYTES_MAX: Final = 1024 * 1024 * 1024


class PolicyCompiler:
    """Makes engines; keeps what it compiled in `folder`, or nowhere where that is None.

    `reused` and `compiled` count engines. A cache that cannot be read or written costs time, never an engine:
    `cache_fault` says why the last engine was not taken from it or not kept, for whoever reports.
    """

    def __init__(self, folder: Path | None = None, *, files_max: int = FILES_MAX) -> None:
        if files_max < 1:
            raise ValueError("`files_max` of at least 1 is needed")
        self.folder = folder
        self.files_max = files_max
        self.reused = 0
        self.compiled = 0
        self.cache_fault: OSError | BundleError | None = None
        self._unsaved: tuple[bytes, Engine] | None = None

    def engine(
        self,
        sources: Sequence[bytes],
        policies: Callable[[], PolicySet],
        entities: Entities,
        schema: Schema | None = None,
        *,
        schema_source: bytes = b"",
        check: Callable[[PolicySet], None] | None = None,
        passed: Callable[[PolicySet], None] | None = None,
        reads_now: bool = False,
        like: Engine | None = None,
    ) -> Engine:
        """Give the engine for `sources`, compiled now or before; `save` writes it where it is new.

        `policies` reads what the sources say; it is called where the set must be compiled, or later when somebody asks
        for an explanation, or at once with `reads_now`. `check` is asked before anything is compiled, and raises for
        policies that must not serve: what is in the cache passed it, and `passed` is told of those policies once they
        are read. `schema_source` is what `schema` was read from, or a hash of it. Of `like`, an engine, what did not
        change since is not compiled again; under the same schema that is quicker than the cache, which is not asked.
        Raises what `policies` and `check` raise, and PolicySyntaxError for a policy beyond the machine's limits.
        """
        self.cache_fault = None
        key = bundle_key(sources, schema_source)
        data = self._read(key) if like is None or like.schema is not schema else None
        if data is not None:
            try:
                made = Engine.from_bytes(data, key, partial(_told, policies, passed), entities, schema)
                if reads_now:
                    _ = made.policies
            except BundleError as error:
                self.cache_fault = error
            else:
                self.reused += 1
                return made
        read = policies()
        if check is not None:
            check(read)
        made = Engine(read, entities, schema, like=like)
        self.compiled += 1
        if self.folder is not None:
            self._unsaved = key, made
        return made

    def save(self) -> None:
        """Write the engine that was compiled last, so that another process need not compile it."""
        unsaved, self._unsaved = self._unsaved, None
        if unsaved is not None and self.folder is not None:
            self._write(self.folder, *unsaved)

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
            with contextlib.suppress(FileNotFoundError):  # another process may let it go meanwhile
                os.utime(path)  # the least used leave first
        except FileNotFoundError:
            return None
        except OSError as error:
            self.cache_fault = error
            return None
        return data

    def _write(self, folder: Path, key: bytes, made: Engine) -> None:
        """Write beside and rename, so that nobody reads half a file."""
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=folder, prefix=WRITING)
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(made.to_bytes(key))
                os.replace(name, self._path(folder, key))
            except BaseException:
                os.unlink(name)
                raise
            self._drop_old(folder)
        except OSError as error:
            self.cache_fault = error

    def _drop_old(self, folder: Path) -> None:
        """Let go of the least used, and of what a process that was killed had begun to write."""
        ages: list[tuple[int, Path]] = []
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process does the same
                ages.append((path.stat().st_mtime_ns, path))
        ages.sort(reverse=True)
        kept = [path for _, path in ages if path.suffix == SUFFIX]
        begun = [path for age, path in ages if path.name.startswith(WRITING) and ages[0][0] - age > WRITING_NS_MAX]
        for path in (*kept[self.files_max :], *begun):
            path.unlink(missing_ok=True)


def _told(policies: Callable[[], PolicySet], passed: Callable[[PolicySet], None] | None) -> PolicySet:
    read = policies()
    if passed is not None:
        passed(read)
    return read
