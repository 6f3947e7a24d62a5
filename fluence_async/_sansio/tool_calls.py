"""Answers and tool results go in; calls to make, and the next turn's messages, come out.

Law: a turn counts as a whole. Its answer and the results of all its calls enter the conversation
together, in the order of the calls, so that `messages` can be sent again at any moment. Calls of an
answer that was cut (`length`, `content_filter`) are not made: half of them may be missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..errors import ToolError, TurnLimitError
from ..tool_events import ToolCallGrew, ToolCallStarted
from ..types import ChatCompletion, ChatCompletionChunk, Message, MessageLike, ToolCall, Usage
from .fold import ToolFolds
from .surrogates import whole_text

__all__ = ["Conversation", "Prepared", "ToolCallReader", "added", "as_content", "prepare"]

_CUT = {"length", "content_filter"}

Decode = Callable[[str], dict[str, Any]]
"""The JSON text of a call's arguments → its keyword arguments."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A call that can be made, with its arguments; or what is wrong with it.

    Attributes:
        problem: What is wrong; None where the call can be made.
        advice: What to tell the model of it.
    """

    call: ToolCall
    arguments: dict[str, Any] = {}
    problem: Exception | None = None
    advice: str = ""


def prepare(call: ToolCall, tools: Mapping[str, Decode]) -> Prepared:
    """Check a call against the tools that there are, by name."""
    name = call.function.name
    decode = tools.get(name) if call.type == "function" else None
    if decode is None:
        advice = f"there is no tool {name!r}; there are: {', '.join(tools)}"
        return Prepared(call=call, problem=LookupError(advice), advice=f"Error: {advice}.")
    try:
        return Prepared(call=call, arguments=decode(call.function.arguments))
    except (ValueError, RecursionError) as error:
        advice = f"Error: the arguments do not fit: {error}. Call {name} with arguments that do."
        return Prepared(call=call, problem=error, advice=advice)


class Conversation:
    """The turns of model and tools so far, and whether there may be another.

    Args:
        messages: What the conversation begins with.
        max_turns: The most answers to ask for.
        max_corrections: How often in a row the model may be told that its calls cannot be made.
    """

    def __init__(
        self, messages: str | Sequence[MessageLike], *, max_turns: int, max_corrections: int
    ) -> None:
        if isinstance(messages, str):
            messages = [Message(role="user", content=messages)] if messages else []
        self._messages: list[MessageLike] = [*messages]
        self._max_turns = max_turns
        self._max_corrections = max_corrections
        self._corrections = 0
        self._called = False
        self.turns: list[ChatCompletion] = []

    @property
    def messages(self) -> list[MessageLike]:
        """What the next turn sends."""
        return [*self._messages]

    @property
    def usage(self) -> Usage | None:
        """What all turns cost; None where the server has said nothing."""
        total: Usage | None = None
        for completion in self.turns:
            total = added(total, completion.usage)
        return total

    def params(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The next turn's request: `params` with the conversation so far.

        A `tool_choice` that forces a call holds until tools have been called: kept up, it would
        never let the model answer.
        """
        choice = params.get("tool_choice")
        forced = choice is not None and choice not in ("auto", "none")
        changed = {"tool_choice": None} if forced and self._called else {}
        return {**params, **changed, "messages": self.messages}

    def answered(self, completion: ChatCompletion) -> list[ToolCall]:
        """Take the turn's answer: the calls to make, each with an id of its own.

        Raises:
            TurnLimitError: There are some, and this was the last turn.
        """
        self.turns.append(completion)
        calls = [] if completion.finish_reason in _CUT else completion.tool_calls
        if not calls:
            if not completion.tool_calls and completion.choices:
                self._messages.append(completion.message)
            return []
        if len(self.turns) >= self._max_turns:
            names = ", ".join(dict.fromkeys(call.function.name for call in calls))
            raise TurnLimitError(
                f"the model still called {names} in turn {len(self.turns)}, the last of "
                f"max_turns={self._max_turns}: allow more, or go on from .messages",
                messages=self.messages,
                meta=completion.meta,
            )
        return _with_ids(calls, len(self.turns))

    def checked(self, calls: Sequence[Prepared]) -> None:
        """Count the calls that cannot be made.

        Raises:
            ToolError: The model has been told often enough.
        """
        wrong = [prepared for prepared in calls if prepared.problem is not None]
        self._corrections = self._corrections + 1 if wrong else 0
        if self._corrections > self._max_corrections:
            first = wrong[0]
            raise ToolError(
                f"the model called {first.call.function.name!r} wrongly: {first.problem}; it is "
                f"told so at most max_corrections={self._max_corrections} times in a row"
            ) from first.problem

    def called(self, calls: Sequence[ToolCall], contents: Mapping[str, str]) -> None:
        """Take what the model is to be told of each call, by its id: the turn is whole."""
        self._called = True
        answer = msgspec.structs.replace(self.turns[-1].message, tool_calls=[*calls])
        self._messages.append(answer)
        self._messages += [
            Message(role="tool", tool_call_id=call.id, content=contents[call.id]) for call in calls
        ]

    def __repr__(self) -> str:
        return f"<Conversation: {len(self._messages)} messages, {len(self.turns)} turns>"


def _with_ids(calls: Sequence[ToolCall], turn: int) -> list[ToolCall]:
    """The calls with the ids that the server left out, or gave to two of them."""
    replace = msgspec.structs.replace
    given: set[str] = set()
    named: list[ToolCall] = []
    for place, call in enumerate(calls):
        own = call.id
        if not own or own in given:
            own = f"call_{turn}_{place}"
        while own in given:
            own += "_"
        given.add(own)
        named.append(call if own == call.id else replace(call, id=own))
    return named


def as_content(result: Any) -> str:
    """A tool's result as the model reads it: text as it is, anything else as JSON.

    Raises:
        TypeError: It cannot be written as JSON.
    """
    if isinstance(result, str):
        return whole_text(result)
    try:
        return msgspec.json.encode(result).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(f"a result of {type(result).__name__} is no JSON: {error}") from None


class ToolCallReader:
    """The chunks of one turn in, what its tool calls gain out.

    Only the first choice is read. Calls may come in any interleaving; each is told of by the same
    index in all its events.

    Args:
        turn: The turn's number, for the events.
    """

    def __init__(self, turn: int) -> None:
        self._turn = turn
        self._folds = ToolFolds()
        self._started: set[int] = set()

    @property
    def indexes(self) -> list[int]:
        """The indexes of the calls, in the order in which the whole answer has them."""
        return list(self._folds)

    def feed(self, chunk: ChatCompletionChunk) -> list[ToolCallStarted | ToolCallGrew]:
        """Take the next chunk."""
        events: list[ToolCallStarted | ToolCallGrew] = []
        for choice in chunk.choices:
            if choice.index or choice.delta is None:
                continue
            for delta in choice.delta.tool_calls or ():
                index, call = self._folds.add(delta)
                gained = delta.function.arguments if delta.function is not None else None
                if index not in self._started:
                    name = call.joined_name()
                    if not name:
                        continue  # its arguments so far are told with its name
                    self._started.add(index)
                    events.append(
                        ToolCallStarted(turn=self._turn, index=index, id=call.id, name=name)
                    )
                    gained = "".join(call.arguments)
                if gained:
                    events.append(ToolCallGrew(turn=self._turn, index=index, arguments=gained))
        return events

    def __repr__(self) -> str:
        return f"<ToolCallReader of turn {self._turn}: {len(self.indexes)} calls>"


def added(total: Usage | None, usage: Usage | None) -> Usage | None:
    """The sum of two usages, details included; what neither tells stays None."""
    result: Usage | None = _sum(total, usage)
    return result


def _sum(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return other if one is None else one
    if isinstance(one, msgspec.Struct):
        names = one.__struct_fields__
        return type(one)(**{name: _sum(getattr(one, name), getattr(other, name)) for name in names})
    return one + other
