"""One limiter and many loops: in threads, one after another, closed or standing still.

In real time, with windows of milliseconds; nothing here depends on how long anything takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from fluence_async._sansio.bucket import NEVER, Claim
from fluence_async.limiter import Limiter, Permit
from fluence_async.limiter._park import home_in
from fluence_async.limiter._queue import Waiter
from tests.shell.limiting import (
    BACKENDS,
    DEADLOCK_S,
    Changed,
    OtherLoop,
    calls,
    left,
    quick,
    run,
    store,  # noqa: F401
    until_waiting,
)

# ─── loops side by side and one after another ─────────────────────────────────────────────


@pytest.mark.parametrize("second", BACKENDS)
@pytest.mark.parametrize("first", BACKENDS)
def test_loops_in_two_threads_share_one_limiter(first: str, second: str) -> None:
    limiter = quick("3/0.02s")
    taken: list[int] = []

    def note() -> None:
        (window,) = limiter.snapshot().windows
        taken.append(window.used)

    loops = [OtherLoop(b, partial(calls, limiter, 40, note)) for b in (first, second)]
    for loop in loops:
        loop.join()
    assert len(taken) == 80
    assert max(taken) <= 3
    assert limiter.snapshot().waiting == 0


@pytest.mark.parametrize("waiting_in", BACKENDS)
@pytest.mark.parametrize("release_in", [*BACKENDS, "no loop"])
def test_a_release_wakes_a_waiter_of_another_loop(waiting_in: str, release_in: str) -> None:
    limiter = quick("1/hour")
    permit = limiter.acquire_nowait()
    loop = OtherLoop(waiting_in, partial(calls, limiter, 1))
    until_waiting(limiter, 1)

    async def release() -> None:
        permit.release()

    if release_in == "no loop":
        permit.release()
    else:
        run(release_in, release)
    loop.join()
    assert left(limiter) == [0]


@pytest.mark.parametrize("waiting_in", BACKENDS)
def test_a_settle_elsewhere_sets_the_timer_of_a_waiters_loop(waiting_in: str) -> None:
    limiter = quick("1/0.02s")
    permit = limiter.acquire_nowait()
    loop = OtherLoop(waiting_in, partial(calls, limiter, 2))
    until_waiting(limiter, 1)
    permit.settle()
    loop.join()


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_one_after_another_go_on_where_the_last_one_ended(backend: str) -> None:
    limiter = quick("5/hour")
    for _ in range(2):
        run(backend, calls, limiter, 2)
    assert left(limiter) == [1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_grant_from_another_thread_that_meets_a_cancellation_is_passed_on(backend: str) -> None:
    limiter = quick("1/hour")
    permit = limiter.acquire_nowait()
    served: list[str] = []

    async def call(name: str, scope: anyio.CancelScope) -> None:
        with scope:
            (await limiter.acquire()).settle()
            served.append(name)

    async def main() -> None:
        scopes = [anyio.CancelScope(), anyio.CancelScope()]
        async with anyio.create_task_group() as group:
            for name, scope in zip(("first", "second"), scopes, strict=True):
                group.start_soon(call, name, scope)
                await anyio.wait_all_tasks_blocked()
            thread = threading.Thread(target=permit.release)
            thread.start()
            thread.join()
            scopes[0].cancel()

    run(backend, main)
    assert served == ["second"]
    assert (left(limiter), limiter._line._homes) == ([0], {})


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_unit_that_comes_free_just_before_its_caller_parks_is_not_lost(backend: str) -> None:
    limiter = quick("1/hour")
    units = limiter._line.store
    answers = [NEVER]

    def take(*args: Any) -> int:
        return answers.pop() if answers else units.take(*args)

    limiter._line.store = Changed(units, take)  # type: ignore[assignment]
    run(backend, calls, limiter, 1)
    assert (left(limiter), limiter._line._homes) == ([0], {})


@pytest.mark.parametrize(
    "backends", [("asyncio", "trio"), ("trio", "trio"), ("asyncio", "asyncio")]
)
def test_nothing_is_lost_between_threads_whatever_is_cancelled_when(
    backends: tuple[str, str],
) -> None:
    limiter = quick("4/0.02s", unseen_s=0.01)
    most_used = 0

    async def call(chance: random.Random) -> None:
        nonlocal most_used
        with anyio.move_on_after(chance.choice([0, 0.001, 0.02, DEADLOCK_S])):
            permit = await limiter.acquire(lane=chance.randrange(2))
            most_used = max(most_used, limiter.snapshot().windows[0].used)
            try:
                await anyio.sleep(chance.choice([0, 0.001]))
                permit.sent()
                await anyio.sleep(chance.choice([0, 0.001]))
                permit.settle()
            finally:
                permit.release()

    async def many() -> None:
        chance = random.Random(1)
        async with anyio.create_task_group() as group:
            for _ in range(150):
                group.start_soon(call, chance)
                await anyio.sleep(chance.choice([0, 0, 0.001]))

    loops = [OtherLoop(backend, many) for backend in backends]
    for loop in loops:
        loop.join()
    assert 0 < most_used <= 4
    assert (limiter.snapshot().waiting, limiter._line._homes) == (0, {})
    time.sleep(0.04)
    assert left(limiter) == [4]


# ─── loops that end or stand still ────────────────────────────────────────────────────────


def asyncio_loop_with_a_waiter(limiter: Limiter) -> tuple[asyncio.AbstractEventLoop, Any]:
    """A loop that does not run, in which a task waits for a unit."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(limiter.acquire())
    loop.run_until_complete(asyncio.sleep(0))
    assert limiter.snapshot().waiting == 1
    return loop, task


@contextlib.contextmanager
def destroyed_pending_tasks_are_expected() -> Iterator[None]:
    """asyncio logs a task that is dropped while it waits; that is not the limiter's business."""
    logger = asyncio.log.logger  # type: ignore[attr-defined]
    logger.disabled = True
    try:
        yield
        gc.collect()
    finally:
        logger.disabled = False


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_waiters_of_a_closed_loop_hold_up_nobody(backend: str) -> None:
    limiter = quick("1/0.02s")
    flying = limiter.acquire_nowait()
    loop, task = asyncio_loop_with_a_waiter(limiter)
    flying.settle()
    loop.close()
    run(backend, calls, limiter, 3)
    assert limiter.snapshot().waiting == 0
    with destroyed_pending_tasks_are_expected():
        del task
    run(backend, calls, limiter, 1)


def test_all_waiters_of_a_closed_loop_go_at_once() -> None:
    limiter = Limiter("1/hour")
    permit = limiter.acquire_nowait()
    loop, task = asyncio_loop_with_a_waiter(limiter)
    others = [loop.create_task(limiter.acquire()) for _ in range(3)]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    permit.settle()  # there is a time for which to set the timer
    assert (left(limiter), limiter.snapshot().waiting, limiter._line._homes) == ([0], 0, {})
    with destroyed_pending_tasks_are_expected():
        del task, others
    assert left(limiter) == [0]


def test_a_timer_that_cannot_be_set_because_the_loop_is_closed_loses_nobody_else() -> None:
    limiter = quick("1/0.02s")
    permit = limiter.acquire_nowait()
    loop, task = asyncio_loop_with_a_waiter(limiter)
    other = OtherLoop("trio", partial(calls, limiter, 1))
    until_waiting(limiter, 2)
    loop.close()
    permit.settle()  # sets the timers of both loops
    other.join()
    assert limiter.snapshot().waiting == 0
    with destroyed_pending_tasks_are_expected():
        del task


def test_a_loop_that_stands_still_holds_one_unit_and_not_the_queue() -> None:
    limiter = quick("2/0.02s")
    flying = [limiter.acquire_nowait() for _ in range(2)]
    loop, task = asyncio_loop_with_a_waiter(limiter)
    for permit in flying:
        permit.settle()
    run("asyncio", calls, limiter, 4)
    permit = loop.run_until_complete(task)
    assert isinstance(permit, Permit)
    permit.release()
    loop.close()


def test_a_waiter_whose_coroutine_is_closed_leaves() -> None:
    limiter = quick("1/hour")
    flying = limiter.acquire_nowait()

    async def main() -> None:
        coroutine = limiter.acquire()
        coroutine.send(None)
        assert limiter.snapshot().waiting == 1
        coroutine.close()
        assert limiter.snapshot().waiting == 0

    asyncio.run(main())
    flying.release()
    assert left(limiter) == [1]


def test_a_trio_run_that_crashes_with_waiters_leaves_nothing() -> None:
    limiter = quick("1/hour")
    flying = limiter.acquire_nowait()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(limiter.acquire)
            await trio.testing.wait_all_tasks_blocked()
            raise OSError

    with pytest.raises(ExceptionGroup):
        trio.run(main)
    flying.release()
    assert (left(limiter), limiter.snapshot().waiting, limiter._line._homes) == ([1], 0, {})


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_may_end_right_after_its_only_waiter_has_left(backend: str) -> None:
    limiter = quick("1/hour")
    limiter.acquire_nowait().settle()

    async def main() -> None:
        with anyio.CancelScope() as scope:
            scope.cancel()
            await limiter.acquire()

    for _ in range(5):
        run(backend, main)
    assert (limiter.snapshot().waiting, limiter._line._homes) == (0, {})


def test_a_timer_that_is_set_when_all_have_left_spawns_nothing_in_a_trio_run_that_may_end() -> None:
    async def main() -> None:
        rings: list[Any] = []
        home = home_in(trio.lowlevel.current_trio_token(), rings.append)
        home.set_timer(0)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert rings == []
        home.waiting = 1
        home.set_timer(0)
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert rings == [home]

    trio.run(main)


def test_a_post_to_a_finished_trio_run_is_a_closed_loop() -> None:
    limiter = quick("1/hour")
    flying = limiter.acquire_nowait()

    async def main() -> trio.lowlevel.TrioToken:
        return trio.lowlevel.current_trio_token()

    home = home_in(trio.run(main), lambda _: None)  # what is left if a run ends unnoticed
    home.waiting = 1
    limiter._line._homes[home.loop] = home
    limiter._line.queue.append(Waiter(Claim({"requests": 1}), 1, NEVER, home, limiter._line.store))
    flying.release()
    assert (left(limiter), limiter.snapshot().waiting, limiter._line._homes) == ([1], 0, {})
