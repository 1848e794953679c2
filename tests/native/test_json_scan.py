from __future__ import annotations

import json
import locale
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway._native import json_scan
from tests.native import json_texts
from tests.oracle import json_scan as oracle

NAMES = tuple(name.encode() for name in json_texts.CLAIMS)
RANDOM_SEED = 20_260


def native(text: bytes, names: tuple[bytes, ...] = NAMES) -> tuple[tuple[str, object], ...] | str:
    """Scan; give the code where the compiled module refuses."""
    try:
        return json_scan.scan(text, names)
    except json_scan.JsonRefused as refusal:
        return refusal.code


def slow(text: bytes, names: tuple[bytes, ...] = NAMES) -> tuple[tuple[str, object], ...] | str:
    try:
        return oracle.scan(text, names)
    except oracle.Refused as refusal:
        return refusal.code


def same(one: object, other: object) -> bool:
    """Compare with types, and with the sign of zero: True is not 1, nor 1 is 1.0, nor 0.0 is -0.0."""
    return repr(one) == repr(other)


def refuse_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("duplicate")
    return dict(pairs)


# ---- held equal to the oracle, and the oracle to the standard library ----


@given(text=json_texts.texts)
def test_any_way_of_writing_json_scans_like_the_oracle(text: bytes) -> None:
    assert same(native(text), slow(text))


@given(text=json_texts.broken_texts())
def test_broken_json_is_judged_like_the_oracle(text: bytes) -> None:
    assert same(native(text), slow(text))


@given(text=st.binary(max_size=60) | st.text('{}[]":,\\u019eE+-. \n', max_size=40).map(str.encode))
def test_any_bytes_are_judged_like_the_oracle(text: bytes) -> None:
    assert same(native(text), slow(text))


@given(text=json_texts.texts | json_texts.broken_texts())
def test_the_oracle_agrees_with_the_standard_library(text: bytes) -> None:
    refused: str | None = None
    try:
        ours = oracle.read(text).plain()
    except oracle.Refused as refusal:
        refused = refusal.code
    if refused == "number":
        return  # the standard library reads 1e400 as infinity
    try:
        theirs = json.loads(text.decode(), object_pairs_hook=refuse_doubles, parse_constant=pytest.fail)
        json.dumps(theirs, ensure_ascii=False).encode()  # a lone surrogate is no text
    except ValueError:
        assert refused is not None
        return
    except pytest.fail.Exception:
        assert refused == "syntax"  # NaN and Infinity
        return
    if refused is not None:
        assert refused == "not_object"
        assert not isinstance(theirs, dict)
        return
    # An integer beyond int64 is a double here and exact there.
    assert same(json.loads(json.dumps(ours), parse_int=float), json.loads(json.dumps(theirs), parse_int=float))


@given(data=st.data(), text=json_texts.texts)
def test_every_cut_of_a_text_is_refused_or_equal(data: st.DataObject, text: bytes) -> None:
    cut = text[: data.draw(st.integers(0, len(text)))]
    assert same(native(cut), slow(cut))


@given(number=json_texts.numbers | st.from_regex(r"[0-9eE.+-]{1,12}", fullmatch=True))
@example("0" * 64)
@example("-" + "9" * 63)
@example("1." + "0" * 62)
@example("179769313486231580793728971405303415079934132710037826936173e249")
@example("1.797693134862315807937289714053034150799341327100378269361737e308")
@example("1.797693134862315807937289714053034150799341327100378269361738e308")
@example("0.0000000000000000000000000000000000000000000000000000017e363")
@example("1e99999999999999999999999999999999")
@example("0e99999999999999999999999999999999")
@example("1e-99999999999999999999999999999999")
@example("123456789012345678e-17")
@example("9007199254740993e0")
@example("99999999999999999999e-3")
def test_every_number_is_the_oracles_asked_or_not(number: str) -> None:
    text = f'{{"exp":{number}}}'.encode()
    assert same(native(text), slow(text))
    refused = isinstance(native(text), str)
    assert isinstance(native(text, ()), str) == refused


def test_doubles_are_rounded_as_python_rounds_them() -> None:
    chooser = random.Random(RANDOM_SEED)
    for _ in range(20_000):
        digits = str(chooser.randrange(10 ** chooser.randrange(1, 25)))
        number = f"{digits[0]}.{digits[1:] or '0'}e{chooser.randrange(-330, 330)}"
        kind_value = native(f'{{"exp":{number}}}'.encode(), (b"exp",))
        if kind_value != "number":
            assert kind_value == (("double", float(number)),)
        else:
            assert float(number) == float("inf")


@pytest.fixture
def comma_locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Make and set a locale that writes `,` for the decimal point."""
    before = locale.setlocale(locale.LC_NUMERIC)
    try:
        command = ["localedef", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / "de_DE.UTF-8")]
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("localedef or its sources are not on this machine")
    monkeypatch.setenv("LOCPATH", str(tmp_path))
    locale.setlocale(locale.LC_NUMERIC, "de_DE.UTF-8")
    yield
    locale.setlocale(locale.LC_NUMERIC, before)


@pytest.mark.usefixtures("comma_locale")
def test_the_locale_does_not_change_numbers() -> None:
    assert locale.localeconv()["decimal_point"] == ","
    assert native(b'{"exp":1.2345678901234567890123}', (b"exp",)) == (("double", 1.2345678901234567890123),)


# ---- one law, one test ----


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b"", "syntax"),
        (b" ", "syntax"),
        (b"[]", "not_object"),
        (b'"a"', "not_object"),
        (b"17", "not_object"),
        (b"null", "not_object"),
        (b"[1] x", "syntax"),
        (b"{}{}", "syntax"),
        (b"{} \0", "syntax"),
        (b"\xef\xbb\xbf{}", "syntax"),
        (b"{,}", "syntax"),
        (b'{"a":1,}', "syntax"),
        (b'{"a"}', "syntax"),
        (b'{"a":}', "syntax"),
        (b'{"a" 1}', "syntax"),
        (b'{"a":1 "b":2}', "syntax"),
        (b"{a:1}", "syntax"),
        (b"{'a':1}", "syntax"),
        (b'{"a":[1,]}', "syntax"),
        (b'{"a":[,1]}', "syntax"),
        (b'{"a":[1}', "syntax"),
        (b'{"a":1]', "syntax"),
        (b'{"a":NaN}', "syntax"),
        (b'{"a":Infinity}', "syntax"),
        (b'{"a":-Infinity}', "syntax"),
        (b'{"a":tru}', "syntax"),
        (b'{"a":nulll}', "syntax"),
        (b'{"a":TRUE}', "syntax"),
        (b'{"a":01}', "syntax"),
        (b'{"a":-}', "syntax"),
        (b'{"a":+1}', "syntax"),
        (b'{"a":.5}', "syntax"),
        (b'{"a":1.}', "syntax"),
        (b'{"a":1e}', "syntax"),
        (b'{"a":1e+}', "syntax"),
        (b'{"a":0x1}', "syntax"),
        (b'{"a":"\t"}', "syntax"),
        (b'{"a":"\x00"}', "syntax"),
        (b'{"a":"\\x41"}', "syntax"),
        (b'{"a":"\\u12g4"}', "syntax"),
        (b'{"a":"\\u123"}', "syntax"),
        (b'{"a":"\\', "syntax"),
        (b'{"a":"b', "syntax"),
        (b'{"a":1} // no', "syntax"),
        (b'{"a":1e400}', "number"),
        (b'{"a":-1e309}', "number"),
        (b'{"a":"\\ud800"}', "utf8"),
        (b'{"a":"\\ud800x"}', "utf8"),
        (b'{"a":"\\ud800\\u0041"}', "utf8"),
        (b'{"a":"\\udc00"}', "utf8"),
        (b'{"a":"\\udc00\\ud800"}', "utf8"),
        (b'{"\\ud800":1}', "utf8"),
        (b'{"a":"\xff"}', "utf8"),
        (b'{"a":"\x80"}', "utf8"),
        (b'{"a":"\xc3"}', "utf8"),
        (b'{"a":"\xc0\xaf"}', "utf8"),
        (b'{"a":"\xe0\x80\xaf"}', "utf8"),
        (b'{"a":"\xf0\x80\x80\xaf"}', "utf8"),
        (b'{"a":"\xed\xa0\x80"}', "utf8"),
        (b'{"a":"\xf4\x90\x80\x80"}', "utf8"),
        (b'{"a":"\xf5\x80\x80\x80"}', "utf8"),
        (b'{"a":1,"a":1}', "duplicate"),
        (b'{"exp":1,"\\u0065xp":2}', "duplicate"),
        (b'{"\\u0065\\u0078p":1,"e\\u0078\\u0070":2}', "duplicate"),
        (b'{"":1,"":2}', "duplicate"),
        (b'{"x":{"a":1,"a":2}}', "duplicate"),
        (b'{"x":[[{"a":1,"b":3,"a":2}]]}', "duplicate"),
        ('{"é":1,"\\u00e9":2}'.encode(), "duplicate"),
        ('{"😀":1,"\\ud83d\\ude00":2}'.encode(), "duplicate"),
    ],
    ids=repr,
)
def test_what_is_not_acceptable_is_refused_with_its_code(text: bytes, code: str) -> None:
    assert native(text) == code
    assert slow(text) == code


def test_a_whole_payload_gives_each_asked_claim_once() -> None:
    text = b"""
      { "iss" : "https://issuer.example" , "sub":"a\\u00e9\\/b", "aud":["x", {"y":[]}], "exp":1798765432,
        "n":null, "yes":true, "no":false, "half":0.5, "deep":{"sub":"not this one", "exp":1} }
    """
    asked = (b"exp", b"sub", b"deep", b"iss", b"aud", b"n", b"yes", b"no", b"half", b"jti", b"y")
    assert json_scan.scan(text, asked) == (
        ("int", 1798765432),
        ("string", "aé/b".encode()),
        ("object", b'{"sub":"not this one", "exp":1}'),
        ("string", b"https://issuer.example"),
        ("array", b'["x", {"y":[]}]'),
        ("null", None),
        ("true", True),
        ("false", False),
        ("double", 0.5),
        ("absent", None),
        ("absent", None),
    )


def test_names_inside_nested_objects_are_not_matched() -> None:
    assert native(b'{"a":{"exp":1},"b":[{"exp":2}]}', (b"exp",)) == (("absent", None),)


def test_an_escaped_name_matches_what_it_spells() -> None:
    assert native(b'{"\\u0065\\u0078\\u0070":7}', (b"exp",)) == (("int", 7),)
    assert native(b'{"\\u00e9":7,"\\ud83d\\ude00":8,"":9}', ("é".encode(), "😀".encode(), b"")) == (
        ("int", 7),
        ("int", 8),
        ("int", 9),
    )


def test_names_that_begin_alike_are_told_apart() -> None:
    names = tuple(b"name" + b"x" * length for length in range(40))
    text = json.dumps({name.decode(): i for i, name in enumerate(names)}).encode()
    assert json_scan.scan(text, names) == tuple(("int", i) for i in range(40))
    assert json_scan.scan(text, tuple(name + b"!" for name in names)) == (("absent", None),) * 40


def test_a_name_asked_twice_is_answered_twice() -> None:
    assert native(b'{"b":2,"a":1}', (b"a", b"b", b"a", b"c", b"c")) == (
        ("int", 1),
        ("int", 2),
        ("int", 1),
        ("absent", None),
        ("absent", None),
    )


def test_long_escaped_names_are_compared_too() -> None:
    plain = "é" * 500
    spelled = "\\u00e9" * 500
    assert native(f'{{"{plain}":1,"{spelled}":2}}'.encode()) == "duplicate"
    assert native(f'{{"{plain}":1,"{spelled}x":2}}'.encode(), (plain.encode() + b"x",)) == (("int", 2),)


@pytest.mark.parametrize(
    ("number", "kind", "value"),
    [
        ("0", "int", 0),
        ("-0", "int", 0),
        ("9223372036854775807", "int", 2**63 - 1),
        ("-9223372036854775808", "int", -(2**63)),
        ("9223372036854775808", "double", 2.0**63),
        ("-9223372036854775809", "double", -(2.0**63)),
        ("99999999999999999999", "double", 1e20),
        ("1.0", "double", 1.0),
        ("1E5", "double", 100_000.0),
        ("1e+2", "double", 100.0),
        ("-0.0", "double", -0.0),
        ("1e-400", "double", 0.0),
        ("4.9e-324", "double", 5e-324),
        ("1.7976931348623157e308", "double", 1.7976931348623157e308),
        ("0e400", "double", 0.0),
    ],
)
def test_integers_are_exact_and_the_rest_is_a_double(number: str, kind: str, value: float) -> None:
    assert same(native(f'{{"exp":{number}}}'.encode(), (b"exp",)), ((kind, value),))


# ---- limits: at them, and one past ----


@pytest.mark.parametrize("shape", ["[]", "{}", "mixed"])
def test_depth_is_limited(shape: str) -> None:
    def nested(depth: int) -> bytes:
        """Return `depth` arrays or objects inside one another, the outermost an object."""
        opened = b'{"a":'
        closed = b"}"
        for level in range(depth - 1):
            is_array = shape == "[]" or (shape == "mixed" and level % 2 == 0)
            opened += b"[" if is_array else b'{"a":'
            closed = (b"]" if is_array else b"}") + closed
        return opened + b"1" + closed

    assert json_scan.DEPTH_MAX == oracle.DEPTH_MAX
    assert isinstance(native(nested(json_scan.DEPTH_MAX)), tuple)
    assert native(nested(json_scan.DEPTH_MAX + 1)) == "depth"
    assert native(nested(10_000)) == "depth"
    assert native(b"[" * 10_000) == "depth"


def wide(count: int) -> bytes:
    return b"{" + b",".join(b'"m%d":%d' % (i, i) for i in range(count)) + b"}"


@pytest.mark.parametrize("around", [b"%b", b'{"a":%b}', b'{"a":[1,%b]}'])
def test_members_of_one_object_are_limited(around: bytes) -> None:
    assert json_scan.MEMBERS_MAX == oracle.MEMBERS_MAX
    assert isinstance(native(around % wide(json_scan.MEMBERS_MAX)), tuple)
    assert native(around % wide(json_scan.MEMBERS_MAX + 1)) == "members"


def test_the_members_limit_is_per_object() -> None:
    text = b'{"a":%b,"b":%b,"c":%b}' % (wide(512), wide(512), wide(512))
    assert native(text, (b"c",)) == (("object", wide(512)),)


def test_open_objects_may_hold_more_members_than_fit_beside_the_stack() -> None:
    text = b'"end"'
    for level in range(json_scan.DEPTH_MAX):
        members = b",".join(b'"m%d":%d' % (i, level) for i in range(510))
        text = b"{" + members + b',"in":' + text + b"}"
    assert native(text, (b"m509",)) == (("int", 31),)
    assert native(text.replace(b'"end"', b'"end","m0":0'), ()) == "duplicate"


@pytest.mark.parametrize("count", [2, 3, 16, 17, 127, 128, 129, 255, 256, 257, 511, 512])
def test_a_duplicate_is_found_wherever_it_stands(count: int) -> None:
    chooser = random.Random(count)
    names = [b'"m%d":0' % i for i in range(count)]
    for _ in range(20):
        first, second = sorted(chooser.sample(range(count), 2))
        doubled = [*names]
        doubled[second] = names[first] if chooser.random() < 0.5 else names[first].replace(b'"m', b'"\\u006d')
        assert native(b"{" + b",".join(doubled) + b"}") == "duplicate"
        assert isinstance(native(b"{" + b",".join(names) + b"}"), tuple)


def test_numbers_are_limited_to_64_characters() -> None:
    for number in ("1" * 64, "-" + "1" * 63, "0." + "1" * 62, "1e" + "0" * 61 + "1"):
        assert len(number) == 64
        assert isinstance(native(f'{{"a":{number}}}'.encode()), tuple)
        assert native(f'{{"a":{number}0}}'.encode()) == "number"
    assert native(b'{"a":' + b"1" * 100_000 + b"}") == "number"


def test_names_of_one_scan_are_limited() -> None:
    names = tuple(b"m%d" % i for i in range(json_scan.NAMES_MAX))
    assert json_scan.scan(wide(512), names) == tuple(("int", i) for i in range(json_scan.NAMES_MAX))
    with pytest.raises(ValueError, match="65 names asked"):
        json_scan.scan(b"{}", (*names, b"one more"))


@pytest.mark.parametrize("length", range(70))
def test_a_string_of_any_length_ends_where_it_ends(length: int) -> None:
    # Also where it is the last thing in the text, so that a wide look has to be moved back.
    for stop in (b'"', b"\\n", b"\x1f", b"\xc3\xa9", b"\xff"):
        for rest in (b"", b'"', b'"}', b'"  }', b'","b":"' + b"y" * 20 + b'"}'):
            text = b'{"a":"' + b"x" * length + stop + rest
            assert same(native(text, (b"a", b"b")), slow(text, (b"a", b"b"))), text


# ---- arrays and strings on their own ----


@given(text=json_texts.arrays(json_texts.values).map(str.encode))
def test_items_of_an_array_are_the_oracles(text: bytes) -> None:
    try:
        node = oracle.Reader(text).read_value(0)
    except oracle.Refused:
        return
    assert same(json_scan.items(text), tuple(oracle.shown(item) for item in node.items))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"x",
        b"[",
        b"[1",
        b"[1,",
        b"[1,]",
        b"[,]",
        b"[1 2]",
        b"[1]]",
        b"[]]",
        b"{}",
        b'["a',
        b'[{"a":1,"a":2}]',
        b"[[1,]]",
    ],
    ids=repr,
)
def test_a_broken_array_is_refused(text: bytes) -> None:
    with pytest.raises(json_scan.JsonRefused):
        json_scan.items(text)


def test_items_inside_an_array_count_its_depth() -> None:
    assert len(json_scan.items(b"[" * 32 + b"]" * 32)) == 1
    with pytest.raises(json_scan.JsonRefused) as refusal:
        json_scan.items(b"[" * 33 + b"]" * 33)
    assert refusal.value.code == "depth"


@given(
    content=st.text(json_texts.characters, max_size=80).flatmap(
        lambda t: st.tuples(st.just(t), json_texts.strings(st.just(t)))
    )
)
def test_unescape_gives_back_what_was_written(content: tuple[str, str]) -> None:
    plain, written = content
    assert json_scan.unescape(written[1:-1].encode()) == plain.encode()


@pytest.mark.parametrize(
    "raw", [b"\\", b"a\\", b"\\u", b"\\u12", b"\\x", b"\\ud800", b"\\ud800\\u", b"\\ud800\\u0041", b"\\udc00"]
)
def test_unescape_refuses_a_broken_escape_and_reads_no_further(raw: bytes) -> None:
    with pytest.raises(json_scan.JsonRefused):
        json_scan.unescape(raw)


def test_a_refusal_says_its_code_but_not_the_text() -> None:
    with pytest.raises(json_scan.JsonRefused, match=r"^refused JSON: duplicate$"):
        json_scan.scan(b'{"secret":"s3cr3t","secret":1}', ())


@pytest.mark.parametrize(
    ("text", "names"), [("{}", ()), (b"{}", [b"a"]), (b"{}", ("a",)), (None, ()), (b"{}", (None,))]
)
def test_only_bytes_and_a_tuple_of_bytes_are_taken(text: object, names: object) -> None:
    with pytest.raises(TypeError):
        json_scan.scan(text, names)  # type: ignore[arg-type]
