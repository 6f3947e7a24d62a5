"""The faults that a streaming client meets, each as a script and what it must lead to.

```python
from fluence_async.testing import FAULTS, FluenceServer

async with FluenceServer(limits=None) as server:
    for fault in FAULTS:
        server.script(*fault.script, repeat=True)
        ...  # your program, at server.base_url, with fault.timeout
```
"""

from __future__ import annotations

from typing import Any

from ..errors import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BadChunkError,
    BadRequestError,
    InternalServerError,
    NotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    RateLimitError,
    ResponseError,
    StreamInterruptedError,
    StreamServerError,
    StreamTimeoutError,
    UnprocessableEntityError,
)
from ..server import Reply, Status
from ..server.faults import (
    Close,
    Done,
    End,
    Event,
    Finish,
    Lost,
    Pause,
    Pings,
    Raw,
    Reset,
    Stall,
    Stream,
    Trickle,
)
from ..server.turn import Turn
from .bomb_table import BOMBS
from .fault import Fault

__all__ = ["FAULTS"]


def _completion(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}


def _chunk(**delta: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": delta}]}


def _quoting_the_key(turn: Turn) -> Status:
    return Status(401, f"no such key: {turn.headers['authorization']}")


def _limited(retry_after: str | None) -> Status:
    return Status(429, "slow down", retry_after=retry_after)


_STREAM = {"content-type": "text/event-stream"}
_HEADERS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
_HELLO = (
    b'data: {"choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":"stop"}]}'
    b"\n\ndata: [DONE]\n\n"
)
_HALF = '{"choices":[{"index":0,"delta":{"content":"\\ud83d"}}]}'
_CUT = StreamInterruptedError
_BAD = BadChunkError

FAULTS: tuple[Fault, ...] = (
    # ─── before the headers ───────────────────────────────────────────────────────────────
    Fault(
        name="reset before the headers", script=(Reset(),), raises=APIConnectionError, attempts=2
    ),
    Fault(
        name="closed before the headers", script=(Close(),), raises=APIConnectionError, attempts=2
    ),
    Fault(
        name="never answers",
        script=(Stall(),),
        raises=APITimeoutError,
        attempts=2,
        clock="first_byte",
    ),
    Fault(
        name="headers trickle",
        script=(Trickle(Stream("Hello"), gap=0.1),),
        raises=APITimeoutError,
        attempts=2,
        clock="first_byte",
    ),
    # ─── in the body ──────────────────────────────────────────────────────────────────────
    Fault(name="reset in mid-body", script=(Stream("Hel", Reset()),), raises=_CUT, text="Hel"),
    Fault(name="closed inside a chunk", script=(Stream("Hel", Close()),), raises=_CUT, text="Hel"),
    Fault(
        name="shorter than its Content-Length",
        script=(Stream("Hel", Close(), length=9999),),
        raises=_CUT,
        text="Hel",
    ),
    Fault(
        name="a clean end without finish reason",
        script=(Stream("Hel", end=False),),
        raises=_CUT,
        text="Hel",
    ),
    Fault(
        name="no [DONE] after the finish reason", script=(Stream("Hello", Finish()),), text="Hello"
    ),
    Fault(
        name="an end in the middle of an event",
        script=(Stream("Hel", b'data: {"choices":', end=False),),
        raises=_CUT,
        text="Hel",
    ),
    Fault(name="an empty body", script=(Stream(end=False),), raises=_CUT, attempts=2),
    Fault(name="204", script=(Reply(204),), raises=_CUT, attempts=2),
    Fault(
        name="a login page with status 200",
        script=(Reply(body=b"<html>Log in</html>", headers={"content-type": "text/html"}),),
        raises=ResponseError,
    ),
    Fault(
        name="JSON in place of a stream", script=(Reply(json=_completion("Hello")),), text="Hello"
    ),
    Fault(
        name="an error object with status 200",
        script=(Reply(json={"error": {"message": "down", "code": "server_error"}}),),
        raises=InternalServerError,
        attempts=2,
    ),
    # ─── silence ──────────────────────────────────────────────────────────────────────────
    Fault(
        name="a stall in mid-stream",
        script=(Stream("Hel", Stall()),),
        raises=StreamTimeoutError,
        text="Hel",
        clock="idle",
    ),
    Fault(
        name="pings for ever",
        script=(Stream("Hel", Pings(0.02)),),
        raises=StreamTimeoutError,
        text="Hel",
        clock="progress",
    ),
    Fault(name="a stall after [DONE]", script=(Stream("Hello", End(), Stall()),), text="Hello"),
    Fault(name="a trickle", script=(Trickle(Stream("Hello"), gap=0.0002, size=3),), text="Hello"),
    # ─── events that are wrong ────────────────────────────────────────────────────────────
    Fault(name="garbage", script=(Stream("Hel", Event("{oops")),), raises=_BAD, text="Hel"),
    Fault(name="a number", script=(Stream("Hel", Event("123")),), raises=_BAD, text="Hel"),
    Fault(name="null", script=(Stream("Hel", Event("null")),), raises=_BAD, text="Hel"),
    Fault(name="a list", script=(Stream("Hel", Event("[]")),), raises=_BAD, text="Hel"),
    Fault(
        name="empty data and event-only blocks",
        script=(Stream("Hel", b"data:\n\n", b"event: x\n\n", "lo"),),
        text="Hello",
    ),
    Fault(
        name="an id, then a ping",
        script=(Stream("Hel", b"id: 7\n\n: ping\n\n", "lo"),),
        text="Hello",
    ),
    Fault(
        name="nested too deep",
        script=(Stream("Hel", Event("[" * 100_000)),),
        raises=_BAD,
        text="Hel",
    ),
    Fault(
        name="not a JSON number",
        script=(Stream("Hel", Event('{"choices":[],"created":NaN}')),),
        raises=_BAD,
        text="Hel",
    ),
    Fault(
        name="a number beyond any float",
        script=(Stream("Hel", Event('{"choices":[],"created":1e400}'), "lo"),),
        text="Hello",
    ),
    Fault(
        name="half an emoji in each of two chunks",
        script=(
            Stream(
                Event(_HALF),
                Event('{"choices":[{"index":0,"delta":{"content":"\\ude00"}}]}'),
            ),
        ),
        text="\N{GRINNING FACE}",
    ),
    Fault(
        name="half an emoji alone",
        script=(Stream(_chunk(content="x"), Event(_HALF), Finish(), Done()),),
        text="x\ufffd",
    ),
    Fault(
        name="invalid UTF-8",
        script=(Stream(b'data: {"choices":[{"index":0,"delta":{"content":"a\xffb"}}]}\n\n'),),
        text="a\ufffdb",
    ),
    Fault(name="a byte order mark first", script=(Stream(b"\xef\xbb\xbf", "Hello"),), text="Hello"),
    Fault(
        name="mixed line ends",
        script=(
            Stream(
                b'data: {"choices":[{"index":0,"delta":{"content":"Hel"}}]}\r\n\n',
                b'data: {"choices":[{"index":0,"delta":{"content":"lo"}}]}\r\r',
            ),
        ),
        text="Hello",
    ),
    Fault(
        name="an error event",
        script=(Stream("Hel", Status(500)),),
        raises=StreamServerError,
        text="Hel",
    ),
    Fault(
        name="an error as the first event",
        script=(Stream(Status(500)),),
        raises=StreamServerError,
        attempts=2,
    ),
    Fault(
        name="an error without an error key",
        script=(Stream("Hel", {"object": "error", "message": "too long", "code": 400}, Done()),),
        raises=StreamServerError,
        text="Hel",
    ),
    Fault(
        name="a refusal as the first event", script=(Stream(Status(400)),), raises=StreamServerError
    ),
    Fault(
        name="an error event in plain text",
        script=(Stream("Hel", Event("out of memory", event="error")),),
        raises=StreamServerError,
        text="Hel",
    ),
    Fault(
        name="[DONE] and more",
        script=(Stream("Hel", Event("[DONE] bye")),),
        raises=_BAD,
        text="Hel",
    ),
    Fault(name="two [DONE]", script=(Stream("Hello", End(), Done()),), text="Hello"),
    Fault(name="a chunk after [DONE]", script=(Stream("Hello", End(), "more"),), text="Hello"),
    Fault(
        name="null and missing choices, deltas and contents",
        script=(
            Stream(
                {"choices": []},
                {"choices": None},
                {"id": "c"},
                {"choices": [{"index": 0, "delta": None}]},
                _chunk(content=None),
                "Hello",
            ),
        ),
        text="Hello",
    ),
    Fault(
        name="unknown fields and finish reasons",
        script=(Stream({**_chunk(content="Hello", mood="good"), "x": 1}, Finish("bored")),),
        text="Hello",
    ),
    Fault(
        name="a tool call of index 2,000,000,000",
        script=(
            Stream(
                "Hello",
                _chunk(tool_calls=[{"index": 2_000_000_000, "id": "a", "function": {"name": "f"}}]),
                _chunk(tool_calls=[{"id": "b", "function": {"name": "g"}}]),
            ),
        ),
        text="Hello",
    ),
    Fault(
        name="content of the wrong type",
        script=(Stream("Hel", _chunk(content=7)),),
        raises=_BAD,
        text="Hel",
    ),
    Fault(
        name="content in parts, and a fractional time",
        script=(Stream({**_chunk(content=[{"type": "text", "text": "Hello"}]), "created": 1.5}),),
        text="Hello",
    ),
    # ─── refusals ─────────────────────────────────────────────────────────────────────────
    Fault(name="400", script=(Status(400),), raises=BadRequestError, stream=False),
    Fault(name="401", script=(Status(401),), raises=AuthenticationError, stream=False),
    Fault(
        name="401 that quotes the key",
        script=(_quoting_the_key,),
        raises=AuthenticationError,
        stream=False,
    ),
    Fault(name="403", script=(Status(403),), raises=PermissionDeniedError, stream=False),
    Fault(name="404", script=(Status(404),), raises=NotFoundError, stream=False),
    Fault(name="422", script=(Status(422),), raises=UnprocessableEntityError, stream=False),
    Fault(
        name="429 insufficient_quota",
        script=(Status(429, code="insufficient_quota"),),
        raises=QuotaExceededError,
        stream=False,
    ),
    Fault(name="500", script=(Status(500),), raises=InternalServerError, attempts=2, stream=False),
    Fault(
        name="502 in HTML",
        attempts=2,
        stream=False,
        raises=InternalServerError,
        script=(
            Reply(502, body=b"<html>Bad gateway</html>", headers={"content-type": "text/html"}),
        ),
    ),
    Fault(name="503", script=(Status(503),), raises=InternalServerError, attempts=2, stream=False),
    Fault(name="529", script=(Status(529),), raises=InternalServerError, attempts=2, stream=False),
    Fault(
        name="429 once", script=(_limited("0.01"), "Hello"), text="Hello", attempts=2, stream=False
    ),
    Fault(
        name="429, absurd wait", script=(_limited("999999"),), raises=RateLimitError, stream=False
    ),
    *(
        Fault(
            name=f"429, Retry-After {value[:12]!r}",
            script=(_limited(value), "Hello"),
            text="Hello",
            attempts=2,
            stream=False,
        )
        for value in (
            "inf",
            "9" * 400,
            "Fri, 31 Dec 99999 23:59:59 GMT",
            "Wed, 21 Oct 2015 07:28:00 GMT",
            "-5",
            "nan",
            "soon",
            "1, 60",
        )
    ),
    Fault(
        name="429, retry-after-ms",
        script=(Status(429, headers={"retry-after-ms": "20"}), "Hello"),
        text="Hello",
        attempts=2,
        stream=False,
    ),
    # ─── HTTP that is wrong ───────────────────────────────────────────────────────────────
    Fault(
        name="307 to another host",
        raises=ResponseError,
        stream=False,
        script=(Reply(307, headers={"location": "http://127.0.0.1:9/v1"}),),
    ),
    Fault(
        name="302",
        raises=ResponseError,
        script=(Reply(302, headers={"location": "/v1/chat/completions"}),),
    ),
    Fault(
        name="a redirect to a file",
        raises=ResponseError,
        script=(Reply(302, headers={"location": "file:///etc/passwd"}),),
    ),
    Fault(
        name="a connection lost after the answer was made",
        script=(Lost("Hello"), "again"),
        text="Hello",
        attempts=2,
    ),
    Fault(
        name="invalid gzip",
        raises=ResponseError,
        script=(
            Reply(body=b"\x1f\x8b, not gzip", headers={**_STREAM, "content-encoding": "gzip"}),
        ),
    ),
    Fault(
        name="a chunk size beyond any integer",
        raises=_CUT,
        text="Hel",
        script=(Stream("Hel", Pause(0.05), Raw(b"f" * 40 + b"\r\n"), Close()),),
    ),
    Fault(
        name="a bad chunk size",
        raises=_CUT,
        text="Hel",
        script=(Stream("Hel", Pause(0.05), Raw(b"xyz\r\n"), Stall()),),
    ),
    Fault(
        name="both Content-Length and chunks",
        raises=ResponseError,
        script=((_HEADERS + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"),),
    ),
    Fault(
        name="HTTP/1.0",
        script=(Stream("Hello", version="1.0"),),
        text="Hello",
    ),
    Fault(
        name="103 Early Hints",
        text="Hello",
        script=([b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n", Stream("Hello")],),
    ),
    Fault(
        name="a line of 600 KB",
        text="a" * 600_000,
        script=(Stream("a" * 600_000),),
    ),
    *BOMBS,
)
"""Every fault that a script can play."""
