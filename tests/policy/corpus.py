"""Cedar's public integration tests: hand-written ones, and those that its fuzzer kept (`shared/vectors/cedar`).

Each has a schema, policies, entities and requests, with Cedar's answers: whether the policies validate, and for each
request the decision, the policies that made it and those that erred. Ids are `policy0`, …, by place.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from gateway._native.uid import EntityUid
from gateway.policy.engine import Engine
from gateway.policy.entities import Entities
from gateway.policy.faults import PolicyFault
from gateway.policy.policy_set import PolicySet
from gateway.policy.requests import parse_context, validate_request
from gateway.policy.schema import Schema
from tests.oracle import policy as oracle

ARCHIVE = "corpus-tests.tar.gz"


@dataclass
class Test:
    """One file of the corpus, with what it refers to."""

    __test__ = False

    name: str
    schema: str
    policies: str
    entities: str
    should_validate: bool
    requests: list[dict[str, Any]]


@dataclass
class Tally:
    """What was compared, and what came out differently."""

    tests: int = 0
    validations: int = 0
    requests: int = 0
    decisions: int = 0
    reasons: int = 0
    errors: int = 0
    failures: list[str] = field(default_factory=list)

    def check(self, name: str, ours: object, wanted: object, where: str) -> None:
        """Count a check that held, or note one that did not."""
        if ours == wanted:
            setattr(self, name, getattr(self, name) + 1)
        else:
            self.failures.append(f"{where}: {name}: {ours!r}, wanted {wanted!r}")


def hand_written(folder: Path) -> Iterator[Test]:
    """Read the tests below `tests/`."""
    for path in sorted((folder / "tests").glob("*/*.json")):
        yield _test(
            path.relative_to(folder).as_posix(),
            json.loads(path.read_bytes()),
            lambda name: (folder / name).read_text(encoding="utf-8"),
        )


@lru_cache(maxsize=1)
def _archive(folder: Path) -> Mapping[str, bytes]:
    with tarfile.open(folder / ARCHIVE) as archive:
        return {member.name: _bytes(archive, member) for member in archive if member.isfile()}


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(member)
    assert file is not None
    return file.read()


def generated(folder: Path, chunk: int = 0, chunks: int = 1) -> Iterator[Test]:
    """Read every `chunks`th test of the archive, from the `chunk`th on."""
    files = _archive(folder)
    names = sorted(name for name in files if name.endswith(".json") and not name.endswith(".entities.json"))
    for name in names[chunk::chunks]:
        yield _test(name, json.loads(files[name]), lambda path: files[path].decode())


def _test(name: str, data: dict[str, Any], read: Any) -> Test:
    return Test(
        name,
        read(data["schema"]),
        read(data["policies"]),
        read(data["entities"]),
        data["shouldValidate"],
        data["requests"],
    )


@lru_cache(maxsize=256)
def _policies(text: str) -> PolicySet:
    return PolicySet.parse(text)


@lru_cache(maxsize=256)
def _schema(text: str) -> Schema:
    return Schema.parse(text)


def _uid(data: dict[str, str]) -> EntityUid:
    return EntityUid(data["type"], data["id"])


def check_validation(test: Test, tally: Tally) -> None:
    """Validate the policies of a test."""
    tally.tests += 1
    try:
        report = _policies(test.policies).validate(_schema(test.schema), mode="strict")
        tally.check("validations", report.ok, test.should_validate, test.name)
    except PolicyFault as fault:
        tally.failures.append(f"{test.name}: {type(fault).__name__}: {fault}")


def run(test: Test, tally: Tally, *, with_oracle: bool = False) -> None:
    """Put a test through schema, entities, requests and engine; with the oracle too, if asked."""
    tally.tests += 1
    try:
        _run(test, tally, with_oracle)
    except (PolicyFault, AssertionError) as fault:
        tally.failures.append(f"{test.name}: {type(fault).__name__}: {fault}")


def _run(test: Test, tally: Tally, with_oracle: bool) -> None:
    schema, policies = _schema(test.schema), _policies(test.policies)
    known = Entities.from_json(test.entities, schema=schema)
    engine = Engine(policies, known, schema)
    for number, asked in enumerate(test.requests):
        where = f"{test.name} request {number}"
        principal, action, resource = _uid(asked["principal"]), _uid(asked["action"]), _uid(asked["resource"])
        context = parse_context(asked["context"], schema, action)
        if asked.get("validateRequest", True):
            validate_request(schema, principal, action, resource, context)
        answer = engine.authorize(principal, action, resource, context)
        assert answer.faults == (), (where, answer)
        assert engine.allows(principal, action, resource, context) == answer.allowed, where
        tally.requests += 1
        tally.check("decisions", "allow" if answer.allowed else "deny", asked["decision"].lower(), where)
        tally.check("reasons", answer.reasons, frozenset(asked["reason"]), where)
        tally.check("errors", answer.errors, frozenset(asked["errors"]), where)
        if with_oracle:
            slow = oracle.authorize(
                policies.policies, oracle.Request(principal, action, resource, context), as_plain(known)
            )
            assert (answer.allowed, answer.reasons, answer.errors) == (slow.allowed, slow.reasons, slow.errors), where


def as_plain(known: Entities) -> dict[EntityUid, oracle.Entity]:
    """Give the entities of a store to the oracle."""
    made = {}
    for uid in known.store:
        found = known.store.get(uid)
        assert found is not None
        attributes, parents, tags = found
        made[uid] = oracle.Entity(attributes, frozenset(parents), tags)
    return made
