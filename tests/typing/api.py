"""What a type checker must conclude of the public API; checked by mypy and pyright, never run.

A `type: ignore` here asserts that the line is refused: both checkers complain of an unused one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict, assert_type

import msgspec

from fluence_async import (
    APIStatusError,
    Budget,
    BudgetExceededError,
    BudgetState,
    ChatCompletion,
    ChatCompletionChunk,
    ChatStream,
    ChunkReceived,
    FluenceSession,
    FunctionTool,
    Message,
    Meta,
    ParsedCompletion,
    ParsedField,
    ParseError,
    Price,
    RateLimit,
    RetryPolicy,
    StreamError,
    Timeout,
    ToolCall,
    ToolReturned,
    ToolRun,
    ToolRunEvent,
    TypedAnswer,
    Usage,
    UsageSnapshot,
    UsageTotals,
    tool,
)
from fluence_async.cache import CacheStore, MemoryCache, SqliteCache


def caches(store: CacheStore) -> None:
    FluenceSession(cache=None).with_options(cache=False)
    FluenceSession(cache="sqlite").with_options(cache=60)
    FluenceSession(cache=store)
    FluenceSession(cache=MemoryCache(max_bytes=2**20))
    FluenceSession(cache=SqliteCache("answers.sqlite3"))
    FluenceSession(cache=7)  # type: ignore[arg-type]


def usage(fluence: FluenceSession, error: BudgetExceededError) -> None:
    FluenceSession(budget="2M tokens/day", prices={"m": Price(prompt=1, completion=2.5)})
    FluenceSession(budget=["$5/day", Budget("9 tokens", tag="tenant", soft=True)], ledger=True)
    FluenceSession(budget=Budget(9, "money", "month", model="m"), ledger=Path("usage.sqlite3"))
    FluenceSession(budget=9)  # type: ignore[arg-type]
    FluenceSession(prices={"m": 9})  # type: ignore[dict-item]
    Budget("9 tokens", "tokens", "week")  # type: ignore[arg-type]
    used = fluence.usage.snapshot()
    assert_type(fluence.usage.reset(), UsageSnapshot)
    assert_type(used.total, UsageTotals)
    assert_type(used.tags["tenant"]["acme"].cost, float)
    assert_type(used.budgets, list[BudgetState])
    assert_type(error.retry_at, float | None)


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


@tool
def add(a: int, b: int = 1) -> int:
    """Add."""
    return a + b


@tool(timeout=5, strict=True)
async def look(city: str) -> str:
    """Look a city up."""
    return city


async def tools(fluence: FluenceSession) -> None:
    assert_type(add(1, b=2), int)
    assert_type(await look("Rome"), str)
    assert_type(add.decode("{}"), dict[str, Any])
    several: list[FunctionTool[..., Any]] = [add, look]
    run_tools = fluence.chat.completions.run_tools
    assert_type(await run_tools(model="m", messages="hi", tools=several, max_turns=3), ToolRun)
    async with run_tools(
        model="m", messages="hi", tools=[add, look], on_tool_error="tell", temperature=0, timeout=5
    ) as run:
        async for event in run:
            assert_type(event, ToolRunEvent)
            if isinstance(event, ChunkReceived):
                assert_type(event.text, str)
            elif isinstance(event, ToolReturned):
                assert_type(event.call, ToolCall)
    assert_type(run.completion, ChatCompletion)
    assert_type(run.turns, list[ChatCompletion])
    assert_type(run.usage, Usage | None)
    await fluence.chat.completions.create(model="m", messages=run.messages)


class Recipe(msgspec.Struct):
    """A recipe."""

    title: str


class Settings(TypedDict):
    """Settings."""

    depth: int


async def parse(fluence: FluenceSession) -> None:
    parse = fluence.chat.completions.parse
    answer = await parse(model="m", messages="hi", response_type=Recipe)
    assert_type(answer, ParsedCompletion[Recipe])
    assert_type(answer.parsed, Recipe | None)
    assert_type(answer.value, Recipe)
    assert_type(answer.parse_error, ParseError | None)
    assert_type(answer.completion, ChatCompletion)
    assert_type(
        (await parse(model="m", messages="hi", response_type=list[Recipe])).value, list[Recipe]
    )
    assert_type((await parse(model="m", messages="hi", response_type=Settings)).value, Settings)
    either = await parse(model="m", messages="hi", response_type=Recipe | None, tools=[])
    assert_type(either, ParsedCompletion[Any])
    async with parse(model="m", messages="hi", response_type=Recipe) as fields:
        assert_type(fields, TypedAnswer[Recipe])
        async for field in fields:
            assert_type(field, ParsedField)
    assert_type(fields.result, ParsedCompletion[Recipe])
    assert_type(await fields.get_result(), ParsedCompletion[Recipe])


async def refused(fluence: FluenceSession) -> None:
    create = fluence.chat.completions.create
    await create(messages="hi")  # type: ignore[call-overload]
    await create(model="m", messages="hi", temprature=1)  # type: ignore[call-overload]
    await create(model="m", messages="hi", temperature="1")  # type: ignore[call-overload]
    await create(model="m", messages="hi", priority="urgent")  # type: ignore[call-overload]
    fluence.with_options(model="m")  # type: ignore[call-arg]
    completions = fluence.chat.completions
    completions.run_tools(model="m", messages="hi")  # type: ignore[call-arg]
    completions.run_tools(model="m", messages="hi", tools=[len])  # type: ignore[list-item]
    completions.run_tools(model="m", messages="hi", tools=[add], on_tool_error="x")  # type: ignore[arg-type]
    completions.parse(model="m", messages="hi")  # type: ignore[call-overload]
    add("1")  # type: ignore[arg-type]
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
