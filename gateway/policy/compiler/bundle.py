"""Compiled sets as bytes, for a cache on disk.

A bundle is valid for exactly one key: a hash of the sources, the schema and the compiler's version. Whatever is wrong
with it (another key, a cut, a flipped bit, a program that the machine's verifier refuses) makes it no bundle: the
caller compiles anew. The hash at its end guards against accidents, not against a person who can write the file; that
the machine runs nothing unsafe is the verifier's work.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from gateway._native.vm import FORMAT, Program, Rule

COMPILER_VERSION: Final = 1
"""Goes up whenever the same source compiles to other code."""

_MAGIC: Final = b"PCPB"
_DIGEST_BYTES: Final = 32
_head = struct.Struct("<4s32sIIII")  # magic, key, policies, programs, bytes of ids, bytes of heads
_POLICIES_MAX: Final = 10_000_000


class BundleError(ValueError):
    """Bytes that are no bundle for this key."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """Policies ready to be bound: ids and rules, in the order of the set."""

    ids: tuple[str, ...]
    rules: tuple[Rule, ...]


def bundle_key(sources: Iterable[bytes], schema: bytes = b"") -> bytes:
    """Give the key of what was compiled from `sources`, in their order, under `schema`."""
    digest = blake2b(struct.pack("<II", COMPILER_VERSION, FORMAT), digest_size=_DIGEST_BYTES)
    for part in (schema, *sources):
        digest.update(struct.pack("<Q", len(part)))
        digest.update(part)
    return digest.digest()


def bundle_to_bytes(key: bytes, ids: Sequence[str], rules: Sequence[Rule]) -> bytes:
    """Write a bundle. Programs that rules share are written once."""
    images: dict[bytes, int] = {}
    program_of = array("I", [images.setdefault(rule.program.image, len(images)) for rule in rules])
    names = [name.encode() for name in ids]
    heads = [rule.head for rule in rules]
    lengths = array("I", map(len, [*names, *heads, *images]))
    body = b"".join(
        [
            _head.pack(_MAGIC, key, len(names), len(images), sum(map(len, names)), sum(map(len, heads))),
            lengths.tobytes(),
            program_of.tobytes(),
            *names,
            *heads,
            *images,
        ]
    )
    return body + blake2b(body, digest_size=_DIGEST_BYTES).digest()


def bundle_from_bytes(key: bytes, data: bytes) -> Bundle:
    """Read a bundle that was written for `key`. Raises BundleError for anything else."""
    if len(data) < _head.size + _DIGEST_BYTES:
        raise BundleError("it is cut off")
    magic, found_key, policies, programs, _, _ = _head.unpack_from(data)
    if magic != _MAGIC or found_key != key:
        raise BundleError("it was compiled from something else")
    end = len(data) - _DIGEST_BYTES
    view = memoryview(data)
    if blake2b(view[:end], digest_size=_DIGEST_BYTES).digest() != data[end:]:
        raise BundleError("it is damaged")
    tables_end = _head.size + 4 * (3 * policies + programs)
    if policies > _POLICIES_MAX or programs > policies or tables_end > end:
        raise BundleError("it is cut off")
    numbers = array("I", data[_head.size : tables_end])
    lengths, program_of = numbers[: 2 * policies + programs], numbers[2 * policies + programs :]
    if tables_end + sum(lengths) != end or any([number >= programs for number in program_of]):
        raise BundleError("its tables contradict each other")
    pieces = []
    at = tables_end
    for length in lengths:
        pieces.append(data[at : at + length])
        at += length
    try:
        images = [Program(image) for image in pieces[2 * policies :]]
        ids = tuple([piece.decode() for piece in pieces[:policies]])
        heads = pieces[policies : 2 * policies]
        rules = tuple([Rule(head, images[number]) for head, number in zip(heads, program_of, strict=True)])
    except ValueError as error:
        raise BundleError(str(error)) from error
    return Bundle(ids, rules)
