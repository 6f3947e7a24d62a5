"""The limiter by itself: microseconds for an uncontended unit; bytes and time for a waiter.

Beside it asyncio.Semaphore, which only counts: the least that handing out units can cost. The
limiter keeps two windows, as documented, wide enough never to be empty; the waiters wait for
one unit, which each passes on to the next. A waiter's bytes are what its task takes beyond a
task that awaits one future shared by all, as tracemalloc counts them.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
import tracemalloc
from collections.abc import Callable, Coroutine
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

import msgspec

from .table import Bar, Row, Table
from .worker import Child

__all__ = ["limiter"]

OURS, SEMAPHORE = "fluence_async.Limiter", "asyncio.Semaphore"
IN_FILE = "fluence_async.Limiter in a file"
UNITS = 10_000
ALLOWED_US, ALLOWED_IN_FILE_US, ALLOWED_BYTES = 5, 30, 1024


class Figures(msgspec.Struct):
    """What the child found of one of the two."""

    unit_us: list[float]
    unit_in_file_us: list[float]
    waiter_bytes: float
    drain_us: float
    in_order: bool


def limiter(*, quick: bool) -> list[Table]:
    """Measure in a process of its own; three tables, or one that says why not."""
    waiters = 20_000 if quick else 100_000
    child = Child("limiter", "5" if quick else "25", str(waiters))
    found = msgspec.json.decode(child.read(), type=dict[str, Figures] | str)
    child.close()
    if isinstance(found, str):
        return [Table("limiter", f"left out ({found})", "", [])]
    ours = found[OURS]

    def table(title: str, unit: str, figure: Callable[[Figures], list[float]], bar: Bar) -> Table:
        rows = [Row(name, figure(figures)) for name, figures in found.items()]
        return Table("limiter", title, unit, rows, base=SEMAPHORE, bars=[bar])

    unit_us, in_file_us = median(ours.unit_us), median(ours.unit_in_file_us)
    in_file = Table(
        "limiter",
        "the same with a limiter in a file, which no other process uses meanwhile",
        "µs",
        [Row(IN_FILE, ours.unit_in_file_us), Row(OURS, ours.unit_us)],
        base=OURS,
        bars=[
            Bar(
                f"{IN_FILE} at most {ALLOWED_IN_FILE_US} µs",
                f"{in_file_us:.1f}",
                in_file_us <= ALLOWED_IN_FILE_US,
            )
        ],
    )
    return [
        table(
            "acquire + sent + settle of a unit that is free, two windows",
            "µs",
            lambda of: of.unit_us,
            Bar(f"{OURS} at most {ALLOWED_US} µs", f"{unit_us:.2f}", unit_us <= ALLOWED_US),
        ),
        in_file,
        table(
            f"{waiters:,} waiters, memory of each beyond its task",
            "bytes",
            lambda of: [of.waiter_bytes],
            Bar(
                f"{OURS} at most {ALLOWED_BYTES:,} bytes",
                f"{ours.waiter_bytes:,.0f}",
                ours.waiter_bytes <= ALLOWED_BYTES,
            ),
        ),
        table(
            f"{waiters:,} waiters, drained one by one",
            "µs each",
            lambda of: [of.drain_us],
            Bar(f"{OURS} wakes in exact order", "yes" if ours.in_order else "no", ours.in_order),
        ),
    ]


async def free_units_us(rounds: int) -> dict[str, list[float]]:
    """CPU in µs for a unit that is free, of all in turns."""
    from fluence_async import Limiter

    found: dict[str, list[float]] = {OURS: [], IN_FILE: [], SEMAPHORE: []}
    semaphore = asyncio.Semaphore(UNITS)
    for _ in range(rounds + 1):  # the first warms up
        with TemporaryDirectory() as folder:
            for name, path in ((OURS, None), (IN_FILE, Path(folder, "limits"))):
                limiter = Limiter((f"{UNITS}/minute", f"{UNITS}/hour"), path=path)
                gc.collect()
                begun = time.process_time()
                for _ in range(UNITS):
                    permit = await limiter.acquire()
                    permit.sent()
                    permit.settle()
                    permit.release()
                found[name].append((time.process_time() - begun) / UNITS * 1e6)
        begun = time.process_time()
        for _ in range(UNITS):
            await semaphore.acquire()
            semaphore.release()
        found[SEMAPHORE].append((time.process_time() - begun) / UNITS * 1e6)
    return {name: us[1:] for name, us in found.items()}


class Line:
    """Tasks in line for one unit, which is taken; each notes its number when it has it."""

    def __init__(self, contender: Contender, waiters: int) -> None:
        self.order: list[int] = []
        self.all_served = asyncio.get_running_loop().create_future()
        self.tasks = [asyncio.create_task(contender.waiter(self, i)) for i in range(waiters)]

    def note(self, i: int) -> None:
        self.order.append(i)
        if len(self.order) == len(self.tasks):
            self.all_served.set_result(None)


class Contender(NamedTuple):
    """One of the two. `waiter` waits for the unit, notes its number and passes the unit on;
    `begin` lets the first in line have it."""

    waiter: Callable[[Line, int], Coroutine[None, None, None]]
    begin: Callable[[], None]


async def limiter_line() -> Contender:
    """A permit that is released unsent gives its unit back at once."""
    from fluence_async import Limiter

    limiter = Limiter(("1/minute",))

    async def waiter(line: Line, i: int) -> None:
        permit = await limiter.acquire()
        line.note(i)
        permit.release()

    return Contender(waiter, (await limiter.acquire()).release)


async def semaphore_line() -> Contender:
    semaphore = asyncio.Semaphore(0)

    async def waiter(line: Line, i: int) -> None:
        await semaphore.acquire()
        line.note(i)
        semaphore.release()

    return Contender(waiter, semaphore.release)


async def bare_line() -> Contender:
    """The tasks alone: all await one future."""
    shared = asyncio.get_running_loop().create_future()

    async def waiter(line: Line, i: int) -> None:
        await shared
        line.note(i)

    return Contender(waiter, lambda: shared.set_result(None))


async def stand_and_drain(contender: Contender, waiters: int) -> tuple[float, float, bool]:
    """For each waiter: bytes with its task, and CPU in µs once units come; and if in order."""
    gc.collect()
    tracemalloc.start()
    line = Line(contender, waiters)
    await asyncio.sleep(0.01)  # all run until they wait
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    begun = time.process_time()
    contender.begin()
    await line.all_served
    spent = time.process_time() - begun
    await asyncio.gather(*line.tasks)
    return held / waiters, spent / waiters * 1e6, line.order == list(range(waiters))


async def measure(rounds: int, waiters: int) -> dict[str, Figures]:
    """Everything, of both."""
    unit_us = await free_units_us(rounds)
    bare, _, _ = await stand_and_drain(await bare_line(), waiters)
    found = {}
    for name, contender in ((OURS, limiter_line), (SEMAPHORE, semaphore_line)):
        held, drain_us, in_order = await stand_and_drain(await contender(), waiters)
        found[name] = Figures(unit_us[name], unit_us[IN_FILE], held - bare, drain_us, in_order)
    return found


def main() -> None:
    """Print what was found, or why nothing, as a line of JSON."""
    rounds, waiters = map(int, sys.argv[1:])
    try:
        found: dict[str, Figures] | str = asyncio.run(measure(rounds, waiters))
    except ImportError as error:
        found = str(error)
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
