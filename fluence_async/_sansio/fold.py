"""Chunks in, one completion out: what a stream has said so far, at any moment.

Law: choices are keyed by `index` and tool calls by (choice, index), in any order and with gaps;
an index is a key and never a size. Text is kept as parts and joined when asked for, so that
folding is linear. What a later chunk leaves out or sends as null takes nothing back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Any

from msgspec.structs import replace

from ..types import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    FunctionCall,
    Message,
    ToolCall,
    ToolCallDelta,
    Usage,
)

__all__ = ["Fold", "ToolFold", "ToolFolds"]


class Fold:
    """What the chunks of one stream amount to.

    Args:
        expected: How many choices the request asked for (`n`): without an end marker, the
            stream is whole only once each of them has finished.
    """

    __slots__ = ("_choices", "_expected", "_head", "chunks", "usage")

    usage: Usage | None
    chunks: int

    def __init__(self, expected: int = 1) -> None:
        self._expected = expected
        self._choices: dict[int, _ChoiceFold] = {}
        self._head = ChatCompletion()
        self.usage = None
        self.chunks = 0

    def extend(self, chunks: Sequence[ChatCompletionChunk]) -> None:
        """Take in the next chunks, in the order in which they came."""
        self.chunks += len(chunks)
        first = self._choices.get(0)
        for chunk in chunks:
            # The hot path, 130 ns: text for the first choice and nothing else. The order of
            # the questions is that of the measured cost of getting them wrong.
            gains = chunk.choices
            if len(gains) == 1 and first is not None and chunk.usage is None:
                gain = gains[0]
                delta = gain.delta
                if (
                    delta is not None
                    and gain.index == 0
                    and gain.finish_reason is None
                    and gain.logprobs is None
                    and delta.tool_calls is None
                    and delta.reasoning_content is None
                    and delta.reasoning is None
                    and delta.refusal is None
                ):
                    if delta.content:
                        first.content.append(delta.content)
                    continue
            self._add(chunk)
            first = self._choices.get(0)

    def _add(self, chunk: ChatCompletionChunk) -> None:
        for gain in chunk.choices:
            choice = self._choices.get(gain.index)
            if choice is None:
                choice = self._choices[gain.index] = _ChoiceFold()
            choice.add(gain)
        if chunk.usage is not None:
            self.usage = chunk.usage
        head = self._head
        head.id = head.id or chunk.id
        head.model = head.model or chunk.model
        head.created = head.created or chunk.created
        head.system_fingerprint = chunk.system_fingerprint or head.system_fingerprint
        head.service_tier = chunk.service_tier or head.service_tier

    @property
    def finished(self) -> bool:
        """Every choice that was asked for has a finish reason."""
        choices = self._choices.values()
        return len(choices) >= self._expected and all(
            choice.finish_reason is not None for choice in choices
        )

    @property
    def started(self) -> bool:
        """Some text, reasoning, refusal or tool call has come."""
        return any(choice.started for choice in self._choices.values())

    def completion(self) -> ChatCompletion:
        """The answer so far, in the order of the choices' indexes."""
        return replace(
            self._head,
            choices=[self._choices[index].choice(index) for index in sorted(self._choices)],
            usage=self.usage,
        )

    def __repr__(self) -> str:
        return f"<Fold of {self.chunks} chunks, {len(self._choices)} choices>"


class _ChoiceFold:
    """What one choice amounts to."""

    __slots__ = (
        "content",
        "finish_reason",
        "logprobs",
        "reasoning",
        "reasoning_content",
        "refusal",
        "role",
        "tools",
    )

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning_content: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.role = "assistant"
        self.tools = ToolFolds()
        self.finish_reason: str | None = None
        self.logprobs: dict[str, Any] = {}

    @property
    def started(self) -> bool:
        return bool(
            self.content or self.tools or self.refusal or self.reasoning_content or self.reasoning
        )

    def add(self, gain: ChunkChoice) -> None:
        """Take in what one chunk adds to the choice."""
        if gain.finish_reason:
            self.finish_reason = gain.finish_reason
        if gain.logprobs is not None:
            self._add_logprobs(gain.logprobs)
        delta = gain.delta
        if delta is None:
            return
        if delta.role:
            self.role = delta.role
        if delta.content:
            self.content.append(delta.content)
        if delta.refusal:
            self.refusal.append(delta.refusal)
        if delta.reasoning_content:
            self.reasoning_content.append(delta.reasoning_content)
        if delta.reasoning:
            self.reasoning.append(delta.reasoning)
        for call in delta.tool_calls or ():
            self.tools.add(call)

    def _add_logprobs(self, logprobs: dict[str, Any]) -> None:
        for name, value in logprobs.items():
            known = self.logprobs.get(name)
            if isinstance(value, list) and isinstance(known, list):
                known.extend(value)
            elif value is not None:
                self.logprobs[name] = copy(value)

    def choice(self, index: int) -> Choice:
        message = Message(
            role=self.role,
            content="".join(self.content) if self.content or not self.tools else None,
            refusal="".join(self.refusal) or None,
            reasoning_content="".join(self.reasoning_content) or None,
            reasoning="".join(self.reasoning) or None,
            tool_calls=self.tools.tool_calls() or None,
        )
        return Choice(
            index=index,
            message=message,
            finish_reason=self.finish_reason,
            logprobs={name: copy(value) for name, value in self.logprobs.items()} or None,
        )


class ToolFolds:
    """What the tool calls of one choice amount to, each by its index."""

    __slots__ = ("_calls", "_last")

    def __init__(self) -> None:
        self._calls: dict[int, ToolFold] = {}
        self._last = -1

    def __bool__(self) -> bool:
        return bool(self._calls)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._calls))

    def add(self, call: ToolCallDelta) -> tuple[int, ToolFold]:
        """Take in what one chunk adds to a call: the call's index, and what it is by now."""
        index = call.index
        if index is None:
            # Servers that leave the index out send calls one after another: another id, or a
            # name without one, opens the next; anything else continues the last.
            last = self._calls.get(self._last)
            named = call.function is not None and call.function.name
            opens = last is None or (call.id != last.id if call.id else named)
            index = self._last + 1 if opens else self._last
        self._last = max(self._last, index)
        tool = self._calls.get(index)
        if tool is None:
            tool = self._calls[index] = ToolFold()
        tool.add(call)
        return index, tool

    def tool_calls(self) -> list[ToolCall]:
        """The calls, in the order of their indexes."""
        return [self._calls[index].tool_call() for index in self]

    def __repr__(self) -> str:
        return f"<ToolFolds: {len(self._calls)} calls>"


class ToolFold:
    """What one tool call amounts to."""

    __slots__ = ("arguments", "id", "name", "type")

    def __init__(self) -> None:
        self.id = ""
        self.type = "function"
        self.name: list[str] = []
        self.arguments: list[str] = []

    def add(self, call: ToolCallDelta) -> None:
        """Take in what one chunk adds to the call."""
        self.id = call.id or self.id
        self.type = call.type or self.type
        if call.function is not None:
            if call.function.name:
                self.name.append(call.function.name)
            if call.function.arguments:
                self.arguments.append(call.function.arguments)

    def tool_call(self) -> ToolCall:
        """The call so far."""
        function = FunctionCall(name=self.joined_name(), arguments="".join(self.arguments))
        return ToolCall(id=self.id, type=self.type, function=function)

    def joined_name(self) -> str:
        """The function's name so far."""
        # Some servers repeat the whole name in each delta; a name cut in pieces is joined.
        first = self.name[0] if self.name else ""
        return first if all(part == first for part in self.name) else "".join(self.name)

    def __repr__(self) -> str:
        return f"<ToolFold of {self.joined_name()!r}>"
