"""Answers that take long do not hold the rate down, through the real stack; and no unit comes back
before the server's kernel has its request."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from anyio.abc import TaskGroup

from fluence_async import FluenceSession, Limiter, RateLimit
from fluence_async.server.faults import Pause, Stall
from fluence_async.testing import FluenceServer
from fluence_async.transports import _aiohttp_connections
from fluence_async.transports._delivery import unacknowledged
from tests.virtual import VirtualLoop, in_virtual_time

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="no other kernel tells"),
]

SCALE = 120
"""A minute of the server is half a second."""


async def call(fluence: FluenceSession, text: str = "hi") -> None:
    await fluence.chat.completions.create(model="fluence-chat", messages=text)


# ─── in virtual hours ─────────────────────────────────────────────────────────────────────


def of_a_kernel_that_was_given_time(opened: socket.socket) -> int:
    """Kernels acknowledge within 40 ms of real time, which virtual time outruns."""
    until = time.monotonic() + 1
    while (size := unacknowledged(opened)) and time.monotonic() < until:
        time.sleep(0.001)
    return size


@pytest.mark.parametrize(
    "anyio_backend", [("asyncio", {"loop_factory": VirtualLoop})], ids=["asyncio"]
)
async def test_slow_plain_answers_meet_no_refusal_and_waste_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_aiohttp_connections, "unacknowledged", of_a_kernel_that_was_given_time)
    loop = asyncio.get_running_loop()
    chance = random.Random(7)
    limiter = Limiter("100/minute", clock=lambda: round(loop.time() * 1e9))
    async with (
        FluenceServer(limits=["100/minute"]) as server,
        FluenceSession(
            api_key=server.api_key, base_url=server.base_url, limiter=limiter, max_retries=0
        ) as fluence,
    ):
        server.script(lambda _: [Pause(chance.uniform(1, 60)), "hello"])
        started = loop.time()
        async with anyio.create_task_group() as tasks:
            for _ in range(600):
                tasks.start_soon(call, fluence)
        arrivals = [at - started for at in server.arrivals]
        assert len(arrivals) == 600
        assert server.refusals == 0
        assert server.busiest(60) == 100
        assert 5 * 60 <= arrivals[-1] <= 5 * 60 / 0.99


# ─── in real time ─────────────────────────────────────────────────────────────────────────


@asynccontextmanager
async def unanswered(strict: bool) -> AsyncIterator[tuple[FluenceServer, TaskGroup]]:
    """Eight calls under a limit of four, of which none is ever answered."""
    limiter = Limiter(RateLimit(4, 60 / SCALE), strict=strict)
    async with (
        FluenceServer(limits=["4/minute"], time_scale=SCALE) as server,
        FluenceSession(
            api_key=server.api_key, base_url=server.base_url, limiter=limiter, max_retries=0
        ) as fluence,
    ):
        server.script(Stall(), repeat=True)
        async with anyio.create_task_group() as tasks:
            for _ in range(8):
                tasks.start_soon(call, fluence)
            yield server, tasks
            tasks.cancel_scope.cancel()
        assert server.refusals == 0
        assert server.busiest(60) <= 4


async def test_the_next_go_before_the_first_are_answered() -> None:
    async with unanswered(strict=False) as (server, _):
        with anyio.fail_after(20):
            while len(server.arrivals) < 8:
                await anyio.sleep(0.01)


async def test_strictly_they_do_not() -> None:
    async with unanswered(strict=True) as (server, _):
        await anyio.sleep(1.5)
        assert len(server.arrivals) == 4


# ─── a peer that does not read ────────────────────────────────────────────────────────────


@in_virtual_time()
async def test_what_the_servers_kernel_has_not_taken_does_not_come_back() -> None:
    """In virtual time: not in a hundred periods."""
    limiter = Limiter("1/second", clock=lambda: round(anyio.current_time() * 1e9))
    with socket.create_server(("127.0.0.1", 0)) as listening:  # and nobody ever accepts
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least that there is
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        async with (
            FluenceSession(api_key="sk-0", base_url=url, limiter=limiter, timeout=None) as fluence,
            anyio.create_task_group() as tasks,
        ):
            tasks.start_soon(call, fluence, 12 * 1024 * "x")
            await anyio.sleep(100)
            assert limiter.snapshot().windows[0].left == 0
            tasks.cancel_scope.cancel()
