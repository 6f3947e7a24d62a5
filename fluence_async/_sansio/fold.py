"""Chunks in, one completion out: what a stream has said so far, at any moment.

Law: choices are keyed by `index` and tool calls by (choice, index), in any order and with gaps;
an index is a key and never a size. Text is kept as parts and joined when asked for, so that
folding is linear. What a later chunk leaves out or sends as null takes nothing back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

__all__ = ["Fold"]


class Fold:
    """What the chunks of one stream amount to.

    Args:
        expected: How many choices the request asked for (`n`): without an end marker, the
            stream is whole only once each of them has finished.
    """

    __slots__ = ("_choices", "_expected", "_first", "_last", "chunks", "usage")

    usage: Usage | None
    chunks: int

    def __init__(self, expected: int = 1) -> None:
        self._expected = expected
        self._choices: dict[int, _ChoiceFold] = {}
        self._first: ChatCompletionChunk | None = None
        self._last: ChatCompletionChunk | None = None
        self.usage = None
        self.chunks = 0

    def extend(self, chunks: Sequence[ChatCompletionChunk]) -> None:
        """Take in the next chunks, in the order in which they came."""
        if not chunks:
            return
        self.chunks += len(chunks)
        if self._first is None:
            self._first = chunks[0]
        self._last = chunks[-1]
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
        first, last = self._first, self._last
        if first is None or last is None:
            return ChatCompletion()
        return ChatCompletion(
            id=first.id or last.id,
            model=first.model or last.model,
            created=first.created or last.created,
            choices=[self._choices[index].choice(index) for index in sorted(self._choices)],
            usage=self.usage,
            system_fingerprint=last.system_fingerprint or first.system_fingerprint,
            service_tier=last.service_tier or first.service_tier,
        )

    def __repr__(self) -> str:
        return f"<Fold of {self.chunks} chunks, {len(self._choices)} choices>"


class _ChoiceFold:
    """What one choice amounts to."""

    __slots__ = ("content", "finish_reason", "logprobs", "reasoning", "refusal", "role", "tools")

    def __init__(self) -> None:
        self.content: list[str] = []
        self.reasoning: list[str] = []
        self.refusal: list[str] = []
        self.role = "assistant"
        self.tools: dict[int, _ToolFold] = {}
        self.finish_reason: str | None = None
        self.logprobs: dict[str, Any] = {}

    @property
    def started(self) -> bool:
        return bool(self.content or self.tools or self.refusal or self.reasoning)

    def add(self, gain: ChunkChoice) -> None:
        """Take in what one chunk adds to the choice."""
        if gain.finish_reason is not None:
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
            self.reasoning.append(delta.reasoning_content)
        for call in delta.tool_calls or ():
            self._tool(call).add(call)

    def _tool(self, call: ToolCallDelta) -> _ToolFold:
        index = call.index
        if index is None:
            # Servers that leave the index out send calls one after another: an id or a name
            # opens the next one, bare arguments continue the last.
            opens = bool(call.id or (call.function is not None and call.function.name))
            last = max(self.tools, default=-1)
            same = last >= 0 and call.id is not None and self.tools[last].id == call.id
            index = last + 1 if last < 0 or (opens and not same) else last
        return self.tools.setdefault(index, _ToolFold())

    def _add_logprobs(self, logprobs: dict[str, Any]) -> None:
        for name, value in logprobs.items():
            if isinstance(value, list):
                self.logprobs.setdefault(name, []).extend(value)
            elif value is not None:
                self.logprobs[name] = value

    def choice(self, index: int) -> Choice:
        message = Message(
            role=self.role,
            content="".join(self.content) if self.content or not self.tools else None,
            refusal="".join(self.refusal) or None,
            reasoning_content="".join(self.reasoning) or None,
            tool_calls=[self.tools[at].tool_call() for at in sorted(self.tools)] or None,
        )
        return Choice(
            index=index,
            message=message,
            finish_reason=self.finish_reason,
            logprobs=self.logprobs or None,
        )


class _ToolFold:
    """What one tool call amounts to."""

    __slots__ = ("arguments", "id", "name", "type")

    def __init__(self) -> None:
        self.id = ""
        self.type = "function"
        self.name: list[str] = []
        self.arguments: list[str] = []

    def add(self, call: ToolCallDelta) -> None:
        self.id = call.id or self.id
        self.type = call.type or self.type
        if call.function is not None:
            if call.function.name:
                self.name.append(call.function.name)
            if call.function.arguments:
                self.arguments.append(call.function.arguments)

    def tool_call(self) -> ToolCall:
        function = FunctionCall(name=self._joined_name(), arguments="".join(self.arguments))
        return ToolCall(id=self.id, type=self.type, function=function)

    def _joined_name(self) -> str:
        # Some servers repeat the whole name in each delta; a name cut in pieces is joined.
        first = self.name[0] if self.name else ""
        return first if all(part == first for part in self.name) else "".join(self.name)
