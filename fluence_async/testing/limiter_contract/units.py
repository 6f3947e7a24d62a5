"""Units: how many there are, and when they come back."""

from __future__ import annotations

import gc
import time

import anyio

from ..transport_contract._expect import expect, raises
from ._limiter import (
    PATIENCE_S,
    ContractPermit,
    Factory,
    acquired,
    busiest,
    new_name,
    used_up,
    waits,
)

__all__ = [
    "a_cost_that_never_fits_is_refused",
    "a_delivered_unit_comes_back_no_earlier_than_a_period_later",
    "a_permit_bears_any_call_in_any_order",
    "a_permit_that_is_forgotten_comes_back",
    "a_released_unit_is_free_at_once",
    "a_sent_request_without_an_answer_keeps_its_unit",
    "a_settled_unit_comes_back_one_period_later",
    "all_windows_hold_together",
    "limiters_of_one_name_share_their_units",
    "limiters_of_other_names_do_not",
    "many_tasks_never_pass_the_limit",
    "other_costs_are_counted_too",
    "other_costs_are_in_flight_until_the_end",
    "units_that_are_free_are_had_without_waiting",
]

_PERIOD_S = 0.2
_SLACK_S = 0.001
"""What two readings of a clock may differ by; never what a limiter may be early by."""


async def units_that_are_free_are_had_without_waiting(factory: Factory) -> None:
    """As many as the limit says; the next one waits."""
    limiter = factory(new_name(), ("3/hour",))
    with anyio.fail_after(PATIENCE_S):
        permits = [await limiter.acquire() for _ in range(3)]
    expect(await waits(limiter), "the fourth of three waits")
    for permit in permits:
        permit.release()


async def a_released_unit_is_free_at_once(factory: Factory) -> None:
    """Because nothing was sent."""
    limiter = factory(new_name(), ("2/hour",))
    first, second = await used_up(limiter, 2)
    first.release()
    third = await acquired(limiter)
    expect(await waits(limiter), "one was released, and one came of it")
    second.release()
    third.release()
    for permit in await used_up(limiter, 2):
        permit.release()


async def a_settled_unit_comes_back_one_period_later(factory: Factory) -> None:
    """Not before, or the server would count one too many; and not never."""
    limiter = factory(new_name(), ("2/0.2s",))
    for permit in await used_up(limiter, 2):
        permit.sent()
        permit.settle()
    settled = time.monotonic()
    (await acquired(limiter)).release()
    expect(
        time.monotonic() - settled >= _PERIOD_S - _SLACK_S,
        f"a settled unit stays away for its period, {_PERIOD_S} s",
    )


async def a_delivered_unit_comes_back_no_earlier_than_a_period_later(factory: Factory) -> None:
    """Or it waits for the response's headers, as it likes."""
    limiter = factory(new_name(), ("1/0.2s",))
    permit = await acquired(limiter)
    permit.sent()
    delivered = time.monotonic()
    permit.delivered()
    with anyio.move_on_after(2):
        (await limiter.acquire()).release()
    expect(time.monotonic() - delivered >= _PERIOD_S - _SLACK_S, "a period away at least")
    permit.settle()
    permit.release()
    (await acquired(limiter)).release()


async def a_sent_request_without_an_answer_keeps_its_unit(factory: Factory) -> None:
    """It may still arrive: its unit comes back later than that of an answered one."""
    limiter = factory(new_name(), ("1/0.01s",))
    permit = await acquired(limiter)
    permit.sent()
    permit.release()
    expect(await waits(limiter, 0.5), "what was sent and not answered may still arrive")


async def a_permit_that_is_forgotten_comes_back(factory: Factory) -> None:
    """Whoever drops it, by mistake, must not hold up the others for good."""
    limiter = factory(new_name(), ("1/hour",))
    permit: ContractPermit | None = await acquired(limiter)
    expect(permit is not None, "a permit")
    permit = None
    gc.collect()
    (await acquired(limiter)).release()


async def a_permit_bears_any_call_in_any_order(factory: Factory) -> None:
    """And again; only the first of settle and release counts."""
    limiter = factory(new_name(), ("1/0.01s",))
    for steps in (
        "release settle sent",
        "settle release settle",
        "sent settle settle release",
        "sent settle sent release",
        "delivered sent delivered delivered settle release delivered",
    ):
        permit = await acquired(limiter)
        for step in steps.split():
            getattr(permit, step)()
    (await acquired(limiter)).release()


async def a_cost_that_never_fits_is_refused(factory: Factory) -> None:
    """At once, with a ValueError: waiting would not help."""
    limiter = factory(new_name(), ("2/hour",))
    for costs in ({"requests": 3}, {"elephants": 1}):
        with raises(ValueError), anyio.fail_after(PATIENCE_S):
            await limiter.acquire(costs=costs)
    for permit in await used_up(limiter, 2):
        permit.release()


async def other_costs_are_counted_too(factory: Factory) -> None:
    """All of them or none are taken."""
    limiter = factory(new_name(), ("10/hour", "100 tokens/hour"))
    first = await acquired(limiter, costs={"tokens": 60})
    with anyio.move_on_after(0.05) as waited:
        (await limiter.acquire(costs={"tokens": 50})).release()
    expect(waited.cancelled_caught, "60 and 50 tokens are more than 100")
    first.release()
    (await acquired(limiter, costs={"tokens": 100})).release()


async def other_costs_are_in_flight_until_the_end(factory: Factory) -> None:
    """The request is settled when it has arrived; the rest when it is over, with what it came
    to."""
    limiter = factory(new_name(), ("9/0.01s", "100 tokens/0.2s"))
    held = await acquired(limiter, costs={"tokens": 80})
    held.sent()
    held.settle()
    with anyio.move_on_after(0.4) as waited:
        (await limiter.acquire(costs={"tokens": 30})).release()
    expect(waited.cancelled_caught, "80 of 100 tokens are in flight until the call's end")
    over = time.monotonic()
    held.release({"tokens": 60})
    (await acquired(limiter, costs={"tokens": 30})).release()
    (await acquired(limiter, costs={"tokens": 60})).release()
    expect(
        time.monotonic() - over >= _PERIOD_S - _SLACK_S,
        "60 tokens were used, and stay away for a period from the call's end",
    )


async def all_windows_hold_together(factory: Factory) -> None:
    """The tightest decides."""
    limiter = factory(new_name(), ("5/0.05s", "8/hour"))
    for _ in range(8):
        permit = await acquired(limiter)
        permit.sent()
        permit.settle()
    expect(await waits(limiter, 0.3), "the hour is used up, though the other window is not")


async def many_tasks_never_pass_the_limit(factory: Factory) -> None:
    """In no window, wherever it begins; and all are served."""
    limiter = factory(new_name(), ("5/0.2s",))
    arrived: list[float] = []

    async def call() -> None:
        permit = await limiter.acquire()
        try:
            permit.sent()
            arrived.append(time.monotonic())  # the server counts it
            await anyio.sleep(0.001)
            permit.settle()
        finally:
            permit.release()

    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(call)
    expect(len(arrived) == 20, "every call is served")
    most = busiest(arrived, _PERIOD_S)
    expect(most <= 5, f"at most 5 in any {_PERIOD_S} s, and there were {most}")


async def limiters_of_one_name_share_their_units(factory: Factory) -> None:
    """Because the server counts them together."""
    name = new_name()
    one, other = factory(name, ("2/hour",)), factory(name, ("2/hour",))
    first = await acquired(one)
    second = await acquired(other)
    expect(await waits(one) and await waits(other), "both units are gone for both")
    first.release()
    (await acquired(other)).release()
    second.release()


async def limiters_of_other_names_do_not(factory: Factory) -> None:
    """Each has its own."""
    one, other = factory(new_name(), ("1/hour",)), factory(new_name(), ("1/hour",))
    for permit in (await acquired(one), await acquired(other)):
        permit.release()
