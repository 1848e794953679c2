"""The files that policies, schema and entities are read from: which count, what they say, how a change shows."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, NamedTuple

from gateway.policy.faults import Fault, PolicyFault

POLICY_SUFFIX: Final = ".cedar"
SCHEMA_SUFFIXES: Final = (".cedarschema", ".cedarschema.json")
FILES_MAX: Final = 100_000


class RepositoryError(PolicyFault):
    """A folder or a file that cannot be read."""

    code = "policies_unreadable"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where everything is, and how much of it there may be.

    `path` is a folder, read with all folders in it, or one file. Without a `schema`, schemas are those in the folder,
    or beside the file; a `schema` may be a folder too. What begins with a dot is not read.
    """

    path: Path
    schema: Path | None = None
    entities: Path | None = None
    validation: Literal["strict", "permissive"] = "strict"
    policy_bytes_max: int = 64 * 1024 * 1024
    entity_bytes_max: int = 1024 * 1024 * 1024


class Mark(NamedTuple):
    """By what a file shows that it changed."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Mark:
        return cls(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file as it was read; the text of entities is let go once they are in the store."""

    mark: Mark
    data: bytes
    digest: bytes

    @property
    def is_whole(self) -> bool:
        return len(self.data) == self.mark.size


@dataclass(frozen=True, slots=True)
class FolderState:
    """All files as one look found them, by path, in the order of their names."""

    sources: Sources
    policies: Mapping[str, SourceFile]
    schemas: Mapping[str, SourceFile]
    entities: SourceFile | None

    @property
    def marks(self) -> dict[str, Mark]:
        marks = {path: file.mark for path, file in {**self.policies, **self.schemas}.items()}
        if self.entities is not None:
            marks[str(self.sources.entities)] = self.entities.mark
        return marks

    @property
    def stamp(self) -> int:
        """When the newest of them changed, in ms."""
        return max((mark.modified_ns for mark in self.marks.values()), default=0) // 1_000_000

    def digest(self) -> str:
        """Give a name for what all of them say, the same wherever the folder lies."""
        whole = hashlib.sha256(self.sources.validation.encode())
        for part in (self.policies, self.schemas):
            for path, file in part.items():
                whole.update(os.fsencode(self._name(path)) + b"\0" + file.digest)
            whole.update(b"\0")
        if self.entities is not None:
            whole.update(self.entities.digest)
        return whole.hexdigest()

    def _name(self, path: str) -> str:
        """Give a file's path from the policies' folder on, or of one that lies elsewhere its name."""
        folder = str(self.sources.path)
        return path.removeprefix(folder) if path.startswith(folder) else os.path.basename(path)

    def prefix(self, path: str) -> str:
        """Give what ids that only count are told apart by: nothing where there is one file of policies."""
        if len(self.policies) == 1:
            return ""
        return path.removeprefix(str(self.sources.path)).removeprefix(os.sep).removesuffix(POLICY_SUFFIX) + "/"

    def entity_bytes(self) -> bytes:
        """Give the text that the digest of the entities stands for, read again where it was let go."""
        file = self.entities
        assert file is not None
        if file.is_whole:
            return file.data
        path = str(self.sources.entities)
        data = read_bytes(path, self.sources.entity_bytes_max)
        if hashlib.sha256(data).digest() != file.digest:
            raise RepositoryError([Fault("changed_meanwhile", "changed while it was read", file=path)])
        return data

    def without_entity_bytes(self) -> FolderState:
        """Forget the text of the entities, which may be large and lives on in the store."""
        return self if self.entities is None else replace(self, entities=replace(self.entities, data=b""))


def marks_of(sources: Sources) -> dict[str, Mark]:
    """Look at all files that count without reading them. Raises RepositoryError."""
    marks = _policy_marks(sources)
    marks.update(_schema_marks(sources))
    if sources.entities is not None:
        marks[str(sources.entities)] = _mark(sources.entities)
    return marks


def policy_paths(path: Path) -> list[Path]:
    """Give the policy files: the file itself, or all in the folder, in the order of their names."""
    return [Path(each) for each in _policy_marks(Sources(path))]


def has_schema(path: Path) -> bool:
    """Tell whether a schema lies where the policies lie. Raises RepositoryError."""
    return bool(_schema_marks(Sources(path)))


def read_state(sources: Sources, before: FolderState | None = None) -> FolderState:
    """Read all files, of `before` only those that changed. Raises RepositoryError."""
    policies, schemas = _policy_marks(sources), _schema_marks(sources)
    if not policies:
        raise RepositoryError([Fault("no_policies", f"no *{POLICY_SUFFIX} file in the folder", file=str(sources.path))])
    if sum(mark.size for each in (policies, schemas) for mark in each.values()) > sources.policy_bytes_max:
        message = f"policies and schema have more than {sources.policy_bytes_max:,} bytes"
        raise RepositoryError([Fault("too_large", message, "raise `policy.policy_bytes_max`")])
    entities = None
    if sources.entities is not None:
        path = str(sources.entities)
        known = {} if before is None or before.entities is None else {path: before.entities}
        entities = _read({path: _mark(sources.entities)}, known, sources.entity_bytes_max)[path]
    return FolderState(
        sources,
        _read(policies, {} if before is None else before.policies, sources.policy_bytes_max),
        _read(schemas, {} if before is None else before.schemas, sources.policy_bytes_max),
        entities,
    )


def _read(marks: Mapping[str, Mark], known: Mapping[str, SourceFile], limit: int) -> dict[str, SourceFile]:
    files = {}
    for path, mark in marks.items():
        file = known.get(path)
        if file is None or file.mark != mark:
            data = read_bytes(path, limit)
            file = SourceFile(mark, data, hashlib.sha256(data).digest())
        files[path] = file
    return files


def _policy_marks(sources: Sources) -> dict[str, Mark]:
    if sources.path.is_dir():
        return dict(_walk(sources.path, (POLICY_SUFFIX,)))
    return {str(sources.path): _mark(sources.path)}


def _schema_marks(sources: Sources) -> dict[str, Mark]:
    place = sources.schema
    if place is not None and not place.is_dir():
        return {str(place): _mark(place)}
    if place is None and not sources.path.is_dir():
        return dict(_walk(sources.path.parent, SCHEMA_SUFFIXES, deep=False))
    return dict(_walk(place or sources.path, SCHEMA_SUFFIXES))


def _walk(top: Path, suffixes: tuple[str, ...], *, deep: bool = True) -> Iterator[tuple[str, Mark]]:
    """Give the files of a folder in the order of their names, those that begin with a dot left out."""
    found: list[tuple[str, Mark]] = []
    waiting = [str(top)]
    try:
        while waiting:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir():
                        if deep and not entry.is_symlink():
                            waiting.append(entry.path)
                    elif entry.name.endswith(suffixes):
                        found.append((entry.path, Mark.of(entry.stat())))
            if len(found) > FILES_MAX:
                raise RepositoryError([Fault("too_many_files", f"more than {FILES_MAX:,} files", file=str(top))])
    except OSError as error:
        raise RepositoryError([_unreadable(error)]) from None
    found.sort()
    return iter(found)


def _mark(path: Path) -> Mark:
    try:
        return Mark.of(path.stat())
    except OSError as error:
        raise RepositoryError([_unreadable(error)]) from None


def read_bytes(path: str, limit: int) -> bytes:
    """Read one file of at most `limit` bytes. Raises RepositoryError."""
    try:
        with open(path, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise RepositoryError([_unreadable(error)]) from None
    if len(data) > limit:
        raise RepositoryError([Fault("too_large", f"more than {limit:,} bytes", file=path)])
    return data


def text_of(path: str, data: bytes) -> str:
    """Give the text of a file. Raises RepositoryError where it is no UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RepositoryError([Fault("no_utf8", "is no UTF-8", file=path, line=line, column=1)]) from None


def _unreadable(error: OSError) -> Fault:
    return Fault("unreadable", f"cannot be read: {(error.strerror or 'fault').lower()}", file=str(error.filename or ""))
