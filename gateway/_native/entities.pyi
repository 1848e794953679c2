"""Entities, laid out for the policy machine (`_native/entities.pyx`)."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, final

from gateway._native.uid import EntityUid

__pyx_capi__: Final[dict[str, object]]

SET_ITEMS_MAX: Final[int]
RECORD_FIELDS_MAX: Final[int]
TEXT_BYTES_MAX: Final[int]
VALUES_MAX: Final[int]
PARENTS_MAX: Final[int]
ANCESTORS_MAX: Final[int]
DEPTH_MAX: Final[int]

_Upsert = tuple[EntityUid, Mapping[str, Any], Collection[EntityUid], Mapping[str, Any] | None]
_Move = tuple[EntityUid, Collection[EntityUid], Collection[EntityUid]]

@final
class EntityStore:
    """Entities by their uids.

    Values going in: bool, int within 64 bits, str, EntityUid, Decimal, IPAddr, Datetime, Duration, dict for records,
    list, tuple, set or frozenset for sets. Coming out, sets are tuples in canonical order. Needs the GIL; a change is
    atomic for whoever decides, and waits for those that decide without the GIL. Texts, nodes and values that nothing
    uses any more are given back at once, to be used again by this store; names of types and attributes, and what a
    policy names, stay as long as the store.
    """

    def __new__(cls) -> EntityStore: ...
    def walk_type(self, name: str) -> None:
        """Let entities of this type be found by walking down from them; see `entities.h`. Before the first of them."""

    def source_type(self, name: str, sourced: bool = True) -> None:
        """Say that entities of this type are kept elsewhere, and here only after they were fetched; or no more so.

        A decision that would rest on one that is not here ends with the fault `entity_not_resident`. Entities of the
        type that are defined stay; `remove` makes one go, and nothing is known of it then. Raises ValueError for a type
        that is walked.
        """

    @property
    def has_sourced_types(self) -> bool:
        """Whether entities of any type are kept elsewhere."""

    def is_sourced(self, name: str) -> bool:
        """Tell whether entities of this type are kept elsewhere."""

    def resident(self, uid: EntityUid) -> bool:
        """Tell whether decisions may rest on what is here of the entity: always, but for one that must be fetched."""

    def away(self, uid: EntityUid) -> frozenset[EntityUid]:
        """Give what must be fetched before it is known what the entity is in: itself, and what is above it."""

    def settle(self, uids: Iterable[EntityUid]) -> int:
        """Say of entities that their source does not know them: they are here, and undefined; give the new revision.

        Those that are defined are undefined first. Raises ValueError for one whose type is kept nowhere else.
        """

    def idle(self, uids: Iterable[EntityUid]) -> None:
        """Mark entities: `is_idle` is true of them from now on, until a decision is about them."""

    def is_idle(self, uid: EntityUid) -> bool:
        """Tell whether no decision had the entity as principal or resource since it was marked by `idle`.

        False for an entity that nothing defines or names. Only decisions of a store with sourced types count.
        """

    def evict(self, uids: Iterable[EntityUid]) -> int:
        """Let go what is here of entities that are kept elsewhere; give the new revision.

        Raises ValueError for one whose type is kept nowhere else.
        """

    def put(
        self,
        uid: EntityUid,
        attributes: Mapping[str, Any],
        parents: Collection[EntityUid] = (),
        tags: Mapping[str, Any] | None = None,
        *,
        cycles: Literal["refuse", "allow"] = "refuse",
    ) -> int:
        """Define one entity, in place of what it was; give the new revision. See `apply`."""

    def remove(self, uid: EntityUid) -> int:
        """Undefine one entity; give the new revision."""

    def apply(
        self,
        upserts: Sequence[_Upsert],
        deletes: Sequence[EntityUid] = (),
        moves: Sequence[_Move] = (),
        *,
        cycles: Literal["refuse", "allow"] = "refuse",
    ) -> int:
        """Define and undefine entities, all or none; give the new revision.

        `upserts`: (uid, attributes, parents, tags or None) each; attributes and tags are dicts. `moves`: (uid, parents
        that are added, parents that are taken out); what is both stays, and the entity is defined afterwards. One that
        is moved is not changed otherwise in the same call. With cycles="refuse", ValueError names an entity of these
        that would be in itself, and the way; with "allow" cycles are harmless. Raises ValueError for values that are
        none and for what goes beyond a limit (`VALUES_MAX` and the others of this module, each named in the message),
        TypeError for what is no uid, MemoryError: then nothing is changed.
        """

    @property
    def revision(self) -> int:
        """Counts changes; that of `put` and `apply`."""

    @property
    def memory_bytes(self) -> int:
        """What is allocated for this store, without the allocator's own overhead."""

    def __len__(self) -> int: ...
    def __contains__(self, uid: object, /) -> bool: ...
    def __iter__(self) -> Iterator[EntityUid]: ...
    def get(self, uid: EntityUid) -> tuple[dict[str, Any], tuple[EntityUid, ...], dict[str, Any]] | None:
        """Give (attributes, parents, tags) of a defined entity, or None."""

    def own(self, uid: EntityUid) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Give (attributes, tags) of a defined entity, or None: what `get` gives, without its parents."""

    def has_parent(self, uid: EntityUid, parent: EntityUid) -> bool:
        """Tell whether an entity is directly in another."""

    def parent_count(self, uid: EntityUid) -> int:
        """Give how many parents an entity has."""

    def version(self, uid: EntityUid) -> int:
        """Give the revision at which the entity, or what it is in, changed last.

        What it is in counts as changed where an entity above it got other parents. 0 for an entity that nothing defines
        or names, and for one that was only ever named.
        """

    def uids(self, type: str | None = None) -> Iterator[EntityUid]:
        """Yield the uids of all defined entities, or of those of a type; what changes meanwhile may be missed."""

    def count_of(self, type: str) -> int:
        """Give how many entities of a type are defined."""

    def types(self) -> list[str]:
        """Give the types that have defined entities."""

    def is_in(self, uid: EntityUid, container: EntityUid) -> bool:
        """Tell whether `uid` is `container`, or below it."""

    def ancestors(self, uid: EntityUid) -> frozenset[EntityUid]:
        """Give all that the entity is in, but for itself: also what is found by walking."""

    def descendants(self, uid: EntityUid) -> frozenset[EntityUid]:
        """Give all that is in the entity, but for itself."""

    def children(self, uid: EntityUid) -> frozenset[EntityUid]:
        """Give the entities of which this is a direct parent."""
