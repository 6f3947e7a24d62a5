"""Typed answers, whole and field by field, against the local server, on both backends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from fluence_async import (
    FluenceSession,
    InternalServerError,
    ParsedField,
    ParseError,
    StreamInterruptedError,
    TypedAnswer,
)
from fluence_async.testing import Answer, Event, FluenceServer, Reset, Stall, Status, Stream

pytestmark = pytest.mark.anyio


class Step(msgspec.Struct):
    text: str
    minutes: int = 1


class Recipe(msgspec.Struct):
    title: str
    steps: list[Step]
    servings: int = 1


SOUP = Recipe("Soup", [Step("Cut.", 5), Step("Cook.", 20)], 4)
TEXT = msgspec.json.encode(SOUP).decode()
FIELDS = [
    ParsedField("title", "Soup"),
    ParsedField("steps", SOUP.steps),
    ParsedField("servings", 4),
]


@asynccontextmanager
async def opened(*script: Any) -> AsyncIterator[tuple[FluenceServer, FluenceSession]]:
    async with FluenceServer() as server:
        if script:
            server.script(*script)
        async with FluenceSession(
            api_key=server.api_key, base_url=server.base_url, limiter=None, max_retries=0
        ) as fluence:
            yield server, fluence
            await server.wait_until_idle(connections=8)


def ask(fluence: FluenceSession, kind: Any = Recipe, **params: Any) -> TypedAnswer[Any]:
    return fluence.chat.completions.parse(
        response_type=kind, **{"model": "fluence-chat", "messages": "A soup for 4", **params}
    )


def sent(server: FluenceServer) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(server.requests[-1].body)
    return body


async def test_the_server_is_told_the_type_and_its_answer_is_a_value() -> None:
    async with opened() as (server, fluence):
        answer = await ask(fluence, messages="A recipe for Tomato Soup, servings: 4")
        assert isinstance(answer.value, Recipe)
        assert answer.value.title == "Tomato Soup"
        asked = sent(server)["response_format"]
        assert asked["type"] == "json_schema"
        assert asked["json_schema"]["strict"] is True
        assert asked["json_schema"]["schema"]["required"] == ["title", "steps", "servings"]
        assert "stream" not in sent(server)
        assert answer.completion.meta.request_id
        # what is no object is sent inside of one
        assert isinstance((await ask(fluence, list[Step])).value, list)
        assert isinstance((await ask(fluence, int | None)).value, int)


async def test_an_answer_that_is_not_of_the_type_is_a_result_and_an_exception_when_asked() -> None:
    async with opened("I will not.", Answer(TEXT[:20], finish_reason="length")) as (_, fluence):
        for reason in ("invalid", "length"):
            answer = await ask(fluence)
            assert answer.parsed is None
            assert answer.parse_error is not None
            assert answer.parse_error.reason == reason
            with pytest.raises(ParseError):
                answer.value  # noqa: B018


async def test_fields_come_once_when_they_are_closed() -> None:
    pieces = [TEXT[i : i + 4] for i in range(0, len(TEXT), 4)]
    async with opened(Answer(*pieces)) as (server, fluence):
        async with ask(fluence) as answer:
            with pytest.raises(RuntimeError, match="not come to its end"):
                answer.result  # noqa: B018
            fields = [field async for field in answer]
        assert sent(server)["stream"] is True
        assert fields == FIELDS
        assert answer.result.value == SOUP
        assert answer.stream.usage is not None
        assert answer.stream.meta.request_id


async def test_a_field_does_not_wait_for_the_next() -> None:
    async with opened(Stream(TEXT[: TEXT.index(',"servings"')], Stall())) as (_, fluence):
        async with ask(fluence) as answer:
            assert [await answer.__anext__(), await answer.__anext__()] == FIELDS[:2]


async def test_of_a_list_the_items_come() -> None:
    text = json.dumps({"value": [1, 2, 3]})
    async with opened(Answer(*text)) as (_, fluence):
        async with ask(fluence, list[int]) as answer:
            assert [field async for field in answer] == [ParsedField(i, i + 1) for i in range(3)]
        assert answer.result.value == [1, 2, 3]


async def test_a_refusal_in_a_stream_is_a_result_too() -> None:
    refusal = {"choices": [{"index": 0, "delta": {"refusal": "No."}, "finish_reason": "stop"}]}
    async with opened(Stream(Event(json.dumps(refusal)))) as (_, fluence):
        async with ask(fluence) as answer:
            result = await answer.get_result()
        assert result.parse_error is not None
        assert result.parse_error.reason == "refusal"


async def test_a_field_that_does_not_fit_ends_the_fields_and_not_the_stream() -> None:
    async with opened('{"title":"Soup","steps":7,"servings":4}') as (_, fluence):
        async with ask(fluence) as answer:
            assert [field async for field in answer] == [ParsedField("title", "Soup")]
        assert answer.result.parse_error is not None
        assert "$.steps" in answer.result.parse_error.message


async def test_a_stream_that_breaks_raises() -> None:
    async with opened(Stream(TEXT[:30], Reset())) as (_, fluence):
        async with ask(fluence) as answer:
            seen = []
            with pytest.raises(StreamInterruptedError) as caught:
                async for field in answer:
                    seen.append(field)  # noqa: PERF401 - what came before the error counts
        assert seen == FIELDS[:1]
        assert caught.value.partial is not None
        assert caught.value.partial.text == TEXT[:30]


async def test_a_refused_request_raises_whichever_way_it_is_asked() -> None:
    async with opened(Status(500), Status(500)) as (_, fluence):
        with pytest.raises(InternalServerError):
            await ask(fluence)
        with pytest.raises(InternalServerError):
            async with ask(fluence):
                pass


async def test_leaving_early_closes_the_stream() -> None:
    async with opened(Answer(*TEXT)) as (server, fluence):
        async with ask(fluence) as answer:
            assert await answer.__anext__() == FIELDS[0]
        assert not answer.stream.complete
        await server.wait_until_idle(connections=1)


async def test_misuse_is_refused_at_once() -> None:
    async with opened() as (server, fluence):
        with pytest.raises(TypeError, match="has no JSON schema"):
            ask(fluence, complex)
        with pytest.raises(ValueError, match="n must be 1"):
            ask(fluence, n=2)
        answer = ask(fluence)
        assert repr(answer) == "<TypedAnswer <AnswerType Recipe>: not open>"
        with pytest.raises(RuntimeError, match="not open"):
            await answer.__anext__()
        async with answer:
            with pytest.raises(RuntimeError, match="entered before"):
                await answer.__aenter__()
        assert len(server.requests) == 1


async def test_chunks_that_are_ready_can_be_taken_without_waiting() -> None:
    async with opened(Answer("a", "b", "c")) as (_, fluence):
        stream = await fluence.chat.completions.create(
            model="fluence-chat", messages="hi", stream=True
        )
        async with stream:
            text = ""
            async for chunk in stream:
                text += chunk.text + "".join(more.text for more in stream.take_ready())
            assert stream.take_ready() == []
        assert text == stream.completion.text == "abc"
