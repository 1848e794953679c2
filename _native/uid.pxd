"""Names of entities: `User::"alice"`."""

from libc.stdint cimport uint32_t, uint64_t

cdef class EntityUid:
    """A type and an id; immutable, hashable, ordered by (type, id)."""
    cdef readonly str type                 # qualified: `Shop::User`
    cdef readonly str id                   # any text
    cdef Py_hash_t hash_value
    # Where the entity lies in the store that was asked last: a hint, checked by store token and generation.
    cdef uint64_t store_token              # 0 = none
    cdef uint32_t node_index
    cdef uint32_t node_generation
