"""The documented limits, as the local server counts them by its own clock."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async.server.windows import Windows
from fluence_async.testing import (
    FluenceServer,
)
from tests.programs.raw_http import HELLO, ask
from tests.virtual import VirtualLoop

pytestmark = pytest.mark.anyio
VIRTUAL = pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("asyncio", {"loop_factory": VirtualLoop}), id="virtual")]
)


def changed(**changes: Any) -> dict[str, Any]:
    return {**HELLO, **changes}


@VIRTUAL
async def test_the_101st_request_of_a_minute_is_refused_and_retry_after_is_true() -> None:
    async with FluenceServer() as server:
        for i in range(100):
            answer = await ask(server)
            assert answer.status == 200
            assert answer.headers["x-ratelimit-limit-requests"] == "100"
            assert answer.headers["x-ratelimit-remaining-requests"] == str(99 - i)
            await asyncio.sleep(0.25)
        refused = await ask(server)
        assert refused.status == 429
        assert refused.json["error"]["code"] == "rate_limit_exceeded"
        assert refused.headers["retry-after"] == "35"
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert refused.headers["x-ratelimit-reset-requests"] == "59.75s"
        await asyncio.sleep(34.75)
        assert (await ask(server)).status == 429
        await asyncio.sleep(0.25)
        assert (await ask(server)).status == 200
        assert (server.refusals, server.executions) == (2, 101)
        assert len(server.arrivals) == 103
        assert server.busiest(60) == 102


@VIRTUAL
async def test_the_1001st_request_of_an_hour_is_refused_until_the_first_is_an_hour_old() -> None:
    async with FluenceServer() as server:
        begin = asyncio.get_running_loop().time()
        for _ in range(10):
            for _ in range(100):
                assert (await ask(server)).status == 200
            await asyncio.sleep(60)
        refused = await ask(server)
        assert refused.headers["x-ratelimit-limit-requests"] == "1000"
        assert refused.headers["retry-after"] == str(math.ceil(begin + 3600 - server.arrivals[-1]))
        await asyncio.sleep(float(refused.headers["retry-after"]))
        assert (await ask(server)).status == 200
        assert server.busiest(60) == 100


async def test_limits_count_each_key_and_no_stranger() -> None:
    async with FluenceServer(limits=["1/hour"], api_keys=["a", "b"]) as server:
        statuses = [
            (await ask(server, headers={"authorization": f"Bearer {key}"})).status
            for key in ("x", "a", "b", "a", "x")
        ]
    assert statuses == [401, 200, 200, 429, 401]


async def test_an_invalid_request_counts_and_a_refused_one_is_not_read() -> None:
    async with FluenceServer(limits=["1/hour"]) as server:
        assert (await ask(server, b"{")).status == 400
        assert (await ask(server)).status == 429
        assert [received.body for received in server.requests] == [b"{", b""]


async def test_scaled_time_shortens_windows_and_says_so_in_the_clients_seconds() -> None:
    now = 100.0
    async with FluenceServer(limits=["1/hour"], time_scale=1800, clock=lambda: now) as server:
        assert (await ask(server)).status == 200
        now += 0.5
        refused = await ask(server)
        assert refused.headers["retry-after"] == "2"  # 1.5 s, rounded up
        assert refused.headers["x-ratelimit-reset-requests"] == "1.5s"
        now += 1.5
        assert (await ask(server)).status == 200
        assert server.arrivals == [180_000, 180_900, 183_600]


def test_a_limit_that_cannot_be_read_is_an_error() -> None:
    for limit in ("100", "0/minute", "100/fortnight", "-1/hour", "1.5/hour"):
        with pytest.raises(ValueError, match="is not"):
            Windows([limit])
    with pytest.raises(ValueError, match="limits=None"):
        FluenceServer(limits=[])


@given(st.lists(st.integers(0, 40), max_size=120))
def test_a_request_is_accepted_exactly_if_every_window_has_room(gaps: list[int]) -> None:
    windows = Windows(["3/minute", "5/hour"])
    accepted: list[float] = []
    now = 0.0
    for gap in gaps:
        now += gap**2
        room = {
            period: count - sum(now - period < at for at in accepted)
            for period, count in ((60, 3), (3600, 5))
        }
        verdict = windows.admit("key", now)
        assert verdict.accepted == all(room.values())
        if verdict.accepted:
            accepted.append(now)
            assert verdict.wait_s == 0
            assert verdict.remaining == min(room.values()) - 1
        else:
            free = now + verdict.wait_s
            assert all(
                sum(free - period < at for at in accepted) < count
                for period, count in ((60, 3), (3600, 5))
            )
            assert any(at + period == free for at in accepted for period in (60, 3600))
