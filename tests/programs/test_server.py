"""The local server answers as the API's documentation says, over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import math
import socket
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async.server.idempotency import Idempotency
from fluence_async.server.windows import Windows
from fluence_async.testing import (
    Answer,
    FluenceServer,
    Lost,
    Pause,
    Refusal,
    Repeat,
    Reset,
    Stall,
    Status,
    Stream,
    Turn,
)
from tests.programs.raw_http import HELLO, ask, connect, exchange, parse, read_all, request
from tests.virtual import VirtualLoop

pytestmark = pytest.mark.anyio
VIRTUAL = pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("asyncio", {"loop_factory": VirtualLoop}), id="virtual")]
)


def changed(**changes: Any) -> dict[str, Any]:
    return {**HELLO, **changes}


# ─── the documented answer ────────────────────────────────────────────────────────────────


async def test_the_documented_example_is_answered_as_documented() -> None:
    async with FluenceServer() as server:
        answer = await ask(server)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json
    assert body.pop("id").startswith("chatcmpl-")
    assert abs(body.pop("created") - time.time()) < 60
    choice = body["choices"][0]
    assert choice.pop("logprobs") is None
    assert body == {
        "object": "chat.completion",
        "model": "fluence-chat",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "I'm doing well, thank you for asking! How can I help you today?",
                },
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 16, "total_tokens": 25},
    }


async def test_a_stream_is_a_role_then_text_then_the_finish_reason_then_done() -> None:
    async with FluenceServer() as server:
        answer = await ask(server, changed(stream=True))
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    role, *texts, finish, done = answer.events
    assert done == "[DONE]"
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in texts)
    assert text == "I'm doing well, thank you for asking! How can I help you today?"
    assert len(texts) == 16
    assert finish["choices"][0]["delta"] == {}
    assert [c["choices"][0]["finish_reason"] for c in [role, *texts, finish]] == [
        *[None] * 17,
        "stop",
    ]
    assert len({chunk["id"] for chunk in [role, *texts, finish]}) == 1
    assert all("usage" not in chunk for chunk in [role, *texts, finish])


async def test_usage_comes_in_a_chunk_of_its_own_when_asked_for() -> None:
    async with FluenceServer() as server:
        body = changed(stream=True, stream_options={"include_usage": True})
        *chunks, usage, _done = (await ask(server, body)).events
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 9, "completion_tokens": 16, "total_tokens": 25}
    assert all(chunk["usage"] is None for chunk in chunks)


async def test_every_choice_is_answered_and_paid_for() -> None:
    async with FluenceServer() as server:
        whole = (await ask(server, changed(n=3))).json
        events = (await ask(server, changed(n=3, stream=True))).events
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]
    assert whole["usage"]["completion_tokens"] == 3 * 16
    finished = [e["choices"][0] for e in events[:-1] if e["choices"][0]["finish_reason"]]
    assert [choice["index"] for choice in finished] == [0, 1, 2]


async def test_a_stream_is_paced() -> None:
    async with FluenceServer(pace=0.001) as server:
        before = time.monotonic()
        await ask(server, changed(stream=True))
        assert time.monotonic() - before > 16 * 0.001


async def test_a_connection_is_used_again() -> None:
    async with FluenceServer() as server, await connect(server) as stream:
        for _ in range(3):
            await stream.send(request(server, headers={"connection": None}))
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 OK\r\n")
        assert len({received.connection for received in server.requests}) == 1


async def test_a_client_of_http_1_0_gets_no_chunks() -> None:
    async with FluenceServer() as server:
        answer = await ask(server, changed(stream=True), version="1.0")
    assert "transfer-encoding" not in answer.headers
    assert answer.events[-1] == "[DONE]"


async def test_a_client_that_waits_to_send_its_body_is_told_to_go_on() -> None:
    async with FluenceServer() as server, await connect(server) as stream:
        sent = request(server, headers={"expect": "100-continue"})
        head, _, body = sent.partition(b"\r\n\r\n")
        await stream.send(head + b"\r\n\r\n")
        assert await stream.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await stream.send(body)
        assert parse(await read_all(stream)).status == 200


async def test_the_models_are_listed() -> None:
    async with FluenceServer() as server:
        answer = await ask(server, b"", method="GET", path="/v1/models")
        stranger = await ask(
            server, b"", method="GET", path="/v1/models", headers={"authorization": None}
        )
    assert [model["id"] for model in answer.json["data"]] == ["fluence-chat", "fluence-local"]
    assert stranger.status == 401


# ─── what is refused ──────────────────────────────────────────────────────────────────────

DEEP = b'{"model": "fluence-chat", "messages": ' + b"[" * 100_000
BAD_BODIES: list[tuple[Any, str | None]] = [
    (b"", None),
    (b"{", None),
    (b"[]", None),
    (b"\xff\xfe", None),
    (b'{"model": NaN}', None),
    (b'{"model": 1e999}', None),
    (DEEP, None),
    (DEEP + b"]" * 100_000 + b"}", None),
    ({"messages": HELLO["messages"]}, "model"),
    ({"model": "fluence-chat"}, "messages"),
    (changed(model=None), "model"),
    (changed(model=7), "model"),
    (changed(messages=[]), "messages"),
    (changed(messages="hello"), "messages"),
    (changed(messages=[{"role": "wizard", "content": "x"}]), "messages[0]"),
    (changed(messages=[{"content": "x"}]), "messages[0]"),
    (changed(messages=[{"role": "user"}]), "messages[0]"),
    (changed(messages=[{"role": "user", "content": 7}]), "messages"),
    (changed(messages=[{"role": "assistant", "content": None}]), "messages[0]"),
    (changed(messages=[{"role": "tool", "tool_call_id": "c", "content": "x"}]), "messages[0]"),
    (changed(temperature=-0.1), "temperature"),
    (changed(temperature=2.1), "temperature"),
    (changed(temperature="0.7"), "temperature"),
    (changed(temperature=True), "temperature"),
    (changed(top_p=1.5), "top_p"),
    (changed(max_tokens=0), "max_tokens"),
    (changed(max_tokens=1.5), "max_tokens"),
    (changed(max_completion_tokens=0), "max_completion_tokens"),
    (changed(n=0), "n"),
    (changed(n=129), "n"),
    (changed(stream="yes"), "stream"),
    (changed(stream_options={"include_usage": True}), "stream_options"),
    (changed(stop=""), "stop"),
    (changed(stop=["a"] * 17), "stop"),
    (changed(tools=[{"type": "function"}]), "tools"),
    (changed(tools=[{"type": "search", "function": {"name": "f"}}]), "tools"),
    (changed(tools=[{"type": "function", "function": {"name": "a b"}}]), "tools"),
    (changed(tool_choice="auto"), "tool_choice"),
    (changed(tool_choice="always"), "tool_choice"),
    (
        changed(
            tools=[{"type": "function", "function": {"name": "f"}}],
            tool_choice={"type": "function", "function": {"name": "g"}},
        ),
        "tool_choice",
    ),
    (changed(response_format={"type": "xml"}), "response_format"),
    (changed(response_format={"type": "json_schema"}), "response_format"),
    (changed(presence_penalty=3), "presence_penalty"),
    (changed(top_logprobs=21), "top_logprobs"),
]


async def test_a_bad_body_is_refused_with_the_parameter_at_fault() -> None:
    async with FluenceServer(limits=None) as server:
        for body, param in BAD_BODIES:
            answer = await ask(server, body)
            assert answer.status == 400, body
            error = answer.json["error"]
            assert error.keys() == {"message", "type", "param", "code"}
            assert error["type"] == error["code"] == "invalid_request"
            assert error["param"] == param, (body, error)
        assert server.executions == 0


async def test_what_the_api_knows_is_let_through() -> None:
    fine: list[dict[str, Any]] = [
        {"temperature": 0},
        {"temperature": 2},
        {"temperature": None, "stop": None, "tools": None, "stream": None},
        {"top_p": 1, "n": 1, "seed": 7, "user": "ada", "logprobs": True, "top_logprobs": 3},
        {"logit_bias": {"50256": -100}, "presence_penalty": -2, "frequency_penalty": 2},
        {"stop": ["\n", "END"], "max_tokens": 1, "parallel_tool_calls": False},
        {"response_format": {"type": "text"}, "an_unknown_field": {"x": 1}},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]},
        {"messages": [{"role": r, "content": "x"} for r in ("system", "developer", "user")]},
        {"model": "fluence-local"},
    ]
    async with FluenceServer(limits=None) as server:
        for changes in fine:
            assert (await ask(server, changed(**changes))).status == 200, changes


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"headers": {"authorization": None}}, 401, "authentication_error"),
        ({"headers": {"authorization": "Bearer wrong"}}, 401, "authentication_error"),
        ({"headers": {"authorization": "Bearer \udcff"}}, 401, "authentication_error"),
        ({"headers": {"authorization": "Bearer "}}, 401, "authentication_error"),
        ({"headers": {"authorization": "Basic fluence-test-key"}}, 401, "authentication_error"),
        ({"path": "/v1/chat"}, 404, "invalid_request"),
        ({"path": "/"}, 404, "invalid_request"),
        ({"path": "/%ff"}, 404, "invalid_request"),
        ({"body": changed(model="gpt-4")}, 404, "model_not_found"),
        ({"method": "GET"}, 405, "invalid_request"),
        ({"method": "OPTIONS"}, 405, "invalid_request"),
        ({"headers": {"content-type": "text/plain"}}, 415, "invalid_request"),
        ({"headers": {"content-type": None}}, 415, "invalid_request"),
        ({"headers": {"content-type": "text/\udcff"}}, 415, "invalid_request"),
        ({"headers": {"host": "evil.example"}}, 403, "host_not_allowed"),
        ({"headers": {"host": None}, "version": "1.0"}, 403, "host_not_allowed"),
        ({"headers": {"host": "[::1"}}, 403, "host_not_allowed"),
        ({"headers": {"origin": "https://evil.example"}}, 403, "origin_not_allowed"),
        ({"headers": {"origin": "http://\udcff"}}, 403, "origin_not_allowed"),
        ({"headers": {"origin": "null"}}, 403, "origin_not_allowed"),
    ],
    ids=str,
)
async def test_a_bad_request_is_refused_in_the_documented_envelope(
    changes: dict[str, Any], status: int, code: str
) -> None:
    async with FluenceServer() as server:
        answer = await ask(server, **changes)
        assert (answer.status, answer.json["error"]["code"]) == (status, code)
        assert answer.headers["x-request-id"].startswith("req_")
        assert server.api_key not in answer.json["error"]["message"]
        assert server.executions == 0


async def test_a_head_request_gets_a_head() -> None:
    async with FluenceServer() as server:
        answer = await ask(server, b"", method="HEAD")
    assert (answer.status, answer.body) == (405, b"")
    assert answer.headers["allow"] == "POST"


async def test_other_names_are_let_in_when_asked_for() -> None:
    async with FluenceServer() as server:
        for host in ("localhost:99", "127.0.0.1", "[::1]:8080"):
            assert (await ask(server, headers={"host": host})).status == 200
        local = await ask(server, headers={"origin": "http://localhost:3000"})
        assert local.status == 200


async def test_a_body_that_is_too_large_is_refused_and_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fluence_async.server.app.MAX_BODY", 1000)
    async with FluenceServer() as server:
        answer = await ask(server, b"x" * 1001)
        assert answer.status == 413
        assert server.requests[0].body == b""


async def test_a_responder_that_fails_is_a_server_error_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(turn: Turn) -> str:
        raise ZeroDivisionError("a secret of the server")

    async with FluenceServer() as server:
        server.script(fail)
        with caplog.at_level(logging.CRITICAL, logger="fluence_async.server"):
            answer = await ask(server)
            assert (await ask(server, **KEYED)).status == 500
        server.script("Hello")
        assert (await ask(server, **KEYED)).status == 200
    assert answer.status == 500
    assert answer.json["error"]["code"] == "server_error"
    assert "secret" not in answer.body.decode()


# ─── rate limits ──────────────────────────────────────────────────────────────────────────


@VIRTUAL
async def test_the_101st_request_of_a_minute_is_refused_and_retry_after_is_true() -> None:
    async with FluenceServer() as server:
        for i in range(100):
            answer = await ask(server)
            assert answer.status == 200
            assert answer.headers["x-ratelimit-limit-requests"] == "100"
            assert answer.headers["x-ratelimit-remaining-requests"] == str(99 - i)
            await asyncio.sleep(0.25)
        refused = await ask(server)
        assert refused.status == 429
        assert refused.json["error"]["code"] == "rate_limit_exceeded"
        assert refused.headers["retry-after"] == "35"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert refused.headers["x-ratelimit-reset-requests"] == "59.75s"
        await asyncio.sleep(34.75)
        assert (await ask(server)).status == 429
        await asyncio.sleep(0.25)
        assert (await ask(server)).status == 200
        assert (server.refusals, server.executions) == (2, 101)
        assert len(server.arrivals) == 103
        assert server.busiest(60) == 102


@VIRTUAL
async def test_the_1001st_request_of_an_hour_is_refused_until_the_first_is_an_hour_old() -> None:
    async with FluenceServer() as server:
        begin = asyncio.get_running_loop().time()
        for _ in range(10):
            for _ in range(100):
                assert (await ask(server)).status == 200
            await asyncio.sleep(60)
        refused = await ask(server)
        assert refused.headers["x-ratelimit-limit-requests"] == "1000"
        assert refused.headers["retry-after"] == str(math.ceil(begin + 3600 - server.arrivals[-1]))
        await asyncio.sleep(float(refused.headers["retry-after"]))
        assert (await ask(server)).status == 200
        assert server.busiest(60) == 100


async def test_limits_count_each_key_and_no_stranger() -> None:
    async with FluenceServer(limits=["1/hour"], api_keys=["a", "b"]) as server:
        statuses = [
            (await ask(server, headers={"authorization": f"Bearer {key}"})).status
            for key in ("x", "a", "b", "a", "x")
        ]
    assert statuses == [401, 200, 200, 429, 401]


async def test_an_invalid_request_counts_and_a_refused_one_is_not_read() -> None:
    async with FluenceServer(limits=["1/hour"]) as server:
        assert (await ask(server, b"{")).status == 400
        assert (await ask(server)).status == 429
        assert [received.body for received in server.requests] == [b"{", b""]


async def test_scaled_time_shortens_windows_and_says_so_in_the_clients_seconds() -> None:
    now = 100.0
    async with FluenceServer(limits=["1/hour"], time_scale=1800, clock=lambda: now) as server:
        assert (await ask(server)).status == 200
        now += 0.5
        refused = await ask(server)
        assert refused.headers["retry-after"] == "2"  # 1.5 s, rounded up
        assert refused.headers["x-ratelimit-reset-requests"] == "1.5s"
        now += 1.5
        assert (await ask(server)).status == 200
        assert server.arrivals == [180_000, 180_900, 183_600]


def test_a_limit_that_cannot_be_read_is_an_error() -> None:
    for limit in ("100", "0/minute", "100/fortnight", "-1/hour", "1.5/hour"):
        with pytest.raises(ValueError, match="is not"):
            Windows([limit])
    with pytest.raises(ValueError, match="limits=None"):
        FluenceServer(limits=[])


@given(st.lists(st.integers(0, 40), max_size=120))
def test_a_request_is_accepted_exactly_if_every_window_has_room(gaps: list[int]) -> None:
    windows = Windows(["3/minute", "5/hour"])
    accepted: list[float] = []
    now = 0.0
    for gap in gaps:
        now += gap**2
        room = {
            period: count - sum(now - period < at for at in accepted)
            for period, count in ((60, 3), (3600, 5))
        }
        verdict = windows.admit("key", now)
        assert verdict.accepted == all(room.values())
        if verdict.accepted:
            accepted.append(now)
            assert verdict.wait_s == 0
            assert verdict.remaining == min(room.values()) - 1
        else:
            free = now + verdict.wait_s
            assert all(
                sum(free - period < at for at in accepted) < count
                for period, count in ((60, 3), (3600, 5))
            )
            assert any(at + period == free for at in accepted for period in (60, 3600))


# ─── idempotency keys ─────────────────────────────────────────────────────────────────────

KEYED = {"headers": {"idempotency-key": "k1"}}


async def test_an_equal_key_brings_the_same_answer_and_executes_once() -> None:
    async with FluenceServer() as server:
        first, second = [(await ask(server, **KEYED)).json for _ in range(2)]
        assert first == second
        assert server.executions == 1
        streamed = changed(stream=True)
        one, two = [
            (await ask(server, streamed, headers={"idempotency-key": "k2"})).events
            for _ in range(2)
        ]
        assert one == two
        other = (await ask(server, headers={"idempotency-key": "k3"})).json
        assert other["id"] != first["id"]
        assert (server.executions, len(server.arrivals)) == (3, 5)


async def test_an_equal_key_with_another_body_is_refused() -> None:
    async with FluenceServer() as server:
        await ask(server, **KEYED)
        answer = await ask(server, changed(temperature=0.8), **KEYED)
    assert answer.status == 400
    assert answer.json["error"]["param"] == "Idempotency-Key"


async def test_keys_are_apart_for_each_api_key() -> None:
    async with FluenceServer(api_keys=["a", "b"]) as server:
        for key in "ab":
            headers = {"authorization": f"Bearer {key}", "idempotency-key": "same"}
            assert (await ask(server, headers=headers)).status == 200
        assert server.executions == 2


async def test_an_answer_lost_on_its_way_is_not_executed_again() -> None:
    async with FluenceServer() as server:
        server.script(Lost("Hello"), "a second execution")
        assert await exchange(server, request(server, **KEYED)) == b""
        answer = (await ask(server, **KEYED)).json
        assert answer["choices"][0]["message"]["content"] == "Hello"
        assert server.executions == 1


async def test_a_failure_is_not_kept() -> None:
    async with FluenceServer() as server:
        server.script(Status(500), Reset(), "Hello")
        assert (await ask(server, **KEYED)).status == 500
        assert await exchange(server, request(server, **KEYED)) == b""
        assert (await ask(server, **KEYED)).status == 200
        assert server.executions == 1


class Slow:
    """A responder that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.ended = 0
        self.go = False

    async def respond(self, turn: Turn) -> Answer:
        self.asked += 1
        try:
            while not self.go:
                await asyncio.sleep(0.001)
        finally:
            self.ended += 1
        return Answer("done")


async def test_a_second_request_waits_for_the_first_even_if_its_client_has_gone() -> None:
    slow = Slow()
    async with FluenceServer(responder=slow) as server:
        async with await connect(server) as stream:
            await stream.send(request(server, **KEYED))
            while not slow.asked:
                await anyio.sleep(0.001)
        await server.wait_until_idle()
        async with await connect(server) as stream:
            await stream.send(request(server, **KEYED))
            while len(server.requests) < 2:
                await anyio.sleep(0.001)
            slow.go = True
            answer = parse(await read_all(stream))
        assert answer.json["choices"][0]["message"]["content"] == "done"
        assert (slow.asked, server.executions) == (1, 1)


async def test_an_execution_that_hangs_ends_with_the_server() -> None:
    slow = Slow()
    async with FluenceServer(responder=slow) as server, await connect(server) as stream:
        await stream.send(request(server, **KEYED))
        while not slow.asked:
            await anyio.sleep(0.001)
    assert slow.ended == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_result_is_kept_for_a_day_and_the_oldest_go_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fluence_async.server.idempotency._MOST", 3)
    now = 0.0
    kept = Idempotency[int](lambda: now, lambda result: True)
    executed = 0

    async def execute() -> int:
        nonlocal executed
        executed += 1
        return executed

    async def fresh(key: str) -> bool:
        return (await kept.once(key, b"", execute))[1]

    assert await fresh("a")
    now = 86_399.9
    assert not await fresh("a")
    now = 86_400.0
    assert await fresh("a")
    assert [await fresh(key) for key in "bcd"] == [True] * 3
    assert not await fresh("d")
    assert await fresh("a")
    with pytest.raises(Refusal):
        await kept.once("d", b"other", execute)


# ─── the server in a test ─────────────────────────────────────────────────────────────────


async def test_it_is_gone_when_it_is_closed() -> None:
    async with FluenceServer() as server:
        pass
    with pytest.raises(OSError, match=r"\w"):
        await connect(server)


async def test_closing_waits_for_nobody() -> None:
    async with FluenceServer(pace=100) as server:
        server.script(Stall(), Stream("Hel", Stall()))
        streams = [await connect(server) for _ in range(4)]
        for stream in streams[:2]:
            await stream.send(request(server))
        await streams[2].send(request(server, changed(stream=True)))
        with anyio.fail_after(5):
            while server.answering < 3:
                await anyio.sleep(0.001)
        before = time.monotonic()
    assert time.monotonic() - before < 2
    for stream in streams:
        await read_all(stream)
        await stream.aclose()


async def test_closing_does_not_wait_for_a_client_that_does_not_read() -> None:
    async with FluenceServer() as server:
        server.script(Stream(Repeat(b"x" * 65536)))
        stream = await connect(server)
        await stream.send(request(server))
        with anyio.fail_after(5):
            while not server.answering:
                await anyio.sleep(0.001)
        await anyio.sleep(0.01)  # enough to fill every buffer on the way
        before = time.monotonic()
    assert time.monotonic() - before < 2
    await stream.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_closing_leaves_no_connection_half_accepted() -> None:
    clients: list[socket.socket] = []

    async def knock(port: int) -> None:
        """Connect once in each turn of the loop, as long as somebody listens."""
        while len(clients) < 200:
            clients.append(socket.socket())
            clients[-1].setblocking(False)
            clients[-1].connect_ex(("127.0.0.1", port))
            await asyncio.sleep(0)

    async with FluenceServer() as server:
        knocking = asyncio.create_task(knock(urlsplit(server.base_url).port or 0))
        await asyncio.sleep(0.001)
    assert not knocking.done()
    knocking.cancel()
    for client in clients:
        client.close()
    gc.collect()  # a forgotten connection warns here


async def test_it_knows_what_is_left_open() -> None:
    async with FluenceServer() as server:
        server.script(Stall())
        async with await connect(server) as stream:
            await stream.send(request(server))
            while not server.answering:
                await anyio.sleep(0.001)
            with pytest.raises(AssertionError, match="1 requests in progress, 1 connections"):
                await server.wait_until_idle(0.05)
        await server.wait_until_idle()
        assert (server.answering, server.connections) == (0, 0)


async def test_idle_may_leave_pooled_connections() -> None:
    async with FluenceServer() as server, await connect(server) as stream:
        await stream.send(request(server, headers={"connection": None}))
        await stream.receive()
        await server.wait_until_idle(connections=1)


async def test_a_taken_port_is_an_error_where_the_server_is_opened() -> None:
    async with FluenceServer() as server:
        port = int(server.base_url.split(":")[2].removesuffix("/v1"))
        with pytest.raises(OSError, match=str(port)):
            async with FluenceServer(port=port):
                pass


def test_it_runs_without_a_loop_for_programs_that_have_none() -> None:
    with FluenceServer() as server:
        answer = anyio.run(ask, server)
        assert answer.status == 200
    with pytest.raises(RuntimeError, match="not entered"):
        server.__exit__(None, None, None)


async def test_its_reprs_hold_no_key() -> None:
    async with FluenceServer() as server:
        await ask(server)
        shown = f"{server!r} {server.requests!r} {server._local!r}"
    assert server.base_url in shown
    assert server.api_key not in shown
    assert "POST /v1/chat/completions" in shown


@VIRTUAL
async def test_virtual_time_rules_pauses_and_windows() -> None:
    async with FluenceServer() as server:
        server.script([Pause(3600), "Hello"])
        before, began = asyncio.get_running_loop().time(), time.monotonic()
        assert (await ask(server)).status == 200
        assert asyncio.get_running_loop().time() - before >= 3600
        assert time.monotonic() - began < 5


@pytest.mark.skipif(sys.platform != "linux", reason="uvloop is installed for Linux only")
def test_it_runs_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with FluenceServer() as server:
            server.script(Reset(), "Hello")
            assert await exchange(server, request(server)) == b""
            assert (await ask(server)).status == 200

    anyio.run(main, backend_options={"loop_factory": uvloop.new_event_loop})


async def test_the_log_has_what_came() -> None:
    async with FluenceServer() as server:
        await ask(server)
        received = server.requests[0]
    assert (received.method, received.path) == ("POST", "/v1/chat/completions")
    assert received.headers["content-type"] == "application/json"
    assert received.json == HELLO
    assert json.loads(received.body) == HELLO
    assert (received.counted, received.refused, received.executed) == (True, False, True)
