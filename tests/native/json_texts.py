"""JSON texts as Hypothesis strategies: written in every way the grammar allows, and broken in likely ways."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

CLAIMS = ("sub", "iss", "aud", "exp", "iat", "nbf", "jti", "scope", "client_id", "cnf")
SHORT = {'"': '\\"', "\\": "\\\\", "/": "\\/", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}

spaces = st.text(" \t\n\r", max_size=3)
characters = st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\/\b\f\n\r\t\0\x1f\x7f\x80é€😀abc')


def as_unit(char: str) -> str:
    """Write a character as \\u escapes: a surrogate pair beyond the basic plane."""
    units = char.encode("utf-16-be")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))


@st.composite
def strings(draw: st.DrawFn, content: st.SearchStrategy[str] | None = None) -> str:
    """Write a string, each character in one of the ways that are allowed for it."""
    written = ""
    for char in draw(content if content is not None else st.text(characters, max_size=12)):
        ways = [as_unit(char)]
        if char in SHORT:
            ways.append(SHORT[char])
        if char >= " " and char not in '"\\':
            ways = [char] * 6 + ways + [as_unit(char).upper().replace("\\U", "\\u")]
        written += draw(st.sampled_from(ways))
    return f'"{written}"'


numbers = (
    st.integers().map(str)
    | st.integers(min_value=2**63 - 3, max_value=2**63 + 3).flatmap(lambda n: st.sampled_from((str(n), str(-n))))
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.from_regex(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
    | st.sampled_from(("-0", "-0.0", "1E5", "1e400", "1e308", "1.8e308", "0e999", "1e-400", "5e-324", "17e307"))
)
names = strings(st.sampled_from(CLAIMS) | st.text(characters, max_size=6))


def arrays(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    @st.composite
    def write(draw: st.DrawFn) -> str:
        parts = draw(st.lists(inner, max_size=5))
        return "[" + (",".join(draw(spaces) + part + draw(spaces) for part in parts) or draw(spaces)) + "]"

    return write()


def objects(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    @st.composite
    def write(draw: st.DrawFn) -> str:
        parts = draw(st.lists(st.tuples(names, inner), max_size=6))
        pad: Callable[[], str] = lambda: draw(spaces)  # noqa: E731
        return "{" + (",".join(pad() + n + pad() + ":" + pad() + v + pad() for n, v in parts) or pad()) + "}"

    return write()


values = st.recursive(
    st.sampled_from(("true", "false", "null")) | numbers | strings(),
    lambda inner: arrays(inner) | objects(inner),
    max_leaves=8,
)
texts = st.tuples(spaces, objects(values), spaces).map(lambda parts: "".join(parts).encode())

PIECES = (
    b'"', b"\\", b"\\u", b"\\ud800", b"\\udc00", b"\\u0022", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\0", b"\x1f",
    b"\x80", b"\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"0", b"-", b".", b"e", b"1e400", b"true",
    b"nul", b'"sub":1,', b'"s\\u0075b":2,', b"9223372036854775808", b"NaN", b"\xef\xbb\xbf", b"//", b"'",
)  # fmt: skip


@st.composite
def broken_texts(draw: st.DrawFn) -> bytes:
    """Cut, double, replace or insert pieces of a good text."""
    text = draw(texts)
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        stop = draw(st.integers(start, min(len(text), start + 8)))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=2) | st.just(text[start:stop] * 2))
        text = text[:start] + piece + text[stop:]
    return text
