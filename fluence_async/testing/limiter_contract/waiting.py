"""Waiting: in which order, for how long, and what is left of it."""

from __future__ import annotations

import time

import anyio

from ...errors import APITimeoutError, FluenceError, LimitWaitError
from ..transport_contract._expect import expect, raises
from ._limiter import PATIENCE_S, ContractLimiter, Factory, acquired, new_name

__all__ = [
    "a_call_that_is_cancelled_while_it_waits_leaves_nothing",
    "a_deadline_ends_the_wait",
    "a_pause_holds_all",
    "callers_are_served_in_the_order_in_which_they_came",
    "interactive_calls_go_before_batch_calls",
]

_SLACK_S = 0.001


async def _served(limiter: ContractLimiter, first: str, *comers: tuple[str, int]) -> list[str]:
    """Who is served when, if all but `first` come while its unit is out."""
    order = [first]
    held = await acquired(limiter)

    async def call(name: str, lane: int) -> None:
        permit = await limiter.acquire(lane=lane)
        order.append(name)
        permit.release()

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for name, lane in comers:
                tasks.start_soon(call, name, lane)
                await anyio.sleep(0.02)  # each has come before the next
            held.release()
    return order


async def callers_are_served_in_the_order_in_which_they_came(factory: Factory) -> None:
    """Within one limiter."""
    order = await _served(factory(new_name(), ("1/hour",)), "a", ("b", 0), ("c", 0), ("d", 0))
    expect(order == ["a", "b", "c", "d"], f"first come, first served; it was {order}")


async def interactive_calls_go_before_batch_calls(factory: Factory) -> None:
    """Though they came later."""
    order = await _served(factory(new_name(), ("1/hour",)), "a", ("batch", 1), ("chat", 0))
    expect(order == ["a", "chat", "batch"], f"lane 0 goes before lane 1; it was {order}")


async def a_call_that_is_cancelled_while_it_waits_leaves_nothing(factory: Factory) -> None:
    """No unit and no place in the line, whenever it is cancelled."""
    limiter = factory(new_name(), ("1/hour",))
    for wait in (0.0, 0.001, 0.02):
        held = await acquired(limiter)
        with anyio.move_on_after(wait):
            (await limiter.acquire()).release()
            expect(False, "a unit that is out cannot be had")
        held.release()
    (await acquired(limiter)).release()


async def a_deadline_ends_the_wait(factory: Factory) -> None:
    """With a LimitWaitError if the wait is known to be too long, or with an APITimeoutError."""
    for limits in (("1/hour",), ("1/0.5s",)):
        limiter = factory(new_name(), limits)
        held = await acquired(limiter)
        if limits == ("1/0.5s",):
            held.sent()
            held.settle()
        with anyio.fail_after(PATIENCE_S):
            with raises(FluenceError) as refused:
                await limiter.acquire(deadline=anyio.current_time() + 0.05)
        known = isinstance(refused.value, APITimeoutError | LimitWaitError)
        expect(known, f"a deadline's own error, and not {refused.value!r}")
        held.release()


async def a_pause_holds_all(factory: Factory) -> None:
    """Whatever is free; and only as long as the server asked for, or a little longer."""
    limiter = factory(new_name(), ("5/hour",))
    (await acquired(limiter)).release()
    paused = time.monotonic()
    limiter.pause(0.2)
    (await acquired(limiter)).release()
    expect(time.monotonic() - paused >= 0.2 - _SLACK_S, "nobody goes before the pause is over")
