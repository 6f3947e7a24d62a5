"""Calls that stop waiting for the limiter, in virtual time: at a deadline, or cancelled."""

from __future__ import annotations

import math
import random
from contextlib import suppress

import anyio
import pytest

from fluence_async._sansio.claim import DONE
from fluence_async.errors import APITimeoutError, LimitWaitError
from tests.shell.limiting import (
    HOLD,
    after,
    all_parked,
    callers,
    left,
    virtual,
)
from tests.virtual import anyio_backend  # noqa: F401

pytestmark = pytest.mark.anyio

# ─── giving up ────────────────────────────────────────────────────────────────────────────


async def test_a_wait_that_is_known_to_pass_the_deadline_is_refused_at_once() -> None:
    limiter = virtual("2/minute", "5/hour")
    for _ in range(2):
        (await limiter.acquire()).settle()
    begun = anyio.current_time()
    with pytest.raises(LimitWaitError, match=r"2/minute, 5/hour .* 60\.1 s") as caught:
        await limiter.acquire(deadline=after(60))
    assert anyio.current_time() == begun
    assert caught.value.wait_s == pytest.approx(HOLD)
    assert caught.value.retry_at > 1_700_000_000
    assert (await limiter.acquire(deadline=after(60.1))).waited_s == pytest.approx(HOLD, abs=1e-3)


async def test_those_ahead_in_the_queue_count() -> None:
    limiter = virtual("1/minute")
    (await limiter.acquire()).settle()
    async with callers(limiter) as those:
        await those.come("a", "b", "c")
        await those.come("d", deadline=after(4 * HOLD - 1))
        assert isinstance(error := those.failed["d"], LimitWaitError)
        assert error.wait_s == pytest.approx(4 * HOLD)
        await those.come("e", deadline=after(4 * HOLD + 1))
        await those.come("r", deadline=after(HOLD + 1), front=True)
        assert set(those.failed) == {"d"}
        await anyio.sleep(6 * HOLD)
        assert those.names == ["r", "a", "b", "c"]
        assert isinstance(those.failed["e"], LimitWaitError)  # once "r" had gone before it


async def test_a_pause_beyond_the_deadline_is_known() -> None:
    limiter = virtual("1/minute")
    limiter.pause(30)
    with pytest.raises(LimitWaitError) as caught:
        await limiter.acquire(deadline=after(30))
    assert caught.value.wait_s == pytest.approx(30.05)


async def test_a_wait_that_hangs_on_other_calls_times_out_at_the_deadline() -> None:
    limiter = virtual("3/minute")
    async with callers(limiter) as those:
        await those.come("flying", settle=False, costs={"requests": 3})
        await those.come("a", deadline=after(7))
        await those.come("b", deadline=after(5))
        await those.come("past", deadline=after(-1))
        assert list(those.failed) == ["past"]
        await anyio.sleep(4.9)
        assert list(those.failed) == ["past"]
        await anyio.sleep(0.2)
        assert list(those.failed) == ["past", "b"]
        await anyio.sleep(2)
        assert list(those.failed) == ["past", "b", "a"]
        for error in those.failed.values():
            assert isinstance(error, APITimeoutError)
            assert error.clock == "queue"
            assert "3/minute" in str(error)


async def test_a_wait_that_becomes_known_to_be_too_long_is_refused_then() -> None:
    limiter = virtual("1/minute")
    async with callers(limiter) as those:
        await those.come("flying", settle=False)
        await those.come("short", deadline=after(30))
        await those.come("long", deadline=after(90))
        await anyio.sleep(10)
        assert not those.failed
        those.permits["flying"].settle()
        await all_parked()
        assert isinstance(error := those.failed["short"], LimitWaitError)
        assert error.wait_s == pytest.approx(HOLD)
        await anyio.sleep(HOLD + 1)
        assert those.names == ["flying", "long"]


async def test_a_deadline_at_infinity_is_none() -> None:
    limiter = virtual("1/minute")
    (await limiter.acquire()).settle()
    assert (await limiter.acquire(deadline=math.inf)).waited_s == pytest.approx(HOLD, abs=1e-3)


async def test_deadlines_of_those_who_left_are_forgotten() -> None:
    limiter = virtual("30/minute")
    async with callers(limiter) as those:
        await those.come("flying", settle=False, costs={"requests": 30})
        for n in range(30):
            await those.come(n, deadline=after(1000 - n))
        for n in range(30):
            those.scopes[n].cancel()
        await all_parked()
        assert limiter._line.queue._deadlines == []
        await those.come("last", deadline=after(500))
        await anyio.sleep(501)
        assert list(those.failed) == ["last"]


# ─── cancelling ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("who", ["head", "middle", "tail"])
@pytest.mark.parametrize("times", [1, 2])
async def test_who_is_cancelled_while_parked_is_as_if_it_had_never_come(
    who: str, times: int
) -> None:
    limiter = virtual("1/minute")
    async with callers(limiter) as those:
        await those.come("flying", settle=False)
        await those.come("head", "middle", "tail")
        for _ in range(times):
            those.scopes[who].cancel()
        await all_parked()
        assert limiter.snapshot().waiting == 2
        those.permits["flying"].settle()
        await anyio.sleep(3 * HOLD)
        assert those.names == [n for n in ("flying", "head", "middle", "tail") if n != who]
    assert left(limiter) == [0]


@pytest.mark.parametrize("cancel_first", [False, True])
@pytest.mark.parametrize("times", [1, 2])
async def test_who_is_cancelled_in_the_tick_of_its_grant_passes_the_unit_on(
    cancel_first: bool, times: int
) -> None:
    limiter = virtual("1/minute")
    async with callers(limiter) as those:
        await those.come("flying", settle=False)
        await those.come("head", "next")
        steps = [those.permits["flying"].release, *[those.scopes["head"].cancel] * times]
        for step in reversed(steps) if cancel_first else steps:
            step()
        await all_parked()
        # trio delivers a cancellation only where a task waits; a task that was woken has its permit
        assert those.names[1:] in (["next"], ["head"])
        assert sum(permit.state == DONE for permit in those.permits.values()) == 2
        assert left(limiter) == [0]
        await anyio.sleep(HOLD + 1)
        assert set(those.names) >= {"flying", "next"}


async def test_a_head_that_leaves_lets_the_smaller_one_behind_it_go() -> None:
    limiter = virtual("10/minute")
    async with callers(limiter) as those:
        await those.come("first", settle=False, costs={"requests": 5})
        await those.come("large", costs={"requests": 6})
        await those.come("small", costs={"requests": 5})
        those.scopes["large"].cancel()
        await all_parked()
        assert those.names == ["first", "small"]


async def test_a_cancelled_scope_around_a_contended_acquire_leaves_nothing() -> None:
    limiter = virtual("1/minute")
    flying = limiter.acquire_nowait()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await limiter.acquire()
    assert scope.cancelled_caught
    flying.settle()
    assert limiter.snapshot().waiting == 0
    assert limiter._line._homes == {}


async def test_the_timer_of_who_left_does_not_ring() -> None:
    limiter = virtual("1/minute")
    rings: list[object] = []
    limiter._line._ring = rings.append  # type: ignore[method-assign]
    limiter.acquire_nowait().settle()
    async with callers(limiter) as those:
        await those.come("a", "b")
        those.scopes["a"].cancel()
        those.scopes["b"].cancel()
        await anyio.sleep(2 * HOLD)
        assert rings == []
        await those.come("c")
        await anyio.sleep(1)
        assert those.names == ["c"]


@pytest.mark.parametrize("seed", range(25))
async def test_no_unit_and_no_waiter_is_lost_whatever_is_cancelled_when(seed: int) -> None:
    chance = random.Random(seed)
    limiter = virtual("3/second", "7/5s", reserve=0.15)
    done = cancelled = 0

    async def call(lane: int, give_up_s: float) -> None:
        nonlocal done, cancelled
        with anyio.move_on_after(give_up_s) as scope, suppress(LimitWaitError, APITimeoutError):
            deadline = after(chance.uniform(0, 30)) if chance.random() < 0.3 else None
            permit = await limiter.acquire(
                lane=lane, front=chance.random() < 0.2, deadline=deadline
            )
            try:
                await anyio.sleep(chance.choice([0, 0.1, 1]))
                permit.sent()
                await anyio.sleep(chance.choice([0, 0.1, 1]))
                permit.settle()
            finally:
                permit.release()
            done += 1
        cancelled += scope.cancelled_caught

    async with anyio.create_task_group() as group:
        for _ in range(60):
            group.start_soon(call, chance.randrange(2), chance.choice([0, 0.5, 3, 1000]))
            if chance.random() < 0.5:
                await anyio.sleep(chance.choice([0, 0.01, 0.7]))
    now = limiter.snapshot()
    assert now.waiting == 0
    assert limiter._line._homes == {}
    assert done > 3
    assert cancelled > 3
    await anyio.sleep(20)
    assert left(limiter) == [3, 7]
