"""Entities of a file, held against the config's schema and made what sources keep; and the other way round."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import click

from gateway.cli.policy.input import fail_policy

if TYPE_CHECKING:
    from gateway._native.uid import EntityUid
    from gateway.cli.policy.entities.sources import Body
    from gateway.config import LoadedConfig
    from gateway.policy.schema import Schema

file_argument = click.argument("entities", type=click.File("rb"), metavar="FILE")


class EntityFile:
    """A text of Cedar's entity JSON, read as often as is wanted and never in memory as objects."""

    def __init__(self, text: bytes, schema: Schema | None, types: Collection[str], bytes_max: int) -> None:
        self._text = text
        self._schema = schema
        self._types = types
        self._bytes_max = bytes_max

    def check(self) -> int:
        """Return how many entities there are. Raises EntityError with what is wrong, FAULTS_MAX at most."""
        from gateway.policy.entities import FAULTS_MAX
        from gateway.policy.faults import EntityError, Fault
        from gateway.policy.json_text import load_json_items
        from gateway.policy.json_values import Misfit

        faults: list[Fault] = []
        seen: set[EntityUid] = set()
        try:
            for index, item in enumerate(load_json_items(self._text, self._bytes_max, EntityError)):
                try:
                    uid, _ = self._body(item, index)
                except Misfit as misfit:
                    faults.append(misfit.as_fault())
                else:
                    if uid in seen:
                        faults.append(Fault("duplicate_entity", f"`{uid}` stands here twice", pointer=f"/{index}"))
                    seen.add(uid)
                if len(faults) == FAULTS_MAX:
                    break
        except EntityError as error:
            faults += error.faults
        if faults:
            raise EntityError(faults)
        return len(seen)

    def bodies(self) -> Iterator[Body]:
        """Yield the entities of a text that was checked."""
        from gateway.policy.faults import EntityError
        from gateway.policy.json_text import load_json_items

        for index, item in enumerate(load_json_items(self._text, self._bytes_max, EntityError)):
            yield self._body(item, index)

    def _body(self, item: Any, index: int) -> Body:
        """Make of one entity what a source keeps: with values in their explicit forms, which need no schema."""
        from gateway.policy.entities import check_entity, entity_from_json
        from gateway.policy.json_values import Misfit
        from gateway.stores import attributes

        entity = entity_from_json(item, self._schema, f"/{index}")
        if entity.uid.type not in self._types:
            hint = "name the type in `types` of one of `[[policy.sources]]`"
            raise Misfit("no_source", f"no source has entities of the type `{entity.uid.type}`", f"/{index}/uid", hint)
        if self._schema is not None:
            check_entity(entity, self._schema, f"/{index}")
        members = entity.to_json()
        del members["uid"]
        body = json.dumps(members, ensure_ascii=False, separators=(",", ":")).encode()
        try:
            attributes.check_entity(entity.uid, body)
        except ValueError as error:
            raise Misfit("not_kept", str(error), f"/{index}") from None
        return entity.uid, body


def read_file(loaded: LoadedConfig, text: bytes, as_json: bool) -> tuple[EntityFile, int]:
    """Read and check a file, or end with its faults; give it with the number of its entities."""
    from gateway.policy.faults import PolicyFault

    policy = loaded.config.policy
    types = {kind for source in policy.sources for kind in source.types}
    try:
        file = EntityFile(text, _schema_of(loaded), types, policy.entity_bytes_max)
        return file, file.check()
    except PolicyFault as error:
        fail_policy(error, as_json)


def document_of(uid: EntityUid, body: bytes) -> dict[str, object]:
    """Give an entity in Cedar's JSON, as its source has it. Raises ValueError for one that nobody can read."""
    from gateway.stores.attributes import load_json

    try:
        members = load_json(body)
    except ValueError as error:
        raise ValueError(f"the body of `{uid}` is no JSON: {error}") from error
    if not isinstance(members, dict):
        raise ValueError(f"the body of `{uid}` is no object")
    document: dict[str, object] = {"uid": {"type": uid.type, "id": uid.id}, "attrs": {}, "parents": []}
    document.update(members)
    return document


def line_of(uid: EntityUid, body: bytes) -> str:
    """Give the same on one line."""
    return json.dumps(document_of(uid, body), ensure_ascii=False)


def _schema_of(loaded: LoadedConfig) -> Schema | None:
    """Give the schema that the config's entities are held against. Raises PolicyFault."""
    from dataclasses import replace

    from gateway.front.policies import sources_of
    from gateway.policy.folder import FolderReader
    from gateway.policy.policy_files import read_state

    return FolderReader().entity_schema(read_state(replace(sources_of(loaded.config.policy), entities=None)))
