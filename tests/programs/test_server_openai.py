"""The official openai client, as referee: it takes the local server for the real API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import openai
import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from fluence_async.testing import Call, Close, FluenceServer, Lost, Reset, Status, Stream

pytestmark = [
    pytest.mark.anyio,
    # On trio this client leaves its own async generators unfinished, which warns.
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),
]

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello, how are you?"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the current weather in a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@asynccontextmanager
async def open_client(
    server: FluenceServer, *, api_key: str | None = None, max_retries: int = 0
) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(
        base_url=server.base_url, api_key=api_key or server.api_key, max_retries=max_retries
    ) as client:
        yield client


async def test_a_whole_answer() -> None:
    async with FluenceServer() as server, open_client(server) as client:
        answer = await client.chat.completions.create(
            model="fluence-chat", messages=HELLO, temperature=0.7, max_tokens=100
        )
    assert answer.choices[0].message.content is not None
    assert answer.choices[0].message.content.startswith("I'm doing well")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 25
    assert (answer._request_id or "").startswith("req_")


async def test_a_streamed_answer_is_the_whole_one_in_pieces() -> None:
    async with FluenceServer() as server, open_client(server) as client:
        whole = await client.chat.completions.create(model="fluence-chat", messages=HELLO)
        chunks = [
            chunk
            async for chunk in await client.chat.completions.create(
                model="fluence-chat",
                messages=HELLO,
                stream=True,
                stream_options={"include_usage": True},
            )
        ]
        await client.close()
        await server.wait_until_idle()
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


async def test_the_clients_own_accumulator_is_content() -> None:
    async with (
        FluenceServer() as server,
        open_client(server) as client,
        client.chat.completions.stream(
            model="fluence-chat",
            messages=[{"role": "user", "content": "What's the weather in Paris and New York?"}],
            tools=[WEATHER],
        ) as stream,
    ):
        final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert [json.loads(call.function.arguments)["city"] for call in calls] == ["Paris", "New York"]
    assert len({call.id for call in calls}) == 2
    assert final.choices[0].finish_reason == "tool_calls"


async def test_a_tool_is_called_and_its_result_is_used() -> None:
    messages: list[Any] = [
        {"role": "user", "content": "What's the weather in Paris, in fahrenheit?"}
    ]
    async with FluenceServer() as server, open_client(server) as client:
        answer = await client.chat.completions.create(
            model="fluence-chat", messages=messages, tools=[WEATHER]
        )
        message = answer.choices[0].message
        assert message.content is None
        assert message.tool_calls is not None
        (call,) = message.tool_calls
        assert call.type == "function"
        assert call.function.name == "get_weather"
        assert json.loads(call.function.arguments) == {"city": "Paris", "unit": "fahrenheit"}
        result = {"role": "tool", "tool_call_id": call.id, "content": '{"temperature": 64}'}
        last = await client.chat.completions.create(
            model="fluence-chat", messages=[*messages, message, result], tools=[WEATHER]
        )
    assert last.choices[0].finish_reason == "stop"
    assert last.choices[0].message.content is not None
    assert "temperature: 64" in last.choices[0].message.content


class Person(pydantic.BaseModel):
    name: str
    age: int
    email: str
    married: bool
    role: Literal["admin", "user"]
    score: float = pydantic.Field(gt=0, le=10)
    likes: list[str]
    boss: Person | None


async def test_an_answer_satisfies_the_schema_of_a_model() -> None:
    text = "Ada Lovelace is 36 years old, not married, a user, ada@example.com, and likes Charles."
    async with FluenceServer() as server, open_client(server) as client:
        answer = await client.chat.completions.parse(
            model="fluence-chat",
            messages=[{"role": "user", "content": text}],
            response_format=Person,
        )
        loose = await client.chat.completions.create(
            model="fluence-chat", messages=HELLO, response_format={"type": "json_object"}
        )
    assert answer.choices[0].message.parsed == Person(
        name="Ada Lovelace",
        age=36,
        email="ada@example.com",
        married=False,
        role="user",
        score=5,
        likes=["Charles"],
        boss=None,
    )
    assert json.loads(loose.choices[0].message.content or "").keys() == {"answer"}


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        ({"temperature": 3}, openai.BadRequestError, "invalid_request"),
        ({"messages": []}, openai.BadRequestError, "invalid_request"),
        ({"model": "gpt-4"}, openai.NotFoundError, "model_not_found"),
    ],
)
async def test_an_invalid_request_is_the_clients_own_error(
    changes: dict[str, Any], error: type[openai.APIStatusError], code: str
) -> None:
    async with FluenceServer() as server, open_client(server) as client:
        with pytest.raises(error) as raised:
            await client.chat.completions.create(
                **{"model": "fluence-chat", "messages": HELLO, **changes}
            )
    assert raised.value.code == code
    assert raised.value.request_id is not None


async def test_a_wrong_key_is_an_authentication_error() -> None:
    async with FluenceServer() as server, open_client(server, api_key="wrong") as client:
        with pytest.raises(openai.AuthenticationError) as raised:
            await client.chat.completions.create(model="fluence-chat", messages=HELLO)
    assert raised.value.code == "authentication_error"


async def test_a_full_window_is_a_rate_limit_error() -> None:
    async with FluenceServer(limits=["1/minute"]) as server, open_client(server) as client:
        await client.chat.completions.create(model="fluence-chat", messages=HELLO)
        with pytest.raises(openai.RateLimitError) as raised:
            await client.chat.completions.create(model="fluence-chat", messages=HELLO)
    assert raised.value.code == "rate_limit_exceeded"
    assert 1 <= int(raised.value.response.headers["retry-after"]) <= 60


async def test_an_answer_lost_on_its_way_is_brought_back() -> None:
    async with FluenceServer() as server, open_client(server) as client:
        server.script(Lost("Hello"))
        create = client.with_options(
            default_headers={"idempotency-key": "k"}
        ).chat.completions.create
        with pytest.raises(openai.APIConnectionError):
            await create(model="fluence-chat", messages=HELLO)
        answer = await create(model="fluence-chat", messages=HELLO)
        assert answer.choices[0].message.content == "Hello"
        assert (len(server.requests), server.executions) == (2, 1)


async def test_a_scripted_500_is_retried() -> None:
    async with FluenceServer() as server, open_client(server, max_retries=1) as client:
        server.script(Status(500, headers={"retry-after-ms": "1"}), "Hello")
        answer = await client.chat.completions.create(model="fluence-chat", messages=HELLO)
        assert answer.choices[0].message.content == "Hello"


async def test_a_server_error_is_one() -> None:
    async with FluenceServer() as server, open_client(server) as client:
        server.script(Status(500))
        with pytest.raises(openai.InternalServerError) as raised:
            await client.chat.completions.create(model="fluence-chat", messages=HELLO)
    assert raised.value.code == "server_error"


@pytest.mark.parametrize("fault", [Reset(), Close(), Status(500)], ids=["RST", "FIN", "error"])
async def test_what_came_before_a_fault_arrives(fault: Any) -> None:
    async with FluenceServer() as server, open_client(server) as client:
        server.script(Stream("Hel", fault))
        stream = await client.chat.completions.create(
            model="fluence-chat", messages=HELLO, stream=True
        )
        first = await anext(stream)
        assert first.choices[0].delta.content == "Hel"
        with pytest.raises(Exception, match=r"\w"):  # httpx2's own, not wrapped
            await anext(stream)


async def test_scripted_calls_arrive_as_written() -> None:
    async with FluenceServer() as server, open_client(server) as client:
        server.script(Stream(Call("f", '{"broken'), Call("g", {"x": 1}, index=1, id="call_9")))
        async with client.chat.completions.stream(model="fluence-chat", messages=HELLO) as stream:
            final = await stream.get_final_completion()
    calls = final.choices[0].message.tool_calls or []
    assert [(c.function.name, c.function.arguments) for c in calls] == [
        ("f", '{"broken'),
        ("g", '{"x":1}'),
    ]
    assert calls[1].id == "call_9"


def test_a_program_without_a_loop_is_answered_too(anyio_backend: str) -> None:
    with (
        FluenceServer() as server,
        OpenAI(base_url=server.base_url, api_key=server.api_key) as client,
    ):
        answer = client.chat.completions.create(model="fluence-chat", messages=HELLO)
        with client.chat.completions.stream(model="fluence-chat", messages=HELLO) as stream:
            final = stream.get_final_completion()
    assert final.choices[0].message.content == answer.choices[0].message.content


async def test_the_models_are_listed() -> None:
    async with FluenceServer() as server, open_client(server) as client:
        models = [model.id async for model in client.models.list()]
    assert models == ["fluence-chat", "fluence-local"]
