"""A completion in, the one chunk of a stream that says the same out.

For a server that answers with a whole body where a stream was asked for.
"""

from __future__ import annotations

from ..types import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChunkChoice,
    Delta,
    FunctionCallDelta,
    KeepsRaw,
    ToolCall,
    ToolCallDelta,
)

__all__ = ["RawChunk", "as_chunk"]


class RawChunk(ChatCompletionChunk, KeepsRaw, gc=True):
    """A chunk that can hold the JSON it was read from (`keep_raw=True`)."""


RawChunk.__name__ = ChatCompletionChunk.__name__


def as_chunk(completion: ChatCompletion) -> ChatCompletionChunk:
    """All of it at once."""
    chunk = RawChunk(
        id=completion.id,
        created=completion.created,
        model=completion.model,
        choices=[_as_gain(choice) for choice in completion.choices],
        usage=completion.usage,
        system_fingerprint=completion.system_fingerprint,
        service_tier=completion.service_tier,
    )
    vars(chunk).update(vars(completion))
    return chunk


def _as_gain(choice: Choice) -> ChunkChoice:
    message = choice.message
    calls = [_as_delta(index, call) for index, call in enumerate(message.tool_calls or ())]
    return ChunkChoice(
        index=choice.index,
        delta=Delta(
            content=message.text or None,
            role=message.role,
            refusal=message.refusal,
            reasoning_content=message.reasoning_content,
            reasoning=message.reasoning,
            tool_calls=calls or None,
        ),
        finish_reason=choice.finish_reason,
        logprobs=choice.logprobs,
    )


def _as_delta(index: int, call: ToolCall) -> ToolCallDelta:
    function = FunctionCallDelta(name=call.function.name, arguments=call.function.arguments)
    return ToolCallDelta(index=index, id=call.id, type=call.type, function=function)
