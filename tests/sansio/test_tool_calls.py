"""Turns of model and tools: what is called, what is sent next, and when it is over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async import (
    Message,
    ToolCallGrew,
    ToolCallStarted,
    ToolError,
    TurnLimitError,
    Usage,
    tool,
)
from fluence_async._sansio.fold import Fold
from fluence_async._sansio.tool_calls import (
    Conversation,
    Prepared,
    ToolCallReader,
    added,
    as_content,
    prepare,
)
from fluence_async.types import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    CompletionTokensDetails,
    Delta,
    FunctionCall,
    FunctionCallDelta,
    ToolCall,
    ToolCallDelta,
)


@tool
def add(a: int, b: int = 1) -> int:
    return a + b


TOOLS = {"add": add.decode}


def call(
    name: str = "add", arguments: str = "{}", call_id: str = "c", kind: str = "function"
) -> ToolCall:
    return ToolCall(id=call_id, type=kind, function=FunctionCall(name=name, arguments=arguments))


def answer(*calls: ToolCall, text: str | None = None, finish: str | None = None) -> ChatCompletion:
    said = Message(role="assistant", content=text, tool_calls=[*calls] or None)
    reason = finish or ("tool_calls" if calls else "stop")
    return ChatCompletion(
        choices=[Choice(message=said, finish_reason=reason)], usage=Usage(total_tokens=3)
    )


def conversation(messages: Any = "hi", *, turns: int = 9, corrections: int = 1) -> Conversation:
    return Conversation(messages, max_turns=turns, max_corrections=corrections)


# ─── one call ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("made", "arguments", "told"),
    [
        (call(arguments='{"a":1}'), {"a": 1, "b": 1}, ""),
        (call(arguments='{"a":1,"b":2}'), {"a": 1, "b": 2}, ""),
        (call(arguments='{"a":"1"}'), None, r"Expected `int`, got `str` - at `\$\.a`"),
        (call(arguments='{"a":1'), None, "truncated"),
        (call(arguments=""), None, "missing required field `a`"),
        (call(arguments="[" * 100_000), None, "do not fit"),
        (call("sub"), None, "no tool 'sub'; there are: add"),
        (call(""), None, "no tool ''"),
        (call(arguments='{"a":1}', kind="custom"), None, "no tool 'add'"),
    ],
)
def test_a_call_can_be_made_or_the_model_is_told_why_not(
    made: ToolCall, arguments: dict[str, Any] | None, told: str
) -> None:
    prepared = prepare(made, TOOLS)
    assert prepared.call == made
    if arguments is not None:
        assert (prepared.arguments, prepared.problem) == (arguments, None)
    else:
        assert prepared.problem is not None
        assert prepared.advice.startswith("Error: ")
        assert re.search(told, prepared.advice)


@pytest.mark.parametrize(
    ("result", "content"),
    [
        ("as it is", "as it is"),
        ("half \ud83d", "half �"),
        (None, "null"),
        ({"a": [1]}, '{"a":[1]}'),
        (Usage(total_tokens=1), '{"total_tokens":1}'),
        (1.5, "1.5"),
    ],
)
def test_what_the_model_reads_of_a_result(result: Any, content: str) -> None:
    assert as_content(result) == content


@pytest.mark.parametrize("result", [object(), {"a": object()}, {1j: 1}])
def test_a_result_that_is_no_json_is_named(result: Any) -> None:
    with pytest.raises(TypeError, match=f"result of {type(result).__name__} is no JSON"):
        as_content(result)


# ─── turns ────────────────────────────────────────────────────────────────────────────────


def test_a_turn_enters_the_conversation_as_a_whole_and_in_the_order_of_its_calls() -> None:
    turns = conversation([{"role": "user", "content": "hi"}])
    first, second = call(call_id="1"), call(call_id="2")
    calls = turns.answered(answer(first, second, text="let me see"))
    assert calls == [first, second]
    assert turns.messages == [{"role": "user", "content": "hi"}]
    turns.called(calls, {"2": "two", "1": "one"})
    assert turns.messages[1:] == [
        Message(role="assistant", content="let me see", tool_calls=[first, second]),
        Message(role="tool", tool_call_id="1", content="one"),
        Message(role="tool", tool_call_id="2", content="two"),
    ]
    assert turns.answered(answer(text="done")) == []
    assert turns.messages[-1] == Message(role="assistant", content="done")
    assert turns.usage == Usage(total_tokens=6)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["", ""], ["call_1_0", "call_1_1"]),
        (["a", "a"], ["a", "call_1_1"]),
        (["call_1_1", ""], ["call_1_1", "call_1_1_"]),
    ],
)
def test_every_call_has_an_id_of_its_own(ids: list[str], expected: list[str]) -> None:
    calls = conversation().answered(answer(*(call(call_id=given) for given in ids)))
    assert [made.id for made in calls] == expected


@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_calls_of_a_cut_answer_are_not_made_and_not_sent_back(finish: str) -> None:
    turns = conversation()
    assert turns.answered(answer(call(), finish=finish)) == []
    assert turns.messages == [Message(role="user", content="hi")]


@pytest.mark.parametrize("finish", ["tool_calls", "stop", "function_call"])
def test_calls_are_made_whatever_else_the_finish_reason_is(finish: str) -> None:
    assert conversation().answered(answer(call(), finish=finish)) == [call()]


def test_an_answer_without_a_choice_ends_it() -> None:
    turns = conversation()
    assert turns.answered(ChatCompletion()) == []
    assert len(turns.messages) == 1


def test_the_last_turn_must_not_call() -> None:
    turns = conversation(turns=2)
    turns.called(turns.answered(answer(call())), {"c": "1"})
    before = turns.messages
    with pytest.raises(TurnLimitError, match=r"called add in turn 2.*max_turns=2") as caught:
        turns.answered(answer(call()))
    assert caught.value.messages == turns.messages == before
    assert len(turns.turns) == 2
    assert conversation(turns=1).answered(answer(text="at once")) == []


@pytest.mark.parametrize(
    ("choice", "second"),
    [
        ("required", None),
        ({"type": "function", "function": {"name": "add"}}, None),
        ("auto", "auto"),
        ("none", "none"),
        (None, None),
    ],
)
def test_a_forced_call_is_forced_once(choice: Any, second: Any) -> None:
    turns = conversation()
    params = {"model": "m", "messages": "hi", "tool_choice": choice}
    assert turns.params(params) == {**params, "messages": turns.messages}
    turns.called(turns.answered(answer(call())), {"c": "1"})
    assert turns.params(params) == {**params, "messages": turns.messages, "tool_choice": second}


GOOD, WRONG = Prepared(call=call()), Prepared(call=call("x"), problem=LookupError("no x"))


@pytest.mark.parametrize(
    ("allowed", "turns", "raises_in"),
    [
        (0, [[GOOD]], None),
        (0, [[WRONG]], 0),
        (1, [[WRONG], [GOOD]], None),
        (1, [[WRONG], [WRONG]], 1),
        (1, [[WRONG, WRONG], [GOOD]], None),
        (1, [[WRONG], [GOOD], [WRONG, GOOD], [GOOD]], None),
        (2, [[WRONG], [GOOD, WRONG], [WRONG]], 2),
    ],
)
def test_the_model_is_told_so_often_in_a_row(
    allowed: int, turns: Sequence[list[Prepared]], raises_in: int | None
) -> None:
    counted = conversation(corrections=allowed)
    for number, calls in enumerate(turns):
        if number == raises_in:
            with pytest.raises(ToolError, match=r"'x' wrongly: no x.*max_corrections") as caught:
                counted.checked(calls)
            assert isinstance(caught.value.__cause__, LookupError)
            return
        counted.checked(calls)
    assert raises_in is None


DETAILS = CompletionTokensDetails(reasoning_tokens=2)


@pytest.mark.parametrize(
    ("one", "other", "total"),
    [
        (None, None, None),
        (Usage(total_tokens=1), None, Usage(total_tokens=1)),
        (None, Usage(total_tokens=1), Usage(total_tokens=1)),
        (
            Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3),
            Usage(
                prompt_tokens=10,
                completion_tokens=20,
                total_tokens=30,
                completion_tokens_details=DETAILS,
            ),
            Usage(
                prompt_tokens=11,
                completion_tokens=22,
                total_tokens=33,
                completion_tokens_details=DETAILS,
            ),
        ),
        (
            Usage(completion_tokens_details=DETAILS),
            Usage(
                completion_tokens_details=CompletionTokensDetails(
                    reasoning_tokens=3, audio_tokens=1
                )
            ),
            Usage(
                completion_tokens_details=CompletionTokensDetails(
                    reasoning_tokens=5, audio_tokens=1
                )
            ),
        ),
    ],
)
def test_usages_add_up(one: Usage | None, other: Usage | None, total: Usage | None) -> None:
    before = msgspec.json.encode([one, other])
    assert added(one, other) == total
    assert msgspec.json.encode([one, other]) == before


# ─── while it streams ─────────────────────────────────────────────────────────────────────


def piece(
    index: int | None,
    arguments: str = "",
    *,
    choice: int = 0,
    name: str | None = None,
    call_id: str | None = None,
) -> ChatCompletionChunk:
    function = FunctionCallDelta(name=name, arguments=arguments)
    delta = Delta(tool_calls=[ToolCallDelta(index=index, id=call_id, function=function)])
    return ChatCompletionChunk(choices=[ChunkChoice(index=choice, delta=delta)])


def read(*chunks: ChatCompletionChunk) -> list[ToolCallStarted | ToolCallGrew]:
    reader = ToolCallReader(1)
    return [event for chunk in chunks for event in reader.feed(chunk)]


def started(index: int, name: str, call_id: str = "") -> ToolCallStarted:
    return ToolCallStarted(turn=1, index=index, id=call_id, name=name)


def grew(index: int, arguments: str) -> ToolCallGrew:
    return ToolCallGrew(turn=1, index=index, arguments=arguments)


@pytest.mark.parametrize(
    ("chunks", "events"),
    [
        ([], []),
        ([piece(0, name="f", call_id="a")], [started(0, "f", "a")]),
        ([piece(0, "{}", name="f")], [started(0, "f"), grew(0, "{}")]),
        (
            [piece(0, name="f"), piece(0, "{"), piece(0, "}")],
            [started(0, "f"), grew(0, "{"), grew(0, "}")],
        ),
        # the name may be late, and be repeated
        ([piece(0, "{"), piece(0, "}", name="f")], [started(0, "f"), grew(0, "{}")]),
        (
            [piece(0, "{", name="f"), piece(0, "}", name="f")],
            [started(0, "f"), grew(0, "{"), grew(0, "}")],
        ),
        # without indexes, another id opens another call
        (
            [piece(None, "1", name="f", call_id="a"), piece(None, "2", name="g", call_id="b")],
            [started(0, "f", "a"), grew(0, "1"), started(1, "g", "b"), grew(1, "2")],
        ),
        # other choices are not read
        ([piece(0, "{}", name="f", choice=1)], []),
        ([ChatCompletionChunk(choices=[ChunkChoice(delta=Delta(content="text"))])], []),
        ([ChatCompletionChunk(choices=[ChunkChoice()])], []),
        (
            [
                ChatCompletionChunk(
                    choices=[ChunkChoice(delta=Delta(tool_calls=[ToolCallDelta(index=0)]))]
                )
            ],
            [],
        ),
    ],
)
def test_what_is_told_of_growing_calls(
    chunks: list[ChatCompletionChunk], events: list[Any]
) -> None:
    assert read(*chunks) == events


LANES = st.dictionaries(
    st.tuples(st.integers(0, 2), st.sampled_from([0, 1, 2, 7, 2_000_000_000])),
    st.lists(st.text('{}":,ab1 ', max_size=4), min_size=1, max_size=5),
    min_size=1,
    max_size=6,
)


@given(lanes=LANES, data=st.data())
def test_any_interleaving_of_deltas_folds_to_the_same_and_tells_the_same_of_each_call(
    lanes: dict[tuple[int, int], list[str]], data: st.DataObject
) -> None:
    def chunks(order: list[tuple[int, int]]) -> list[ChatCompletionChunk]:
        left = {lane: list(texts) for lane, texts in lanes.items()}
        found = []
        for lane in order:
            choice, index = lane
            first = len(left[lane]) == len(lanes[lane])
            name, own = (f"f{index}", f"c{choice}{index}") if first else (None, None)
            found.append(piece(index, left[lane].pop(0), choice=choice, name=name, call_id=own))
        return found

    in_order = [lane for lane, texts in lanes.items() for _ in texts]
    shuffled = chunks(data.draw(st.permutations(in_order)))
    straight, mixed, one_by_one = Fold(), Fold(), ToolCallReader(1)
    straight.extend(chunks(in_order))
    mixed.extend(shuffled)
    assert mixed.completion() == straight.completion()

    events = [event for chunk in shuffled for event in one_by_one.feed(chunk)]
    calls = next(
        (c.message.tool_calls or [] for c in mixed.completion().choices if c.index == 0), []
    )
    told = {event.index: event for event in events if isinstance(event, ToolCallStarted)}
    assert sorted(told) == one_by_one.indexes
    assert len(told) == sum(isinstance(event, ToolCallStarted) for event in events)
    for index, whole in zip(one_by_one.indexes, calls, strict=True):
        gained = [e.arguments for e in events if isinstance(e, ToolCallGrew) and e.index == index]
        assert "".join(gained) == whole.function.arguments
        assert (told[index].id, told[index].name) == (whole.id, whole.function.name)


def test_reprs_say_where_they_are() -> None:
    assert repr(conversation()) == "<Conversation: 1 messages, 0 turns>"
    assert repr(ToolCallReader(3)) == "<ToolCallReader of turn 3: 0 calls>"
