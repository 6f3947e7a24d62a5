"""What happens in a run of model and tools, as frozen Structs: data only.

The events of one turn come in this order: `ChunkReceived`, and after the chunk that brings it
`ToolCallStarted` and `ToolCallGrew`; once the answer is whole, `ToolCallCompleted` for every call;
`ToolReturned` or `ToolFailed` as each tool is done; and last `TurnFinished`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from .types import ChatCompletion, ChatCompletionChunk, ToolCall

__all__ = [
    "ChunkReceived",
    "ToolCallCompleted",
    "ToolCallGrew",
    "ToolCallStarted",
    "ToolFailed",
    "ToolReturned",
    "ToolRunEvent",
    "TurnFinished",
]


class _Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something happened in the turn `turn`, which counts from 1."""

    turn: int


class ChunkReceived(_Event, frozen=True, kw_only=True):
    """A chunk of the turn's answer came."""

    chunk: ChatCompletionChunk

    @property
    def text(self) -> str:
        """What the answer's text gains; "" where nothing."""
        return self.chunk.text


class ToolCallStarted(_Event, frozen=True, kw_only=True):
    """The model began to call a tool: its name is known, its arguments are still to come.

    Attributes:
        index: The call's place in the answer; the same in all events of the call.
        id: The call's id, "" where it has not come.
        name: The tool's name.
    """

    index: int
    id: str
    name: str


class ToolCallGrew(_Event, frozen=True, kw_only=True):
    """A call gained a piece of its arguments' JSON text."""

    index: int
    arguments: str


class ToolCallCompleted(_Event, frozen=True, kw_only=True):
    """A call is whole, as the turn's answer is: nothing will be added to its arguments."""

    index: int
    call: ToolCall


class ToolReturned(_Event, frozen=True, kw_only=True):
    """A tool returned `result`; `content` is what the model is told of it."""

    call: ToolCall
    result: Any
    content: str


class ToolFailed(_Event, frozen=True, kw_only=True):
    """A call had no result.

    Attributes:
        call: The call.
        error: What the tool raised (a `TimeoutError` where its time was up), or what was wrong
            with the call.
        content: What the model is told of it; None if the run ends with a `ToolError`.
    """

    call: ToolCall
    error: Exception
    content: str | None


class TurnFinished(_Event, frozen=True, kw_only=True):
    """The turn's answer is whole and its tools are done."""

    completion: ChatCompletion


ToolRunEvent: TypeAlias = (
    ChunkReceived
    | ToolCallStarted
    | ToolCallGrew
    | ToolCallCompleted
    | ToolReturned
    | ToolFailed
    | TurnFinished
)
"""Any of the events."""
