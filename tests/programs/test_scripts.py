"""What a script says is what is sent, byte for byte."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import anyio
import pytest

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
from tests.programs.raw_http import HELLO, ask, connect, exchange, request
from tests.programs.raw_http import parse as read

pytestmark = pytest.mark.anyio


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
            with anyio.fail_after(10):
                while b'"Hel"' not in received:
                    received += await stream.receive()
                while isinstance(silence, Pings) and b": ping\n\n" not in received:
                    received += await stream.receive()
            with anyio.move_on_after(0.05):
                while True:
                    received += await stream.receive()
            assert server.answering == 1
        await server.wait_until_idle()
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
