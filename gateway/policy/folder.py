"""A folder of policies, read: every `*.cedar` below it, `*.cedarschema`, and entities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from gateway.policy.entities import Entities
from gateway.policy.faults import EntityError, Fault, PolicyFault, PolicySyntaxError, SchemaError
from gateway.policy.policy_set import PolicySet
from gateway.policy.schema import Schema

POLICY_SUFFIX: Final = ".cedar"
SCHEMA_SUFFIX: Final = ".cedarschema"


@dataclass(frozen=True, slots=True)
class PolicyFolder:
    """What lies where the policies lie. `schema` is None where there is none."""

    policies: PolicySet
    schema: Schema | None
    entities: Entities
    files: tuple[Path, ...]


def policy_files(path: Path) -> list[Path]:
    """Give the policy files: the file itself, or all below the folder, in the order of their names."""
    if path.is_dir():
        return sorted(each for each in path.rglob(f"*{POLICY_SUFFIX}") if each.is_file())
    return [path]


def schema_files(path: Path) -> list[Path]:
    """Give the schema files that lie in the folder, or beside the file."""
    folder = path if path.is_dir() else path.parent
    return sorted(each for each in folder.rglob(f"*{SCHEMA_SUFFIX}") if each.is_file())


def read_folder(path: Path, *, schema: Path | None = None, entities: Path | None = None) -> PolicyFolder:
    """Read policies, schema and entities. Raises PolicyFault for the first kind of them that is wrong.

    A policy's id is its `@id`, else `policy0`, `policy1`, … in its file, behind the file's name (`orders/policy0`)
    where there are several files.
    """
    files = policy_files(path)
    policies = read_policies(path, files)
    found = _read_schema([schema] if schema is not None and not schema.is_dir() else schema_files(schema or path))
    known = Entities() if entities is None else Entities.from_json(_read(entities, EntityError), schema=found)
    return PolicyFolder(policies, found, known, tuple(files))


def read_policies(path: Path, files: list[Path] | None = None) -> PolicySet:
    """Read the policies alone. Raises PolicySyntaxError with what is wrong in all files."""
    files = policy_files(path) if files is None else files
    if not files:
        raise PolicySyntaxError([Fault("no_policies", f"no {POLICY_SUFFIX} file in the folder", file=str(path))])
    sets: list[PolicySet] = []
    faults: list[Fault] = []
    for file in files:
        prefix = "" if len(files) == 1 else f"{file.relative_to(path).with_suffix('').as_posix()}/"
        try:
            parsed = PolicySet.parse(_read(file, PolicySyntaxError), file=str(file), ids="annotation")
            sets.append(told_apart(prefix, parsed) if prefix else parsed)
        except PolicySyntaxError as error:
            faults.extend(error.faults)
    if faults:
        raise PolicySyntaxError(faults)
    return PolicySet.merge(sets)


def told_apart(prefix: str, parsed: PolicySet) -> PolicySet:
    """Give a set in which ids that only count, of one file, are told from those of the others by `prefix`."""
    return PolicySet(
        [replace(each, id=each.annotations.get("id") or prefix + each.id) for each in parsed.policies.values()],
        [
            replace(each, id=each.statement.annotations.get("id") or prefix + each.id)
            for each in parsed.templates.values()
        ],
    )


def _read_schema(files: list[Path]) -> Schema | None:
    if not files:
        return None
    if len(files) == 1 and files[0].suffix == ".json":
        return Schema.from_json(_read(files[0], SchemaError))
    return Schema.parse_files([(_read(file, SchemaError), str(file)) for file in files])


def _read(file: Path, error: type[PolicyFault]) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as wrong:
        reason = (wrong.strerror or "cannot be read").lower()
        raise error([Fault("unreadable", reason, file=str(file))]) from None
    except UnicodeDecodeError:
        raise error([Fault("unreadable", "is no UTF-8 text", file=str(file))]) from None
