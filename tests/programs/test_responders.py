"""Who answers: the rules compute, and the script plays, byte for byte, what a test wrote."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from typing import Any

import aiohttp
import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async.server import tokens
from fluence_async.server.chat import ChatRequest, parse
from fluence_async.server.refusal import Refusal
from fluence_async.server.responders import arithmetic, schema
from fluence_async.server.responders.rules import Rules
from fluence_async.server.turn import Turn
from fluence_async.testing import (
    Answer,
    Call,
    Close,
    Done,
    End,
    Event,
    Finish,
    FluenceServer,
    Lost,
    Pause,
    Pings,
    Raw,
    Repeat,
    Reply,
    ReplyLike,
    Reset,
    Stall,
    Status,
    Stream,
    Trickle,
)
from tests.programs.raw_http import HELLO, ask, connect, exchange, read_all, request
from tests.programs.raw_http import parse as read

pytestmark = pytest.mark.anyio


# ─── rules ────────────────────────────────────────────────────────────────────────────────


def answer(*said: str, **parameters: Any) -> Answer:
    """What the rules answer to a conversation, its turns by the user and by us in turn."""
    roles = ["user", "assistant"] * len(said)
    messages = [{"role": role, "content": text} for role, text in zip(roles, said, strict=False)]
    body = {"model": "fluence-local", "messages": messages, **parameters}
    turn = Turn(parse(json.dumps(body).encode()), {})
    return asyncio.run(Rules().respond(turn))


def say(*said: str, **parameters: Any) -> str:
    return "".join(answer(*said, **parameters).texts)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("Hello, how are you?", "I'm doing well, thank you for asking! How can I help you today?"),
        ("Hi!", "Hello! How can I help you today?"),
        ("Thanks a lot", "You're welcome!"),
        ('Say "good morning"', "good morning"),
        ("Repeat after me: one two", "one two"),
        ("List three colours", "1. red\n2. orange\n3. yellow"),
        ("What are the seasons?", "1. spring\n2. summer\n3. autumn\n4. winter"),
        ("Count from 3 to five", "3\n4\n5"),
        ("What is 15% of 80?", "15 / 100 * 80 = 12"),
        ("2+2", "2 + 2 = 4"),
        ("what's (2+3)*4^2 - 1/3?", "(2 + 3) * 4^2 - 1 / 3 ≈ 79.66666667"),
        ("What is 17 divided by 4", "17 / 4 = 4.25"),
        ("1,000 plus 1", "1000 + 1 = 1001"),
        ("what is 10/0?", "10 / 0 is undefined: it divides by zero."),
        ("what is 9^9^9?", "9^9^9 is too large for me."),
        ("What is the square root of 16?", "sqrt 16 = 4"),
    ],
)
def test_a_rule_answers_what_it_is_for(asked: str, expected: str) -> None:
    assert say(asked) == expected


@pytest.mark.parametrize(
    "asked", ["Are you a language model?", "Who are you?", "Is this ChatGPT?", "Colourless green?"]
)
def test_it_says_that_it_is_no_language_model(asked: str) -> None:
    assert "no language model" in say(asked)


@pytest.mark.parametrize(
    "asked", ["What happened on 2024-05-06?", "Call 555-1234", "Who won in 2018-19?", "a-b/c"]
)
def test_not_every_number_is_a_sum(asked: str) -> None:
    assert arithmetic.find(asked) is None


def test_the_same_prompt_gets_the_same_answer_whatever_the_temperature() -> None:
    stories = {say("Tell me a story about a fox", temperature=t) for t in (None, 0, 0.7, 2)}
    assert len(stories) == 1
    assert len(stories.pop()) > 300
    assert say("Tell me a story about a fox") != say("Tell me a story about an owl")


def test_it_remembers_a_name() -> None:
    assert say("My name is Ada.", "Nice to meet you!", "What is my name?") == "Your name is Ada."
    assert say("What is my name?") == "You have not told me your name yet."


def test_a_summary_is_made_of_the_texts_own_sentences() -> None:
    text = (
        "The river rose in the night. Nobody in the village had seen the river so high. "
        "A dog barked. By morning the river had reached the village church."
    )
    one = say(f"Summarize in one sentence: {text}")
    assert one == "By morning the river had reached the village church."
    later = say(text, "I see.", "Please summarise that in 2 sentences")
    sentences = re.findall(r"[^.]+\.", later)
    assert len(sentences) == 2
    assert all(sentence.strip() in text for sentence in sentences)
    assert "after a colon" in say("Summarize, please")


@given(st.text())
def test_tokens_lose_nothing(text: str) -> None:
    assert "".join(tokens.split(text)) == text


def test_max_tokens_and_stop_cut_the_answer() -> None:
    cut = answer("Hello, how are you?", max_tokens=3)
    assert ("".join(cut.texts), cut.finish_reason) == ("I'm doing well", "length")
    whole = answer("Hello, how are you?", max_tokens=16)
    assert whole.finish_reason == "stop"
    assert answer("Hello, how are you?", max_completion_tokens=2).finish_reason == "length"
    stopped = answer("Hello, how are you?", stop=["well", "thank"], max_tokens=100)
    assert ("".join(stopped.texts), stopped.finish_reason) == ("I'm doing ", "stop")


def tool(name: str, description: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}


WEATHER = tool("get_weather", "The weather in a city", city={"type": "string"})
ADD = tool("add", "Add two numbers", a={"type": "number"}, b={"type": "number"})


def called(asked: str, **parameters: Any) -> list[tuple[str, Any]]:
    calls = answer(asked, tools=[WEATHER, ADD], **parameters).calls
    return [(call.name, json.loads(call.arguments)) for call in calls]


def test_the_tool_that_fits_is_called_with_what_is_in_the_text() -> None:
    assert called("What's the weather in Oslo?") == [("get_weather", {"city": "Oslo"})]
    assert called("weather in oslo please") == [("get_weather", {"city": "oslo"})]
    assert called("Add 3 and 4.5") == [("add", {"a": 3, "b": 4.5})]
    assert called("Weather in Oslo and Rome?") == [
        ("get_weather", {"city": "Oslo"}),
        ("get_weather", {"city": "Rome"}),
    ]
    assert called("Weather in Oslo and Rome?", parallel_tool_calls=False) == [
        ("get_weather", {"city": "Oslo"})
    ]


def test_no_tool_is_called_without_need_and_one_is_when_it_must_be() -> None:
    assert called("Hello, how are you?") == []
    assert called("What's the weather in Oslo?", tool_choice="none") == []
    assert [name for name, _ in called("Hello!", tool_choice="required")] != []
    named = {"type": "function", "function": {"name": "add"}}
    assert called("weather in Oslo: 1 and 2", tool_choice=named) == [("add", {"a": 1, "b": 2})]


@pytest.mark.parametrize(
    ("result", "shown"),
    [
        ("sunny, 18 °C", "get weather (city: Oslo): sunny, 18 °C."),
        ('{"sky": "clear", "t": 18.5}', "get weather (city: Oslo): sky: clear, t: 18.5."),
        ("[1, 2]", "get weather (city: Oslo): 1, 2."),
    ],
)
def test_a_tool_result_is_used(result: str, shown: str) -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
    }
    messages = [
        {"role": "user", "content": "What's the weather in Oslo?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": result},
    ]
    said = say(messages=messages, tools=[WEATHER])
    assert said == f"Here is what I found. {shown}"


# ─── JSON by a schema ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given_schema", "text", "expected"),
    [
        ({"type": "string"}, "nothing here", "unknown"),
        ({"type": "string", "minLength": 9}, "x", "unknown.."),
        ({"type": "string", "maxLength": 3}, "x", "unk"),
        ({"type": "string", "format": "date"}, "on 2024-05-06", "2024-05-06"),
        ({"type": "string", "format": "uuid"}, "x", "00000000-0000-0000-0000-000000000000"),
        ({"type": "string", "default": "d"}, "x", "d"),
        ({"enum": ["red", "blue"]}, "a blue one", "blue"),
        ({"enum": [1, 2]}, "x", 1),
        ({"const": None}, "x", None),
        ({"type": "integer", "minimum": 3}, "x", 3),
        ({"type": "integer", "exclusiveMinimum": 3}, "1", 4),
        ({"type": "integer", "multipleOf": 5}, "12", 10),
        ({"type": "integer", "minimum": 11, "multipleOf": 5}, "12", 15),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "7", 1),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "7", 0.5),
        ({"type": ["null", "string"]}, "x", None),
        ({"type": "array", "items": {"type": "integer"}}, "1 and 2 and 3", [1, 2, 3]),
        ({"type": "array", "items": {"type": "string"}}, "we met Ada and Bob", ["Ada", "Bob"]),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, "x", [False, False]),
        ({"type": "array", "maxItems": 0}, "1", []),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": "a"}]}, "", [1, "a"]),
        ({"properties": {"a": {"type": "boolean"}}}, "it is not a", {"a": False}),
        ({"required": ["x"], "type": "object"}, "", {"x": "unknown"}),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"required": ["a"]}]}, "", {"a": 1}),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"const": 7}}}, "", 7),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, "it is 4", 4),
        (True, "", "unknown"),
    ],
    ids=str,
)
def test_a_value_satisfies_its_schema(given_schema: Any, text: str, expected: Any) -> None:
    value = schema.fill(given_schema, text)
    assert value == expected
    assert type(value) is type(expected) or isinstance(value, int | float)


WIDE: dict[str, Any] = {
    f"d{i}": {
        "properties": {key: {"$ref": f"#/$defs/d{i + 1}"} for key in "abcdef"},
        "required": list("abcdef"),
    }
    for i in range(12)
} | {"d12": {"type": "null"}}


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "string", "pattern": "^a+$"},
        {"type": "wizard"},
        {"enum": []},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"properties": [1]},
        {"type": "integer", "minimum": 2, "maximum": 1},
        {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1},
        {"type": "integer", "minimum": 1, "maximum": 4, "multipleOf": 5},
        {"type": "array", "minItems": 1_000_000},
        {"properties": {"a": False}, "required": ["a"]},
        {"$ref": "#/$defs/d0", "$defs": WIDE},
    ],
    ids=lambda bad: str(bad)[:40],
)
def test_a_schema_that_cannot_be_satisfied_is_refused(bad: Any) -> None:
    before = time.monotonic()
    with pytest.raises(Refusal) as refused:
        schema.fill(bad, "text")
    assert refused.value.status == 400
    assert time.monotonic() - before < 5


LEAVES = st.one_of(
    st.builds(
        lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
        st.integers(-50, 50),
        st.integers(0, 9),
    ),
    st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 9)),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({"type": "number", "exclusiveMinimum": 2}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(
            lambda s, n: {"type": "array", "items": s, "minItems": n}, inner, st.integers(0, 3)
        ),
        st.builds(
            lambda p: {"type": "object", "properties": p, "required": list(p)},
            st.dictionaries(st.sampled_from(["name", "age", "city", "x"]), inner, max_size=3),
        ),
        st.builds(lambda a: {"anyOf": [a, {"type": "null"}]}, inner),
    ),
    max_leaves=8,
)


def satisfies(value: Any, by: Any) -> bool:
    """A second, naive reading of the keywords above."""
    if "anyOf" in by:
        return any(satisfies(value, option) for option in by["anyOf"])
    match by["type"]:
        case "integer":
            return isinstance(value, int) and by["minimum"] <= value <= by["maximum"]
        case "number":
            return isinstance(value, int | float) and value > by["exclusiveMinimum"]
        case "string":
            return isinstance(value, str) and len(value) <= by["maxLength"]
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            long_enough = isinstance(value, list) and len(value) >= by["minItems"]
            return long_enough and all(satisfies(v, by["items"]) for v in value)
    properties = by["properties"]
    same_keys = isinstance(value, dict) and value.keys() == properties.keys()
    return same_keys and all(satisfies(value[key], properties[key]) for key in properties)


@given(SCHEMAS, st.text("aAbB 19.-,'\"é\n:@", max_size=60))
def test_whatever_the_schema_and_the_text_the_value_satisfies_it(by: Any, text: str) -> None:
    assert satisfies(json.loads(json.dumps(schema.fill(by, text))), by)


def value_of(expression: str) -> float | None:
    solved = arithmetic.solve(expression)
    found = re.search(r"[=≈] (\S+)$", solved or "")
    return float(found[1]) if found else None


EXPRESSIONS = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({''.join(t)})"),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_sums_come_out_as_pythons_own(expression: str) -> None:
    try:
        expected = eval(expression)
    except ZeroDivisionError:
        assert "divides by zero" in (arithmetic.solve(expression) or "")
        return
    value = value_of(expression)
    assert value is not None
    assert math.isclose(value, expected, rel_tol=1e-8, abs_tol=1e-12)


@given(st.text("0123456789+-*/^(). sqrt", max_size=30))
def test_no_text_makes_a_sum_fail(text: str) -> None:
    found = arithmetic.find(text)
    if found is not None:
        arithmetic.solve(found)


@given(st.text(max_size=200))
def test_there_is_an_answer_to_any_text(text: str) -> None:
    chat = ChatRequest(model="fluence-chat", messages=[{"role": "user", "content": text}])  # type: ignore[list-item]
    assert chat
    assert say(messages=[{"role": "user", "content": text}]) is not None


def test_a_long_text_is_answered_quickly() -> None:
    for text in ("a " * 200_000, "1+" * 200_000, "(" * 400_000, "A B. " * 100_000, "x" * 400_000):
        before = time.monotonic()
        say(f"Summarize or compute: {text}")
        say(text, tools=[WEATHER], tool_choice="required")
        assert time.monotonic() - before < 20


# ─── script: what is written is what is sent ──────────────────────────────────────────────

STREAMED = {**HELLO, "stream": True}


async def play(*lines: ReplyLike, body: Any = STREAMED) -> bytes:
    """What a client of raw bytes receives for one request."""
    async with FluenceServer() as server:
        server.script(*lines)
        received = await exchange(server, request(server, body))
        await server.wait_until_idle()
        return received


def body_of(received: bytes) -> bytes:
    return received.partition(b"\r\n\r\n")[2]


async def test_lines_are_played_in_order_and_then_the_responder_answers() -> None:
    async with FluenceServer() as server:
        server.script(Status(503), "Hello")
        assert [(await ask(server)).status for _ in range(3)] == [503, 200, 200]
        server.script("a", "b", repeat=True)
        texts = [(await ask(server)).json["choices"][0]["message"]["content"] for _ in range(5)]
        assert texts == ["a", "b", "a", "b", "a"]
        server.script(lambda turn: "yes" if "how" in turn.text else None)
        texts = [(await ask(server)).json["choices"][0]["message"]["content"] for _ in range(2)]
        assert texts == ["yes", "yes"]
        server.script()
        assert "doing well" in (await ask(server)).body.decode()


async def test_a_function_sees_the_request() -> None:
    async with FluenceServer() as server:
        server.script(lambda turn: Status(500) if turn.headers.get("x-test") == "1" else None)
        assert (await ask(server, headers={"x-test": "1"})).status == 500
        assert (await ask(server)).status == 200


def test_a_class_in_place_of_a_reply_is_an_error() -> None:
    with pytest.raises(TypeError, match=r"write Reset\(\)"):
        FluenceServer().script(Reset)  # type: ignore[arg-type]


async def test_a_stream_sends_its_steps_and_ends_properly() -> None:
    events = read(await play(Stream("Hel", "lo"))).events
    assert [e["choices"][0]["delta"].get("content") for e in events[:-1]] == ["Hel", "lo", None]
    assert events[-2]["choices"][0]["finish_reason"] == "stop"
    assert events[-1] == "[DONE]"


@pytest.mark.parametrize(
    ("steps", "last"),
    [
        ([End("length")], "[DONE]"),
        ([Finish()], "stop"),
        ([Done()], "[DONE]"),
        ([Finish(), Done(), Done()], "[DONE]"),
    ],
    ids=str,
)
async def test_who_speaks_of_the_end_says_all_of_it(steps: list[Any], last: str) -> None:
    events = read(await play(Stream("x", *steps))).events
    assert len(events) == 1 + (2 if isinstance(steps[0], End) else len(steps))
    final = events[-1]
    assert (final if final == "[DONE]" else final["choices"][0]["finish_reason"]) == last


async def test_a_stream_ends_cleanly_and_too_early() -> None:
    assert len(read(await play(Stream("Hello", end=False))).events) == 1


async def test_a_stream_is_a_stream_even_if_none_was_asked_for_and_an_answer_is_not() -> None:
    assert read(await play(Stream("Hello"), body=HELLO)).events
    assert read(await play("Hello", body=HELLO)).json["choices"][0]["message"]["content"] == "Hello"
    assert read(await play("Hello")).events[-1] == "[DONE]"


async def test_events_chunks_and_bytes_are_sent_as_written() -> None:
    steps = (
        b"\xef\xbb\xbf",
        Event("{not json"),
        Event("boom", event="error"),
        {"choices": None},
        b": ping\n\n",
        b"data: caf\xff\r\n\r",
    )
    body = read(await play(Stream(*steps, end=False))).body
    assert body == (
        b"\xef\xbb\xbfdata: {not json\n\nevent: error\ndata: boom\n\n"
        b'data: {"choices":null}\n\n: ping\n\ndata: caf\xff\r\n\r'
    )


async def test_an_error_in_a_stream_is_an_event_that_ends_it() -> None:
    events = read(await play(Stream("Hel", Status(429, code="slow_down")))).events
    assert events[1:] == [
        {
            "error": {
                "message": "scripted 429",
                "type": "rate_limit_exceeded",
                "param": None,
                "code": "slow_down",
            }
        }
    ]


async def test_usage_is_in_a_streams_end_when_asked_for() -> None:
    asked = {**STREAMED, "stream_options": {"include_usage": True}}
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    events = read(await play(Stream("x", End(usage=usage)), body=asked)).events
    assert events[-2]["usage"] == usage


async def test_statuses_and_replies_say_what_they_are_told_to() -> None:
    slow = read(await play(Status(429, "later", retry_after="1", headers={"x-a": "b"})))
    assert slow.headers["retry-after"] == "1"
    assert slow.headers["x-a"] == "b"
    assert slow.json["error"]["message"] == "later"
    html = read(await play(Reply(200, text="<html>", headers={"content-type": "text/html"})))
    assert (html.headers["content-type"], html.body) == ("text/html", b"<html>")
    assert read(await play(Reply(200, json={"error": 1}))).json == {"error": 1}
    assert read(await play({"error": 1})).json == {"error": 1}
    moved = read(await play(Reply(307, headers={"location": "http://example.com/"})))
    assert (moved.status, moved.headers["location"]) == (307, "http://example.com/")
    empty = read(await play(Reply(204)))
    assert (empty.status, empty.body) == (204, b"")
    assert "content-length" not in empty.headers
    assert (await play(Reply(599))).startswith(b"HTTP/1.1 599 Unknown\r\n")
    gzip = read(await play(Reply(headers={"content-encoding": "gzip"}, body=b"no gzip")))
    assert gzip.body == b"no gzip"


async def test_a_connection_ends_before_the_headers() -> None:
    assert await play(Close()) == b""
    assert await play(Reset()) == b""


async def test_a_reset_is_a_reset_and_a_close_is_none() -> None:
    async with FluenceServer() as server:
        server.script(Stream("Hel", Reset()), Stream("Hel", Close()))
        for how in (anyio.BrokenResourceError, anyio.EndOfStream):
            async with await connect(server) as stream:
                await stream.send(request(server, STREAMED))
                received = b""
                with pytest.raises(how), anyio.fail_after(5):
                    while True:
                        received += await stream.receive()
            assert b'"Hel"' in received
            assert not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_was_sent_before_a_reset_can_be_read() -> None:
    async with FluenceServer() as server, aiohttp.ClientSession() as client:
        server.script(Stream("Hel", Reset()))
        url, headers = server.base_url, {"authorization": f"Bearer {server.api_key}"}
        async with client.post(f"{url}/chat/completions", json=STREAMED, headers=headers) as answer:
            for _ in range(10):
                await asyncio.sleep(0)  # aiohttp would forget by now, had the reset come at once
            assert b'"Hel"' in await answer.content.readany()


async def test_a_body_is_short_of_its_length() -> None:
    received = await play(Stream("Hello", Close(), length=10_000))
    assert b"content-length: 10000\r\n" in received
    assert body_of(received).startswith(b"data: {")
    assert len(body_of(received)) < 1000


async def test_bytes_go_past_the_framing() -> None:
    received = await play(Stream("Hel", Raw(b"xyz\r\n"), Close()))
    assert received.endswith(b"\r\nxyz\r\n")


async def test_any_bytes_come_before_an_answer() -> None:
    received = await play([b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", "Hello"])
    early, _, rest = received.partition(b"\r\n\r\n")
    assert early.startswith(b"HTTP/1.1 103")
    assert read(rest).events[-1] == "[DONE]"


async def test_http_1_0_ends_with_the_connection() -> None:
    received = await play(Stream("Hello", version="1.0"))
    assert received.startswith(b"HTTP/1.0 200 OK\r\n")
    assert read(received).events[-1] == "[DONE]"


async def test_two_lengths_are_sent_if_told_to() -> None:
    received = await play(Stream("x", headers={"content-length": "5"}))
    assert b"transfer-encoding: chunked\r\n" in received
    assert b"content-length: 5\r\n" in received


async def test_bytes_trickle() -> None:
    async with FluenceServer() as server, await connect(server) as stream:
        server.script(Trickle(Stream("Hello"), gap=0.0001, size=7))
        await stream.send(request(server, STREAMED))
        pieces: list[bytes] = []
        with anyio.fail_after(10):
            while True:
                try:
                    pieces.append(await stream.receive())
                except anyio.EndOfStream:
                    break
    assert len(pieces) > 10
    assert read(b"".join(pieces)).events[-1] == "[DONE]"


async def test_only_a_part_trickles() -> None:
    assert read(await play(Stream("Hel", Trickle("lo", gap=0), "!"))).events[-1] == "[DONE]"


@pytest.mark.parametrize("silence", [Stall(), Pings(gap=0.001)], ids=["stall", "pings"])
async def test_silence_lasts_until_the_client_hangs_up(silence: Any) -> None:
    async with FluenceServer() as server:
        server.script(Stream("Hel", silence), silence)
        async with await connect(server) as stream:
            await stream.send(request(server, STREAMED))
            received = b""
            with anyio.move_on_after(0.05):
                while True:
                    received += await stream.receive()
            assert server.answering == 1
        await server.wait_until_idle()
    assert b'"Hel"' in received
    assert (b": ping\n\n" in received) == isinstance(silence, Pings)


async def test_a_repetition_is_bounded_or_lasts_as_long_as_its_reader() -> None:
    line = b"x" * 1000
    assert read(await play(Stream(Repeat(line, 300), end=False))).body == line * 300
    async with FluenceServer() as server:
        server.script([b"HTTP/1.1 200 OK\r\n", Repeat(b"x-endless: 1\r\n")])
        async with await connect(server) as stream:
            await stream.send(request(server))
            for _ in range(20):
                assert await stream.receive()
        await server.wait_until_idle()


async def test_a_pause_delays() -> None:
    before = time.monotonic()
    assert read(await play([Pause(0.01), "Hello"])).status == 200
    assert time.monotonic() - before >= 0.01


async def test_executions_are_answers_begun() -> None:
    async with FluenceServer() as server:
        server.script(
            "a", Answer("b"), Stream("c", Reset()), [Pause(0), "d"], Trickle("e", gap=0), Lost("f")
        )
        for _ in range(6):
            await exchange(server, request(server))
        assert server.executions == 6
        server.script(Status(500), Reset(), Close(), {"error": 1}, b"junk", [Pause(0), Close()])
        for _ in range(4):
            await exchange(server, request(server))
        assert server.executions == 6


async def test_an_answer_may_call_tools_and_say_what_it_cost() -> None:
    usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    scripted = Answer("Let me see.", Call("f", {"x": 1}), usage=usage)
    body = read(await play(scripted, body=HELLO)).json
    message = body["choices"][0]["message"]
    assert message["content"] == "Let me see."
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"x":1}'}
    assert (body["choices"][0]["finish_reason"], body["usage"]) == ("tool_calls", usage)


async def test_what_is_written_can_be_read_in_a_repr() -> None:
    assert repr(Status(500)).startswith("Status(status=500")
    assert "Script" in repr(FluenceServer()._script)
    assert read_all
