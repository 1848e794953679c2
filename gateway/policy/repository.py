"""`PolicyRepository`: a folder of policies, a schema and entities, made into an engine whenever they change.

A file whose size, times and inode are the same is not read again; one whose text is the same is not parsed again; a
policy that is the same is neither validated nor compiled again. What cannot be read, parsed, validated or compiled
raises a fault with file and line, and changes nothing: whoever serves goes on with the former engine.

With a `cache`, a process that starts takes what another one compiled of the same texts.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from gateway import __version__
from gateway.policy.collection import without_collection
from gateway.policy.compiler.bundle import BundleError
from gateway.policy.engine import Engine
from gateway.policy.faults import PolicyFault
from gateway.policy.folder import FolderReader, schema_digest
from gateway.policy.policy_compiler import PolicyCompiler
from gateway.policy.policy_files import FolderState, Mark, RepositoryError, Sources, marks_of, read_state
from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import Schema
from gateway.policy.validator import Validator

__all__ = ["Loaded", "PolicyInvalid", "PolicyRepository", "RepositoryError", "Sources"]


class PolicyInvalid(PolicyFault):
    """Policies that do not fit the schema."""

    code = "policies_invalid"


@dataclass(frozen=True, slots=True)
class Loaded:
    """An engine, the digest of the texts that it was made of, and the newest change of a file, in ms."""

    engine: Engine
    digest: str
    stamp: int


class PolicyRepository:
    """Loads policies from files. Its methods may be called from any thread; each waits for the one before."""

    def __init__(self, sources: Sources, *, cache: Path | None = None, is_start: bool = False) -> None:
        """`cache` is the folder for compiled sets; None: each process compiles for itself.

        With `is_start`, a first load that finds everything there leaves the texts for `read_texts`: who starts decides
        sooner. Later loads have nobody who waits for them.
        """
        self.sources = sources
        self._leaves_texts = is_start
        self._lock = threading.RLock()
        # All guarded by self._lock:
        self._compiler = PolicyCompiler(cache)
        self._reader = FolderReader()
        self._validator: tuple[Schema, Validator] | None = None
        self._state: FolderState | None = None  # that the newest engine was made of
        self._loaded: Loaded | None = None
        self._glimpse: dict[str, Mark] | None = None  # what `look` saw last
        self._refused: dict[str, Mark] | None = None  # what could not be loaded

    @property
    def cache_fault(self) -> OSError | BundleError | None:
        """Why the cache could not be read or written the last time, None where it could."""
        return self._compiler.cache_fault

    # --- loading

    def load(self) -> Loaded:
        """Read what changed and give the engine for it: the same object where nothing did. Raises PolicyFault."""
        with self._lock:
            loaded = self._load()
            self._compiler.save()
            return loaded

    def look(self) -> Loaded | None:
        """Load what changed, once two looks in a row saw the same; None: there is nothing to take. Raises PolicyFault.

        A folder that is just being copied is left alone until it rests. What was refused is tried again only after
        files changed again.
        """
        with self._lock:
            with without_collection():
                marks = marks_of(self.sources)
            settled = marks == self._glimpse
            first_look = self._glimpse is None
            self._glimpse = marks
            if first_look or not settled:
                return None
            if self._loaded is not None and self._state is not None and marks == self._state.marks:
                return self._loaded
            if marks == self._refused:
                return None
            try:
                return self.load()
            except PolicyFault:
                self._refused = marks
                raise

    def read_texts(self) -> None:
        """Read now what an engine from the cache left unread, so that no later change or question waits for it."""
        with self._lock:
            if self._loaded is not None:
                with without_collection(for_good=True):
                    _ = self._loaded.engine.policies

    # --- parts

    def _load(self) -> Loaded:
        with without_collection():
            state = read_state(self.sources, self._state)
        digest = state.digest()
        if self._loaded is not None and self._loaded.digest == digest:
            self._state = state.without_entity_bytes()
            return self._loaded
        schema, entities = self._reader.schema(state), self._reader.entities(state)
        with without_collection(for_good=True):
            engine = self._compiler.engine(
                self._said_by(state),
                partial(self._policies_of, state),
                entities,
                schema,
                schema_source=schema_digest(state),
                check=partial(self._check, schema),
                passed=partial(self._note_valid, schema),
                reads_now=not self._leaves_texts,
                like=None if self._loaded is None else self._loaded.engine,
            )
        # From here on nothing fails: all of it is taken together.
        self._leaves_texts = False
        self._state, self._loaded = state.without_entity_bytes(), Loaded(engine, digest, state.stamp)
        return self._loaded

    def _said_by(self, state: FolderState) -> list[bytes]:
        """Give what a compiled set depends on, but for the schema: who validated it, how, and the policies."""
        said = [f"{__version__} {self.sources.validation}".encode()]
        for path, file in state.policies.items():
            said += (state.prefix(path).encode("utf-8", "surrogateescape"), file.digest)
        return said

    def _policies_of(self, state: FolderState) -> PolicySet:
        with self._lock:
            return self._reader.policies(state)

    def _check(self, schema: Schema | None, policies: PolicySet) -> None:
        if schema is None:
            return
        report = self._validator_of(schema).validate(policies)
        if not report.ok:
            raise PolicyInvalid(report.errors)

    def _note_valid(self, schema: Schema | None, policies: PolicySet) -> None:
        """Spare policies of the cache another check: they passed it before they were compiled."""
        if schema is not None:
            with self._lock:
                self._validator_of(schema).suppose_valid(policies)

    def _validator_of(self, schema: Schema) -> Validator:
        """Give the one validator of a schema, which remembers what it has checked."""
        if self._validator is None or self._validator[0] is not schema:
            self._validator = schema, Validator(schema, self.sources.validation)
        return self._validator[1]
