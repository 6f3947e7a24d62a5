"""An outage multiplies the traffic by at most 1.2, and is over when it is over."""

from __future__ import annotations

import itertools

import anyio
import pytest

from fluence_async import FluenceError, FluenceSession
from fluence_async.transports._base import ConnectFailed, Disconnected
from tests.shell.limiting import virtual
from tests.shell.scripted import Answer, ScriptedTransport
from tests.shell.test_exchange import BODY, answer, session
from tests.virtual import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio

CALLS = 1000
RATE = 20.0


class Outage:
    """Calls at an even rate, one task each; how each ended, and when."""

    def __init__(self, fluence: FluenceSession, transport: ScriptedTransport) -> None:
        self.fluence = fluence
        self.transport = transport
        self.good = 0
        self.waits: list[float] = []
        self.attempts: list[int] = []

    async def call(self) -> None:
        began = anyio.current_time()
        try:
            answer = await self.fluence.chat.completions.create(model="m", messages="hi")
        except FluenceError:
            return
        self.good += 1
        self.waits.append(anyio.current_time() - began)
        self.attempts.append(answer.meta.attempts)

    async def calls(self, number: int) -> int:
        """So many calls at the usual rate; how many requests they made."""
        before = len(self.transport.requests)
        self.good, self.waits, self.attempts = 0, [], []
        async with anyio.create_task_group() as tasks:
            for _ in range(number):
                tasks.start_soon(self.call)
                await anyio.sleep(1 / RATE)
        return len(self.transport.requests) - before

    def become(self, answer: Answer) -> None:
        self.transport.answers = [answer]


GOOD = answer(BODY, wait=0.05)
DEAD = {
    "refused": answer(fails=ConnectFailed("refused")),
    "closed": answer(fails=Disconnected("closed")),
    "500": answer(b"{}", status=500),
    "429": answer(b"{}", status=429),
}


@pytest.mark.parametrize("dead", DEAD.values(), ids=DEAD.keys())
async def test_a_thousand_calls_of_a_dead_server_make_few_more_requests(
    dead: Answer,
) -> None:
    transport = ScriptedTransport(dead)
    async with session(transport) as fluence:
        outage = Outage(fluence, transport)
        assert CALLS < await outage.calls(CALLS) <= 1.2 * CALLS
        assert outage.good == 0


@pytest.mark.parametrize("dead", DEAD.values(), ids=DEAD.keys())
async def test_a_server_that_heals_is_served_at_full_rate_at_once_and_retried_in_30_s(
    dead: Answer,
) -> None:
    transport = ScriptedTransport(dead)
    async with session(transport) as fluence:
        outage = Outage(fluence, transport)
        await outage.calls(CALLS)
        outage.become(GOOD)
        assert await outage.calls(int(30 * RATE)) == 30 * RATE
        assert outage.good == 30 * RATE
        assert max(outage.waits) < 0.1
        transport.answers = [dead, GOOD]  # a single failure is made good again
        await outage.calls(1)
        assert outage.attempts == [2]


async def test_the_limits_full_rate_is_back_at_once() -> None:
    transport = ScriptedTransport(DEAD["refused"])
    limiter = virtual("10/second")
    async with FluenceSession(
        api_key="k-1234", limiter=limiter, transport=lambda: transport
    ) as fluence:
        outage = Outage(fluence, transport)
        await outage.calls(200)
        outage.become(GOOD)
        began = anyio.current_time()
        await outage.calls(300)
        assert outage.good == 300
        assert anyio.current_time() - began < 33  # 30 s and the margins of the window


async def test_a_wall_clock_that_jumps_changes_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    jumps = itertools.cycle([0.0, 4e9, -4e9, 1e6])
    monkeypatch.setattr("time.time", lambda: next(jumps))
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    later = "Wed, 21 Oct 2015 07:28:20 GMT"
    transport = ScriptedTransport(
        answer(b"{}", status=429, headers={"retry-after": later, "date": date}),
        answer(b"{}", status=500),
        GOOD,
    )
    async with session(transport) as fluence:
        began = anyio.current_time()
        await fluence.chat.completions.create(model="m", messages="hi")
        assert 20 <= anyio.current_time() - began <= 21.6
