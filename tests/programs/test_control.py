"""Scripts over HTTP: what a test in any language can say to the local server and ask of it."""

from __future__ import annotations

import inspect
import json
import subprocess
from typing import Any

import pytest

from fluence_async.server import faults, hostile, replies
from fluence_async.server.script_json import read_line
from fluence_async.testing import (
    Answer,
    Bomb,
    Call,
    Corrupt,
    Done,
    End,
    Event,
    Finish,
    FluenceServer,
    Lost,
    Pause,
    Pings,
    Raw,
    Redirect,
    Repeat,
    Reply,
    Reset,
    Shuffle,
    Stall,
    Status,
    Stream,
    Trickle,
    Truncate,
)
from tests.programs.raw_http import HELLO, Answered, ask

pytestmark = pytest.mark.anyio


async def script(server: FluenceServer, body: Any, **changes: Any) -> Answered:
    return await ask(server, body, path="/_fluence/script", **changes)


async def requests(server: FluenceServer, method: str = "GET", **changes: Any) -> Answered:
    return await ask(server, b"", path="/_fluence/requests", method=method, **changes)


# ─── what it does ─────────────────────────────────────────────────────────────────────────


async def test_a_script_is_played_and_the_requests_are_told() -> None:
    async with FluenceServer(control=True) as server:
        lines = [{"Status": 429, "retry_after": "1"}, "Hello", {"Stream": ["Hel", {"Reset": True}]}]
        assert (await script(server, {"lines": lines})).json == {"lines": 3}
        refused = await ask(server)
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        assert (await ask(server)).json["choices"][0]["message"]["content"] == "Hello"
        told = (await requests(server)).json["requests"]
    assert [each["status"] for each in told] == [429, 200]
    assert [each["body"] for each in told] == [HELLO, HELLO]
    assert told[0]["headers"]["content-type"] == "application/json"
    assert "fluence-test-key" not in json.dumps(told)
    assert len(server.requests) == 2  # its own requests are no requests of the API
    assert server.arrivals == [each["at"] for each in told]


async def test_lines_may_be_for_some_requests_and_all_can_be_forgotten() -> None:
    async with FluenceServer(control=True) as server:
        when = {"text": "how are", "fields": {"temperature": 0.7}, "headers": {"x-test": "1"}}
        await script(server, {"lines": ["Fire!"], "repeat": True, "when": when})
        said = [
            (await ask(server, headers={"x-test": test})).json["choices"][0]["message"]["content"]
            for test in ("1", "2", "1")
        ]
        assert (said[0], said[2]) == ("Fire!", "Fire!")
        assert "doing well" in said[1]
        assert (await requests(server, "DELETE")).status == 204
        assert (await requests(server)).json == {"requests": []}
        again = await ask(server, headers={"x-test": "1"})
        assert "doing well" in again.body.decode()


async def test_what_came_and_is_no_json_is_told_as_text() -> None:
    async with FluenceServer(control=True) as server:
        await ask(server, b"{\xff")
        await ask(server, b"", method="GET", path="/v1/models")
        told = (await requests(server)).json["requests"]
    assert [each["body"] for each in told] == ["{�", ""]


# ─── what it refuses ──────────────────────────────────────────────────────────────────────


async def test_it_is_off_unless_asked_for() -> None:
    async with FluenceServer() as server:
        assert (await script(server, {"lines": []})).status == 404
        assert (await requests(server)).status == 404


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": {"authorization": None}}, 401),
        ({"headers": {"authorization": "Bearer wrong"}}, 401),
        ({"headers": {"host": "evil.example"}}, 403),
        ({"headers": {"origin": "https://evil.example"}}, 403),
        ({"headers": {"content-type": "text/plain"}}, 415),
        ({"method": "PUT"}, 404),
    ],
    ids=str,
)
async def test_it_asks_for_what_the_api_asks_for(changes: dict[str, Any], status: int) -> None:
    async with FluenceServer(control=True) as server:
        assert (await script(server, {"lines": ["hacked"]}, **changes)).status == status
        assert "hacked" not in (await ask(server)).body.decode()
        if status < 404:
            assert (await requests(server, **changes)).status == status


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "cannot be read"),
        ({}, "`lines`"),
        ({"lines": "Hello"}, "array"),
        ({"lines": [], "loop": True}, "loop"),
        ({"lines": [], "when": {"model": "m"}}, "model"),
        ({"lines": [7]}, "7 is no step"),
        ({"lines": [{}]}, "{} is no step"),
        ({"lines": [{"Boom": 1}]}, "one of Answer, Base64, Bomb"),
        ({"lines": [{"Status": 500, "Reset": True}]}, "is no step"),
        ({"lines": [{"Status": "500"}]}, "Expected `int`"),
        ({"lines": [{"Status": 500, "colour": "red"}]}, "colour"),
        ({"lines": [{"Pause": [1, 2]}]}, "Expected `float`"),
        ({"lines": [{"Bomb": "nuclear"}]}, "nuclear"),
        ({"lines": [{"Base64": "!"}]}, "base64"),
        ({"lines": [{"Bytes": 7}]}, "must be a text"),
        ({"lines": [["Hello", {"Stream": [{"Step": 1}]}]]}, "is no step"),
        (b'{"lines": ' + b"[" * 100_000, "nested too deeply"),
    ],
    ids=str,
)
async def test_a_script_that_cannot_be_read_says_why_and_changes_nothing(
    body: Any, said: str
) -> None:
    async with FluenceServer(control=True) as server:
        server.script("as before")
        answer = await script(server, body)
        assert answer.status == 400
        assert said in answer.json["error"]["message"]
        assert "as before" in (await ask(server)).body.decode()


# ─── every step as JSON ───────────────────────────────────────────────────────────────────

AS_JSON: list[tuple[Any, Any]] = [
    ("Hello", "Hello"),
    (["a", {"Pause": 0.5}], ["a", Pause(0.5)]),
    ({"Answer": "Hello"}, Answer("Hello")),
    (
        {"Answer": ["a", {"Call": "f", "arguments": {"x": 1}}], "finish_reason": "length"},
        Answer("a", Call("f", {"x": 1}), finish_reason="length"),
    ),
    ({"Call": "f", "index": 2, "id": "c"}, Call("f", index=2, id="c")),
    ({"Reply": 204}, Reply(204)),
    ({"Reply": True, "json": {"Stream": 1}}, Reply(json={"Stream": 1})),
    ({"Reply": 200, "body": "{", "headers": {"x-a": "b"}}, Reply(body=b"{", headers={"x-a": "b"})),
    ({"Status": 429, "retry_after": 1}, Status(429, retry_after=1)),
    ({"Status": 500, "message": "no", "code": "c"}, Status(500, "no", code="c")),
    (
        {"Stream": ["Hel", {"Reset": True}], "length": 99, "status": 201},
        Stream("Hel", Reset(), length=99, status=201),
    ),
    ({"Stream": [{"Bytes": "data: {"}], "end": False}, Stream(b"data: {", end=False)),
    ({"Stream": [{"Base64": "/w=="}]}, Stream(b"\xff")),
    ({"Stream": "Hello", "version": "1.0"}, Stream("Hello", version="1.0")),
    ({"Event": "{oops", "event": "error"}, Event("{oops", event="error")),
    ({"Finish": "length"}, Finish("length")),
    ({"Finish": True}, Finish()),
    ({"Done": True}, Done()),
    ({"End": True}, End()),
    ({"Stall": True}, Stall()),
    ({"Pings": 0.1}, Pings(0.1)),
    ({"Close": True}, faults.Close()),
    ({"Raw": "xyz\r\n"}, Raw(b"xyz\r\n")),
    ({"Trickle": {"Stream": ["a"]}, "gap": 0.1, "size": 2}, Trickle(Stream("a"), gap=0.1, size=2)),
    ({"Repeat": {"Bytes": ": \n\n"}, "times": 3}, Repeat(b": \n\n", 3)),
    ({"Lost": "Hello"}, Lost("Hello")),
    ({"Truncate": "Hello", "after": 10}, Truncate("Hello", 10)),
    ({"Corrupt": "Hello", "seed": 3}, Corrupt("Hello", seed=3)),
    ({"Shuffle": ["a", "b"], "seed": 3}, Shuffle("a", "b", seed=3)),
    ({"Redirect": "/v2", "status": 302}, Redirect("/v2", 302)),
    ({"Bomb": "gzip", "size": 1000}, Bomb("gzip", 1000)),
]


@pytest.mark.parametrize(("written", "meant"), AS_JSON, ids=lambda value: str(value)[:60])
def test_a_step_is_written_in_json_as_in_python(written: Any, meant: Any) -> None:
    assert repr(read_line(written)) == repr(meant)


def test_every_step_can_be_written() -> None:
    steps = {
        name
        for module in (replies, faults, hostile)
        for name in module.__all__
        if inspect.isclass(getattr(module, name)) and name != "Step"
    }
    assert {name for name in steps if f"'{name}'" not in str([w for w, _ in AS_JSON])} == set()


def test_a_shell_can_write_a_script() -> None:
    with FluenceServer(control=True) as server:
        command = (
            f"curl -sS {server.base_url.removesuffix('/v1')}/_fluence/script "
            f'-H "Authorization: Bearer {server.api_key}" -H "Content-Type: application/json" '
            """-d '{"lines": [{"Status": 503}]}'"""
        )
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout) == {"lines": 1}
