"""What a type checker must conclude of the public API; checked by mypy and pyright, never run.

A `type: ignore` here asserts that the line is refused: both checkers complain of an unused one.
"""

from __future__ import annotations

from typing import assert_type

from fluence_async import (
    APIStatusError,
    ChatCompletion,
    ChatCompletionChunk,
    ChatStream,
    FluenceSession,
    Message,
    Meta,
    RateLimit,
    RetryPolicy,
    StreamError,
    Timeout,
    ToolCall,
    Usage,
)
from fluence_async.cache import CacheStore, MemoryCache, SqliteCache


def caches(store: CacheStore) -> None:
    FluenceSession(cache=None).with_options(cache=False)
    FluenceSession(cache="sqlite").with_options(cache=60)
    FluenceSession(cache=store)
    FluenceSession(cache=MemoryCache(max_bytes=2**20))
    FluenceSession(cache=SqliteCache("answers.sqlite3"))
    FluenceSession(cache=7)  # type: ignore[arg-type]


async def create(fluence: FluenceSession, streamed: bool) -> None:
    completions = fluence.chat.completions

    answer = await completions.create(model="m", messages="hi")
    assert_type(answer, ChatCompletion)
    assert_type(answer.text, str)
    assert_type(answer.usage, Usage | None)
    assert_type(answer.meta, Meta)
    assert_type(answer.message, Message)
    assert_type(answer.tool_calls, list[ToolCall])

    assert_type(await completions.create(model="m", messages="hi", stream=False), ChatCompletion)
    assert_type(await completions.create(model="m", messages="hi", stream=True), ChatStream)
    assert_type(
        await completions.create(model="m", messages="hi", stream=streamed),
        ChatCompletion | ChatStream,
    )


async def stream(fluence: FluenceSession) -> None:
    async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
        assert_type(stream, ChatStream)
        async for chunk in stream:
            assert_type(chunk, ChatCompletionChunk)
            assert_type(chunk.text, str)
        async for text in stream.text_stream:
            assert_type(text, str)
    assert_type(stream.completion, ChatCompletion)
    assert_type(stream.usage, Usage | None)
    assert_type(await stream.get_final_completion(), ChatCompletion)
    assert_type(await stream.get_final_text(), str)


async def parameters(fluence: FluenceSession) -> None:
    answer = await fluence.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "hi"}, Message(role="user", content="hi")],
        temperature=0.7,
        max_tokens=None,
        stop=["\n"],
        timeout=Timeout(total=10),
        max_retries=0,
        priority="batch",
        tags={"job": "1"},
        extra_headers={"x-mine": "1"},
        extra_body={"top_k": 1},
    )
    await fluence.chat.completions.create(model="m", messages=[answer.message])
    assert_type(fluence.with_options(timeout=5, max_retries=8), FluenceSession)


async def refused(fluence: FluenceSession) -> None:
    create = fluence.chat.completions.create
    await create(messages="hi")  # type: ignore[call-overload]
    await create(model="m", messages="hi", temprature=1)  # type: ignore[call-overload]
    await create(model="m", messages="hi", temperature="1")  # type: ignore[call-overload]
    await create(model="m", messages="hi", priority="urgent")  # type: ignore[call-overload]
    fluence.with_options(model="m")  # type: ignore[call-arg]
    Timeout(10)  # type: ignore[call-arg]
    FluenceSession("key")  # type: ignore[call-arg]


def construct() -> FluenceSession:
    return FluenceSession(
        api_key="k",
        base_url="https://api.example.com/v1",
        timeout=30,
        max_retries=3,
        limits=("100/minute", RateLimit("1000/hour")),
        limiter=None,
        retry=RetryPolicy(max_retries=3),
    )


def errors(error: APIStatusError | StreamError) -> None:
    if isinstance(error, StreamError):
        assert_type(error.partial, ChatCompletion | None)
    else:
        assert_type(error.status_code, int)
        assert_type(error.retry_after, float | None)
    assert_type(error.meta, Meta | None)
