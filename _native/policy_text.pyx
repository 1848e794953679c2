# cython: autotestdict=False, auto_pickle=False
"""Policy text as pieces: statements, tokens, and what two texts share."""

from cpython.unicode cimport PyUnicode_DATA, PyUnicode_GET_LENGTH, PyUnicode_KIND, PyUnicode_Substring
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memcmp

# CPython stores the characters of a text in units of one, two or four bytes.
ctypedef fused Character:
    uint8_t
    uint16_t
    uint32_t

cdef enum:
    COMPARED_AT_ONCE = 4096  # bytes


cdef inline bint _is_space(Py_UCS4 c) noexcept nogil:
    """White space as Unicode's property has it; Python's `isspace` takes four control characters more."""
    return (
        c == 32 or 9 <= c <= 13 or c == 0x85 or c == 0xA0 or c == 0x1680 or 0x2000 <= c <= 0x200A or c == 0x2028
        or c == 0x2029 or c == 0x202F or c == 0x205F or c == 0x3000
    )


cdef inline bint _begins_name(Py_UCS4 c) noexcept nogil:
    return 97 <= c <= 122 or 65 <= c <= 90 or c == 95


cdef inline bint _is_digit(Py_UCS4 c) noexcept nogil:
    return 48 <= c <= 57


cdef inline Py_ssize_t _comment_end(const Character* data, Py_ssize_t i, Py_ssize_t length) noexcept nogil:
    """A comment ends at either, as Cedar has it: `\\r` alone must not hide what follows it."""
    while i < length and data[i] != 10 and data[i] != 13:
        i += 1
    return i


cdef inline Py_ssize_t _string_end(const Character* data, Py_ssize_t i, Py_ssize_t length) noexcept nogil:
    """Give the offset behind the closing quote of the string whose inside begins at `i`, or -1."""
    while i < length:
        if data[i] == 34:
            return i + 1
        i += 2 if data[i] == 92 else 1
    return -1


# --- statements


cdef list _split(
    const Character* data, Py_ssize_t length, Py_ssize_t i, Py_ssize_t line, Py_ssize_t column, Py_ssize_t stop
):
    cdef list found = []
    cdef Py_ssize_t line_start = i - column + 1, start = -1, first_line = 1, first_column = 1, k, end
    cdef Character c
    while i < length:
        c = data[i]
        if c == 10:
            line += 1
            i += 1
            line_start = i
            continue
        if c == 47 and i + 1 < length and data[i + 1] == 47:
            i = _comment_end(data, i, length)
            continue
        if _is_space(c):
            i += 1
            continue
        if start < 0:
            start = i
            first_line = line
            first_column = i - line_start + 1
        i += 1
        if c == 59:
            found.append((start, i, first_line, first_column))
            start = -1
            if 0 <= stop <= i:
                return found
        elif c == 34:
            end = _string_end(data, i, length)
            if end < 0:
                end = length
            for k in range(i, end):
                if data[k] == 10:
                    line += 1
                    line_start = k + 1
            i = end
    if start >= 0:
        found.append((start, length, first_line, first_column))
    return found


def split_statements(
    str text not None, Py_ssize_t start=0, Py_ssize_t line=1, Py_ssize_t column=1, Py_ssize_t stop=-1
):
    """Give (start, end, line, column) of each statement: from its first character to behind its `;`.

    Strings and comments are passed over, white space and comments between statements belong to none. What follows the
    last `;` is a statement without end, where it is more than white space and comments. Offsets count characters from
    0, lines and columns from 1. Reading begins at `start`, which stands at `line` and `column` and lies between two
    statements, and ends after the first statement that ends at `stop` or behind it, unless `stop` is negative.
    """
    cdef Py_ssize_t length = PyUnicode_GET_LENGTH(text)
    if not 0 <= start <= length:
        raise ValueError("the start lies outside the text")
    if PyUnicode_KIND(text) == 1:
        return _split(<const uint8_t*>PyUnicode_DATA(text), length, start, line, column, stop)
    if PyUnicode_KIND(text) == 2:
        return _split(<const uint16_t*>PyUnicode_DATA(text), length, start, line, column, stop)
    return _split(<const uint32_t*>PyUnicode_DATA(text), length, start, line, column, stop)


# --- tokens


cdef inline Py_ssize_t _token_end(
    const Character* data, Py_ssize_t i, Py_ssize_t length, bint* is_unclosed
) noexcept nogil:
    """Give the offset behind the token that begins at `i`.

    Where one string is not closed, all quotes behind it are escaped, so none of them opens a string that is closed:
    `is_unclosed` saves looking for its end again, which would take quadratic time.
    """
    cdef Py_UCS4 c = data[i], following = data[i + 1] if i + 1 < length else 0
    cdef Py_ssize_t end
    if _begins_name(c) or (c == 63 and _begins_name(following)):  # `?` begins a slot
        i += 1
        while i < length and (_begins_name(data[i]) or _is_digit(data[i])):
            i += 1
        return i
    if _is_digit(c):
        while i < length and _is_digit(data[i]):
            i += 1
        return i
    if c == 34:
        end = -1 if is_unclosed[0] else _string_end(data, i + 1, length)
        is_unclosed[0] = end < 0
        return i + 1 if end < 0 else end
    if following == 61 and (c == 61 or c == 33 or c == 60 or c == 62):  # == != <= >=
        return i + 2
    if following == c and (c == 58 or c == 38 or c == 124):  # :: && ||
        return i + 2
    return i + 1


cdef _tokenize(str text, const Character* data, Py_ssize_t length, list texts, list ends):
    cdef Py_ssize_t i = 0, end
    cdef bint is_unclosed = False
    cdef Character c
    while i < length:
        c = data[i]
        if _is_space(c):
            i += 1
            continue
        if c == 47 and i + 1 < length and data[i + 1] == 47:
            i = _comment_end(data, i, length)
            continue
        end = _token_end(data, i, length, &is_unclosed)
        texts.append(PyUnicode_Substring(text, i, end))
        ends.append(end)
        i = end
    texts.append("")
    ends.append(length)


def tokenize(str text not None):
    """Give the tokens' texts, and the offsets behind them, without white space and comments; the last one is empty.

    What begins no token of the language is a token of one character, so that every text has tokens.
    """
    cdef list texts = [], ends = []
    cdef Py_ssize_t length = PyUnicode_GET_LENGTH(text)
    if PyUnicode_KIND(text) == 1:
        _tokenize(text, <const uint8_t*>PyUnicode_DATA(text), length, texts, ends)
    elif PyUnicode_KIND(text) == 2:
        _tokenize(text, <const uint16_t*>PyUnicode_DATA(text), length, texts, ends)
    else:
        _tokenize(text, <const uint32_t*>PyUnicode_DATA(text), length, texts, ends)
    return texts, ends


# --- two texts


def shared_ends(str old not None, str new not None):
    """Give how many characters both texts begin with, and how many further ones both end with.

    Texts of which one has characters beyond the other's storage width (a first emoji, say) share nothing.
    """
    if PyUnicode_KIND(old) != PyUnicode_KIND(new):
        return 0, 0
    cdef Py_ssize_t width = PyUnicode_KIND(old)  # bytes a character
    cdef const char* a = <const char*>PyUnicode_DATA(old)
    cdef const char* b = <const char*>PyUnicode_DATA(new)
    cdef Py_ssize_t a_size = PyUnicode_GET_LENGTH(old) * width, b_size = PyUnicode_GET_LENGTH(new) * width
    cdef Py_ssize_t most = a_size if a_size < b_size else b_size
    cdef Py_ssize_t head = 0, tail = 0
    while head + COMPARED_AT_ONCE <= most and memcmp(a + head, b + head, COMPARED_AT_ONCE) == 0:
        head += COMPARED_AT_ONCE
    while head < most and a[head] == b[head]:
        head += 1
    head -= head % width
    most -= head
    a += a_size
    b += b_size
    while (
        tail + COMPARED_AT_ONCE <= most
        and memcmp(a - tail - COMPARED_AT_ONCE, b - tail - COMPARED_AT_ONCE, COMPARED_AT_ONCE) == 0
    ):
        tail += COMPARED_AT_ONCE
    while tail < most and a[-tail - 1] == b[-tail - 1]:
        tail += 1
    return head // width, tail // width
