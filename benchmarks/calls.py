"""Streams and plain calls: the CPU that each client needs, beside its peers, round by round."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from .table import Row, Table
from .worker import Child, Load, Worker

__all__ = ["CALLS", "compared"]

OURS = "fluence_async"
BYTES = "aiohttp, bytes only"
OPENAI = "openai over aiohttp"
NAMES = {
    "aiohttp_bytes": BYTES,
    "fluence": OURS,
    "aiohttp_msgspec": "aiohttp + msgspec, bare loop",
    "openai_aiohttp": OPENAI,
    "openai_httpx": "openai over httpx",
}
SLOW = {"openai_aiohttp", "openai_httpx"}


class Comparison(msgspec.Struct, frozen=True):
    """A load for every peer, and our bars.

    The slow peers do `slow_calls` of it, and only in the first rounds: they are so far away that
    it suffices, and would take nearly all of the time. Pairs are (--quick, full).

    Each has processes of its own, since what one did before is not without effect: until a process
    has freed a large block once, glibc maps and unmaps the 256 KiB that asyncio asks for at each
    read, which costs more than the read. `grown` processes have.
    """

    title: str
    unit: str
    load: Load
    slow_calls: int
    rounds: tuple[int, int]
    slow_rounds: tuple[int, int]
    at_most: float
    times_less: float | None = None
    grown: bool = False


BULK = Comparison(
    title="client CPU for each chunk of a stream, 5,000 chunks at once",
    unit="µs per chunk",
    load=Load(calls=20, at_once=1, chunks=5_000, pause_ms=0),
    slow_calls=1,
    rounds=(5, 15),
    slow_rounds=(2, 7),
    at_most=1.8,
    times_less=35,
)
LIVE = Comparison(
    title="client CPU for each chunk, 200 chunks 2 ms apart, 50 streams",
    unit="µs per chunk",
    load=Load(calls=50, at_once=50, chunks=200, pause_ms=2),
    slow_calls=50,
    rounds=(3, 15),
    slow_rounds=(1, 3),
    at_most=1.15,
)
LIVE_GROWN = msgspec.structs.replace(
    LIVE, title=LIVE.title + ", once a large block was freed", grown=True
)
JSON = Comparison(
    title="client CPU for each plain request, 20 at once, limiter and retries on",
    unit="µs per request",
    load=Load(calls=2_000, at_once=20, chunks=20),
    slow_calls=200,
    rounds=(5, 15),
    slow_rounds=(2, 7),
    at_most=1.6,
    times_less=6,
)
CALLS = {"bulk": BULK, "live": LIVE, "live-grown": LIVE_GROWN, "json": JSON}


@contextmanager
def _opened_workers(*, grown: bool) -> Iterator[tuple[list[Worker], list[str]]]:
    """The server and a worker for each peer; and a line for each peer that is absent."""
    server = Child("server")
    base_url = f"http://127.0.0.1:{int(server.read())}/v1"
    workers = [Worker(peer, base_url, grown=grown) for peer in NAMES]
    try:
        absent = {worker.peer: why for worker in workers if (why := worker.opened())}
        yield (
            [worker for worker in workers if worker.peer not in absent],
            [f"left out: {NAMES[peer]} ({why.reason})" for peer, why in absent.items()],
        )
    finally:
        for child in (*workers, server):
            child.close()


def compared(benchmark: str, *, quick: bool) -> Table:
    """Run a benchmark: A B C, A B C, …, so that each round's ratios are of one moment."""
    this = CALLS[benchmark]
    with _opened_workers(grown=this.grown) as (workers, absent):
        table = _measured(benchmark, this, workers, quick=quick)
    table.notes += absent
    return table


def _measured(benchmark: str, this: Comparison, workers: list[Worker], *, quick: bool) -> Table:
    rows = {worker.peer: Row(NAMES[worker.peer], []) for worker in workers}
    slow_load = msgspec.structs.replace(this.load, calls=this.slow_calls)
    for turn in range(this.rounds[not quick]):
        for worker in workers:
            if worker.peer not in SLOW:
                seconds = worker.measure(this.load)
            elif turn < this.slow_rounds[not quick]:
                seconds = worker.measure(slow_load)
            else:
                continue
            rows[worker.peer].rounds.append(seconds * 1e6)
    table = Table(benchmark, this.title, this.unit, list(rows.values()), base=BYTES)
    table.bar_at_most(this.at_most, OURS, BYTES)
    if this.times_less is not None:
        table.bar_times_less(this.times_less, OURS, OPENAI)
    return table
