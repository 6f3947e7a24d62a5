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
import gc, sys, tracemalloc
import anyio, anyio.lowlevel
from fluence_async.limiter import Limiter

backend, how_many, how_many_weighed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
limiter = Limiter("1/minute")
arrived, served = [], []


async def come(group, count, function):
    for place in range(count):
        group.start_soon(function, place)
        if place % 100 == 0:
            await anyio.lowlevel.checkpoint()
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


async def call(place, deadline=None):
    arrived.append(place)
    permit = await limiter.acquire(deadline=deadline)
    served.append(place)
    permit.release()


async def call_until(place):
    await call(place, deadline=1e12)


async def park_only(place):
    if backend == "asyncio":
        await asyncio_future
    else:
        await wait_task_rescheduled(lambda _: Abort.SUCCEEDED)


async def bytes_each(function):
    gc.collect()
    tracemalloc.start()
    async with anyio.create_task_group() as group:
        await come(group, how_many_weighed, function)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] / how_many_weighed
        group.cancel_scope.cancel()
    tracemalloc.stop()
    return held


def is_empty():
    line = limiter._line
    return not (line.queue.size or line._homes or list(line.queue) or line.queue._deadlines)


async def main():
    global asyncio_future, wait_task_rescheduled, Abort
    if backend == "asyncio":
        import asyncio
        asyncio_future = asyncio.get_running_loop().create_future()
    else:
        from trio.lowlevel import Abort, wait_task_rescheduled
    first = limiter.acquire_nowait()
    async with anyio.create_task_group() as group:
        await come(group, how_many, call)
        assert limiter.snapshot().waiting == how_many
        first.release()
    assert served == arrived and len(served) == how_many, "out of order"
    assert is_empty()

    first = limiter.acquire_nowait()
    bare = await bytes_each(park_only)
    for function in (call, call_until):
        held = await bytes_each(function) - bare
        assert held < 1300, f"{held} bytes a waiter"
        assert is_empty(), "something is left of those who were cancelled"
        print(backend, function.__name__, round(held), "bytes")
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
