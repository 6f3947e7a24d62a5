"""Reads bombs and prints, for each, what it cost: run in a process of its own.

python -m tests.shell.bombed BASE_URL API_KEY BACKEND '[["a gzip bomb", true], …]'
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import anyio

from fluence_async import FluenceError, FluenceSession, RetryPolicy

STATUS = Path("/proc/self/status")
PEAK = Path("/proc/self/clear_refs")


def memory(name: str) -> float:
    """`VmRSS` (now) or `VmHWM` (the peak) of this process, in MB."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) / 1024


def forget_the_peak() -> None:
    gc.collect()
    PEAK.write_text("5")


class Ticker:
    """How long the loop was not free: the longest time between two ticks, in ms."""

    def __init__(self) -> None:
        self.cpu = self.wall = 0.0

    async def tick(self) -> None:
        while True:
            cpu, wall = time.thread_time(), time.perf_counter()
            await anyio.sleep(0.001)
            self.cpu = max(self.cpu, (time.thread_time() - cpu) * 1000)
            self.wall = max(self.wall, (time.perf_counter() - wall) * 1000 - 1)


async def read(fluence: FluenceSession, name: str, *, stream: bool) -> str:
    """What the bomb ended in."""
    request: dict[str, Any] = {"model": "fluence-chat", "messages": "hi"}
    request["extra_headers"] = {"X-Bomb": name}
    try:
        if not stream:
            await fluence.chat.completions.create(**request)
            return ""
        async with fluence.chat.completions.stream(**request) as chunks:
            async for _ in chunks:
                pass
    except FluenceError as error:
        return type(error).__name__
    return ""


async def main(base_url: str, api_key: str, bombs: list[tuple[str, bool]]) -> None:
    async with FluenceSession(
        api_key=api_key,
        base_url=base_url,
        limiter=None,
        retry=RetryPolicy(max_retries=0),
        timeout=60,
    ) as fluence:
        for stream in (False, True):  # everything is imported and opened by now
            await read(fluence, "", stream=stream)
        before = memory("VmRSS")
        for name, stream in bombs:
            forget_the_peak()
            ticker, ended = Ticker(), ""
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ticker.tick)
                ended = await read(fluence, name, stream=stream)
                tasks.cancel_scope.cancel()
            cost = {
                "bomb": name,
                "ended": ended,
                "mb": round(memory("VmHWM") - before, 1),
                "blocked_cpu_ms": round(ticker.cpu, 1),
                "blocked_wall_ms": round(ticker.wall, 1),
            }
            print(json.dumps(cost), flush=True)


if __name__ == "__main__":
    anyio.run(main, *sys.argv[1:3], json.loads(sys.argv[4]), backend=sys.argv[3])
