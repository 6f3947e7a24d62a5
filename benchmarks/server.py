"""HTTP requests in, canned answers out, as cheaply as Python can: the far end of every benchmark.

It runs in a process of its own and ends when its standard input does. The model's name says
what to answer: `answer-200-2` streams 200 chunks 2 ms apart, `answer-5000-0` without a pause; a
request that is not for a stream gets one plain answer. As on real servers every event is an HTTP
chunk of its own, and answers carry some ten headers.

Rejected: aiohttp.web and uvicorn, which cost more for each chunk than most clients under test,
so that the clients would wait for them and be measured waking up.
"""

from __future__ import annotations

import asyncio
import json
import re
import selectors
import sys
from functools import cache
from itertools import count

__all__ = ["text_of"]

WORDS = ("The", " quick", " brown", " fox", " jumps", " over", " the", " lazy", " dog", ".")
MODEL = re.compile(rb'"model"\s*:\s*"answer-(\d+)-(\d+)"')
STREAM = re.compile(rb'"stream"\s*:\s*true')
LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
STREAMS = count()
GOLDEN = 0.618_033_988_75  # its multiples spread evenly over [0, 1), however many there are
HEADERS = (
    "date: Mon, 01 Jan 2024 00:00:00 GMT\r\nserver: benchmark\r\n"
    "x-request-id: req_0123456789abcdef\r\nopenai-processing-ms: 12\r\n"
    "x-ratelimit-limit-requests: 1000000\r\nx-ratelimit-remaining-requests: 999999\r\n"
    "x-ratelimit-reset-requests: 6ms\r\ncache-control: no-cache\r\n"
)
STREAM_HEAD = (
    f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    f"transfer-encoding: chunked\r\n{HEADERS}\r\n"
).encode()


def text_of(chunks: int) -> str:
    """The whole text of an answer of `chunks` chunks."""
    return "".join(WORDS[i % len(WORDS)] for i in range(chunks))


def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
    """One server-sent event of about 210 bytes, framed as one HTTP chunk."""
    chunk = {
        "id": "chatcmpl-9x7Qm2LkVb8yTzR4uWc1",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "fluence-chat",
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }
    return framed(b"data: " + json.dumps(chunk, separators=(",", ":")).encode() + b"\n\n")


def framed(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@cache
def stream_of(chunks: int) -> tuple[bytes, ...]:
    """The answer's pieces: `chunks` with text, and last what ends the stream."""
    pieces = [event({"content": WORDS[i % len(WORDS)]}) for i in range(chunks)]
    end = event({}, "stop") + framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
    return (*pieces, end)


@cache
def whole_stream_of(chunks: int) -> bytes:
    return STREAM_HEAD + b"".join(stream_of(chunks))


@cache
def plain_answer(chunks: int) -> bytes:
    body = json.dumps(
        {
            "id": "chatcmpl-9x7Qm2LkVb8yTzR4uWc1",
            "object": "chat.completion",
            "created": 1700000000,
            "model": "fluence-chat",
            "system_fingerprint": "fp_44709d6fcb",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text_of(chunks)},
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 9, "completion_tokens": chunks, "total_tokens": 9 + chunks},
        }
    )
    head = (
        f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{HEADERS}\r\n"
    )
    return (head + body).encode()


class Connection(asyncio.Protocol):
    """One keep-alive connection: a request at a time, each with a Content-Length."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.received = b""
        self.loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = LENGTH.search(self.received, 0, end)
        start = end + 4
        stop = start + (int(length[1]) if length else 0)
        if len(self.received) < stop:
            return
        body, self.received = self.received[start:stop], self.received[stop:]
        self.answer(body)

    def answer(self, body: bytes) -> None:
        model = MODEL.search(body)
        if model is None:
            raise ValueError(f"no benchmark's model in this request: {body!r}")
        chunks, pause_ms = int(model[1]), int(model[2])
        if not STREAM.search(body):
            self.transport.write(plain_answer(chunks))
        elif not pause_ms:
            self.transport.write(whole_stream_of(chunks))
        else:
            self.transport.write(STREAM_HEAD)
            pause_s = pause_ms / 1000
            phase = next(STREAMS) * GOLDEN % 1
            begin = (self.loop.time() // pause_s + 1 + phase) * pause_s
            self.loop.call_at(begin, self.stream_on, stream_of(chunks), 0, begin, pause_s)

    def stream_on(self, pieces: tuple[bytes, ...], i: int, begin: float, pause_s: float) -> None:
        """Write piece `i`; the next is due on the stream's own beat, so that lateness does not
        add up and streams do not fall into step, which would spare the clients wake-ups."""
        if self.transport.is_closing():
            return
        self.transport.write(pieces[i])
        if (i := i + 1) < len(pieces):
            self.loop.call_at(begin + i * pause_s, self.stream_on, pieces, i, begin, pause_s)


async def serve() -> None:
    """Serve on a free port of 127.0.0.1, print the port, end with standard input."""
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.buffer.read)
    server.close()


if __name__ == "__main__":
    # select() keeps time to the microsecond; epoll rounds up to milliseconds.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    loop.run_until_complete(serve())
