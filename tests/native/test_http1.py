from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway._native import http1
from tests.oracle import http1 as oracle

CRLF = b"\r\n"


def native_head(data: bytes, to_head_request: bool = False) -> oracle.Head | str | None:
    try:
        return http1.parse_response_head(data, to_head_request)
    except http1.Malformed:
        return "refused"


def oracle_head(data: bytes, to_head_request: bool = False) -> oracle.Head | str | None:
    try:
        return oracle.parse_response_head(data, to_head_request)
    except oracle.Refused:
        return "refused"


def native_body(pieces: list[bytes]) -> tuple[bytes, int, bool] | str:
    decoder = http1.ChunkedDecoder()
    decoded, used = b"", 0
    try:
        for piece in pieces:
            out, count = decoder.feed(piece)
            decoded += out
            used += count
            assert decoder.finished or count == len(piece)
    except http1.Malformed:
        return "refused"
    return decoded, used, decoder.finished


def oracle_body(data: bytes) -> tuple[bytes, int, bool] | str:
    try:
        return oracle.decode_chunked(data)
    except oracle.Refused:
        return "refused"


# -- heads ------------------------------------------------------------------------------------------------------------

names = st.sampled_from(
    [
        b"Content-Length",
        b"content-length",
        b"Transfer-Encoding",
        b"Connection",
        b"X-A",
        b"Set-Cookie",
        b"a_b",
        b"",
        b"a b",
    ]
)
values = st.sampled_from(
    [
        b"0",
        b"5",
        b"5, 5",
        b"+5",
        b"chunked",
        b"Chunked",
        b"gzip, chunked",
        b"close",
        b"keep-alive",
        b"close, x",
        b"a\tb",
        b"",
    ]
) | st.binary(max_size=6)
lines = st.builds(
    lambda name, colon, value, end: name + colon + value + end,
    names,
    st.sampled_from([b":", b": ", b":\t", b" :", b""]),
    values,
    st.sampled_from([CRLF, CRLF, CRLF, CRLF, b"\n", b"\r", b"\r\r\n", b"\r\n "]),
)
status_lines = st.builds(
    lambda version, status, reason: version + status + reason,
    st.sampled_from([b"HTTP/1.1 ", b"HTTP/1.0 ", b"HTTP/1.2 ", b"HTTP/2 ", b"http/1.1 "]),
    st.sampled_from([b"200", b"204", b"304", b"100", b"101", b"599", b"600", b"099", b"20", b"2000"]),
    st.sampled_from([b" OK\r\n", b"\r\n", b" \r\n", b" \x00\r\n", b"  a\xff\r\n", b" OK\n", b"OK\r\n"]),
)
heads = st.builds(
    lambda status, parts, rest: status + b"".join(parts) + CRLF + rest,
    status_lines,
    st.lists(lines, max_size=4),
    st.binary(max_size=3),
)
easy_heads = st.builds(
    lambda parts, rest: b"HTTP/1.1 200 OK\r\n" + b"".join(parts) + CRLF + rest,
    st.lists(lines, max_size=3),
    st.binary(max_size=3),
)


@given(heads | easy_heads, st.booleans())
def test_heads_are_parsed_like_the_oracle_does(data: bytes, to_head_request: bool) -> None:
    assert native_head(data, to_head_request) == oracle_head(data, to_head_request)


@given(st.binary(max_size=40).map(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail))
def test_arbitrary_bytes_after_a_status_line_are_judged_like_the_oracle_does(data: bytes) -> None:
    assert native_head(data) == oracle_head(data)


@given(easy_heads)
def test_a_head_that_comes_in_pieces_ends_where_it_ends_whole(data: bytes) -> None:
    def size_of(pieces: list[bytes]) -> int | str:
        scanner = http1.HeadScanner()
        for piece in pieces:
            try:
                size = scanner.feed(piece)
            except http1.Malformed:
                return "refused"
            if size:
                return size
        return 0

    whole = size_of([data])
    assert size_of([data[i : i + 1] for i in range(len(data))]) == whole
    for cut in range(len(data)):
        assert size_of([data[:cut], data[cut:]]) == whole


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (b"HTTP/1.1 200 OK\nA: b\n\n", "bare LF"),
        (b"SSH-2.0-OpenSSH", "status line"),
        (b"HTTP/1.3 200 OK\r\n\r\n", "version"),
        (b"HTTP/1.1 600 x\r\n\r\n", "status is not"),
        (b"HTTP/1.1 2x0 OK\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 O\rK\r\n\r\n", "CR stands alone"),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "header name"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "header name"),
        (b"HTTP/1.1 200 OK\r\n: b\r\n\r\n", "header name"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "folded"),
        (b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n", "folded"),
        (b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", "CR stands alone"),
        (b"HTTP/1.1 200 OK\r\nA: b\x00c\r\n\r\n", "control byte"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", "repeated"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\n", "content-length is malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", "content-length is malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0x1\r\n\r\n", "content-length is malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", "content-length is malformed"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n", "transfer-encoding"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer-encoding"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer-encoding"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "both"),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "transfer-encoding"),
    ],
)
def test_ambiguous_heads_are_refused_with_their_problem(head: bytes, problem: str) -> None:
    with pytest.raises(http1.Malformed, match=problem):
        http1.parse_response_head(head)


def test_framing_follows_rfc_9112_section_6_3() -> None:
    def framing(head: bytes, to_head_request: bool = False) -> tuple[str, int]:
        parsed = http1.parse_response_head(head, to_head_request)
        assert parsed is not None
        return parsed[2], parsed[3]

    assert framing(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", True) == ("none", 7)  # rule 1
    assert framing(b"HTTP/1.1 204 No\r\nContent-Length: 7\r\n\r\n") == ("none", 7)  # rule 1
    assert framing(b"HTTP/1.1 304 No\r\nContent-Length: 7\r\n\r\n") == ("none", 7)  # rule 1
    assert framing(b"HTTP/1.1 200 OK\r\ntransfer-encoding: CHUNKED\r\n\r\n") == ("chunked", 0)  # rule 4
    assert framing(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n") == ("length", 7)  # rule 6
    assert framing(b"HTTP/1.1 200 OK\r\n\r\n") == ("close", 0)  # rule 8


# -- chunked bodies ---------------------------------------------------------------------------------------------------

chunks = st.builds(
    lambda size, extension, end, data, tail: size + extension + end + data + tail,
    st.sampled_from([b"5", b"05", b"5 ", b" 5", b"", b"a", b"A", b"0x5", b"-5", b"5" * 16, b"0" * 15 + b"5"]),
    st.sampled_from([b"", b"", b"", b";x", b';x="y"', b"; \x00", b";\t"]),
    st.sampled_from([CRLF, CRLF, CRLF, b"\n", b"\r", b"\r\r\n"]),
    st.sampled_from([b"hello", b"hello", b"0123456789", b"hell"]),
    st.sampled_from([CRLF, CRLF, CRLF, b"\n", b"", b"\r"]),
)
good_chunks = st.binary(min_size=1, max_size=20).map(lambda data: b"%x\r\n%b\r\n" % (len(data), data))
good_endings = [
    b"0\r\n\r\n",
    b"0\r\n\r\nGET / HTTP/1.1",
    b"000\r\n\r\n",
    b"0;x\r\n\r\n",
    b"0\r\nA: b\r\nC:\r\n\r\nrest",
    b"",
]
bad_endings = [
    b"0\r\nA : b\r\n\r\n",
    b"0\r\nA\r\n\r\n",
    b"0\r\n: b\r\n\r\n",
    b"0\r\n A: b\r\n\r\n",
    b"0\n\n",
    b"0\r\n\r\r",
]
endings = st.sampled_from([*good_endings, *bad_endings, b"0\r\nA: \x01\r\n\r\n", b"0\r\nA: b\n\r\n"])
bodies = st.builds(lambda parts, end: b"".join(parts) + end, st.lists(good_chunks | chunks, max_size=4), endings)


@given(bodies)
def test_chunked_bodies_are_decoded_like_the_oracle_does_however_they_are_cut(data: bytes) -> None:
    wanted = oracle_body(data)
    assert native_body([data]) == wanted
    assert native_body([data[i : i + 1] for i in range(len(data))]) == wanted
    for cut in range(len(data)):
        assert native_body([data[:cut], data[cut:]]) == wanted


@given(st.binary(max_size=24))
def test_arbitrary_bytes_are_judged_as_chunks_like_the_oracle_does(data: bytes) -> None:
    assert native_body([data]) == oracle_body(data)


def test_nothing_is_decoded_after_a_fault() -> None:
    decoder = http1.ChunkedDecoder()
    with pytest.raises(http1.Malformed):
        decoder.feed(b"x")
    with pytest.raises(http1.Malformed):
        decoder.feed(b"1\r\na\r\n")


# -- limits -----------------------------------------------------------------------------------------------------------


def test_head_bytes_max() -> None:
    start = b"HTTP/1.1 200 OK\r\nA: "
    room = oracle.HEAD_BYTES_MAX - len(start) - 4
    at_limit = start + b"x" * room + b"\r\n\r\n"
    assert len(at_limit) == 65536
    assert http1.parse_response_head(at_limit) is not None
    with pytest.raises(http1.Malformed, match="longer than 65536"):
        http1.parse_response_head(start + b"x" * (room + 1) + b"\r\n\r\n")
    with pytest.raises(http1.Malformed, match="longer than 65536"):
        http1.parse_response_head(start + b"x" * (room + 4))


def test_response_headers_max() -> None:
    head = b"HTTP/1.1 200 OK\r\n"
    parsed = http1.parse_response_head(head + b"a: b\r\n" * 256 + CRLF)
    assert parsed is not None
    assert len(parsed[1]) == 256
    with pytest.raises(http1.Malformed, match="more than 256"):
        http1.parse_response_head(head + b"a: b\r\n" * 257 + CRLF)


def test_length_digits_max() -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %b\r\n\r\n"
    parsed = http1.parse_response_head(head % (b"9" * 18))
    assert parsed is not None
    assert parsed[3] == 10**18 - 1
    with pytest.raises(http1.Malformed, match="content-length is malformed"):
        http1.parse_response_head(head % (b"1" * 19))


def test_chunk_size_digits_max() -> None:
    assert native_body([b"0" * 14 + b"5\r\nhello\r\n0\r\n\r\n"]) == (b"hello", 29, True)
    assert native_body([b"0" * 15 + b"5\r\nhello\r\n0\r\n\r\n"]) == "refused"


def test_chunk_extension_bytes_max_counts_all_chunks_of_a_body() -> None:
    half = b"1;" + b"x" * 2048 + b"\r\na\r\n"
    assert native_body([half + half + b"0\r\n\r\n"]) == (b"aa", 2 * len(half) + 5, True)
    assert native_body([half + half + b"0;y\r\n\r\n"]) == "refused"


def test_trailer_bytes_max() -> None:
    trailer = b"a:" + b"x" * (oracle.TRAILER_BYTES_MAX - 4) + CRLF
    assert len(trailer) == 16384
    assert native_body([b"0\r\n" + trailer + CRLF]) == (b"", len(trailer) + 5, True)
    assert native_body([b"0\r\n" + trailer + b"b:\r\n\r\n"]) == "refused"


def test_interleaved_short_pieces_stay_linear() -> None:
    """A head of 64 KiB in pieces of one byte would take minutes if each piece began the search anew."""
    scanner = http1.HeadScanner()
    head = b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 5000 + CRLF
    sizes = [scanner.feed(head[i : i + 1]) for i in range(len(head))]
    assert sizes[-1] == len(head)
    assert not any(sizes[:-1])


# -- header names and values ------------------------------------------------------------------------------------------


@given(st.binary(max_size=40))
def test_a_value_is_clean_without_control_bytes(value: bytes) -> None:
    assert http1.is_clean_value(value) == all((byte >= 32 or byte == 9) and byte != 127 for byte in value)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 16, 17, 31])
def test_each_byte_is_judged_at_each_place_of_a_word(length: int) -> None:
    for byte in range(256):
        for place in range(length):
            value = bytearray(b"a" * length)
            value[place] = byte
            assert http1.is_clean_value(bytes(value)) == ((byte >= 32 or byte == 9) and byte != 127)


@given(st.binary(max_size=70))
def test_names_are_folded_like_filters_need_it(name: bytes) -> None:
    token = bool(name) and all(byte in b"!#$%&'*+-.^_`|~" or bytes([byte]).isalnum() for byte in name)
    assert http1.fold_name(name) == (name.lower().replace(b"_", b"-")[:64] if token else None)
