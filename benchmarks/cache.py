"""A cached answer: microseconds of a whole `create`, from memory and from SQLite.

CPU of the process, SQLite's thread included, because another program's work would count as waiting;
the wall's time stands below. The prompt is short, the answer the local server's.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from .table import Bar, Row, Table

__all__ = ["cache"]

Rounds = dict[str, list[float]]

ALLOWED_US = {"MemoryCache": 30, "SqliteCache": 400}
CALLS = 200


def cache(*, quick: bool) -> list[Table]:
    """Measure both stores in this process; one table."""
    rounds = 10 if quick else 50
    with TemporaryDirectory() as directory:
        found, walls = asyncio.run(measure(rounds, Path(directory)))
    bars = []
    for name, limit in ALLOWED_US.items():
        us = median(found[name])
        bars.append(Bar(f"{name} at most {limit} µs", f"{us:.1f}", us <= limit))
    rows = [Row(name, us) for name, us in found.items()]
    notes = [f"{name}: {median(us):.0f} µs by the wall's clock" for name, us in walls.items()]
    title = "a create that is answered by the cache"
    return [Table("cache", title, "CPU µs", rows, bars=bars, notes=notes)]


async def measure(rounds: int, directory: Path) -> tuple[Rounds, Rounds]:
    """CPU and wall µs of a hit, round by round."""
    from fluence_async import FluenceSession
    from fluence_async.cache import MemoryCache, SqliteCache
    from fluence_async.testing import FluenceServer

    found: Rounds = {}
    walls: Rounds = {}
    async with FluenceServer() as server:
        for store in (MemoryCache(), SqliteCache(directory / "answers.sqlite3")):
            async with FluenceSession(
                api_key=server.api_key, base_url=server.base_url, cache=store
            ) as fluence:
                create = fluence.chat.completions.create
                await create(model="fluence-chat", messages="Hello, how are you?")
                us = found[type(store).__name__] = []
                wall = walls[type(store).__name__] = []
                for _ in range(rounds):
                    begun, spent = time.perf_counter(), time.process_time()
                    for _ in range(CALLS):
                        await create(model="fluence-chat", messages="Hello, how are you?")
                    us.append((time.process_time() - spent) / CALLS * 1e6)
                    wall.append((time.perf_counter() - begun) / CALLS * 1e6)
            await store.aclose()
    return found, walls
