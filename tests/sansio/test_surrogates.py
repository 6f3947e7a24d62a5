"""Half characters are joined across chunks, and what stays half is U+FFFD."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluence_async._sansio.fold import Fold
from fluence_async._sansio.surrogates import TEXT_FIELDS, SurrogateJoiner, whole_text
from fluence_async.types import (
    ChatCompletionChunk,
    ChunkChoice,
    Delta,
    FunctionCallDelta,
    ToolCallDelta,
)

HIGH, LOW, EMOJI = "\ud83d", "\ude00", "😀"

texts = st.text(max_size=12)


def units(text: str) -> list[str]:
    """The UTF-16 units of a text, each as the character that stands for it alone."""
    encoded = text.encode("utf-16-le", "surrogatepass")
    return [chr(int.from_bytes(encoded[at : at + 2], "little")) for at in range(0, len(encoded), 2)]


def pieces(text: str, cuts: Sequence[int]) -> list[str]:
    """`text` cut between UTF-16 units, as a server in another language would."""
    whole = units(text)
    places = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    return ["".join(whole[start:end]) for start, end in pairwise(places)]


def chunk_of(
    field: str, text: str | None, *, index: int = 0, call: int | None = 0, finish: str | None = None
) -> ChatCompletionChunk:
    """A chunk whose choice `index` gains `text` in `field` (`arguments`: of its call `call`)."""
    if field == "arguments":
        function = FunctionCallDelta(arguments=text)
        delta = Delta(tool_calls=[ToolCallDelta(index=call, function=function)])
    else:
        delta = Delta(**{field: text})
    return ChatCompletionChunk(
        choices=[ChunkChoice(index=index, delta=delta, finish_reason=finish)]
    )


def end_of(index: int = 0) -> ChatCompletionChunk:
    return ChatCompletionChunk(choices=[ChunkChoice(index=index, finish_reason="stop")])


def joined(
    joiner: SurrogateJoiner, chunks: Iterable[ChatCompletionChunk]
) -> list[ChatCompletionChunk]:
    out = []
    for chunk in chunks:
        joiner.join(chunk)
        msgspec.json.encode(chunk)  # raises on a lone surrogate
        out.append(chunk)
    return out


def texts_of(chunks: Iterable[ChatCompletionChunk]) -> dict[tuple[int, str, int | None], str]:
    """What each text of each choice amounts to, by reading the deltas alone."""
    found: dict[tuple[int, str, int | None], str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            delta = choice.delta or Delta()
            parts = [(name, None, getattr(delta, name)) for name in TEXT_FIELDS]
            parts += [
                ("arguments", call.index, call.function.arguments)
                for call in delta.tool_calls or ()
                if call.function is not None
            ]
            for name, call, text in parts:
                if text:
                    place = (choice.index, name, call)
                    found[place] = found.get(place, "") + text
    return found


# ─── a text without halves ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("", ""),
        ("plain", "plain"),
        (EMOJI, EMOJI),
        (HIGH + LOW, EMOJI),
        (HIGH, "\ufffd"),
        (LOW, "\ufffd"),
        (LOW + HIGH, "\ufffd\ufffd"),
        (HIGH + HIGH + LOW, "\ufffd" + EMOJI),
        (f"a{HIGH}b{LOW}c", "a\ufffdb\ufffdc"),
        ("\uffff\ufffe\u2028\x00", "\uffff\ufffe\u2028\x00"),
        ("\U0010ffff", "\U0010ffff"),
    ],
    ids=ascii,
)
def test_pairs_are_joined_and_lone_halves_replaced(text: str, whole: str) -> None:
    assert whole_text(text) == whole


@given(st.text())
def test_a_text_without_halves_is_unchanged(text: str) -> None:
    assert whole_text(text) == text
    assert whole_text("".join(units(text))) == text


@given(st.text(st.characters(categories=["Cs", "L"]), max_size=8))
def test_no_text_keeps_a_half_or_loses_anything_else(text: str) -> None:
    whole = whole_text(text)
    whole.encode()
    assert whole_text(whole) == whole
    assert len(units(whole)) == len(units(text))


# ─── a text cut in pieces ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("field", [*TEXT_FIELDS, "arguments"])
@given(text=texts, cuts=st.lists(st.integers(0, 40), max_size=6))
@example(text="\U00010000\U0010ffff", cuts=[1, 3])
def test_any_cutting_between_utf16_units_joins_to_the_text_again(
    field: str, text: str, cuts: list[int]
) -> None:
    joiner = SurrogateJoiner()
    out = joined(joiner, [*(chunk_of(field, piece) for piece in pieces(text, cuts)), end_of()])
    assert "".join(texts_of(out).values()) == text
    assert not joiner.pending


indexes = st.integers(0, 2)
places = st.tuples(indexes, st.sampled_from(TEXT_FIELDS), st.none()) | st.tuples(
    indexes, st.just("arguments"), indexes
)


@given(
    streams=st.dictionaries(
        places, st.tuples(texts, st.lists(st.integers(0, 20), max_size=4)), max_size=5
    ),
    data=st.data(),
)
def test_texts_of_several_choices_and_tool_calls_do_not_mix(
    streams: dict[tuple[int, str, int | None], tuple[str, list[int]]], data: st.DataObject
) -> None:
    waiting = {place: pieces(text, cuts) for place, (text, cuts) in streams.items()}
    sent = []
    while any(waiting.values()):
        place = data.draw(st.sampled_from([place for place, left in waiting.items() if left]))
        index, field, call = place
        sent.append(chunk_of(field, waiting[place].pop(0), index=index, call=call))
    sent += [end_of(index) for index in range(3)]
    expected = {place: text for place, (text, _) in streams.items() if text}
    assert texts_of(joined(SurrogateJoiner(), sent)) == expected


@given(
    text=st.text(st.characters(categories=["Cs", "L"]) | st.sampled_from([HIGH, LOW]), max_size=10),
    cuts=st.lists(st.integers(0, 10), max_size=5),
    field=st.sampled_from([*TEXT_FIELDS, "arguments"]),
)
def test_any_cutting_of_broken_text_gives_what_the_whole_text_gives(
    text: str, cuts: list[int], field: str
) -> None:
    out = joined(
        SurrogateJoiner(), [*(chunk_of(field, piece) for piece in pieces(text, cuts)), end_of()]
    )
    assert "".join(texts_of(out).values()) == whole_text(text)


# ─── cases ────────────────────────────────────────────────────────────────────────────────


def test_a_first_half_is_held_back_until_the_second_comes() -> None:
    joiner = SurrogateJoiner()
    first, second = chunk_of("content", "a" + HIGH), chunk_of("content", LOW + "b")
    joiner.join(first)
    assert (first.text, joiner.pending) == ("a", True)
    joiner.join(second)
    assert (second.text, joiner.pending) == (EMOJI + "b", False)


@pytest.mark.parametrize("between", [None, ""])
def test_a_chunk_without_text_in_between_changes_nothing(between: str | None) -> None:
    joiner = SurrogateJoiner()
    sent = [chunk_of("content", HIGH), chunk_of("content", between), chunk_of("content", LOW)]
    assert [chunk.text for chunk in joined(joiner, sent)] == ["", "", EMOJI]
    assert sent[1].choices[0].delta == Delta(content=between)


def test_a_chunk_without_a_delta_or_a_function_changes_nothing() -> None:
    joiner = SurrogateJoiner()
    joiner.join(chunk_of("content", HIGH))
    empty = ChatCompletionChunk(
        choices=[ChunkChoice(), ChunkChoice(delta=Delta(tool_calls=[ToolCallDelta(index=0)]))]
    )
    expected = msgspec.json.encode(empty)
    joiner.join(empty)
    assert msgspec.json.encode(empty) == expected
    assert joiner.pending


def test_two_first_halves_in_a_row_are_one_lost_and_one_held() -> None:
    sent = [chunk_of("content", HIGH), chunk_of("content", HIGH), chunk_of("content", LOW)]
    assert [chunk.text for chunk in joined(SurrogateJoiner(), sent)] == ["", "\ufffd", EMOJI]


@pytest.mark.parametrize(
    ("end", "text"),
    [
        (ChunkChoice(finish_reason="stop"), "\ufffd"),
        (ChunkChoice(finish_reason="stop", delta=Delta()), "\ufffd"),
        (ChunkChoice(finish_reason="stop", delta=Delta(content="")), "\ufffd"),
        (ChunkChoice(finish_reason="stop", delta=Delta(content="b")), "\ufffdb"),
        (ChunkChoice(finish_reason="stop", delta=Delta(content=LOW)), EMOJI),
        (ChunkChoice(finish_reason="stop", delta=Delta(content=LOW + HIGH)), EMOJI + "\ufffd"),
        (ChunkChoice(finish_reason=""), ""),
    ],
    ids=repr,
)
def test_a_half_that_is_alone_when_its_choice_ends_is_replaced(end: ChunkChoice, text: str) -> None:
    joiner = SurrogateJoiner()
    first, last = joined(
        joiner, [chunk_of("content", "a" + HIGH), ChatCompletionChunk(choices=[end])]
    )
    assert (first.text, last.text) == ("a", text)
    assert joiner.pending is (text == "")


def test_a_lone_half_of_a_tool_call_ends_it_also_where_the_last_chunk_names_no_call() -> None:
    joiner, fold = SurrogateJoiner(), Fold()
    sent = [chunk_of("arguments", '{"a":"' + HIGH, call=7), end_of()]
    fold.extend(joined(joiner, sent))
    assert fold.completion().tool_calls[0].function.arguments == '{"a":"\ufffd'
    assert not joiner.pending


def test_the_lone_half_of_a_call_without_an_index_belongs_to_the_last_call() -> None:
    fold = Fold()
    opening = chunk_of("arguments", "x" + HIGH, call=None)
    other = ToolCallDelta(index=None, function=FunctionCallDelta(arguments=HIGH))
    ending = end_of()
    ending.choices[0].delta = Delta(tool_calls=[other])
    fold.extend(joined(SurrogateJoiner(), [opening, ending]))
    assert [call.function.arguments for call in fold.completion().tool_calls] == ["x\ufffd\ufffd"]


def test_the_end_of_one_choice_lets_go_of_no_other() -> None:
    joiner = SurrogateJoiner()
    sent = [chunk_of("content", HIGH), chunk_of("content", HIGH, index=1), end_of(1)]
    assert texts_of(joined(joiner, sent)) == {(1, "content", None): "\ufffd"}
    assert joiner.pending
    assert [chunk.text for chunk in joined(joiner, [chunk_of("content", LOW)])] == [EMOJI]
