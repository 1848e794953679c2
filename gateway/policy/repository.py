"""`PolicyRepository`: a folder of policies, a schema and entities, made into an engine whenever they change.

A file whose size, times and inode are the same is not read again; one whose text is the same is not parsed again; a
policy that is the same keeps its compiled program. What cannot be read, parsed, validated or compiled raises a fault
with file and line, and changes nothing: whoever serves goes on with the former engine.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from gateway.policy.engine import Engine
from gateway.policy.entities import Entities
from gateway.policy.faults import EntityError, Fault, PolicyFault, PolicySyntaxError, SchemaError
from gateway.policy.folder import told_apart
from gateway.policy.handle import PolicyHandle
from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import Schema

POLICY_SUFFIX: Final = ".cedar"
SCHEMA_SUFFIXES: Final = (".cedarschema", ".cedarschema.json")
FILES_MAX: Final = 100_000


class RepositoryError(PolicyFault):
    """A folder or a file that cannot be read."""

    code = "policies_unreadable"


class PolicyInvalid(PolicyFault):
    """Policies that do not fit the schema."""

    code = "policies_invalid"


@dataclass(frozen=True, slots=True)
class Sources:
    """Where everything is, and how much of it there may be. `schema` and `entities` may be None."""

    path: Path
    schema: Path | None = None
    entities: Path | None = None
    validation: Literal["strict", "permissive"] = "strict"
    policy_bytes_max: int = 64 * 1024 * 1024
    entity_bytes_max: int = 1024 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Mark:
    """By what a file shows that it changed."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class _File:
    mark: _Mark
    data: bytes
    digest: bytes


@dataclass(frozen=True, slots=True)
class _Parsed:
    digest: bytes  # of the text
    policies: PolicySet  # of this file alone


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine, the digest of the texts that it was made of, and the newest change of a file, in ms."""

    engine: Engine
    digest: str
    stamp: int


class PolicyRepository:
    """Loads policies from files. Belongs to one thread at a time."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self._files: dict[Path, _File] = {}
        self._parsed: dict[Path, _Parsed] = {}
        self._loaded: Loaded | None = None
        self._schema: tuple[bytes, Schema | None] = b"", None
        self._entities: tuple[tuple[bytes, bytes], Entities] | None = None
        self._glimpse: dict[Path, _Mark] | None = None  # what `poll` saw last
        self._refused: dict[Path, _Mark] | None = None  # what could not be loaded

    # --- loading

    def load(self) -> Loaded:
        """Read what changed and give the engine for it: the same object where nothing did. Raises PolicyFault."""
        marks = self._scan()
        files = self._read(marks)
        digest = _digest_of(files, self.sources)
        stamp = max((mark.modified_ns for mark in marks.values()), default=0) // 1_000_000
        if self._loaded is not None and self._loaded.digest == digest:
            self._files = _lean(files, self.sources.entities)
            return self._loaded
        schema_digest, schema = self._read_schema(files)
        policies, parsed = self._read_policies(files)
        if schema is not None:
            report = policies.validate(schema, self.sources.validation)
            if not report.ok:
                raise PolicyInvalid(report.errors)
        entities = self._read_entities(files, schema_digest, schema)
        former = None if self._loaded is None else self._loaded.engine
        like = former if former is not None and former.entities is entities[1] else None
        loaded = Loaded(Engine(policies, entities[1], schema, like=like), digest, stamp)
        # From here on nothing fails: all of it is taken together.
        self._files, self._parsed, self._loaded = _lean(files, self.sources.entities), parsed, loaded
        self._schema, self._entities = (schema_digest, schema), entities
        return loaded

    def poll(self, handle: PolicyHandle) -> bool:
        """Publish what changed, once two looks in a row saw the same; tell whether it did. Raises PolicyFault.

        A folder that is just being copied is left alone until it rests. What was refused is tried again only after
        files changed again.
        """
        marks = self._scan()
        settled = marks == self._glimpse
        first_look = self._glimpse is None
        self._glimpse = marks
        if first_look or not settled:
            return False
        if self._loaded is not None and marks == {path: file.mark for path, file in self._files.items()}:
            return self.publish(self._loaded, handle)
        if marks == self._refused:
            return False
        try:
            loaded = self.load()
        except PolicyFault:
            self._refused = marks
            raise
        return self.publish(loaded, handle)

    @staticmethod
    def publish(loaded: Loaded, handle: PolicyHandle) -> bool:
        """Put a loaded engine in force, unless it is; tell whether it was not."""
        if handle.now.engine is loaded.engine:
            return False
        handle.publish(loaded.engine, loaded.digest, stamp=loaded.stamp)
        return True

    # --- files

    def _scan(self) -> dict[Path, _Mark]:
        """Give all files that count, in the order of their names."""
        sources = self.sources
        found: list[Path] = []
        try:
            if sources.path.is_dir():
                for folder, folders, names in os.walk(sources.path, onerror=_fail_walk):
                    folders[:] = sorted(name for name in folders if not name.startswith("."))
                    found += [Path(folder, name) for name in names if self._counts(name)]
                    if len(found) > FILES_MAX:
                        raise RepositoryError([Fault("too_many_files", f"more than {FILES_MAX:,} files")])
            else:
                found.append(sources.path)
            found += [path for path in (sources.schema, sources.entities) if path is not None]
            marks = {}
            for path in sorted(set(found)):
                status = path.stat()
                marks[path] = _Mark(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
            return marks
        except OSError as error:
            raise RepositoryError([_unreadable(error)]) from None

    def _counts(self, name: str) -> bool:
        if name.startswith("."):
            return False
        return name.endswith(POLICY_SUFFIX) or (self.sources.schema is None and name.endswith(SCHEMA_SUFFIXES))

    def _read(self, marks: dict[Path, _Mark]) -> dict[Path, _File]:
        sources = self.sources
        total = sum(mark.size for path, mark in marks.items() if path != sources.entities)
        if total > sources.policy_bytes_max:
            message = f"policies and schema have more than {sources.policy_bytes_max:,} bytes"
            raise RepositoryError([Fault("too_large", message, "raise `policy.policy_bytes_max`")])
        files = {}
        for path, mark in marks.items():
            known = self._files.get(path)
            if known is not None and known.mark == mark:
                files[path] = known
                continue
            limit = sources.entity_bytes_max if path == sources.entities else sources.policy_bytes_max
            data = _bytes_of(path, limit)
            files[path] = _File(mark, data, hashlib.sha256(data).digest())
        return files

    # --- parts

    def _read_schema(self, files: dict[Path, _File]) -> tuple[bytes, Schema | None]:
        paths = [path for path in files if self._is_schema(path)]
        digest = b"".join(files[path].digest for path in paths)
        if digest == self._schema[0]:
            return self._schema
        if not paths:
            return b"", None
        as_json = [path for path in paths if path.name.endswith(".json")]
        if as_json and len(paths) > 1:
            hint = "use one JSON file, or texts only"
            raise SchemaError([Fault("two_schemas", "a schema in JSON stands beside another", hint, str(as_json[0]))])
        try:
            if as_json:
                return digest, Schema.from_json(files[as_json[0]].data)
            return digest, Schema.parse_files([(_text_of(path, files[path].data), str(path)) for path in paths])
        except SchemaError as error:
            raise SchemaError([_in_file(fault, paths[0]) for fault in error.faults]) from None

    def _is_schema(self, path: Path) -> bool:
        if self.sources.schema is not None:
            return path == self.sources.schema
        return path.name.endswith(SCHEMA_SUFFIXES)

    def _read_policies(self, files: dict[Path, _File]) -> tuple[PolicySet, dict[Path, _Parsed]]:
        """Give the policies of all files: by their `@id`, else by the file's name and the number in it."""
        paths = [path for path in files if path != self.sources.entities and not self._is_schema(path)]
        parsed: dict[Path, _Parsed] = {}
        sets: list[PolicySet] = []
        faults: list[Fault] = []
        for path in paths:
            known, file = self._parsed.get(path), files[path]
            try:
                if known is None or known.digest != file.digest:
                    text, like = _text_of(path, file.data), None if known is None else known.policies
                    known = _Parsed(file.digest, PolicySet.parse(text, file=str(path), ids="annotation", like=like))
                parsed[path] = known
                sets.append(known.policies if len(paths) == 1 else told_apart(self._prefix(path), known.policies))
            except PolicySyntaxError as error:
                faults += [_in_file(fault, path) for fault in error.faults]
        if faults:
            raise PolicySyntaxError(faults)
        if not paths:
            raise RepositoryError([Fault("no_policies", "no *.cedar file in the folder", file=str(self.sources.path))])
        return self._kept(PolicySet.merge(sets)), parsed

    def _kept(self, policies: PolicySet) -> PolicySet:
        """Put in the former objects where a policy stayed as it was, so that its program is kept too."""
        if self._loaded is None:
            return policies
        former = self._loaded.engine.policies.policies
        kept = []
        for policy_id, policy in policies.policies.items():
            old = former.get(policy_id)
            kept.append(
                old if old is not None and old.parsed is policy.parsed and old.slots == policy.slots else policy
            )
        return PolicySet(kept, policies.templates.values())

    def _prefix(self, path: Path) -> str:
        return path.relative_to(self.sources.path).with_suffix("").as_posix() + "/"

    def _entity_bytes(self, path: Path, files: dict[Path, _File]) -> bytes:
        """Give the text that the file's digest stands for, read again where it was let go."""
        file = files[path]
        if len(file.data) == file.mark.size:
            return file.data
        data = _bytes_of(path, self.sources.entity_bytes_max)
        if hashlib.sha256(data).digest() != file.digest:
            raise RepositoryError([Fault("changed_meanwhile", "changed while it was read", file=str(path))])
        return data

    def _read_entities(
        self, files: dict[Path, _File], schema_digest: bytes, schema: Schema | None
    ) -> tuple[tuple[bytes, bytes], Entities]:
        path = self.sources.entities
        key = (b"" if path is None else files[path].digest, schema_digest)
        if self._entities is not None and self._entities[0] == key:
            return self._entities
        if path is None:
            return key, Entities()
        try:
            return key, Entities.from_json(self._entity_bytes(path, files), schema=schema)
        except EntityError as error:
            raise EntityError([_in_file(fault, path) for fault in error.faults]) from None


def _lean(files: dict[Path, _File], entities: Path | None) -> dict[Path, _File]:
    """Forget the text of the entities, which may be large and lives on in the store."""
    if entities is None or entities not in files:
        return files
    return {**files, entities: replace(files[entities], data=b"")}


def _digest_of(files: dict[Path, _File], sources: Sources) -> str:
    whole = hashlib.sha256(sources.validation.encode())
    for path, file in files.items():
        name = str(path).encode("utf-8", "surrogateescape")
        whole.update(hashlib.sha256(name).digest() + file.digest)
    return whole.hexdigest()


def _bytes_of(path: Path, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise RepositoryError([_unreadable(error)]) from None
    if len(data) > limit:
        raise RepositoryError([Fault("too_large", f"more than {limit:,} bytes", file=str(path))])
    return data


def _text_of(path: Path, data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RepositoryError([Fault("no_utf8", "is no UTF-8", file=str(path), line=line, column=1)]) from None


def _fail_walk(error: OSError) -> None:
    raise error


def _unreadable(error: OSError) -> Fault:
    return Fault("unreadable", f"cannot be read: {(error.strerror or 'fault').lower()}", file=str(error.filename or ""))


def _in_file(fault: Fault, path: Path) -> Fault:
    return fault if fault.file else replace(fault, file=str(path))
