# cython: autotestdict=False, auto_pickle=False
"""Names of entities: `User::"alice"`."""

cimport cython


cdef str _quoted(str text):
    """Give `text` as a Cedar string literal."""
    cdef list out = ['"']
    for c in text:
        if c == '"' or c == "\\":
            out.append("\\" + c)
        elif c == "\n":
            out.append("\\n")
        elif c == "\r":
            out.append("\\r")
        elif c == "\t":
            out.append("\\t")
        elif c == "\0":
            out.append("\\0")
        elif c.isprintable():
            out.append(c)
        else:
            out.append("\\u{%x}" % ord(c))
    out.append('"')
    return "".join(out)


@cython.final
cdef class EntityUid:
    """A type and an id; immutable, hashable, ordered by (type, id). `str()` gives Cedar's spelling."""

    __match_args__ = ("type", "id")

    def __cinit__(self, str type not None, str id not None):
        self.type = type
        self.id = id
        self.hash_value = hash((type, id))
        self.store_token = 0

    def __hash__(self):
        return self.hash_value

    def __eq__(self, other):
        if self is other:
            return True
        if not isinstance(other, EntityUid):
            return NotImplemented
        cdef EntityUid that = <EntityUid>other
        return self.hash_value == that.hash_value and self.id == that.id and self.type == that.type

    def __lt__(self, other):
        if not isinstance(other, EntityUid):
            return NotImplemented
        cdef EntityUid that = <EntityUid>other
        return (self.type, self.id) < (that.type, that.id)

    def __le__(self, other):
        return self == other or self < other

    def __gt__(self, other):
        return not self <= other

    def __ge__(self, other):
        return not self < other

    def __str__(self):
        return self.type + "::" + _quoted(self.id)

    def __repr__(self):
        return f"EntityUid({self.type!r}, {self.id!r})"

    def __reduce__(self):
        return EntityUid, (self.type, self.id)


def quoted(str text not None):
    """Give `text` as a Cedar string literal, with Cedar's escapes."""
    return _quoted(text)
