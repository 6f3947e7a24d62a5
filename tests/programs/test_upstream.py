"""Passing requests on to another server, and recording what it says, without any key."""

from __future__ import annotations

import base64
import json
import socket
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import pytest

from fluence_async import FluenceSession, StreamInterruptedError
from fluence_async.testing import (
    FluenceServer,
    Pause,
    Redirect,
    Replay,
    Reply,
    Reset,
    Stall,
    Status,
    Stream,
    Upstream,
)
from tests.programs.raw_http import HELLO, ask, exchange, parse, request

pytestmark = pytest.mark.anyio
STREAMED = {**HELLO, "stream": True}
KEY = "sk-up/stream+key=0123456789"


@asynccontextmanager
async def passing(**options: Any) -> AsyncIterator[tuple[FluenceServer, FluenceServer]]:
    """A server, and another that passes requests on to it."""
    async with FluenceServer(api_keys=[KEY], limits=None) as real:
        upstream = Upstream(real.base_url, api_key=KEY, **options)
        async with FluenceServer(responder=upstream) as server:
            yield real, server


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ─── passing on ───────────────────────────────────────────────────────────────────────────


async def test_an_answer_comes_as_the_other_server_sends_it() -> None:
    async with passing() as (real, server):
        real.script("Hello", Stream("Hel", "lo"), Status(429, retry_after="7"))
        plain = await ask(server)
        stream = await ask(server, STREAMED)
        refused = await ask(server)
        assert plain.json["choices"][0]["message"]["content"] == "Hello"
        assert [e["choices"][0]["delta"].get("content") for e in stream.events[:-1]] == [
            "Hel",
            "lo",
            None,
        ]
        assert (refused.status, refused.headers["retry-after"]) == (429, "7")
        sent = real.requests[0].headers
        assert (sent["authorization"], "cookie" in sent) == (f"Bearer {KEY}", False)
        assert real.requests[0].json == HELLO
        assert plain.headers["x-request-id"].startswith("req_")


async def test_any_model_is_passed_on_and_what_the_api_refuses_is_not() -> None:
    async with passing() as (real, server):
        assert (await ask(server, {**HELLO, "model": "gpt-4"})).status == 404  # so says the other
        assert (await ask(server, {**HELLO, "temperature": 3})).status == 400
        assert len(real.requests) == 1


async def test_each_piece_is_passed_on_as_it_comes() -> None:
    async with passing() as (real, server):
        real.script(Stream("Hel", Stall()))
        with anyio.fail_after(10):
            async with FluenceSession(
                api_key=server.api_key, base_url=server.base_url, limiter=None
            ) as fluence:
                async with fluence.chat.completions.stream(
                    model="fluence-chat", messages="hi"
                ) as stream:
                    assert (await anext(stream)).text == "Hel"
        await server.wait_until_idle()
        await real.wait_until_idle()  # who hangs up here has hung up there


async def test_a_break_is_passed_on_as_a_break() -> None:
    async with passing() as (real, server):
        real.script(Stream("Hel", Reset()))
        async with FluenceSession(api_key=server.api_key, base_url=server.base_url) as fluence:
            with pytest.raises(StreamInterruptedError) as broken:
                async with fluence.chat.completions.stream(
                    model="fluence-chat", messages="hi"
                ) as stream:
                    await stream.get_final_text()
            assert broken.value.partial is not None
            assert broken.value.partial.text == "Hel"


async def test_a_redirect_is_not_followed() -> None:
    async with FluenceServer() as elsewhere, passing() as (real, server):
        real.script(Redirect(elsewhere.base_url + "/chat/completions"))
        answer = await ask(server)
        assert (answer.status, "location" in answer.headers) == (307, False)
        assert elsewhere.requests == []


async def test_a_server_that_is_not_there_is_a_bad_gateway() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = taken.getsockname()[1]
    upstream = Upstream(f"http://127.0.0.1:{nobody}/v1")
    async with FluenceServer(responder=upstream) as server:
        answer = await ask(server)
        assert (answer.status, answer.json["error"]["type"]) == (502, "server_error")
        assert f"127.0.0.1:{nobody}" in answer.json["error"]["message"]


async def test_the_same_idempotency_key_goes_along() -> None:
    async with passing() as (real, server):
        real.script("first", "second")
        bodies = {(await ask(server, headers={"idempotency-key": "k"})).body for _ in range(2)}
        assert len(bodies) == 1
        assert (real.executions, len(real.requests)) == (1, 2)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://api.example.com/v1",
        "ftp://127.0.0.1/v1",
        "api.example.com",
        "https://user:word@api.example.com/v1",
        "https://api.example.com/v1?key=x",
    ],
)
def test_an_address_that_would_show_the_key_is_refused(base_url: str) -> None:
    with pytest.raises(ValueError, match="upstream") as refused:
        Upstream(base_url, api_key=KEY)
    assert "word" not in str(refused.value)


def test_its_repr_holds_no_key() -> None:
    upstream = Upstream("https://api.example.com/v1", api_key=KEY, secrets=["a-secret"])
    assert repr(upstream) == "Upstream('https://api.example.com/v1')"
    assert KEY not in repr(vars(upstream))


# ─── recording ────────────────────────────────────────────────────────────────────────────


async def test_a_session_is_recorded_in_one_line_and_replayed_in_one_line(tmp_path: Path) -> None:
    async def converse(server: FluenceServer) -> list[str]:
        async with FluenceSession(
            api_key=server.api_key, base_url=server.base_url, limiter=None
        ) as fluence:
            create = fluence.chat.completions.create
            first = await create(model="fluence-chat", messages="What is 6 times 7?")
            async with fluence.chat.completions.stream(
                model="fluence-chat", messages="Tell me a story about dragons"
            ) as stream:
                texts = [text async for text in stream.text_stream]
            return [first.text, first.meta.request_id or "", *texts]

    path = tmp_path / "session.jsonl"
    async with FluenceServer(api_keys=[KEY]) as real:
        upstream = Upstream(real.base_url, api_key=KEY, record=path)
        async with FluenceServer(responder=upstream) as server:
            said = await converse(server)
    async with FluenceServer(responder=Replay(path)) as server:
        assert await converse(server) == said
    assert len(said) > 10
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_the_recording_is_json_that_a_person_can_read(tmp_path: Path) -> None:
    path = tmp_path / "it.jsonl"
    async with passing(record=path) as (real, server):
        real.script(
            Stream(b"data: {}\n\n", Pause(0.02), b"data: caf\xc3", b"\xa9\n\n", end=False),
            Status(503),
        )
        await ask(server, STREAMED)
        await ask(server)
    stream, refused = lines(path)
    assert stream["request"] == STREAMED
    assert (stream["status"], stream["complete"]) == (200, True)
    assert stream["headers"]["content-type"].startswith("text/event-stream")
    assert set(stream["headers"]) <= {"content-type", "x-request-id"}
    first, *rest = stream["body"]
    assert first["text"] == "data: {}\n\n"
    assert rest[0]["after"] >= 0.01
    whole = b"".join(
        piece["text"].encode() if "text" in piece else base64.b64decode(piece["base64"])
        for piece in rest
    )
    assert whole == "data: café\n\n".encode()
    assert refused["status"] == 503
    assert json.loads(refused["body"][0]["text"])["error"]["code"] == "server_error"


async def test_no_key_is_written_in_any_form(tmp_path: Path) -> None:
    path = tmp_path / "it.jsonl"
    local = "local-key-abcdefghijklmnop"
    forms = [
        form
        for key in (KEY, local, "my-other-secret")
        for form in (
            key,
            quote(key, safe=""),
            base64.b64encode(key.encode()).decode(),
            base64.b64encode(f"Bearer {key}".encode()).decode(),
            base64.urlsafe_b64encode(f"x{key}".encode()).decode(),
        )
    ]
    async with FluenceServer(api_keys=[KEY]) as real:
        upstream = Upstream(real.base_url, api_key=KEY, record=path, secrets=["my-other-secret"])
        async with FluenceServer(responder=upstream, api_keys=[local]) as server:
            for form in forms:
                echo = {"error": {"message": f"bad key {form}!"}}
                real.script(
                    Reply(401, json=echo, headers={"x-request-id": form.replace("=", "")}),
                    Stream(f"key {form[:9]}", form[9:], b"data: ", form.encode(), b"\n\n"),
                )
                await ask(server, {**HELLO, "user": form})
                await ask(server, {**STREAMED, "messages": [{"role": "user", "content": form}]})
    written = path.read_text()
    assert len(lines(path)) == 2 * len(forms)
    for form in forms:
        assert form.rstrip("=") not in written
    assert written.count("***") >= 4 * len(forms)


async def test_a_key_across_two_pieces_is_not_written_either(tmp_path: Path) -> None:
    path = tmp_path / "it.jsonl"
    async with passing(record=path) as (real, server):
        cut = [b"data: the key is ", KEY[:10].encode(), Pause(0.01), KEY[10:].encode(), b"\n\n"]
        real.script(Stream(*cut, end=False))
        answer = await ask(server, STREAMED)
        assert KEY in answer.body.decode()  # what is passed on is not changed
    (line,) = lines(path)
    assert KEY[:10] not in path.read_text()
    assert KEY[10:] not in path.read_text()
    assert [piece["text"] for piece in line["body"]] == ["data: the key is ***\n\n"]


async def test_what_broke_off_is_recorded_and_replayed_as_broken(tmp_path: Path) -> None:
    path = tmp_path / "it.jsonl"
    async with passing(record=path) as (real, server):
        real.script(Stream("Hel", Reset()))
        await exchange(server, request(server, STREAMED))
    assert [line["complete"] for line in lines(path)] == [False]
    async with FluenceServer(responder=Replay(path)) as server:
        received = await exchange(server, request(server, STREAMED))
        assert b'"Hel"' in received
        assert not received.endswith(b"0\r\n\r\n")


async def test_what_the_client_broke_off_is_not_recorded(tmp_path: Path) -> None:
    path = tmp_path / "it.jsonl"
    async with passing(record=path) as (real, server):
        real.script(Stream("Hel", Stall()))
        with anyio.move_on_after(0.1):
            await exchange(server, request(server, STREAMED))
        await server.wait_until_idle()
        real.script("Hello")
        await ask(server)
    assert [line["request"] for line in lines(path)] == [HELLO]


# ─── replaying ────────────────────────────────────────────────────────────────────────────


def recorded(tmp_path: Path, *exchanges: tuple[Any, str]) -> Path:
    path = tmp_path / "made.jsonl"
    made = [
        {
            "request": body,
            "status": 200,
            "headers": {"content-type": "application/json"},
            "body": [{"after": 0.0, "text": json.dumps(text)}],
        }
        for body, text in exchanges
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in made))
    return path


def about(topic: str, **fields: Any) -> dict[str, Any]:
    return {**HELLO, "messages": [{"role": "user", "content": topic}], **fields}


async def test_equal_requests_get_their_answers_in_order_each_once(tmp_path: Path) -> None:
    path = recorded(tmp_path, (about("a"), "a1"), (about("b"), "b1"), (about("a"), "a2"))
    replay = Replay(path)
    async with FluenceServer(responder=replay) as server:
        said = [(await ask(server, about(topic))).json for topic in ("b", "a", "a")]
        assert said == ["b1", "a1", "a2"]
        assert replay.left == 0
        over = await ask(server, about("a"))
        assert (over.status, over.json["error"]["code"]) == (404, "not_recorded")
        assert "has been played" in over.json["error"]["message"]


async def test_with_repeat_the_first_comes_again(tmp_path: Path) -> None:
    path = recorded(tmp_path, (about("a"), "a1"), (about("a"), "a2"))
    async with FluenceServer(responder=Replay(path, repeat=True)) as server:
        assert [(await ask(server, about("a"))).json for _ in range(5)] == [
            "a1", "a2", "a1", "a2", "a1",
        ]  # fmt: skip


async def test_what_was_not_recorded_is_told_with_what_is_different(tmp_path: Path) -> None:
    path = recorded(tmp_path, (about("x", seed=1, user="u"), "far"), (about("b", seed=1), "near"))
    async with FluenceServer(responder=Replay(path)) as server:
        answer = await ask(server, about("b", seed=2))
        assert answer.status == 404
        assert "in the nearest seed was 1 and is 2. Record anew" in answer.json["error"]["message"]
    async with FluenceServer(responder=Replay(path, ignore=["seed"])) as server:
        assert (await ask(server, about("b", seed=2))).json == "near"


async def test_time_passes_as_it_passed_if_asked_for(tmp_path: Path) -> None:
    path = recorded(tmp_path, (about("a"), "a1"))
    path.write_text(path.read_text().replace('"after": 0.0', '"after": 0.05'))
    for timed in (True, False):
        async with FluenceServer(responder=Replay(path, timed=timed)) as server:
            began = anyio.current_time()
            await ask(server, about("a"))
            assert not timed or anyio.current_time() - began >= 0.05


def test_a_file_that_is_no_recording_says_where(tmp_path: Path) -> None:
    path = recorded(tmp_path, (about("a"), "a1"))
    for junk in ("{", "[]", '{"request": 1}', "[" * 100_000):
        path.write_text(path.read_text().splitlines()[0] + "\n" + junk + "\n")
        with pytest.raises(ValueError, match=r"made\.jsonl, line 2 is no recorded exchange"):
            Replay(path)
    with pytest.raises(FileNotFoundError):
        Replay(tmp_path / "none.jsonl")


async def test_a_bodyless_answer_is_passed_on_recorded_and_replayed(tmp_path: Path) -> None:
    path = tmp_path / "it.jsonl"
    async with passing(record=path) as (real, server):
        real.script(Reply(204))
        assert parse(await exchange(server, request(server))).status == 204
    async with FluenceServer(responder=Replay(path)) as server:
        assert (await ask(server)).status == 204
