"""Workers against a server of many faults, for as long as one likes: nothing grows.

`soak` prints memory, sockets and tasks over time, and what the calls ended in.
"""

from __future__ import annotations

import gc
import random
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import linear_regression
from typing import Any

import anyio
import msgspec

from fluence_async import (
    APIStatusError,
    FluenceError,
    FluenceSession,
    Limiter,
    RetryPolicy,
    StreamError,
    Timeout,
)
from fluence_async.testing import (
    Call,
    Close,
    Event,
    Finish,
    FluenceServer,
    Lost,
    Pause,
    Pings,
    Raw,
    Reply,
    Reset,
    Stall,
    Status,
    Stream,
    Trickle,
)
from tests.soak.crowd import open_files, rss_kb

MODEL = "fluence-chat"
REPLIES: tuple[Any, ...] = (
    *["Hello"] * 12,
    *[Stream(*["Hello "] * 50)] * 4,
    Stream(Call("f", {"a": 1})),
    Trickle(Stream("Hello"), gap=0.0005, size=50),
    Reset(),
    Close(),
    Stall(),
    Lost("Hello"),
    Status(500),
    Status(429, retry_after="0.01"),
    Status(400),
    Reply(302, headers={"location": "/"}),
    Reply(text="<html>", headers={"content-type": "text/html"}),
    Stream("Hel", Reset()),
    Stream("Hel", Close()),
    Stream("Hel", Stall()),
    Stream("Hel", Pings(0.01)),
    Stream("Hel", end=False),
    Stream("Hel", Pause(0.01), Raw(b"xyz\r\n"), Close()),
    Stream("Hel", Event("{oops")),
    Stream("Hel", Event('{"x":"' + "a" * 100_000 + '"}'), "lo"),
    Stream("Hel", Finish(), Stall()),
    Stream("Hel", Status(500)),
    Stream(Status(500)),
)


class Sample(msgspec.Struct):
    """What the process held at a moment."""

    seconds: float
    rss_mb: float
    sockets: int
    tasks: int
    calls: int


# ─── the server ───────────────────────────────────────────────────────────────────────────


def serve(seed: int) -> None:
    dice = random.Random(seed)
    with FluenceServer(limits=None) as server:
        server.script(lambda _: dice.choice(REPLIES))
        print(server.base_url, server.api_key, flush=True)
        for _ in sys.stdin:
            server.requests.clear()  # or its memory would be a soak of its own


@contextmanager
def served(seed: int) -> Iterator[tuple[str, str]]:
    """A server of mixed faults, in a process of its own: its address and key."""
    command = [sys.executable, "-m", "tests.soak", "--serve", str(seed)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        base_url, key = process.stdout.readline().split()
        yield base_url, key
        process.stdin.close()


# ─── the workers ──────────────────────────────────────────────────────────────────────────


class Soak:
    """Workers that call, break off, cancel, and drop streams.

    Args:
        workers: How many.
        cancels: The share of calls that are cancelled at a random moment.
        seed: Of all that is random.
    """

    def __init__(self, fluence: FluenceSession, *, workers: int, cancels: float, seed: int) -> None:
        self.fluence = fluence
        self.workers = workers
        self.cancels = cancels
        self.dice = random.Random(seed)
        self.ended: Counter[str] = Counter()
        self.samples: list[Sample] = []

    async def work(self, until: float) -> None:
        while anyio.current_time() < until:
            limit = self.dice.uniform(0, 0.03) if self.dice.random() < self.cancels else None
            end = "cancelled"
            with anyio.move_on_after(limit):
                end = await self.call()
            self.ended[end] += 1

    async def call(self) -> str:
        how = self.dice.choice(["whole", "read", "read", "broken off", "dropped"])
        try:
            if how == "whole":
                await self.fluence.chat.completions.create(model=MODEL, messages="hi")
                return how
            stream = await self.fluence.chat.completions.create(
                model=MODEL, messages="hi", stream=True
            )
            if how == "dropped":
                await anext(stream, None)
                return how
            async with stream:
                async for _ in stream:
                    if how == "broken off":
                        break
        except (StreamError, APIStatusError, FluenceError) as error:
            return type(error).__name__
        return how

    async def watch(self, until: float, every: float, tell: Callable[[str], None]) -> None:
        began = anyio.current_time()
        while anyio.current_time() < until:
            await anyio.sleep(every)
            gc.collect()
            sample = Sample(
                seconds=anyio.current_time() - began,
                rss_mb=rss_kb() / 1024,
                sockets=open_files(),
                tasks=len(anyio.get_running_tasks()),
                calls=self.ended.total(),
            )
            self.samples.append(sample)
            tell(
                f"{sample.seconds:7.0f} s  {sample.rss_mb:7.1f} MB  {sample.sockets:5d} files  "
                f"{sample.tasks:5d} tasks  {sample.calls:8d} calls"
            )

    async def run(
        self, seconds: float, *, every: float = 5.0, tell: Callable[[str], None] = print
    ) -> None:
        until = anyio.current_time() + seconds
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.watch, until, every, tell)
            for _ in range(self.workers):
                tasks.start_soon(self.work, until)

    def growth_mb(self) -> float:
        """How much the memory grew over the second half, by its slope."""
        half = self.samples[len(self.samples) // 2 :]
        if len(half) < 3:
            return 0.0
        line = linear_regression([s.seconds for s in half], [s.rss_mb for s in half])
        return line.slope * (half[-1].seconds - half[0].seconds)

    def problems(self, *, most_growth_mb: float) -> list[str]:
        """What grew that must not."""
        found = []
        if self.growth_mb() > most_growth_mb:
            found.append(f"memory grew by {self.growth_mb():.1f} MB in the second half")
        files = [sample.sockets for sample in self.samples]
        tasks = [sample.tasks for sample in self.samples]
        for name, counts in (("files", files), ("tasks", tasks)):
            if counts and max(counts) > 4 * self.workers + 50:
                found.append(f"{max(counts)} {name} were open at once")
        return found


async def soak(
    server: tuple[str, str],
    *,
    seconds: float,
    workers: int = 30,
    cancels: float = 0.3,
    seed: int = 0,
    every: float = 5.0,
    most_growth_mb: float = 1.0,
    tell: Callable[[str], None] = print,
) -> list[str]:
    """Run it; what is wrong afterwards."""
    warnings.filterwarnings("ignore", ".*dropped unclosed", ResourceWarning)  # some are, by design
    base_url, key = server
    limiter = Limiter("1000000/second", margin_s=0.0, unseen_s=0.0)
    files, tasks = open_files(), len(anyio.get_running_tasks())
    async with FluenceSession(
        api_key=key,
        base_url=base_url,
        limiter=limiter,
        timeout=Timeout(total=2, first_byte=0.3, idle=0.3, progress=0.4),
        retry=RetryPolicy(max_retries=1, base_s=0.001),
    ) as fluence:
        run = Soak(fluence, workers=workers, cancels=cancels, seed=seed)
        await run.run(seconds, every=every, tell=tell)
        tell(", ".join(f"{end} {count}" for end, count in run.ended.most_common()))
        problems = run.problems(most_growth_mb=most_growth_mb)
        if limiter.snapshot().waiting:
            problems.append(f"left in the limiter: {limiter.snapshot()}")
    gc.collect()
    await anyio.sleep(0.3)
    gc.collect()
    if (left := open_files() - files) > 0:
        problems.append(f"{left} files are left open")
    if (left := len(anyio.get_running_tasks()) - tasks) > 0:
        problems.append(f"{left} tasks are left")
    return problems
