"""Any cutting gives the same events: vectors under every cut, a naive reading as referee."""

from __future__ import annotations

import doctest
import json
import pickle
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fluence_async._sansio import sse
from fluence_async._sansio.sse import (
    EventTooLarge,
    ServerSentEvent,
    SSEDecoder,
    lone_payload,
)
from fluence_async._sansio.sse_writing import encode_comment, encode_event

from . import naive_sse

WIRE = Path(__file__).parent.parent / "wire"


def vectors(name: str) -> Any:
    found = json.loads((WIRE / name).read_text(encoding="utf-8"))
    return pytest.mark.parametrize("vector", found, ids=[vector["name"] for vector in found])


def split(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    """The stream in pieces, cut before each of these offsets; one that comes twice: b""."""
    ends = sorted(cut for cut in cuts if 0 <= cut <= len(stream))
    return [stream[a:b] for a, b in zip([0, *ends], [*ends, len(stream)], strict=True)]


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


def as_tuple(event: ServerSentEvent) -> tuple[str, str, str, int | None]:
    return event.event, event.data, event.id, event.retry


def decode(pieces: Iterable[bytes]) -> naive_sse.Reading:
    decoder = SSEDecoder()
    events = [as_tuple(event) for piece in pieces for event in decoder.feed(piece)]
    return naive_sse.Reading(events, decoder.last_event_id, decoder.reconnection_time)


# ─── vectors ──────────────────────────────────────────────────────────────────────────────


def expected(vector: dict[str, Any]) -> naive_sse.Reading:
    events = [(e["event"], e["data"], e["id"], e["retry"]) for e in vector["events"]]
    return naive_sse.Reading(events, vector["last_event_id"], vector["reconnection_time"])


@vectors("sse_vectors.json")
def test_the_referee_agrees_with_every_vector(vector: dict[str, Any]) -> None:
    assert naive_sse.read(bytes.fromhex(vector["bytes_hex"])) == expected(vector)


@vectors("sse_vectors.json")
def test_every_vector_reads_the_same_whole_and_byte_by_byte(vector: dict[str, Any]) -> None:
    stream = bytes.fromhex(vector["bytes_hex"])
    assert decode([stream]) == expected(vector)
    assert decode(bytewise(stream)) == expected(vector)


@vectors("sse_vectors.json")
def test_every_vector_reads_the_same_cut_in_two_anywhere(vector: dict[str, Any]) -> None:
    stream, meaning = bytes.fromhex(vector["bytes_hex"]), expected(vector)
    step = 1 if len(stream) < 5000 else 101  # 2,000 equal events: a sample of their 22,890 cuts
    for cut in range(0, len(stream) + 1, step):
        assert decode([stream[:cut], stream[cut:]]) == meaning, cut


@vectors("sse_vectors.json")
def test_every_vector_reads_the_same_cut_at_random(vector: dict[str, Any]) -> None:
    stream, meaning = bytes.fromhex(vector["bytes_hex"]), expected(vector)
    dice = random.Random(vector["name"])
    for _ in range(20):
        cuts = dice.choices(range(len(stream)), k=dice.randint(1, 12))
        assert decode(split(stream, cuts)) == meaning, cuts


@vectors("sse_prompt_vectors.json")
def test_an_event_is_out_as_soon_as_its_blank_line_is_in(vector: dict[str, Any]) -> None:
    decoder, total, totals = SSEDecoder(), 0, []
    for chunk in vector["chunks_hex"]:
        total += len(decoder.feed(bytes.fromhex(chunk)))
        totals.append(total)
    assert totals == vector["events_after_each_chunk"]


@vectors("sse_encode_vectors.json")
def test_encoding_reads_back_as_meant_or_is_refused(vector: dict[str, Any]) -> None:
    given_, want = dict(vector["input"]), vector["expect"]
    if isinstance(want, str):
        with pytest.raises((TypeError, ValueError)):
            encode_event(given_.pop("data"), **given_)
        return
    comment = given_.pop("comment", None)
    written = encode_event(given_.pop("data"), **given_) if comment is None else b""
    written += encode_comment(comment) if comment is not None else b""
    events = [(e["event"], e["data"], e["id"], e["retry"]) for e in want]
    assert decode([written]).events == events
    assert naive_sse.read(written).events == events


# ─── the referee ──────────────────────────────────────────────────────────────────────────

WORDS = [
    *(b"data", b"event", b"id", b"retry", b"data:", b"data: ", b"event: ", b"id: ", b"retry: "),
    *(b":", b" ", b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b"\0", b"\xef\xbb\xbf", b"\xef"),
    *(b"\xbb", b"\xff", b"\xc3", b"\xa9", b"\xe2\x82", b"\xac", b"\xf0\x9f\x98\x80", b"\xed\xa0"),
    *(b"{", b"}", b'data: {"a":1}\n\n', b"data: [DONE]\n\n", b": ping\n\n", b"1000", b"7", b"x"),
    *(b"\xe2\x80\xa8", b"\x0b", b"\x1c", b"\xc2\x85", b"event: e\ndata: {}\n\n", b"data: "),
]
streams = st.lists(st.sampled_from(WORDS), max_size=40).map(b"".join)
json_runs = st.lists(
    st.sampled_from(
        [b'data: {"a":1}\n\n', 'data: {"é":"😀"}\n\n'.encode(), b"data: {}\n\n"] * 8 + WORDS
    ),
    max_size=12,
).map(b"".join)
cuttings = st.lists(st.integers(0, 200), max_size=12)


@settings(max_examples=500, deadline=None)
@given(streams | json_runs, cuttings)
@example(b"data: a\n\r\n\xef\xbb\xbfdata: b\r\r", [9])
@example(b"\xef\xbb\xbfdata: x\n\n", [1, 2])
@example(b"\xef\xbbdata: x\n\ndata: \n\n", [1])
@example(b"data: x\r\ndata: y\n\n", [8, 8])
def test_after_every_piece_all_is_as_the_referee_reads_what_came_so_far(
    stream: bytes, cuts: list[int]
) -> None:
    decoder, so_far, reading = SSEDecoder(), b"", naive_sse.Reading()
    for piece in split(stream, cuts):
        so_far += piece
        reading.events += map(as_tuple, decoder.feed(piece))
        reading.last_event_id = decoder.last_event_id
        reading.reconnection_time = decoder.reconnection_time
        assert reading == naive_sse.read(so_far)
        at_once = SSEDecoder()
        at_once.feed(so_far)
        assert decoder.mid_event == at_once.mid_event


# ─── lines ────────────────────────────────────────────────────────────────────────────────


def feed_either(decoder: SSEDecoder, piece: bytes, way: int) -> list[str]:
    """The payloads that a piece completes, read in one of the quick ways where that is possible."""
    if way & 2 and decoder.between_events and (payload := lone_payload(piece)) is not None:
        return [payload.decode("utf-8", "replace")]  # the decoder does not even hear of it
    if way & 1:
        run = decoder.feed_lines(piece)
        if run is not None:
            payloads = run[0].decode().split("\n") if run[1] else []
            assert len(payloads) == run[1]
            assert all(text[0] + text[-1] == "{}" for text in payloads)
            return payloads
    return [event.data for event in decoder.feed(piece)]


@settings(max_examples=500, deadline=None)
@given(json_runs | streams, cuttings, st.integers(0, 2**26 - 1))
@example(b"data: {}\n\n\xef\xbb\xbfdata: {}\n\n", [10], 0b0101)
@example(b"\xef\xbb\xbfdata: {}\n\n", [1], 0b0100)
@example(b"data: {\r\n\ndata: {}\n\n", [8], 0b0100)
@example(b"\xef\xbb\xbfdata: {}\n\ndata: {}\n\n", [3, 13], 0b101010)
@example(b"data: {}\r\n\ndata: {}\n\n", [9], 0b1010)
@example(b"data: {}\n\n\xef\xbb\xbfdata: {}\n\n", [10], 0b0010)
@example(b"id: 7\n\ndata: {}\n\n", [7], 0b1010)
@example(b"event: e\ndata: {}\n\n", [9], 0b1010)
def test_the_quick_ways_mixed_with_feed_give_what_feed_alone_gives(
    stream: bytes, cuts: list[int], ways: int
) -> None:
    decoder, so_far, payloads = SSEDecoder(), b"", []
    for number, piece in enumerate(split(stream, cuts)):
        so_far += piece
        payloads += feed_either(decoder, piece, ways >> 2 * number)
        reading = naive_sse.read(so_far)
        assert payloads == [data for _, data, _, _ in reading.events]
        at_once = SSEDecoder()
        at_once.feed(so_far)
        assert decoder.mid_event == at_once.mid_event
    reading = naive_sse.read(stream)
    assert decoder.last_event_id == reading.last_event_id
    assert decoder.reconnection_time == reading.reconnection_time


def test_feed_lines_takes_runs_of_json_and_keeps_what_is_unfinished() -> None:
    decoder = SSEDecoder()
    assert decoder.feed_lines(b"") == (b"", 0)
    assert decoder.feed_lines(b'data: {"a"') == (b"", 0)
    assert decoder.feed_lines(b':1}\n\ndata: {"b":2}\n\ndata: {') == (b'{"a":1}\n{"b":2}', 2)
    assert decoder.mid_event
    assert decoder.feed_lines(b"}\n\n") == (b"{}", 1)
    assert not decoder.mid_event


@pytest.mark.parametrize("first", [True, False], ids=["at the start", "later"])
@pytest.mark.parametrize(
    "stream",
    [
        *(b"data: {}\r\n\r\n", b"data: {}\n", b"data: {}\n\ndata: {}\n", b"data: {}\n\n\n"),
        *(b"data:{}\n\n", b"data:  {}\n\n", b"data: []\n\n", b"data: {} \n\n", b"data: {\n\n"),
        *(b"data: {}\n\ndata: [DONE]\n\n", b"data: [DONE]\n\n", b"data: {}\n\n: ping\n\n"),
        *(b": ping\n\n", b"event: e\ndata: {}\n\n", b"data: {}\nid: {}\n\n", b"\ndata: {}\n\n"),
        *(b"data: {}\n{}\n\n", b"data: {\ndata: }\n\n", b'data: {"\xff"}\n\n', b"\n"),
        *(b"data: {}\n\nevent: e\ndata: {}\n\n", b"data: {}\n\n\ndata: {}\n\n"),
        *(b"data: {}\n\n: {}\n\n", b"\xef\xbb\xbfdata: {}\n\n", b"\r"),
    ],
)
def test_feed_lines_leaves_anything_else_to_feed(stream: bytes, first: bool) -> None:
    prefix = b"" if first else b"data: {}\n\n"
    decoder = SSEDecoder()
    if not first:
        assert decoder.feed_lines(prefix) == (b"{}", 1)
    assert decoder.feed_lines(stream) is None
    want = naive_sse.read(prefix + stream).events[0 if first else 1 :]
    assert [as_tuple(event) for event in decoder.feed(stream)] == want


def test_nothing_follows_an_event_that_was_too_large() -> None:
    decoder = SSEDecoder(max_event=8)
    decoder.feed(b"data: {}\n\n")
    assert decoder.between_events
    with pytest.raises(EventTooLarge):
        decoder.feed(b"data: {89}\n\n")
    assert not decoder.between_events


@pytest.mark.parametrize(
    ("data", "payload"),
    [
        (b"data: {}\n\n", b"{}"),
        (b'data: {"a":"\xff"}\n\n', b'{"a":"\xff"}'),
        (b"data: {}\n\ndata: {}\n\n", None),
        (b"data: {}\n", None),
        (b"data: {\r}\n\n", None),
        (b"data: {\n}\n\n", None),
        (b"data:{}\n\n", None),
        (b"data: [DONE]\n\n", None),
        (b": {}\n\n", None),
        (b"", None),
    ],
)
def test_lone_payload_is_of_one_whole_event_and_nothing_else(
    data: bytes, payload: bytes | None
) -> None:
    assert lone_payload(data) == payload


@pytest.mark.parametrize(
    "before", [b"data: x\n", b"id: 1\n", b"retry: 5\n", b"event: e\n", b"data: x\r\r", b"\xef\xbb"]
)
def test_feed_lines_waits_for_a_clean_boundary(before: bytes) -> None:
    decoder = SSEDecoder()
    decoder.feed(before)
    assert decoder.feed_lines(b"data: {}\n\n") is None


def test_a_run_read_by_feed_carries_the_last_event_id() -> None:
    decoder = SSEDecoder()
    decoder.feed(b"id: 7\ndata: {}\n\n")
    assert decoder.feed_lines(b"data: {}\n\n") == (b"{}", 1)
    run = b"data: {}\n\ndata: {}\n\n"
    assert decoder.feed(run) == [ServerSentEvent(data="{}", id="7")] * 2


# ─── the unfinished ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("stream", "pending"),
    [
        (b"", False),
        (b"\n\r\n\r", False),
        (b"data: x\n\n", False),
        (b"data: x\r\n\r", False),
        (b"d", True),
        (b"data", True),
        (b"data:", True),
        (b"data: x", True),
        (b"data: x\n", True),
        (b"data: x\r", True),
        (b"data: x\n: ping\n", True),
        (b"data: x\n\nda", True),
        (b"e", True),
        (b"event", True),
        (b"event: e\n", True),
        (b"id: 1", True),
        (b"retry: 1\n", True),
        (b"datax", False),
        (b"dat:", False),
        (b"data :", False),
        (b"x", False),
        (b"x: data\n", False),
        (b" data", False),
        (b":", False),
        (b": data", False),
        (b": ping\n", False),
        (b"id: 1\n\n", False),
        (b"event: e\n\n", False),
        (b"\xef", False),
        (b"\xef\xbb\xbf", False),
        (b"\xef\xbb\xbfdat", True),
        (b"\n\xef\xbb\xbfdat", False),
    ],
)
def test_mid_event_says_whether_an_end_now_would_truncate_an_event(
    stream: bytes, pending: bool
) -> None:
    for pieces in ([stream], bytewise(stream)):
        fed, quick = SSEDecoder(), SSEDecoder()
        for piece in pieces:
            fed.feed(piece)
            feed_either(quick, piece, 1)
        assert (fed.mid_event, quick.mid_event) == (pending, pending)


# ─── the cap ──────────────────────────────────────────────────────────────────────────────


def decode_capped(
    pieces: Iterable[bytes], max_event: int, *, quick: bool = False
) -> tuple[list[str], bool]:
    """The payloads, and whether an event was too large after them."""
    decoder, payloads = SSEDecoder(max_event=max_event), []
    try:
        for piece in [*pieces, b""]:  # the last asks for an error that events went before
            payloads += feed_either(decoder, piece, int(quick))
    except EventTooLarge:
        return payloads, True
    return payloads, False


@pytest.mark.parametrize(
    "stream",
    [
        b"data: 6789\n\n",
        b"data: {89}\n\n",
        b"data: {89}\n\ndata: {89}\n\n",
        b"data: {89}\r\n\r\n",
        b"\xef\xbb\xbfdata: {89}\n\n",
        b"data:\ndata:\n\n",
        b"event\nid: 9\n\n",
        b": 23456789\n: 23456789\ndata\n\n",
        b"data:\n: 890\n: 890\n\n",
        b"0123456789\n0123456789\n\n",
    ],
)
def test_the_cap_counts_the_lines_of_one_event(stream: bytes) -> None:
    want = [data for _, data, _, _ in naive_sse.read(stream).events]
    for pieces in ([stream], bytewise(stream)):
        for quick in (False, True):
            assert decode_capped(pieces, 10, quick=quick) == (want, False)
            assert decode_capped(pieces, 9, quick=quick)[1]


@settings(max_examples=300, deadline=None)
@given(json_runs | streams, cuttings, st.integers(1, 40))
@example(b"data: x\n\ndata: 0123456789\n\ndata: y\n\n", [], 10)
@example(b"\xef\xbb\xbfx", [1, 2], 1)
def test_the_cap_falls_at_the_same_event_however_the_bytes_are_cut(
    stream: bytes, cuts: list[int], max_event: int
) -> None:
    whole = decode_capped([stream], max_event)
    assert decode_capped(bytewise(stream), max_event) == whole
    assert decode_capped(split(stream, cuts), max_event) == whole
    assert decode_capped(split(stream, cuts), max_event, quick=True) == whole


def test_an_endless_line_is_refused_once_it_passes_the_cap_and_for_good() -> None:
    decoder = SSEDecoder(max_event=1000)
    for _ in range(10):
        assert decoder.feed(b"x" * 100) == []
    with pytest.raises(EventTooLarge) as caught:
        decoder.feed(b"x")
    error = caught.value
    assert (error.size, error.limit) == (1001, 1000)
    assert "1001" in str(error)
    assert "1000" in str(error)
    assert "max_event=" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert decoder.mid_event
    assert decoder.feed_lines(b"data: {}\n\n") is None
    with pytest.raises(EventTooLarge, match="1001"):
        decoder.feed(b"\n\n")


def test_events_before_one_too_large_are_handed_over_first() -> None:
    decoder = SSEDecoder(max_event=10)
    stream = b"data: a\n\ndata: b\n\ndata: much too large\n\ndata: c\n\n"
    assert [event.data for event in decoder.feed(stream)] == ["a", "b"]
    assert decoder.mid_event
    with pytest.raises(EventTooLarge):
        decoder.feed(b"")


def test_many_events_at_once_may_be_larger_than_the_cap_together() -> None:
    stream = b"data: {}\n\n" * 50
    assert decode_capped([stream], 10) == (["{}"] * 50, False)
    assert decode_capped([stream], 10, quick=True) == (["{}"] * 50, False)


def test_a_cap_below_one_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="max_event is 0"):
        SSEDecoder(max_event=0)


# ─── work ─────────────────────────────────────────────────────────────────────────────────

SHAPES: dict[str, Callable[[int], bytes]] = {
    "one event": lambda size: b'data: {"' + b"x" * size + b'"}\n\n',
    "an endless line": lambda size: b"x" * size,
    "an endless comment in an event": lambda size: b"data: x\n:" + b"x" * size,
    "many lines of one event": lambda size: (b"data: " + b"x" * 57 + b"\n") * (size // 64) + b"\n",
    "many events": lambda size: b"data: {}\n\n" * (size // 32),
    "newlines only": lambda size: b"\n" * (size // 16),
    "carriage returns": lambda size: b"\r" * (size // 16),
    "malformed UTF-8": lambda size: b"data: " + b"\xff" * size + b"\n\n",
}


@pytest.mark.parametrize("quick", [False, True], ids=["feed", "feed_lines"])
@pytest.mark.parametrize("shape", SHAPES)
def test_four_times_the_bytes_in_small_reads_are_about_four_times_the_work(
    shape: str, quick: bool
) -> None:
    def work(size: int) -> float:
        stream = SHAPES[shape](size)
        pieces = split(stream, range(0, len(stream), 64))
        took = []
        for _ in range(3):
            decoder = SSEDecoder()
            start = time.thread_time()
            for piece in pieces:
                if not quick or decoder.feed_lines(piece) is None:
                    decoder.feed(piece)
            took.append(time.thread_time() - start)
        return min(took)

    # Linear is 4 and quadratic 16, on this thread's CPU time.
    assert work(4 * 2**18) < 10 * work(2**18)


# ─── values ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("digits", "taken"), [(300, True), (301, False), (10_000, False)])
def test_a_retry_of_absurdly_many_digits_is_ignored(digits: int, taken: bool) -> None:
    value = b"9" * digits
    decoder = SSEDecoder()
    decoder.feed(b"retry: " + value + b"\ndata: x\n\n")
    assert decoder.reconnection_time == (int(value) if taken else None)


def test_an_event_is_a_value() -> None:
    event = ServerSentEvent(data="x")
    assert event == ServerSentEvent("message", "x", "", None)
    with pytest.raises(AttributeError):
        event.data = "y"  # type: ignore[misc]


def test_the_repr_counts_what_is_pending_and_shows_none_of_it() -> None:
    decoder = SSEDecoder(max_event=99)
    decoder.feed(b"data: secret\ndata: sec")
    assert repr(decoder) == "<SSEDecoder max_event=99, 21 bytes pending>"


def test_the_example_in_the_docstring_runs() -> None:
    result = doctest.testmod(sse)
    assert (result.attempted, result.failed) == (3, 0)


# ─── encoding ─────────────────────────────────────────────────────────────────────────────

texts = st.text(st.characters(codec="utf-8") | st.sampled_from("\r\n\0: \u2028\x0b"), max_size=30)
words = texts.map(lambda text: text.translate({13: None, 10: None, 0: None}))


def lf(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


@settings(deadline=None)
@given(texts, st.none() | words, st.none() | words, st.none() | st.integers(0, 10**20), texts)
def test_what_is_encoded_reads_back_as_itself_and_nothing_else(
    data: str, kind: str | None, id_: str | None, retry: int | None, comment: str
) -> None:
    event = encode_event(data, event=kind, id=id_, retry=retry)
    stream = encode_comment(comment) + event + encode_comment(comment) + encode_event("end")
    want = [(kind or "message", lf(data), id_ or "", retry), ("message", "end", id_ or "", None)]
    assert decode([stream]).events == want


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("name", ["event", "id"])
def test_a_line_end_in_a_one_line_field_is_refused(name: str, end: str) -> None:
    with pytest.raises(ValueError, match=f"{name}='a.*one line"):
        encode_event("x", **{name: f"a{end}data: forged"})  # type: ignore[arg-type]


def test_values_that_would_not_read_back_are_refused() -> None:
    with pytest.raises(ValueError, match="without NUL"):
        encode_event("x", id="a\0")
    with pytest.raises(ValueError, match="retry=-1 must not be negative"):
        encode_event("x", retry=-1)
    with pytest.raises(ValueError, match="format code 'd'"):
        encode_event("x", retry=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="surrogates"):
        encode_event("\ud83d")
    with pytest.raises(TypeError):
        encode_event("x", retry="1\ndata: y")  # type: ignore[arg-type]
    assert encode_event("x", retry=True) == b"retry: 1\ndata: x\n\n"
