"""Many streams at once, some of which break: each is told right, and nothing is left of any.

python -m tests.soak.crowd [STREAMS] [BACKEND]: prints what it took; fails if one was told wrong,
something is left, or each took more than 30 KB.
"""

from __future__ import annotations

import asyncio
import gc
import json
import resource
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio

from fluence_async import FluenceError, FluenceSession, StreamError, StreamTimeoutError, Timeout

KINDS = ["reset"] * 5 + ["truncated"] * 5 + ["stalled"] * 2 + ["good"] * 88
"""What becomes of the streams, of a hundred each."""
EXPECTED = {
    "good": "complete: Hello",
    "reset": "StreamInterruptedError: Hel",
    "truncated": "StreamInterruptedError: Hel",
    "stalled": "StreamTimeoutError idle: Hel",
}
IDLE_S = 2.0
AT_ONCE = 200  # connections being made
MOST_KB = 30  # of memory for each stream


# ─── the server, in a process of its own ──────────────────────────────────────────────────


def _chunk(data: str) -> bytes:
    event = f"data: {data}\n\n".encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


def _text(text: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return _chunk(json.dumps({"id": "c", "model": "m", "created": 1, "choices": [choice]}))


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"
REST = {
    "good": _text("lo", "stop") + _chunk("[DONE]") + LAST,
    "truncated": LAST,
    "reset": b"",
    "stalled": b"",
}


class Server:
    """Begins every stream, and goes on with them once they are all there."""

    def __init__(self, streams: int) -> None:
        self.streams = streams
        self.begun = 0
        self.all_here = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
            kind = head.split(b"X-Kind: ")[1].split()[0].decode()
            writer.write(HEAD + _text("Hel"))
            self.begun += 1
            if self.begun == self.streams:
                self.all_here.set()
            await self.all_here.wait()
            if kind == "reset":
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, linger
                )
                writer.transport.abort()
                return
            writer.write(REST[kind])
            await reader.read()  # until the client hangs up
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def serve(streams: int) -> None:
    allow_open_files(streams)
    server = await asyncio.start_server(Server(streams).serve, "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # the parent is gone


@contextmanager
def served(streams: int) -> Iterator[str]:
    """The server's address."""
    command = [sys.executable, "-m", "tests.soak.crowd", "serve", str(streams)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        process.stdin.close()


# ─── the crowd ────────────────────────────────────────────────────────────────────────────


def allow_open_files(streams: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = streams + 200
    if most != resource.RLIM_INFINITY and most < wanted:
        raise SystemExit(f"{streams} streams need {wanted} open files; this system allows {most}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, 1024), most))


def open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def rss_kb() -> float:
    """The memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1024


class Crowd:
    """So many streams at once."""

    def __init__(self, fluence: FluenceSession, streams: int) -> None:
        self.fluence = fluence
        self.streams = streams
        self.opened = 0
        self.all_here = anyio.Event()
        self.at_once = anyio.Semaphore(AT_ONCE)
        self.ended: Counter[tuple[str, str]] = Counter()

    async def read(self, kind: str) -> None:
        try:
            async with self.at_once:
                stream = await self.fluence.chat.completions.create(
                    model="m", messages="hi", stream=True, extra_headers={"X-Kind": kind}
                )
            self.opened += 1
            if self.opened == self.streams:
                self.all_here.set()
            await self.all_here.wait()
            async with stream:
                text = await stream.get_final_text()
            self.ended[kind, f"complete: {text}"] += 1
        except FluenceError as error:
            clock = f" {error.clock}" if isinstance(error, StreamTimeoutError) else ""
            partial = error.partial if isinstance(error, StreamError) else None
            text = partial.text if partial is not None else str(error)
            self.ended[kind, f"{type(error).__name__}{clock}: {text}"] += 1


async def warm_up() -> None:
    """Import all there is to import, so that it does not count."""
    async with FluenceSession(
        api_key="k-1234", base_url="http://127.0.0.1:1/v1", limiter=None, max_retries=0
    ) as fluence:
        with suppress(FluenceError):
            await fluence.chat.completions.create(model="m", messages="hi")


async def crowd(base_url: str, streams: int) -> dict[str, Any]:
    """Run it; what it took."""
    await warm_up()
    files = open_files()
    began = time.perf_counter()
    cpu = time.process_time()
    async with FluenceSession(
        api_key="k-1234",
        base_url=base_url,
        limiter=None,
        timeout=Timeout(connect=60, first_byte=60, idle=IDLE_S),
        max_retries=0,
    ) as fluence:
        crowd = Crowd(fluence, streams)
        gc.collect()
        before = rss_kb()
        held = 0.0
        async with anyio.create_task_group() as tasks:
            for number in range(streams):
                tasks.start_soon(crowd.read, KINDS[number % 100])
            await crowd.all_here.wait()
            held = (rss_kb() - before) / streams
            opening_s = time.perf_counter() - began
    gc.collect()
    return {
        "streams": streams,
        "ended": {f"{kind} → {end}": count for (kind, end), count in crowd.ended.items()},
        "wrong": sum(n for (kind, end), n in crowd.ended.items() if EXPECTED[kind] != end),
        "kb_each": round(held, 1),
        "opening_s": round(opening_s, 1),
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_s": round(time.process_time() - cpu, 1),
        "files_left": open_files() - files,
    }


async def counted(base_url: str, streams: int) -> dict[str, Any]:
    """Run it, and count the tasks that it leaves."""
    before = len(anyio.get_running_tasks())
    result = await crowd(base_url, streams)
    await anyio.sleep(0.1)
    return result | {"tasks_left": len(anyio.get_running_tasks()) - before}


def main(streams: int = 10_000, backend: str = "asyncio") -> int:
    allow_open_files(streams)
    with served(streams) as base_url:
        result = anyio.run(counted, base_url, streams, backend=backend)
    print(json.dumps(result, indent=2, ensure_ascii=False))
    left = max(result["files_left"], result["tasks_left"])
    return 1 if result["wrong"] or left > 0 or result["kb_each"] > MOST_KB else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        asyncio.run(serve(int(sys.argv[2])))
    else:
        sys.exit(main(*map(int, sys.argv[1:2]), *sys.argv[2:3]))
