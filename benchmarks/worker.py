"""A load goes in, CPU seconds come out: one client, measured in a child process of its own.

A process for each client, because its imports, heap and garbage would otherwise be paid for by
the others. They work in turns, so that a slow moment of the machine falls on all of them, and
while one waits for its turn its event loop stands still and costs nothing. CPU is the user and
system time of that process alone; the garbage collector is on, as users have it.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from .peers import PEERS, Client
from .server import text_of

__all__ = ["ROOT", "Absent", "Child", "Load", "Worker", "environment"]

ROOT = Path(__file__).parent.parent
"""From where the package and its benchmarks can be imported, installed or not."""


class Load(msgspec.Struct, frozen=True):
    """`calls` calls, `at_once` of them at any time, each answered with `chunks` chunks.

    `pause_ms` lies between the chunks of a stream; None asks for plain answers.
    """

    calls: int
    at_once: int
    chunks: int
    pause_ms: int | None = None

    @property
    def model(self) -> str:
        """The name that tells the server all this."""
        return f"answer-{self.chunks}-{self.pause_ms or 0}"

    @property
    def units(self) -> int:
        """What the CPU is divided by: the chunks of streams, or plain calls."""
        return self.calls if self.pause_ms is None else self.calls * self.chunks


async def run(client: Client, load: Load) -> None:
    """Do the whole load; an answer that did not arrive whole is an error."""
    call = client.answer if load.pause_ms is None else client.stream
    whole = len(text_of(load.chunks))
    turns = iter(range(load.calls))

    async def one_at_a_time() -> None:
        for _ in turns:
            if (seen := await call(load.model)) < whole:
                raise RuntimeError(f"of {whole} characters {seen} arrived")

    await asyncio.gather(*(one_at_a_time() for _ in range(load.at_once)))


async def measure(client: Client, load: Load) -> float:
    """CPU seconds of the load, with the code warm, connections open and old garbage gone."""
    await run(client, Load(load.at_once, load.at_once, min(load.chunks, 50), load.pause_ms))
    gc.collect()
    begun = time.process_time()
    await run(client, load)
    return time.process_time() - begun


async def obey(peer: str, base_url: str, grown: str) -> None:
    """Open the peer, say so, then measure each load that a line of standard input names."""
    if grown:
        bytes(2**20)  # from now on glibc keeps what is as large as a read
    try:
        opened = PEERS[peer](base_url)
        client = await opened.__aenter__()
    except (ImportError, RuntimeError) as error:  # openai says RuntimeError without its extra
        print(msgspec.json.encode(Absent(str(error))).decode(), flush=True)
        return
    print("null", flush=True)
    while line := sys.stdin.readline():
        load = msgspec.json.decode(line, type=Load)
        print(await measure(client, load), flush=True)
    await opened.__aexit__(None, None, None)


class Absent(msgspec.Struct, frozen=True):
    """Why a peer cannot be measured here."""

    reason: str


def environment() -> dict[str, str]:
    """Of this process, but: bytecode is kept, as for installed packages, or every start would
    compile; and no proxy stands before the server."""
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "NO_PROXY": "*"}


class Child:
    """A module of this package in a process of its own: lines in, lines out.

    The server has the first core, whoever is measured the last: on one core the client would
    sleep while the server writes and find more at each waking, now and then, as chance has it.
    """

    def __init__(self, module: str, *arguments: str) -> None:
        self.name = " ".join((module, *arguments[:1]))
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.{module}", *arguments],
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C reaches the parent alone, whose end ends all
        )
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(self.process.pid, {cores[0 if module == "server" else -1]})

    def read(self) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise RuntimeError(f"{self.name} ended early, status {self.process.wait()}")
        return line

    def write(self, line: bytes) -> None:
        """Hand it a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.decode() + "\n")
        self.process.stdin.flush()

    def close(self) -> None:
        """End it: its standard input ends."""
        self.process.communicate()


class Worker(Child):
    """The child that measures `peer`."""

    def __init__(self, peer: str, base_url: str, *, grown: bool) -> None:
        super().__init__("worker", peer, base_url, "grown" if grown else "")
        self.peer = peer

    def opened(self) -> Absent | None:
        """Wait until it is ready; why it cannot be, if it cannot."""
        return msgspec.json.decode(self.read(), type=Absent | None)

    def measure(self, load: Load) -> float:
        """CPU seconds for each unit of the load."""
        self.write(msgspec.json.encode(load))
        return float(self.read()) / load.units


if __name__ == "__main__":
    asyncio.run(obey(*sys.argv[1:]))
