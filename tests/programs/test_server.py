"""The local server answers as the API's documentation says, over real HTTP on loopback."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest

from fluence_async.testing import (
    FluenceServer,
    Turn,
)
from tests.programs.raw_http import HELLO, ask, connect, parse, read_all, request

pytestmark = pytest.mark.anyio


def changed(**changes: Any) -> dict[str, Any]:
    return {**HELLO, **changes}


# ─── the documented answer ───────────────────────────────────────────────────────────────────


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


# ─── what is refused ─────────────────────────────────────────────────────────────────────────

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
            assert (await ask(server, headers={"idempotency-key": "k"})).status == 500
        server.script("Hello")
        assert (await ask(server, headers={"idempotency-key": "k"})).status == 200
    assert answer.status == 500
    assert answer.json["error"]["code"] == "server_error"
    assert "secret" not in answer.body.decode()
