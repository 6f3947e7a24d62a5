"""Waiting for the limiter, in virtual time: who goes when."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from functools import partial

import anyio
import pytest

from fluence_async.limiter import Limiter, Permit
from tests.shell.limiting import (
    HOLD,
    all_parked,
    callers,
    left,
    store,  # noqa: F401
    virtual,
)
from tests.virtual import anyio_backend  # noqa: F401

pytestmark = pytest.mark.anyio

# ─── who goes when ────────────────────────────────────────────────────────────────────────


async def test_a_hundred_go_at_once_and_the_others_as_their_units_come_back_in_order() -> None:
    limiter = virtual("100/minute", "1000/hour")
    begun = anyio.current_time()
    arrived = itertools.count()
    served: list[tuple[int, float]] = []

    async def call() -> None:
        place = next(arrived)
        permit = await limiter.acquire()
        served.append((place, anyio.current_time() - begun))
        assert permit.waited_s == pytest.approx(served[-1][1], abs=1e-3)
        await anyio.sleep(0.01 * (place % 100))
        permit.settle()

    async with anyio.create_task_group() as group:
        for _ in range(250):
            group.start_soon(call)
    first, others = sorted(served[:100]), served[100:]
    assert first == [(place, 0.0) for place in range(100)]
    assert [place for place, _ in others] == list(range(100, 250))
    for place, at in others:
        rounds, column = divmod(place, 100)
        assert at == pytest.approx(rounds * (HOLD + 0.01 * column), abs=1e-3)


@pytest.mark.parametrize("store", ["memory"], indirect=True)  # an hour of looks into a file is long
async def test_a_thousand_go_within_the_first_hour() -> None:
    limiter = virtual("100/minute", "1000/hour")
    begun = anyio.current_time()
    at = []
    for _ in range(1100):
        permit = await limiter.acquire()
        at.append(anyio.current_time() - begun)
        permit.sent()
        permit.settle()
    assert [sum(HOLD * n <= t + 1e-3 < HOLD * (n + 1) for t in at) for n in range(11)] == [
        100
    ] * 10 + [0]
    assert at[1000] == pytest.approx(3600 + 0.05 + 1.8, abs=1e-3)
    assert at[1099] == pytest.approx(at[1000], abs=1e-3)


def test_who_finds_units_free_goes_on_without_a_pause_and_without_a_loop() -> None:
    limiter = Limiter("2/minute")
    for lane, front in ((0, False), (0, True)):
        coroutine = limiter.acquire(lane=lane, front=front, deadline=0.0)
        with pytest.raises(StopIteration) as done:
            coroutine.send(None)
        assert done.value.value.waited_s == 0
        done.value.value.settle()
    with pytest.raises(RuntimeError, match="in a task of asyncio or trio"):
        limiter.acquire().send(None)
    assert limiter.snapshot().waiting == 0


async def test_interactive_calls_go_before_batch_calls_and_retries_before_both_of_their_lane() -> (
    None
):
    limiter = virtual("1/minute")
    async with callers(limiter) as those:
        await those.come("holder")
        await those.come("b1", "b2", lane=1)
        await those.come("rb1", "rb2", lane=1, front=True)
        await those.come("i1", "i2")
        await those.come("ri1", "ri2", front=True)
        await anyio.sleep(10 * HOLD)
        assert those.names == "holder ri1 ri2 i1 i2 rb1 rb2 b1 b2".split()
        assert [at for _, at in those.served] == pytest.approx(
            [HOLD * n for n in range(9)], abs=0.01
        )


async def test_batch_calls_leave_the_reserve_to_interactive_ones() -> None:
    limiter = virtual("100/minute", "1000/hour")
    async with callers(limiter) as those:
        for n in range(100):
            those.group.start_soon(partial(those._call, n, lane=1))
        await all_parked()
        assert (len(those.served), limiter.snapshot().waiting) == (94, 6)
        await those.come("i1", "i2")
        assert those.names[-2:] == ["i1", "i2"]  # they pass the batch calls that wait
        await anyio.sleep(HOLD + 0.1)
        assert len(those.served) == 102


async def test_a_small_cost_does_not_overtake_a_large_one() -> None:
    limiter = virtual("10/minute", "100 tokens/minute")
    async with callers(limiter) as those:
        await those.come("first", costs={"tokens": 60})
        await those.come("large", costs={"tokens": 50})
        await those.come("small")
        assert those.names == ["first"]
        await anyio.sleep(HOLD + 0.1)
        assert those.names[0] == "first"
        assert sorted(those.names[1:]) == ["large", "small"]


async def test_a_released_unit_goes_to_the_next_at_once() -> None:
    limiter = virtual("1/minute")
    async with callers(limiter) as those:
        await those.come("first", settle=False)
        await those.come("second", "third")
        those.permits["first"].release()
        await all_parked()
        assert those.served == [("first", 0.0), ("second", 0.0)]


async def test_a_sent_request_without_an_answer_comes_back_ten_seconds_later() -> None:
    limiter = virtual("1/minute")
    async with callers(limiter) as those:
        await those.come("first", settle=False)
        await those.come("second")
        those.permits["first"].sent()
        those.permits["first"].release()
        await anyio.sleep(10 + HOLD + 0.1)
        assert those.served[1] == ("second", pytest.approx(10 + HOLD, abs=0.01))


async def test_estimated_tokens_come_back_with_the_usage() -> None:
    limiter = virtual("10/minute", "100 tokens/minute")
    async with callers(limiter) as those:
        await those.come("first", settle=False, costs={"tokens": 90})
        await those.come("second", costs={"tokens": 30})
        assert those.names == ["first"]
        those.permits["first"].settle()
        those.permits["first"].release({"tokens": 70})
        await all_parked()
        assert those.names == ["first", "second"]


# ─── acquire_nowait ───────────────────────────────────────────────────────────────────────


async def test_acquire_nowait_takes_what_is_free_and_never_out_of_turn() -> None:
    limiter = virtual("2/minute")
    first = limiter.acquire_nowait()
    assert isinstance(first, Permit)
    second = limiter.acquire_nowait()
    with pytest.raises(anyio.WouldBlock):
        limiter.acquire_nowait()
    async with callers(limiter) as those:
        await those.come("waits", costs={"requests": 2})
        first.release()
        with pytest.raises(anyio.WouldBlock):
            limiter.acquire_nowait()
        limiter.acquire_nowait(front=True).release()
        second.release()
        await all_parked()
        assert those.names == ["waits"]


async def test_acquire_nowait_first_serves_who_waits_and_is_due() -> None:
    now = 0
    limiter = Limiter("1/second", clock=lambda: now)
    limiter.acquire_nowait().settle()
    async with callers(limiter) as those:
        await those.come("waits")
        now = 2_000_000_000
        with pytest.raises(anyio.WouldBlock):
            limiter.acquire_nowait()
        await all_parked()
        assert those.names == ["waits"]


# ─── pauses ───────────────────────────────────────────────────────────────────────────────


async def test_a_pause_holds_all_once_and_a_later_one_only_prolongs_it() -> None:
    limiter = virtual("5/minute")
    limiter.pause(3)
    limiter.pause(1)
    assert limiter.snapshot().paused_s == pytest.approx(3.05)
    async with callers(limiter) as those:
        await those.come("a", "b")
        await anyio.sleep(2)
        limiter.pause(4)
        await anyio.sleep(5)
        assert sorted(those.served) == [("a", pytest.approx(6.05)), ("b", pytest.approx(6.05))]
    assert limiter.snapshot().paused_s == 0


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_a_pause_of_no_length_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=f"seconds={seconds!r}: must be"):
        Limiter().pause(seconds)


# ─── permits, arguments, texts ────────────────────────────────────────────────────────────


@pytest.mark.parametrize("steps", [*itertools.product(["sent", "settle", "release"], repeat=3)])
def test_a_permit_bears_any_call_in_any_state(steps: tuple[str, ...]) -> None:
    limiter = Limiter("1/minute")
    permit = limiter.acquire_nowait()
    for step in steps:
        getattr(permit, step)()
    given_back = steps[0] == "release"
    assert left(limiter) == [1 if given_back else 0]
    state = "done" if "release" in steps else "arrived" if "settle" in steps else "sent"
    assert repr(permit) == f"<Permit {state}>"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Limiter("100/fortnight"), "'100/fortnight'"),
        (lambda: Limiter(()), "must count requests"),
        (lambda: Limiter(reserve=1), "reserve=1"),
        (lambda: Limiter(margin_s=-1), "margin_s=-1"),
        (lambda: Limiter(drift=math.nan), "drift=nan"),
        (lambda: Limiter(unseen_s=math.inf), "unseen_s=inf"),
        (lambda: Limiter().acquire_nowait(lane=2), "lane=2"),
        (lambda: Limiter().acquire(lane=-1).send(None), "lane=-1"),
        (lambda: Limiter().acquire_nowait(costs={"requests": 101}), "never fit into 100/minute"),
        (lambda: Limiter().acquire(costs={"tokens": 1}).send(None), "'tokens', and limits count"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_value(
    call: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        call()


async def test_a_limiter_tells_its_state() -> None:
    limiter = virtual("2/minute", "9/hour")
    assert repr(limiter) == "<Limiter 2/minute: 2 left, 9/hour: 9 left; 0 waiting>"
    (await limiter.acquire()).settle()
    (await limiter.acquire()).settle()
    limiter.pause(5)
    async with callers(limiter) as those:
        await those.come("a")
        assert repr(limiter) == (
            "<Limiter 2/minute: 0 left, 9/hour: 7 left; 1 waiting, paused for 5.0 s>"
        )
        minute, hour = limiter.snapshot().windows
        assert (minute.used, minute.next_free_s) == (2, pytest.approx(HOLD))
        assert (hour.used, hour.next_free_s) == (2, 0)


# ─── stricter limits, while calls wait ────────────────────────────────────────────────────


async def test_stricter_limits_bind_those_who_wait_and_refuse_what_no_longer_fits() -> None:
    limiter = virtual("4/minute")
    for _ in range(3):
        (await limiter.acquire()).settle()
    async with callers(limiter) as those:
        await those.come("large", costs={"requests": 3})
        await those.come("a", "b", "c")
        limiter.tighten("2/minute")
        await all_parked()
        assert isinstance(error := those.failed["large"], ValueError)
        assert "never fit into 2/minute" in str(error)
        await anyio.sleep(HOLD + 1)
        assert sorted(those.names) == ["a", "b"]
        await anyio.sleep(HOLD)
        assert those.names[2:] == ["c"]
