"""Limits of one model, and who waits for them: the calls of other models go on."""

from __future__ import annotations

import itertools
from pathlib import Path

import anyio
import pytest

from fluence_async import Limiter, LimitWaitError
from tests.shell import limiting
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


async def test_whom_both_limits_hold_up_is_passed_as_soon_as_everybodys_does_no_more() -> None:
    limiter = virtual("2/minute", "1/hour for large")
    await used_up(limiter, "large")
    await used_up(limiter, "small")
    async with callers(limiter) as tasks:
        await tasks.come("large", model="large")
        await tasks.come("small", model="small")
        await anyio.sleep(HOLD + 0.01)
        assert tasks.names == ["small"]


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


@pytest.mark.parametrize("store", ["file"], indirect=True)
@pytest.mark.parametrize("lane", [0, 1])
async def test_who_waits_for_its_models_limit_holds_up_no_other_process(
    lane: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limiting, "_paths", itertools.repeat(tmp_path / "shared"))
    limits = ("2/second", "1/hour for large")
    one, other = virtual(*limits, reserve=0), virtual(*limits, reserve=0)
    await anyio.sleep(1)  # who comes at 0 shows no ticket
    async with callers(one) as large, callers(other) as small:
        await large.come("first", "waits", model="large", lane=lane)
        await small.come(*range(60))
        await anyio.sleep(32)
        assert sorted(small.names) == [*range(60)]
        assert large.names == ["first"]
        await small.come(*range(100, 130), lane=1)
        await small.come(*range(200, 230))
        await anyio.sleep(1)
        large.scopes["waits"].cancel()
        await large.come(*range(30), lane=1)  # nobody is owed what that one could not take
        await anyio.sleep(20)
        interactive = [name for name in small.names[60:] if name >= 200]
        assert len(interactive) >= 24, small.names[60:]


async def test_a_batch_call_that_its_models_limit_holds_up_is_owed_no_more_than_one_turn() -> None:
    limiter = virtual("30/minute", "1/hour for large", reserve=0)
    await used_up(limiter, "large")
    async with callers(limiter) as tasks:
        await tasks.come("large", model="large", lane=1)
        await tasks.come(*range(29))
        await anyio.sleep(HOLD + 0.01)
        await tasks.come(*range(30, 60))
        assert len(tasks.names) == 59
        await tasks.come(*[f"b{n}" for n in range(20)], lane=1)
        await tasks.come(*[f"i{n}" for n in range(30)])
        await anyio.sleep(HOLD + 0.01)
        assert sum(name.startswith("b") for name in tasks.names[59:]) == 3  # of thirty


async def test_the_wait_of_a_batch_call_counts_the_turn_that_other_models_calls_bring() -> None:
    limiter = virtual("20/minute", "99/minute for large", reserve=0.7)
    async with callers(limiter) as tasks:
        for number in range(20):
            if number == 12:
                await tasks.come("batch", lane=1)
            await tasks.come(number)
            await anyio.sleep(1)
        assert limiter.snapshot().passed == 8
        await tasks.come(*range(20, 30), model="large")
        await tasks.come("new", lane=1, deadline=after(HOLD - 20 + 12))
        await anyio.sleep(HOLD)
        name, at = tasks.served[-1]
        assert name == "new"
        assert at == pytest.approx(HOLD + 11, abs=0.01)


async def test_others_that_wait_say_nothing_of_a_models_own_limit() -> None:
    limiter = virtual("2/minute", "1/hour for large", reserve=0)
    await used_up(limiter, "small", 2)
    async with callers(limiter) as tasks:
        await tasks.come(*range(4), model="small")
        now = limiter.snapshot()
        assert now.eta_s(1) == now.eta_s(1, model="large") == pytest.approx(3 * HOLD)
        assert now.eta_s(2, model="large") == pytest.approx(HOLD + 3600 + 0.05 + 1.8)
