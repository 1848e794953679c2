"""A folder of policies, read: every `*.cedar` in it, its schema, and entities. One reader for the gateway and the CLI.

A file whose text is the same as before is not parsed again; of one that changed, only what changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.policy.entities import Entities
from gateway.policy.faults import EntityError, Fault, PolicySyntaxError, SchemaError
from gateway.policy.policy_files import FolderState, SourceFile, Sources, read_state, text_of
from gateway.policy.policy_set import PolicySet
from gateway.policy.related_entities import RelatedEntities
from gateway.policy.relation_rules import RelationRules
from gateway.policy.schema import Schema


@dataclass(frozen=True, slots=True)
class PolicyFolder:
    """What lies where the policies lie. `schema` is None where there is none."""

    policies: PolicySet
    schema: Schema | None
    entities: Entities
    files: tuple[Path, ...]  # of policies
    digest: str  # of all they say, as decision logs have it


def read_folder(path: Path, *, schema: Path | None = None, entities: Path | None = None) -> PolicyFolder:
    """Read policies, schema and entities. Raises PolicyFault for the first kind of them that is wrong."""
    reader = FolderReader()
    state = read_state(Sources(path, schema, entities))
    policies = reader.policies(state)
    found = reader.schema(state)
    return PolicyFolder(policies, found, reader.entities(state), tuple(map(Path, state.policies)), state.digest())


@dataclass(frozen=True, slots=True)
class _SchemaRead:
    """A schema as policies and as entities see it: the same, but for relations, which nobody writes into entities."""

    digest: bytes = b""
    for_policies: Schema | None = None
    for_entities: Schema | None = None
    rules: RelationRules | None = None  # None: it has no relations

    @classmethod
    def of(cls, digest: bytes, files: Mapping[str, SourceFile]) -> _SchemaRead:
        written = _read_schema(files)
        if written is None:
            return cls(digest)
        try:
            rules = RelationRules(written)
        except SchemaError as error:
            raise SchemaError([_in_file(fault, next(iter(files))) for fault in error.faults]) from None
        if not len(rules):
            return cls(digest, written, written)
        return cls(digest, rules.for_policies(written), rules.for_entities(written), rules)


@dataclass(frozen=True, slots=True)
class _Parsed:
    digest: bytes  # of the text
    prefix: str
    own: PolicySet  # of this file alone
    shown: PolicySet  # with the ids that they have among those of the other files


class FolderReader:
    """Makes policies, schemas and entities of files, and remembers the last of each. Belongs to one thread at a time.

    What is remembered goes by the hash of a text, so it stays right whatever fails in between.
    """

    def __init__(self) -> None:
        self._parsed: dict[str, _Parsed] = {}
        self._schema = _SchemaRead()
        self._entities: tuple[tuple[bytes, Schema | None], Entities] | None = None

    def policies(self, state: FolderState) -> PolicySet:
        """Read the policies of all files. Raises PolicySyntaxError with what is wrong in all of them.

        A policy's id is its `@id`, else `policy0`, `policy1`, … in its file, behind the file's name
        (`orders/policy0`) where there are several files.
        """
        parsed: dict[str, _Parsed] = {}
        faults: list[Fault] = []
        for path, file in state.policies.items():
            try:
                parsed[path] = self._parse(path, file, state.prefix(path))
            except PolicySyntaxError as error:
                faults += [_in_file(fault, path) for fault in error.faults]
        if faults:
            raise PolicySyntaxError(faults)
        self._parsed = parsed
        if len(parsed) == 1:
            return next(iter(parsed.values())).shown
        return PolicySet.merge([each.shown for each in parsed.values()])

    def _parse(self, path: str, file: SourceFile, prefix: str) -> _Parsed:
        known = self._parsed.get(path)
        if known is not None and known.digest == file.digest and known.prefix == prefix:
            return known
        like = None if known is None else known.own
        own = PolicySet.parse(text_of(path, file.data), file=path, ids="annotation", like=like)
        return _Parsed(file.digest, prefix, own, _told_apart(prefix, own) if prefix else own)

    def schema(self, state: FolderState) -> Schema | None:
        """Read the schema: one file of JSON, or texts that together are one; None where there is none.

        It is the schema of policies: with what relations make of its attributes.
        """
        digest = schema_digest(state)
        if digest != self._schema.digest:
            self._schema = _SchemaRead.of(digest, state.schemas)
        return self._schema.for_policies

    def entity_schema(self, state: FolderState) -> Schema | None:
        """Read the schema that entities are held against: without what relations alone may say."""
        self.schema(state)
        return self._schema.for_entities

    def entities(self, state: FolderState) -> Entities:
        """Read the entities by the schema. The same text and schema give the same object as the last time."""
        # Without a file as well: a schema's actions go into the store, which a former engine may still ask.
        key = b"" if state.entities is None else state.entities.digest, self.schema(state)
        if self._entities is None or self._entities[0] != key:
            self._entities = key, self._read_entities(state)
        return self._entities[1]

    def _read_entities(self, state: FolderState) -> Entities:
        read = self._schema
        try:
            if state.entities is None:
                entities = Entities()
            else:
                entities = Entities.from_json(state.entity_bytes(), schema=read.for_entities)
            return entities if read.rules is None else RelatedEntities.over(entities, read.rules)
        except EntityError as error:
            raise EntityError([_in_file(fault, str(state.sources.entities)) for fault in error.faults]) from None


def schema_digest(state: FolderState) -> bytes:
    """Give what the schema's files say, as a hash of each."""
    return b"".join(file.digest for file in state.schemas.values())


def _read_schema(files: Mapping[str, SourceFile]) -> Schema | None:
    if not files:
        return None
    as_json = [path for path in files if path.endswith(".json")]
    if as_json and len(files) > 1:
        hint = "use one JSON file, or texts only"
        raise SchemaError([Fault("two_schemas", "a schema in JSON stands beside another", hint, as_json[0])])
    try:
        if as_json:
            return Schema.from_json(files[as_json[0]].data)
        return Schema.parse_files([(text_of(path, file.data), path) for path, file in files.items()])
    except SchemaError as error:
        raise SchemaError([_in_file(fault, next(iter(files))) for fault in error.faults]) from None


def _told_apart(prefix: str, parsed: PolicySet) -> PolicySet:
    """Give a set in which ids that only count, of one file, are told from those of the others by `prefix`."""
    return PolicySet(
        [replace(each, id=each.annotations.get("id") or prefix + each.id) for each in parsed.policies.values()],
        [
            replace(each, id=each.statement.annotations.get("id") or prefix + each.id)
            for each in parsed.templates.values()
        ],
    )


def _in_file(fault: Fault, path: str) -> Fault:
    return fault if fault.file else replace(fault, file=path)
