"""Limits of one model, and who waits for them: the calls of other models go on."""

from __future__ import annotations

import anyio
import pytest

from fluence_async import Limiter, LimitWaitError
from tests.shell.limiting import HOLD, after, all_parked, callers, left, virtual
from tests.shell.limiting import store as store
from tests.virtual import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio


async def used_up(limiter: Limiter, model: str, count: int = 1, tokens: int | None = None) -> None:
    for _ in range(count):
        costs = None if tokens is None else {"tokens": tokens}
        (await limiter.acquire(model=model, costs=costs)).settle()


async def test_who_waits_for_its_models_limit_holds_up_no_other_model() -> None:
    limiter = virtual("10/minute", "1/minute for large", "1/minute for huge")
    await used_up(limiter, "large")
    async with callers(limiter) as tasks:
        await tasks.come("l1", "l2", model="large")
        await tasks.come("s1", "s2", model="small")
        await tasks.come("h1", "h2", model="huge")
        await tasks.come("n1")
        assert tasks.names == ["s1", "s2", "h1", "n1"]
        assert limiter.snapshot().waiting == 3
        await anyio.sleep(HOLD + 0.01)
        assert {*tasks.names[4:]} == {"l1", "h2"}
        await anyio.sleep(HOLD + 0.01)
        assert tasks.names[6:] == ["l2"]


async def test_who_waits_for_everybodys_limit_is_passed_by_nobody() -> None:
    limiter = virtual("9/minute", "100 tokens/minute", "1/minute for large")
    first = await limiter.acquire(costs={"tokens": 60})
    first.settle()
    permit = await limiter.acquire(costs={"tokens": 40})
    permit.settle()
    first.release()
    async with callers(limiter) as tasks:
        await tasks.come("large", model="large", costs={"tokens": 50})
        await tasks.come("small", model="small", costs={"tokens": 1})
        permit.release({"tokens": 0})
        await all_parked()
        assert tasks.names == []  # though there are tokens for the small one
        await anyio.sleep(HOLD + 0.01)
        assert {*tasks.names} == {"large", "small"}


async def test_nobody_passes_another_of_its_own_model() -> None:
    limiter = virtual("10/minute", "100 tokens/minute for large")
    permit = await limiter.acquire(model="large", costs={"tokens": 60})
    async with callers(limiter) as tasks:
        await tasks.come("much", model="large", costs={"tokens": 70})
        await tasks.come("little", model="large", costs={"tokens": 1})
        await tasks.come("batch", model="large", costs={"tokens": 1}, lane=1)
        await tasks.come("other", model="small", costs={"tokens": 1}, lane=1)
        assert tasks.names == ["other"]
        permit.release()
        await all_parked()
        assert {*tasks.names} == {"other", "much", "little", "batch"}


async def test_those_of_other_models_ahead_say_nothing_of_when_it_is_ones_turn() -> None:
    limiter = virtual("10/minute", "1/hour for large")
    await used_up(limiter, "large")
    async with callers(limiter) as tasks:
        await tasks.come(*range(50), model="large")
        (await limiter.acquire(model="small", deadline=after(1))).settle()
        with pytest.raises(LimitWaitError, match="1/hour for large"):
            await limiter.acquire(model="large", deadline=after(60))


async def test_a_waiter_that_is_cancelled_leaves_its_models_line_too() -> None:
    limiter = virtual("10/minute", "1/minute for large")
    await used_up(limiter, "large")
    async with callers(limiter) as tasks:
        await tasks.come("a", "b", model="large")
        tasks.scopes["a"].cancel()
        await all_parked()
        assert limiter.snapshot().waiting == 1
        await anyio.sleep(HOLD + 0.01)
        assert tasks.names == ["b"]
    assert left(limiter) == [9, 0]


async def test_a_limit_that_comes_later_holds_for_calls_that_come_later() -> None:
    limiter = virtual("10/minute")
    await used_up(limiter, "large")
    limiter.tighten(["10/minute", "1/hour for large", "2 concurrent"])
    held = await limiter.acquire(model="large")
    assert left(limiter) == [8, 0, 1]
    held.release()
    assert left(limiter) == [9, 1, 2]


async def test_every_window_is_told_by_the_models_name() -> None:
    limiter = virtual("10/minute", "5 tokens/minute for fluence-large", "3 concurrent")
    texts = ["10/minute", "5 tokens/minute for fluence-large", "3 concurrent"]
    assert [str(window.limit) for window in limiter.snapshot().windows] == texts
    assert all(f"{text}: " in repr(limiter) for text in texts)
    with pytest.raises(ValueError, match=r"'tokens'.*9 never .* 5 tokens/minute for fluence-large"):
        await limiter.acquire(model="fluence-large", costs={"tokens": 9})
    with pytest.raises(ValueError, match=r"costs\['tokens'\]=-1"):
        await limiter.acquire(model="fluence-large", costs={"tokens": -1})
