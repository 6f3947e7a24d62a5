"""The documented limits hold through the real stack, at full speed, as the server counts them."""

from __future__ import annotations

import asyncio

import anyio
import pytest

from fluence_async import FluenceSession, Limiter
from fluence_async.testing import FluenceServer
from tests.virtual import VirtualLoop

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> tuple[str, object]:
    """Asyncio only: the server in the same loop, so that both live in the same virtual hours."""
    return "asyncio", {"loop_factory": VirtualLoop}


async def test_a_thousand_calls_of_200_tasks_meet_no_refusal_and_waste_no_time() -> None:
    loop = asyncio.get_running_loop()
    limiter = Limiter(clock=lambda: round(loop.time() * 1e9))
    async with (
        FluenceServer() as server,
        FluenceSession(
            api_key=server.api_key, base_url=server.base_url, limiter=limiter, max_retries=0
        ) as fluence,
    ):
        calls = iter(range(1000))

        async def work() -> None:
            for _ in calls:
                await fluence.chat.completions.create(model="fluence-chat", messages="hi")

        started = loop.time()
        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(work)
        took = loop.time() - started

        arrivals = [at - started for at in server.arrivals]
        assert len(arrivals) == 1000
        assert server.refusals == 0
        assert server.busiest(60) == 100
        assert server.busiest(3600) == 1000
        assert arrivals[99] < 1
        ideal = 9 * 60
        assert ideal <= took <= ideal * 1.01
        # The hour is used up now: the next unit comes an hour after the first.
        assert limiter.snapshot().windows
