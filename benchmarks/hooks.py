"""A plain call that nobody is told of, that a null hook is told of, and OpenTelemetry with its SDK.

The sessions take turns of a hundred calls in one process, so that a slow moment of the machine
falls on all of them; the server is another process's. The spans and metrics go nowhere.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from itertools import permutations
from typing import TYPE_CHECKING

from .table import Row, Table
from .worker import Child

if TYPE_CHECKING:
    from fluence_async.hooks import Hook

__all__ = ["hooks"]

NONE, NULL, OTEL = "no hook", "a null hook", "OpenTelemetry"
CALLS = 100
ALLOWED = 1.01


def hooks(*, quick: bool) -> list[Table]:
    """Measure the three in this process; one table."""
    server = Child("server")
    try:
        base_url = f"http://127.0.0.1:{int(server.read())}/v1"
        rows = asyncio.run(measure(base_url, 24 if quick else 120))
    finally:
        server.close()
    notes = [] if OTEL in (row.name for row in rows) else [f"left out: {OTEL} (not installed)"]
    title = "client CPU for each plain call, one after another"
    table = Table("hooks", title, "µs per call", rows, base=NONE, notes=notes)
    table.bar_at_most(ALLOWED, NULL, NONE)
    return [table]


async def measure(base_url: str, rounds: int) -> list[Row]:
    """CPU µs of a call with each hook, round by round, in every order of the hooks."""
    from fluence_async import FluenceSession

    compared = told()
    rows = {name: Row(name, []) for name in compared}
    async with AsyncExitStack() as stack:
        sessions = {
            name: await stack.enter_async_context(
                FluenceSession(api_key="k", base_url=base_url, limiter=None, hooks=listening)
            )
            for name, listening in compared.items()
        }
        orders = list(permutations(sessions))
        for turn in range(-len(orders), rounds):
            for name in orders[turn % len(orders)]:
                create = sessions[name].chat.completions.create
                spent = time.process_time()
                for _ in range(CALLS):
                    await create(model="answer-20-0", messages="Hello, how are you?")
                if turn >= 0:  # the first ones warm up
                    rows[name].rounds.append((time.process_time() - spent) / CALLS * 1e6)
    return list(rows.values())


def told() -> dict[str, list[Hook]]:
    """The hooks to compare, as far as they are here."""
    compared: dict[str, list[Hook]] = {NONE: [], NULL: [lambda _: None]}
    try:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider

        from fluence_async.contrib.opentelemetry import OpenTelemetryHook
    except ImportError:
        return compared
    meters = MeterProvider([InMemoryMetricReader()])
    hook = OpenTelemetryHook(tracer_provider=TracerProvider(), meter_provider=meters)
    return {**compared, OTEL: [hook]}
