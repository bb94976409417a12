"""multipart/related bodies in whatever pieces they come, and those that are none."""

from __future__ import annotations

from email import message_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from listener.media_types import Part, multipart
from listener.multipart import MAX_HEADER_BYTES, BadMultipart, MultipartReader, PartBegins, PartEnds

BOUNDARY = "b0"
#: Contents that are mean to a reader: pieces of delimiters, and what only looks like one.
_MEAN = [b"\r", b"\n", b"-", b"b", b"\r\n--", b"\r\n--b0x", b"\r\n--b0-x", b"\r\n--b0 \tx", b"--b0x--", b"\r\n\r\n", b"x" * 90]
CONTENTS = st.lists(st.sampled_from(_MEAN)).map(b"".join)


def taken_apart(body: bytes, sizes: list[int], boundary: str = BOUNDARY) -> list[tuple[dict[str, str], bytes]]:
    """The whole parts of `body`, fed in pieces of these sizes, the last one again and again. Raises BadMultipart."""
    reader = MultipartReader(boundary)
    parts: list[tuple[dict[str, str], bytes]] = []
    headers: dict[str, str] = {}
    content = b""
    position = 0
    while position < len(body):
        size = sizes.pop(0) if len(sizes) > 1 else sizes[0]
        for event in reader.feed(body[position : position + size]):
            if isinstance(event, PartBegins):
                headers, content = dict(event.headers), b""
            elif isinstance(event, PartEnds):
                parts.append((headers, content))
            else:
                content += event
        position += size
    reader.close()
    return parts


def written(contents: list[bytes]) -> bytes:
    return b"".join(multipart([Part("application/dicom", [content]) for content in contents], BOUNDARY))


@given(st.lists(CONTENTS, min_size=1, max_size=4), st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_what_was_written_is_read_in_whatever_pieces_it_comes(contents: list[bytes], sizes: list[int]) -> None:
    assert taken_apart(written(contents), sizes) == [({"content-type": "application/dicom"}, content) for content in contents]


def test_what_others_write_is_read() -> None:
    body = (
        b"a preamble that nobody reads\r\n--b \t\r\nContent-Type: application/dicom;\r\n transfer-syntax=1.2\r\nMIME-Version:1.0\r\n\r\none"
        b"\r\n--b\r\n\r\nno headers\r\n--b--\r\nan epilogue\r\n--b\r\n\r\nnot a part"
    )
    read = [({"content-type": "application/dicom; transfer-syntax=1.2", "mime-version": "1.0"}, b"one"), ({}, b"no headers")]
    assert taken_apart(body, [1], "b") == taken_apart(body, [10_000], "b") == read
    other = message_from_bytes(b"Content-Type: multipart/related; boundary=b\r\n\r\n" + body).get_payload()
    assert [part.get_payload(decode=True) for part in other] == [content for _, content in read]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "does not occur"),
        (b"--other\r\n\r\none\r\n--other--\r\n", "does not occur"),
        (b"--b\r\n\r\none", "before its closing boundary"),
        (b"--b\r\n\r\none\r\n--b", "before its closing boundary"),
        (b"--b\r\nContent-Type: application/dicom", "before its closing boundary"),
        (b"--b\r\nDoe^Jane\r\n\r\none\r\n--b--", "not of the form"),
        (b"--b\r\nDoe Jane: x\r\n\r\none\r\n--b--", "not of the form"),
        (b"--b\r\n: Doe\r\n\r\none\r\n--b--", "not of the form"),
        (b"--b\r\nA: Doe\rJane\r\n\r\none\r\n--b--", "not of the form"),
        # A pattern that backtracks over the blanks takes hours for each of these.
        (b"--b\r\na:" + b" " * (MAX_HEADER_BYTES - 10) + b"\n\r\n\r\none\r\n--b--", "not of the form"),
        (b"--b\r\na:" + b"\t" * (MAX_HEADER_BYTES - 10) + b"\nx \r\n\r\none\r\n--b--", "not of the form"),
        (b"--b\r\n" + b"a" * (MAX_HEADER_BYTES + 1), "more than"),
        (b"--b\r\nA: " + b"a" * MAX_HEADER_BYTES + b"\r\n\r\none\r\n--b--", "more than"),
    ],
)
@pytest.mark.parametrize("size", [1, 100_000])
def test_what_is_no_multipart_is_told_so_without_echo(body: bytes, words: str, size: int) -> None:
    with pytest.raises(BadMultipart, match=words) as refusal:
        taken_apart(body, [size], "b")
    assert "Doe" not in str(refusal.value)


def test_blanks_around_a_value_are_no_part_of_it_however_many() -> None:
    blanks = b" \t" * (MAX_HEADER_BYTES // 4 - 10)
    assert taken_apart(b"--b\r\nA:" + blanks + b"x : y" + blanks + b"\r\n\r\none\r\n--b--", [100_000], "b") == [({"a": "x : y"}, b"one")]


@pytest.mark.parametrize("boundary", ["", "a" * 71, "a\r\nb", "blank at its end ", "ä", 'a"b'])
def test_a_boundary_that_cannot_be_one_is_refused(boundary: str) -> None:
    with pytest.raises(BadMultipart, match="1 to 70"):
        MultipartReader(boundary)


def test_a_part_is_never_held_whole() -> None:
    reader = MultipartReader(BOUNDARY)
    assert list(reader.feed(b"--b0\r\n\r\n")) == [PartBegins({})]
    for _ in range(100):
        assert sum(len(piece) for piece in reader.feed(bytes(65536)) if isinstance(piece, bytes)) >= 65530
        assert len(reader._buffer) < 10
