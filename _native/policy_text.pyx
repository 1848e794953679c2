# cython: autotestdict=False, auto_pickle=False
"""Where the statements of a policy text begin and end, found in one pass."""

cimport cython
from cpython.unicode cimport PyUnicode_DATA, PyUnicode_GET_LENGTH, PyUnicode_KIND, PyUnicode_READ


cdef inline bint _is_space(Py_UCS4 c) noexcept:
    return (
        c == 32 or 9 <= c <= 13 or c == 0x85 or c == 0xA0 or c == 0x1680 or 0x2000 <= c <= 0x200A or c == 0x2028
        or c == 0x2029 or c == 0x202F or c == 0x205F or c == 0x3000
    )


def split_statements(str text not None):
    """Give (start, end, line, column) of each statement: from its first character to behind its `;`.

    Strings and comments are passed over, white space and comments between statements belong to none. What follows the
    last `;` is a statement without end, where it is more than white space and comments. Offsets count characters from
    0, lines and columns from 1.
    """
    cdef Py_ssize_t length = PyUnicode_GET_LENGTH(text)
    cdef int kind = PyUnicode_KIND(text)
    cdef void* data = PyUnicode_DATA(text)
    cdef Py_ssize_t i = 0, start = -1, line = 1, line_start = 0, first_line = 1, first_column = 1
    cdef Py_UCS4 c
    cdef list found = []
    while i < length:
        c = PyUnicode_READ(kind, data, i)
        if c == c"\n":
            line += 1
            i += 1
            line_start = i
            continue
        if c == c"/" and i + 1 < length and PyUnicode_READ(kind, data, i + 1) == c"/":
            # A comment ends at either, as Cedar has it: `\r` alone must not hide what follows it.
            while i < length and PyUnicode_READ(kind, data, i) != c"\n" and PyUnicode_READ(kind, data, i) != c"\r":
                i += 1
            continue
        if _is_space(c):
            i += 1
            continue
        if start < 0:
            start = i
            first_line = line
            first_column = i - line_start + 1
        i += 1
        if c == c";":
            found.append((start, i, first_line, first_column))
            start = -1
        elif c == c'"':
            while i < length:
                c = PyUnicode_READ(kind, data, i)
                i += 1
                if c == c"\\":
                    if i < length and PyUnicode_READ(kind, data, i) == c"\n":
                        line += 1
                        line_start = i + 1
                    i += 1
                elif c == c"\n":
                    line += 1
                    line_start = i
                elif c == c'"':
                    break
            if i > length:
                i = length
    if start >= 0:
        found.append((start, length, first_line, first_column))
    return found
