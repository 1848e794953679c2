"""`TomlLines`: every key's line, held to what `tomllib` reads."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.toml_lines import Path, TomlLines


def lines_of(text: str) -> dict[Path, int]:
    return dict(TomlLines(text).paths())


def paths_of(value: object, path: Path = ()) -> set[Path]:
    """Every path that a parsed document has."""
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, item in value.items():
            found |= paths_of(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found |= paths_of(item, (*path, index))
    return found


def test_keys_of_tables_have_their_own_lines() -> None:
    assert lines_of("a = 1\n[server]\n# listen = 0\nlisten = 2\n\n[log]\nlevel = 'x'\n") == {
        ("a",): 1,
        ("server",): 2,
        ("server", "listen"): 4,
        ("log",): 6,
        ("log", "level"): 7,
    }


def test_array_elements_of_tables_are_counted() -> None:
    found = lines_of("[[r]]\np = 1\n[[r]]\n\np = 2\n[r.sub]\nx = 1\n")
    assert found[("r", 0)] == 1
    assert found[("r", 1)] == 3
    assert found[("r", 1, "p")] == 5
    assert found[("r", 1, "sub", "x")] == 7


def test_nested_arrays_of_tables_count_anew_in_each_element() -> None:
    found = lines_of("[[a]]\n[[a.b]]\nx=1\n[[a.b]]\nx=2\n[[a]]\n[[a.b]]\nx=3\n")
    assert found[("a", 0, "b", 1, "x")] == 5
    assert found[("a", 1, "b", 0, "x")] == 8


def test_dotted_and_quoted_keys_are_paths() -> None:
    found = lines_of('[identity]\nheaders."X-Auth-\\u0045mail" = "e"\n"a.b".\'c d\' . e = 1\n')
    assert found[("identity", "headers", "X-Auth-Email")] == 2
    assert found[("identity", "a.b", "c d", "e")] == 3
    assert found[("identity", "headers")] == 2


def test_values_that_look_like_keys_are_skipped() -> None:
    text = 'a = """\nb = 1\n[c]\n"quoted" """\nd = \'\'\'\ne = 2\n\'\'\'\nf = "g = \\" # 1"\nh = 3\n'
    assert lines_of(text) == {("a",): 1, ("d",): 5, ("f",): 8, ("h",): 9}


@pytest.mark.parametrize(
    "quotes", ['""""""', '"""x""""', '"""x"""""', "''''''", "'''x''''", "'''x'''''", '"""\\""""', '"""\\\n"""']
)
def test_quotes_at_the_end_of_a_multi_line_string_belong_to_it(quotes: str) -> None:
    text = f"a = {quotes}\nb = 1\n"
    tomllib.loads(text)
    assert lines_of(text)[("b",)] == text.count("\n")


def test_elements_of_an_array_over_several_lines_have_their_own_lines() -> None:
    found = lines_of('a = [ # one ]\n  "x", # two, "y"\n\n  "y",\n  [1,\n 2],\n]\nb = 1\n')
    assert found[("a", 0)] == 2
    assert found[("a", 1)] == 4
    assert found[("a", 2, 1)] == 6
    assert found[("b",)] == 8


def test_inline_tables_are_looked_into() -> None:
    found = lines_of('routes = [\n  {path = "/a", methods = ["GET"]},\n  {path = "/b"},\n]\n')
    assert found[("routes", 1, "path")] == 3
    assert found[("routes", 0, "methods", 0)] == 2


def test_a_missing_key_is_placed_at_what_is_around_it() -> None:
    lines = TomlLines("[[issuers]]\naudiences = []\n")
    assert lines.find(("issuers", 0, "issuer")) == 1
    assert lines.find(("routes",)) is None


def test_a_late_header_is_the_place_of_its_table() -> None:
    assert lines_of("[a.b]\nx = 1\n[a]\ny = 1\n")[("a",)] == 3


keys = st.from_regex(r"[a-z-]{1,3}", fullmatch=True) | st.text("ab\" \\.#=[]'é", min_size=1, max_size=4)
scalars = st.one_of(
    st.integers(-(10**6), 10**6),
    st.booleans(),
    st.text("ab\"\\'#=[]{},\n é", max_size=8),
    st.floats(allow_nan=False, allow_infinity=False),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
documents = st.dictionaries(keys, values | st.lists(st.dictionaries(keys, values, max_size=3), max_size=3), max_size=4)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def written(value: object, gap: str) -> str:
    """Write one value as TOML; `gap` stands where an array may be broken."""
    if isinstance(value, str):
        multi_line = "'''" not in value and not value.endswith("'") and "\n" in value
        return f"'''{value}'''" if multi_line and gap.strip() else quoted(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + gap + f",{gap}".join(written(item, gap) for item in value) + gap + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {written(item, gap)}" for key, item in value.items()) + "}"
    return repr(value)


@given(documents, st.sampled_from(["", "\n", " # ] \" '\n  "]))
def test_every_path_of_a_document_is_found_where_its_key_stands(document: dict[str, object], gap: str) -> None:
    tables = {
        key: value
        for key, value in document.items()
        if isinstance(value, list) and value and all(isinstance(item, dict) for item in value)
    }
    text = "".join(f"{quoted(key)} = {written(value, gap)}\n" for key, value in document.items() if key not in tables)
    for key, elements in tables.items():
        for element in elements:
            text += f"[[ {quoted(key)} ]] # [x]\n"
            text += "".join(f"{quoted(name)} = {written(item, gap)}\n" for name, item in element.items())
    found = lines_of(text)
    assert set(found) == paths_of(tomllib.loads(text))
    rows = text.split("\n")
    for path, line in found.items():
        if isinstance(path[-1], str):
            assert quoted(path[-1]) in rows[line - 1]
