"""Dimensions beside requests: a model's own, LLM tokens, calls at once."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import anyio

from ..transport_contract._expect import expect, raises
from ._limiter import (
    PATIENCE_S,
    ContractLimiter,
    ContractPermit,
    Factory,
    acquired,
    new_name,
)

__all__ = [
    "a_dropped_permit_gives_back_what_it_held_until_the_end",
    "a_models_limit_counts_its_calls_and_no_others",
    "calls_at_once_are_counted_until_their_end",
    "limits_of_two_models_are_two",
    "too_little_reserved_becomes_a_debt",
]

_PERIOD_S = 0.2
_SLACK_S = 0.001


async def _waits(limiter: ContractLimiter, **how: object) -> bool:
    """Whether this is not to be had at once; if it is, it is given back."""
    with anyio.move_on_after(0.05):
        (await limiter.acquire(**how)).release()  # type: ignore[arg-type]
        return False
    return True


async def a_models_limit_counts_its_calls_and_no_others(factory: Factory) -> None:
    """And these count in everybody's limit too. The model's name may hold anything."""
    name = "|requests=9 %d [x] \U0001f40d: " + "long" * 99 + "!"
    limiter = factory(new_name(), ("3/hour", f"1/hour for {name}"))
    first = await acquired(limiter, model=name)
    with raises(ValueError), anyio.fail_after(PATIENCE_S):
        await limiter.acquire(model=name, costs={"requests": 2})
    second = await acquired(limiter, model="another")
    third = await acquired(limiter)
    expect(await _waits(limiter, model="another"), "all three are in everybody's limit")
    third.release()
    expect(await _waits(limiter, model=name), "the model's one is gone")
    first.release()
    (await acquired(limiter, model=name)).release()
    second.release()


async def limits_of_two_models_are_two(factory: Factory) -> None:
    """Of requests, of tokens, of calls at once alike."""
    limits = ("9/hour", "9 tokens/hour for a", "5 tokens/hour for b", "1 concurrent for b")
    limiter = factory(new_name(), limits)
    of_a = await acquired(limiter, model="a", costs={"tokens": 9})
    of_b = await acquired(limiter, model="b", costs={"tokens": 2})
    (await acquired(limiter, model="c", costs={"tokens": 99})).release()
    expect(await _waits(limiter, model="a", costs={"tokens": 1}), "a's tokens are gone")
    expect(await _waits(limiter, model="b", costs={"tokens": 1}), "b's one call is under way")
    of_b.sent()
    of_b.settle()
    of_b.release({"tokens": 4})
    (await acquired(limiter, model="b", costs={"tokens": 1})).release()
    expect(await _waits(limiter, model="b", costs={"tokens": 2}), "b's call came to four of five")
    of_a.release()
    (await acquired(limiter, model="a", costs={"tokens": 9})).release()


async def too_little_reserved_becomes_a_debt(factory: Factory) -> None:
    """What was used beyond the limit is waited for."""
    limiter = factory(new_name(), ("99/hour", "100 tokens/0.2s"))
    permit = await acquired(limiter, costs={"tokens": 10})
    permit.sent()
    permit.settle()
    over = time.monotonic()
    permit.release({"tokens": 1000})
    (await acquired(limiter, costs={"tokens": 1})).release()
    expect(
        time.monotonic() - over >= _PERIOD_S - _SLACK_S,
        "1,000 of 100 tokens are gone for a period from the call's end",
    )


async def calls_at_once_are_counted_until_their_end(factory: Factory) -> None:
    """And are back at once then, with no period, by themselves: nobody names that cost."""
    limiter = factory(new_name(), ("99/0.01s", "2 concurrent"))
    first, second = await acquired(limiter), await acquired(limiter)
    for permit in (first, second):
        permit.sent()
        permit.settle()
    with anyio.move_on_after(0.3) as waited:
        (await limiter.acquire()).release()
    expect(waited.cancelled_caught, "two calls are under way, though their requests were settled")
    again: list[ContractPermit] = []
    with anyio.fail_after(PATIENCE_S):
        async with anyio.create_task_group() as tasks:
            for permit in (first, second):
                tasks.start_soon(_over, permit.release, 0.05)
            again += [await limiter.acquire() for _ in range(2)]  # who waits has it as well
    expect(await _waits(limiter), "and again there are two")
    for permit in again:
        permit.release()
    for permit in (await acquired(limiter), await acquired(limiter)):
        permit.release()


async def a_dropped_permit_gives_back_what_it_held_until_the_end(factory: Factory) -> None:
    """Of a permit that was dropped: all that it held until the end."""
    limiter = factory(new_name(), ("9/hour", "100 tokens/hour", "1 concurrent"))
    for _ in range(2):
        permit = await acquired(limiter, costs={"tokens": 40})
        permit.sent()
        permit.settle()
        del permit
        gc.collect()
    expect(await _waits(limiter, costs={"tokens": 30}), "what it came to is not known: 40 each")
    (await acquired(limiter, costs={"tokens": 20})).release()


async def _over(release: Callable[[], None], after: float) -> None:
    await anyio.sleep(after)
    release()
