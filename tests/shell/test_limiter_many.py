"""A hundred thousand waiters, and what it costs to have none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.shell.limiting import (
    BACKENDS,
)

# ─── many ─────────────────────────────────────────────────────────────────────────────────

MANY = """
import asyncio, gc, sys, tracemalloc
from contextlib import asynccontextmanager
from functools import partial
import anyio, trio
from anyio.lowlevel import checkpoint
from fluence_async.limiter import Limiter

backend, how_many, how_many_weighed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
limiter = Limiter("1/minute")
arrived, served = [], []


@asynccontextmanager
async def crowd(count, function):
    "That many tasks, which have all come when this is entered; yields what cancels them."
    if backend == "asyncio":
        tasks = [asyncio.create_task(function(place)) for place in range(count)]
        await asyncio.sleep(0.01)
        yield lambda: [task.cancel() for task in tasks]
        await asyncio.wait(tasks)
        return
    async with trio.open_nursery() as nursery:
        for place in range(count):
            nursery.start_soon(function, place)
            if place % 100 == 0:
                await checkpoint()
        for _ in range(5):
            await checkpoint()
        yield nursery.cancel_scope.cancel


async def call(place, deadline=None):
    arrived.append(place)
    permit = await limiter.acquire(deadline=deadline)
    served.append(place)
    permit.release()


async def bytes_each(function):
    gc.collect()
    tracemalloc.start()
    async with crowd(how_many_weighed, function) as cancel:
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] / how_many_weighed
        cancel()
    tracemalloc.stop()
    return held


def is_empty():
    line = limiter._line
    return not (line.queue.size or line._homes or list(line.queue) or line.queue._deadlines)


async def main():
    first = limiter.acquire_nowait()
    async with crowd(how_many, call):
        assert limiter.snapshot().waiting == how_many
        first.release()
    assert served == arrived and len(served) == how_many, "out of order"
    assert is_empty()

    if backend == "asyncio":
        shared = asyncio.get_running_loop().create_future()
        async def park_only(place):
            await shared
    else:
        async def park_only(place):
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)

    first = limiter.acquire_nowait()
    bare = await bytes_each(park_only)
    for deadline in (None, 1e12):
        held = await bytes_each(partial(call, deadline=deadline)) - bare
        assert held < 1100, f"{held} bytes a waiter"
        assert is_empty(), "something is left of those who were cancelled"
        print(f"{backend}, deadline {deadline}: {held:.0f} bytes")
    first.release()
    assert repr(limiter) == "<Limiter 1/minute: 1 left; 0 waiting>"


anyio.run(main, backend=backend)
"""


def python(code: str, *arguments: str) -> str:
    """What `code` prints, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hundred_thousand_waiters_go_in_order_are_small_and_leave_nothing(backend: str) -> None:
    print(python(MANY, backend, "100000", "5000"))


def test_the_limiter_loads_no_event_loop_before_somebody_waits() -> None:
    python(
        """
import sys, types
sys.modules["fluence_async"] = types.ModuleType("fluence_async")  # the front door loads more
sys.modules["fluence_async"].__path__ = ["fluence_async"]
from fluence_async.limiter import Limiter
Limiter().acquire_nowait().settle()
assert not {"asyncio", "trio"} & set(sys.modules)
"""
    )
