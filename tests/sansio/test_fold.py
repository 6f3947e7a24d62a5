"""Chunks in, one completion out: in any order, at any moment, in linear time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async._sansio.fold import Fold
from fluence_async._sansio.surrogates import TEXT_FIELDS
from fluence_async.types import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    CompletionTokensDetails,
    Delta,
    FunctionCall,
    FunctionCallDelta,
    Message,
    ToolCall,
    ToolCallDelta,
    Usage,
)


def gain(
    index: int = 0,
    content: str | None = None,
    *,
    finish: str | None = None,
    logprobs: dict[str, Any] | None = None,
    calls: list[ToolCallDelta] | None = None,
    **rest: Any,
) -> ChatCompletionChunk:
    """A chunk in which one choice gains something."""
    delta = Delta(content=content, tool_calls=calls, **rest)
    choice = ChunkChoice(index=index, delta=delta, finish_reason=finish, logprobs=logprobs)
    return ChatCompletionChunk(choices=[choice])


def call(
    index: int | None = None,
    arguments: str | None = None,
    *,
    id: str | None = None,  # noqa: A002
    name: str | None = None,
    type: str | None = None,  # noqa: A002
) -> ToolCallDelta:
    return ToolCallDelta(
        index=index, id=id, type=type, function=FunctionCallDelta(name=name, arguments=arguments)
    )


def folded(*chunks: ChatCompletionChunk) -> ChatCompletion:
    fold = Fold()
    fold.extend(chunks)
    return fold.completion()


def calls_of(*deltas: ToolCallDelta) -> list[tuple[str, str, str]]:
    """What deltas, each in its own chunk, amount to: (id, name, arguments)."""
    answer = folded(*(gain(calls=[delta]) for delta in deltas))
    return [(c.id, c.function.name, c.function.arguments) for c in answer.tool_calls]


# ─── one choice ───────────────────────────────────────────────────────────────────────────


def test_nothing_is_an_empty_completion() -> None:
    fold = Fold()
    fold.extend([])
    assert fold.completion() == ChatCompletion()
    assert (fold.chunks, fold.usage, fold.started, fold.finished) == (0, None, False, False)


def test_a_documented_stream_is_its_answer() -> None:
    usage = Usage(prompt_tokens=9, completion_tokens=2, total_tokens=11)
    head = {"id": "c", "model": "m", "created": 5}
    chunks = [gain(role="assistant", content=""), gain(content="Hel"), gain(content="lo")]
    chunks += [gain(finish="stop"), ChatCompletionChunk(usage=usage)]
    chunks = [msgspec.structs.replace(chunk, **head) for chunk in chunks]
    assert folded(*chunks) == ChatCompletion(
        **head,
        choices=[Choice(message=Message(role="assistant", content="Hello"), finish_reason="stop")],
        usage=usage,
    )


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([ChatCompletionChunk(choices=[ChunkChoice()])], Message(role="assistant", content="")),
        ([gain(content="")], Message(role="assistant", content="")),
        ([gain(content="a"), gain(content=None), gain(content="b")], Message(content="ab")),
        ([gain(refusal="I "), gain(refusal="can't")], Message(content="", refusal="I can't")),
        (
            [gain(reasoning_content="2+"), gain(reasoning_content="2"), gain(content="4")],
            Message(content="4", reasoning_content="2+2"),
        ),
        (
            [gain(reasoning="2+"), gain(reasoning="2"), gain(content="4")],
            Message(content="4", reasoning="2+2"),
        ),
        (
            [gain(content="a"), gain(reasoning_content="b")],
            Message(content="a", reasoning_content="b"),
        ),
        ([gain(role="model"), gain(content="a")], Message(role="model", content="a")),
        (
            [gain(calls=[call(0, "{}", id="c", name="f")])],
            Message(
                content=None,
                tool_calls=[ToolCall(id="c", function=FunctionCall(name="f", arguments="{}"))],
            ),
        ),
        (
            [gain(content="x"), gain(calls=[call(0, "", id="c", name="f")])],
            Message(content="x", tool_calls=[ToolCall(id="c", function=FunctionCall(name="f"))]),
        ),
    ],
)
def test_a_message_is_the_sum_of_its_deltas(
    chunks: list[ChatCompletionChunk], message: Message
) -> None:
    message.role = message.role or "assistant"
    assert folded(*chunks).message == message


@pytest.mark.parametrize("finish", ["stop", "length", "tool_calls", "content_filter", "eos_token"])
def test_any_finish_reason_ends_a_choice(finish: str) -> None:
    fold = Fold()
    fold.extend([gain(content="a")])
    assert not fold.finished
    fold.extend([gain(finish=finish)])
    assert fold.finished
    fold.extend([gain(), ChatCompletionChunk(choices=[ChunkChoice()])])
    assert fold.completion().finish_reason == finish


def test_an_empty_finish_reason_is_none() -> None:
    fold = Fold()
    fold.extend([gain(content="a", finish=""), gain(finish="")])
    assert not fold.finished
    assert fold.completion().finish_reason is None


@pytest.mark.parametrize(
    ("chunk", "started"),
    [
        (ChatCompletionChunk(), False),
        (ChatCompletionChunk(usage=Usage()), False),
        (ChatCompletionChunk(choices=[ChunkChoice()]), False),
        (gain(role="assistant", content=""), False),
        (gain(finish="stop"), False),
        (gain(content="a"), True),
        (gain(1, content="a"), True),
        (gain(reasoning_content="a"), True),
        (gain(reasoning="a"), True),
        (gain(refusal="a"), True),
        (gain(calls=[call(0, name="f")]), True),
    ],
)
def test_it_has_started_once_something_was_said(chunk: ChatCompletionChunk, started: bool) -> None:
    fold = Fold()
    fold.extend([chunk])
    assert fold.started is started


# ─── head and usage ───────────────────────────────────────────────────────────────────────

USAGE = Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)


def test_what_a_later_chunk_leaves_out_takes_nothing_back() -> None:
    full = ChatCompletionChunk(
        id="c", model="m", created=5, system_fingerprint="fp", service_tier="flex", usage=USAGE
    )
    answer = folded(full, gain(content="a"), gain(content="b"), ChatCompletionChunk())
    assert (answer.id, answer.model, answer.created) == ("c", "m", 5)
    assert (answer.system_fingerprint, answer.service_tier) == ("fp", "flex")
    assert answer.usage == USAGE


def test_what_the_first_chunk_leaves_out_a_later_one_can_say() -> None:
    first = ChatCompletionChunk()  # as one server's, which only tells of its content filter
    second = gain(role="assistant")
    second.id = "c"
    last = ChatCompletionChunk(model="m", created=5, system_fingerprint="fp", service_tier="flex")
    answer = folded(first, second, gain(content="a"), last, ChatCompletionChunk(usage=USAGE))
    assert (answer.id, answer.model, answer.created) == ("c", "m", 5)
    assert (answer.system_fingerprint, answer.service_tier) == ("fp", "flex")


def test_the_first_name_stays_and_the_last_tier_counts() -> None:
    answer = folded(
        ChatCompletionChunk(id="a", model="m", created=1, service_tier="auto"),
        ChatCompletionChunk(id="b", model="n", created=2, service_tier="default"),
    )
    assert (answer.id, answer.model, answer.created) == ("a", "m", 1)
    assert answer.service_tier == "default"


def test_the_last_usage_counts_and_none_never_overwrites_it() -> None:
    fold = Fold()
    early = gain(content="a")
    early.usage = Usage(completion_tokens=1, total_tokens=1)
    fold.extend([early])
    assert fold.usage == early.usage
    fold.extend([ChatCompletionChunk(usage=USAGE), gain(finish="stop"), ChatCompletionChunk()])
    assert fold.usage == fold.completion().usage == USAGE


def test_a_chunk_with_both_text_and_usage_gives_both() -> None:
    both = [gain(content="a"), gain(content="b"), gain(content="c")]
    for total, chunk in enumerate(both):
        chunk.usage = Usage(
            total_tokens=total,
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=1),
        )
    answer = folded(*both)
    assert (answer.text, answer.usage) == ("abc", both[-1].usage)


# ─── several choices ──────────────────────────────────────────────────────────────────────


def test_choices_come_out_in_the_order_of_their_indexes() -> None:
    answer = folded(gain(2, "c"), gain(0, "a"), gain(1, "b"), gain(0, "a"))
    assert [(choice.index, choice.message.text) for choice in answer.choices] == [
        (0, "aa"),
        (1, "b"),
        (2, "c"),
    ]


def test_one_chunk_may_bring_something_for_each() -> None:
    chunk = ChatCompletionChunk(choices=gain(1, "b").choices + gain(0, "a").choices)
    assert [choice.message.text for choice in folded(chunk, chunk).choices] == ["aa", "bb"]


@pytest.mark.parametrize(
    ("expected", "finishes", "finished"),
    [
        (1, [], False),
        (1, [(0, None)], False),
        (1, [(0, "stop")], True),
        (2, [(0, "stop")], False),
        (2, [(0, "stop"), (1, None)], False),
        (2, [(1, "stop"), (0, "length")], True),
        (1, [(0, "stop"), (1, None)], False),
        (1, [(0, "stop"), (1, "stop")], True),
        (3, [(0, "stop"), (1, "stop")], False),
    ],
)
def test_it_is_finished_when_every_choice_asked_for_and_every_one_begun_is(
    expected: int, finishes: list[tuple[int, str | None]], finished: bool
) -> None:
    fold = Fold(expected)
    fold.extend([gain(index, "x", finish=finish) for index, finish in finishes])
    assert fold.finished is finished


def test_each_choice_keeps_its_own_finish_reason() -> None:
    answer = folded(gain(1, finish="length"), gain(0, finish="stop"))
    assert [choice.finish_reason for choice in answer.choices] == ["stop", "length"]


# ─── tool calls ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        (
            [call(0, "", id="a", name="f"), call(0, '{"x"'), call(0, ":1}")],
            [("a", "f", '{"x":1}')],
        ),
        (
            [call(1, "1", id="b", name="g"), call(0, "0", id="a", name="f"), call(1, "1")],
            [("a", "f", "0"), ("b", "g", "11")],
        ),
        (
            [call(7, "7", id="h", name="h"), call(3, "3", id="d", name="d")],
            [("d", "d", "3"), ("h", "h", "7")],
        ),
        ([call(-1, "{}", id="a", name="f"), call(-1, "!")], [("a", "f", "{}!")]),
        ([call(0, name="get_"), call(0, name="time"), call(0, id="a")], [("a", "get_time", "")]),
        (
            [call(0, name="f", id="a"), call(0, "{", name="f"), call(0, "}", name="f")],
            [("a", "f", "{}")],
        ),
        ([call(0, "{}", name="f")], [("", "f", "{}")]),
        ([call(0, id="a"), call(0, id="")], [("a", "", "")]),
    ],
)
def test_calls_are_keyed_by_their_index(
    deltas: list[ToolCallDelta], calls: list[tuple[str, str, str]]
) -> None:
    assert calls_of(*deltas) == calls


@pytest.mark.parametrize(
    ("deltas", "calls"),
    [
        ([call(None, "{}", id="a", name="f")], [("a", "f", "{}")]),
        ([call(None, "{", id="a", name="f"), call(None, "}")], [("a", "f", "{}")]),
        (
            [call(id="a", name="f"), call(None, "1"), call(id="b", name="g"), call(None, "2")],
            [("a", "f", "1"), ("b", "g", "2")],
        ),
        ([call(None, "1", name="f"), call(None, "2", name="g")], [("", "f", "1"), ("", "g", "2")]),
        ([call(None, "1", name="f"), call(None, "2", name="f")], [("", "f", "1"), ("", "f", "2")]),
        (
            [call(None, "{", id="a", name="f"), call(None, "}", id="a", name="f")],
            [("a", "f", "{}")],
        ),
        ([call(None, "{", id="a", name="f"), call(None, "}", id="a")], [("a", "f", "{}")]),
        ([call(None, "{}")], [("", "", "{}")]),
        ([call(5, "x", id="a", name="f"), call(None, "y")], [("a", "f", "xy")]),
        (
            [call(5, "x", id="a", name="f"), call(None, "y", id="b", name="g")],
            [("a", "f", "x"), ("b", "g", "y")],
        ),
        (
            [ToolCallDelta(), ToolCallDelta(id="a"), ToolCallDelta(type="custom")],
            [("", "", ""), ("a", "", "")],
        ),
    ],
)
def test_a_missing_index_is_the_next_call_or_the_one_being_read(
    deltas: list[ToolCallDelta], calls: list[tuple[str, str, str]]
) -> None:
    assert calls_of(*deltas) == calls


def test_several_calls_may_come_in_one_chunk_without_indexes() -> None:
    answer = folded(gain(calls=[call(None, "1", id="a"), call(None, "2", id="b")]))
    assert [(c.id, c.function.arguments) for c in answer.tool_calls] == [("a", "1"), ("b", "2")]


def test_an_index_is_a_key_and_never_a_size() -> None:
    began = time.process_time()
    huge = 2_000_000_000
    answer = folded(
        gain(calls=[call(huge, "a", id="x", name="f")]),
        gain(calls=[call(huge, "b"), call(10**18, "c", id="y")]),
        gain(huge, "text"),
    )
    assert [c.function.arguments for c in answer.tool_calls] == ["ab", "c"]
    assert [choice.index for choice in answer.choices] == [0, huge]
    assert time.process_time() - began < 1


def test_a_calls_type_is_kept() -> None:
    answer = folded(gain(calls=[call(0, type="custom")]), gain(calls=[call(0)]))
    assert answer.tool_calls[0].type == "custom"


# ─── log probabilities ────────────────────────────────────────────────────────────────────


def test_log_probabilities_are_joined_list_by_list() -> None:
    answer = folded(
        gain(content="a", logprobs={"content": [{"token": "a"}], "refusal": None}),
        gain(content="b"),
        gain(content="c", logprobs={"content": [{"token": "c"}], "refusal": None}),
        gain(logprobs={"content": None, "version": 2}),
        gain(logprobs={"refusal": [1], "content": []}),
    )
    assert answer.choices[0].logprobs == {
        "content": [{"token": "a"}, {"token": "c"}],
        "refusal": [1],
        "version": 2,
    }


@pytest.mark.parametrize(
    ("values", "joined"),
    [
        ([5, [1]], [1]),
        ([[1], 5], 5),
        (["x", "y"], "y"),
        ([[1], None, [2]], [1, 2]),
        ([None, None], None),
        ([{"a": 1}, [2]], [2]),
    ],
)
def test_log_probabilities_that_change_their_form_never_raise(
    values: list[Any], joined: Any
) -> None:
    answer = folded(*(gain(logprobs={"content": value}) for value in values))
    assert (answer.choices[0].logprobs or {}).get("content") == joined


def test_without_any_there_are_none() -> None:
    assert folded(gain(content="a", logprobs={})).choices[0].logprobs is None


# ─── at any moment ────────────────────────────────────────────────────────────────────────


def test_what_was_said_so_far_does_not_change_afterwards() -> None:
    fold = Fold()
    chunk = gain(content="a", logprobs={"content": [1]}, calls=[call(0, "x", id="c")])
    chunk.usage = USAGE
    fold.extend([chunk])
    early = fold.completion()
    before = msgspec.json.encode(early)
    fold.extend([gain(content="b", logprobs={"content": [2]}, calls=[call(0, "y")], finish="stop")])
    fold.extend([ChatCompletionChunk(id="late", model="m", usage=Usage(total_tokens=99))])
    assert msgspec.json.encode(early) == before
    assert fold.completion().text == "ab"


def test_neither_folding_nor_its_result_changes_a_chunk() -> None:
    first = gain(content="a", logprobs={"content": [1]}, calls=[call(0, "x")])
    before = msgspec.json.encode(first)
    fold = Fold()
    fold.extend([first, gain(logprobs={"content": [2]}, calls=[call(0, "y")])])
    fold.completion()
    assert msgspec.json.encode(first) == before


def test_it_says_how_much_it_holds() -> None:
    fold = Fold()
    fold.extend([gain(content="a"), gain(1, content="b"), gain(content="c")])
    assert repr(fold) == "<Fold of 3 chunks, 2 choices>"
    assert fold.chunks == 3


words = st.sampled_from(["", "a", "b", "{", "}", "long er", None])
text_gains = st.builds(gain, st.integers(0, 2), words)
other_gains = st.builds(
    gain,
    st.integers(0, 2),
    words,
    refusal=words,
    reasoning_content=words,
    reasoning=words,
    finish=st.sampled_from([None, None, "stop", ""]),
    logprobs=st.sampled_from([None, {"content": [1]}, {"content": None}]),
    calls=st.none() | st.lists(st.builds(call, st.integers(0, 2), words), max_size=2),
)
usages = st.builds(ChatCompletionChunk, usage=st.just(USAGE) | st.none())
streams = st.lists(text_gains | text_gains | other_gains | usages, max_size=20)


@given(stream=streams, cuts=st.lists(st.integers(0, 20), max_size=5))
def test_any_cutting_into_batches_gives_the_same(
    stream: Sequence[ChatCompletionChunk], cuts: list[int]
) -> None:
    whole, batched = Fold(), Fold()
    whole.extend(stream)
    for start, end in pairwise([0, *sorted(cuts), len(stream)]):
        batched.extend(stream[start:end])
        batched.completion()
    assert batched.completion() == whole.completion()
    assert (batched.chunks, batched.finished, batched.started) == (
        whole.chunks,
        whole.finished,
        whole.started,
    )


def naive(stream: Sequence[ChatCompletionChunk]) -> dict[tuple[Any, ...], Any]:
    """A second reading of the same chunks: each text and value by where it belongs."""
    found: dict[tuple[Any, ...], Any] = {}
    for chunk in stream:
        for choice in chunk.choices:
            at = choice.index
            found.setdefault((at,), True)
            if choice.finish_reason:
                found[at, "finish"] = choice.finish_reason
            for value in (choice.logprobs or {}).get("content") or ():
                found[at, "logprobs"] = [*found.get((at, "logprobs"), []), value]
            delta = choice.delta or Delta()
            for name in TEXT_FIELDS:
                found[at, name] = found.get((at, name), "") + (getattr(delta, name) or "")
            for part in delta.tool_calls or ():
                assert part.function is not None
                place = (at, "call", part.index)
                found[place] = found.get(place, "") + (part.function.arguments or "")
    return found


@given(streams)
def test_the_fold_is_what_a_naive_reading_finds(stream: Sequence[ChatCompletionChunk]) -> None:
    answer, found = folded(*stream), naive(stream)
    assert [choice.index for choice in answer.choices] == sorted(p[0] for p in found if len(p) == 1)
    for choice in answer.choices:
        at, message = choice.index, choice.message
        assert choice.finish_reason == found.get((at, "finish"))
        assert (choice.logprobs or {}).get("content") == found.get((at, "logprobs"))
        assert (message.content or "") == found[at, "content"]
        assert (message.refusal or "") == found[at, "refusal"]
        assert (message.reasoning_content or "") == found[at, "reasoning_content"]
        assert (message.reasoning or "") == found[at, "reasoning"]
        calls = [c.function.arguments for c in message.tool_calls or ()]
        assert calls == [
            found[place] for place in sorted(p for p in found if p[:2] == (at, "call"))
        ]


@given(
    lanes=st.dictionaries(
        st.tuples(st.integers(0, 2), st.none() | st.integers(0, 2)),
        st.lists(st.sampled_from(["a", "b", "cd", "{}"]), min_size=1, max_size=4),
        min_size=1,
        max_size=5,
    ),
    data=st.data(),
)
def test_any_interleaving_of_choices_and_tool_calls_gives_the_same_completion(
    lanes: dict[tuple[int, int | None], list[str]], data: st.DataObject
) -> None:
    def piece(lane: tuple[int, int | None], text: str) -> ChatCompletionChunk:
        index, at = lane
        if at is None:
            return gain(index, text)
        return gain(index, calls=[call(at, text, id=f"c{index}{at}", name=f"f{at}")])

    in_order = [piece(lane, text) for lane, texts in lanes.items() for text in texts]
    waiting = {lane: list(texts) for lane, texts in lanes.items()}
    shuffled = []
    while any(waiting.values()):
        lane = data.draw(st.sampled_from([lane for lane, left in waiting.items() if left]))
        shuffled.append(piece(lane, waiting[lane].pop(0)))
    assert folded(*shuffled) == folded(*in_order)


# ─── in linear time ───────────────────────────────────────────────────────────────────────


def seconds_for(chunks: Sequence[ChatCompletionChunk]) -> float:
    """The processor's time to fold chunks that come one by one, the least of three."""
    times = []
    for _ in range(3):
        fold, began = Fold(), time.process_time()
        for chunk in chunks:
            fold.extend((chunk,))
        fold.completion()
        times.append(time.process_time() - began)
    return min(times)


@pytest.mark.parametrize(
    "make",
    [
        lambda n: gain(content="word "),
        lambda n: gain(calls=[call(0, "word ", name="f")]),
        lambda n: gain(calls=[call(None, "word ", id=str(n))]),
        lambda n: gain(logprobs={"content": [n]}),
        lambda n: gain(n, content="a"),
    ],
    ids=["text", "arguments", "calls without index", "logprobs", "choices"],
)
def test_folding_takes_linear_time(make: Any) -> None:
    few = seconds_for([make(n) for n in range(500)])
    many = seconds_for([make(n) for n in range(10_000)])
    assert many < 100 * few + 0.3  # linear is 20, quadratic 400
