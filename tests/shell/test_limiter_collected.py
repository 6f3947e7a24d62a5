"""What happens to a limiter from outside: permits collected as garbage, locks held, forks."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from fluence_async.limiter import Limiter
from tests.shell.limiting import (
    BACKENDS,
    DEADLOCK_S,
    Changed,
    OtherLoop,
    calls,
    in_a_fork,
    left,
    quick,
    run,
    until_waiting,
)

# ─── changes while the lock is held ───────────────────────────────────────────────────────


def test_a_release_while_the_lock_is_held_is_done_by_who_comes_next() -> None:
    limiter = quick("1/hour")
    permit = limiter.acquire_nowait()
    with limiter._line.lock:
        permit.release()
    limiter.acquire_nowait().settle()


def test_changes_keep_their_order_whoever_holds_the_lock() -> None:
    limiter = quick("1/hour")
    permit = limiter.acquire_nowait()
    permit.sent()
    with limiter._line.lock:
        permit.settle()
    permit.release()  # must not be taken for a request without an answer
    (window,) = limiter.snapshot().windows
    assert window.next_free_s is not None
    assert window.next_free_s <= 3600


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_release_while_the_lock_is_held_serves_who_waits(backend: str) -> None:
    limiter = quick("1/hour")
    permit = limiter.acquire_nowait()
    loop = OtherLoop(backend, partial(calls, limiter, 1))
    until_waiting(limiter, 1)
    with limiter._line.lock:
        permit.release()
    loop.join()


# ─── permits that nobody holds ────────────────────────────────────────────────────────────


def test_a_permit_that_is_dropped_is_released() -> None:
    limiter = quick("2/hour", unseen_s=1.0)
    limiter.acquire_nowait()
    assert left(limiter) == [2]
    limiter.acquire_nowait().sent()
    (window,) = limiter.snapshot().windows
    assert window.left == 1
    assert window.used == 1
    limiter.acquire_nowait()
    limiter.acquire_nowait().release()
    assert left(limiter) == [1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_permit_that_is_dropped_serves_who_waits(backend: str) -> None:
    limiter = quick("1/hour")
    held = [limiter.acquire_nowait()]

    async def main() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(calls, limiter, 1)
            while not limiter.snapshot().waiting:
                await anyio.sleep(0)
            held.clear()

    run(backend, main)
    assert left(limiter) == [0]


class _Suspension:
    """Awaited, it suspends its coroutine, which nobody will resume."""

    def __await__(self) -> Iterator[None]:
        yield


async def hold(limiter: Limiter, myself: list[Any]) -> None:
    """Take a permit, and never come back. `myself` holds this coroutine: only a garbage
    collection ends it."""
    permit = await limiter.acquire()
    try:
        await _Suspension()
    finally:
        permit.release()


@pytest.fixture
def collecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Limiter], None]]:
    """Makes a limiter collect garbage amid its locked lines, and nothing else does."""

    def collect_in(limiter: Limiter) -> None:
        store = limiter._line.store

        def take(*args: Any) -> int:
            assert limiter._line.lock.locked()
            gc.collect()
            return store.take(*args)

        limiter._line.store = Changed(store, take)  # type: ignore[assignment]

    gc.collect()
    gc.disable()
    yield collect_in
    gc.enable()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dropped", ["permit", "coroutine"])
def test_what_is_collected_amid_the_limiters_own_lines_comes_back_and_locks_nothing(
    backend: str, dropped: str, collecting: Callable[[Limiter], None]
) -> None:
    limiter = quick("2/hour")
    cycle: list[Any] = []
    if dropped == "permit":
        cycle += [limiter.acquire_nowait(), cycle]
    else:
        cycle.append(hold(limiter, cycle))
        cycle[0].send(None)
    flying = limiter.acquire_nowait()
    assert left(limiter) == [0]
    del cycle
    collecting(limiter)
    run(backend, calls, limiter, 1)  # parks; the collection comes with its second try to take
    flying.release()
    assert (left(limiter), limiter._line._homes) == ([1], {})


def test_a_waiter_that_is_collected_while_it_is_served_passes_its_unit_on(
    collecting: Callable[[Limiter], None],
) -> None:
    limiter = quick("1/hour")
    flying = limiter.acquire_nowait()

    async def main() -> None:
        cycle: list[Any] = [limiter.acquire()]
        cycle.append(cycle)
        cycle[0].send(None)
        cycle[0] = (cycle[0], cycle)
        other = asyncio.create_task(limiter.acquire())
        await asyncio.sleep(0)
        assert limiter.snapshot().waiting == 2
        del cycle
        collecting(limiter)
        flying.release()
        (await asyncio.wait_for(other, DEADLOCK_S)).release()

    asyncio.run(main())
    assert (left(limiter), limiter._line._homes) == ([1], {})


# ─── forks ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forked_child_goes_on_with_what_was_used_and_nobody_waiting(backend: str) -> None:
    limiter = quick("4/hour")
    limiter.acquire_nowait().settle()
    flying = limiter.acquire_nowait()

    def child() -> None:
        assert (left(limiter), limiter.snapshot().waiting) == ([2], 0)
        flying.refused()  # the parent's, and its business
        flying.release()
        assert left(limiter) == [2]
        run(backend, calls, limiter, 2)
        assert left(limiter) == [0]

    async def parent() -> None:
        large = asyncio.ensure_future(limiter.acquire(costs={"requests": 3}))
        await asyncio.sleep(0)
        assert limiter.snapshot().waiting == 1
        thread = threading.Thread(target=in_a_fork, args=[child])
        thread.start()
        while thread.is_alive():
            await asyncio.sleep(0.002)
        flying.release()
        (await large).release()

    asyncio.run(parent())
    assert left(limiter) == [3]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_holds_the_lock_does_not_deadlock_the_child() -> None:
    limiter = quick("4/hour")
    with limiter._line.lock:
        thread = threading.Thread(
            target=in_a_fork, args=[lambda: limiter.acquire_nowait().settle()]
        )
        thread.start()
        thread.join(DEADLOCK_S)
        assert not thread.is_alive()
