"""What a snapshot says of when more calls can go, beside what then happens, in virtual time."""

from __future__ import annotations

import random
from functools import partial

import anyio
import pytest

from fluence_async.limiter import Limiter
from tests.shell.limiting import (
    HOLD,
    all_parked,
    callers,
    store,  # noqa: F401
    virtual,
)
from tests.virtual import anyio_backend  # noqa: F401

pytestmark = pytest.mark.anyio

S = 1_000_000_000


async def test_the_documented_limits_say_when_a_hundred_and_a_thousand_more_can_go() -> None:
    limiter = virtual("100/minute", "1000/hour")
    for count, eta in {
        1: 0.0,
        100: 0.0,
        101: HOLD,
        1000: 9 * HOLD,
        1001: 3600 + 0.05 + 1.8,
        1101: 3600 + 0.05 + 1.8 + HOLD,
    }.items():
        assert limiter.snapshot().eta_s(count) == pytest.approx(eta)
    assert limiter.snapshot().eta_s(94, lane=1) == 0  # the rest is the reserve
    assert limiter.snapshot().eta_s(95, lane=1) == pytest.approx(HOLD)
    assert limiter.wait_s() == 0


async def test_what_is_in_flight_is_answered_now_at_best_and_alone_tells_nothing() -> None:
    limiter = virtual("3/minute", reserve=0.34)
    flying = [await limiter.acquire() for _ in range(2)]
    assert limiter.snapshot().eta_s(1) == 0
    assert limiter.snapshot().eta_s(2) == pytest.approx(HOLD)
    assert limiter.snapshot().eta_s(1, lane=1) is None  # only those in flight are not the reserve
    flying.append(await limiter.acquire())
    assert limiter.snapshot().eta_s(1) is None
    flying[0].settle()
    assert limiter.snapshot().eta_s(1) == pytest.approx(HOLD)
    limiter.pause(100)
    assert limiter.snapshot().eta_s(1) == pytest.approx(100.05)
    assert limiter.wait_s() == pytest.approx(100.05)
    assert limiter.snapshot().windows[0].outlook is not None
    assert repr(limiter.snapshot().windows[0].outlook) == "<Outlook: 0 free, 2 in flight>"


async def test_a_turn_that_batch_is_owed_counts() -> None:
    limiter = virtual("20/minute", reserve=0.5)
    async with callers(limiter) as those:
        await those.come(*range(10), "batch", lane=1)
        await those.come(*range(100, 108))
        now = limiter.snapshot()
        assert (now.waiting, now.waiting_batch, now.passed) == (1, 1, 8)
        assert now.eta_s(1) == 0
        assert now.eta_s(2) == pytest.approx(HOLD)  # one of the two units is batch's by then
        assert now.eta_s(1, lane=1) == pytest.approx(HOLD)


@pytest.mark.parametrize(("calls", "lane"), [(0, 0), (-1, 0), (True, 0), (1.5, 0), (1, 2)])
def test_what_makes_no_sense_is_refused(calls: int, lane: int) -> None:
    with pytest.raises(ValueError, match=f"{'lane' if lane == 2 else 'calls'}="):
        Limiter().snapshot().eta_s(calls, lane=lane)


LIMITS = [
    ("4/second",),
    ("3/second", "7/5s"),
    ("10/2s", "12/7s", "40/minute"),
    ("5/second", "6/second", "100 tokens/second"),
]


@pytest.mark.parametrize("seed", range(30))
async def test_it_is_when_the_last_of_them_goes(seed: int) -> None:
    """Some units used, some calls waiting in both lanes; then so many more come at once, and all
    are settled at once."""
    chance = random.Random(seed)
    limiter = virtual(*LIMITS[seed % len(LIMITS)], reserve=chance.choice([0, 0.34]))
    await anyio.sleep(1)
    for _ in range(chance.randrange(12)):
        if limiter.wait_s(lane=1):
            break
        (await limiter.acquire(lane=1)).settle()
        await anyio.sleep(chance.choice([0, 0.05, 0.4]))
    if chance.random() < 0.2:
        limiter.pause(2)
    lane, calls = chance.randrange(2), chance.randrange(1, 30)
    async with callers(limiter) as those:
        for n in range(chance.choice([0, 12])):
            await those.come(("before", n), lane=chance.randrange(2))
        now, begun = limiter.snapshot(), anyio.current_time() - those.begun
        eta, least = now.eta_s(calls, lane=lane), limiter.wait_s(lane=lane)
        assert eta is not None
        if calls == 1:
            assert least <= eta + 1e-6
        for n in range(calls):
            those.group.start_soon(partial(those._call, ("more", n), lane=lane))
        await all_parked()
        await anyio.sleep(eta + 2)
        last = max(at for (kind, _), at in those.served if kind == "more")
        assert sum(kind == "more" for (kind, _), _ in those.served) == calls
        assert last - begun == pytest.approx(eta, abs=2e-3), now
