"""One limiter and many loops: threads, runs one after another, loops that end, forks, finalizers.

In real time, with windows of milliseconds; nothing here depends on how long anything takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
import trio.testing

from fluence_async._sansio.bucket import NEVER, Claim
from fluence_async.limiter import Limiter, Permit
from fluence_async.limiter._park import home_in
from fluence_async.limiter._queue import Waiter

BACKENDS = ["asyncio", "trio"]
DEADLOCK_S = 20


def quick(limit: str = "2/0.01s", **options: Any) -> Limiter:
    return Limiter(limit, margin_s=0, drift=0, reserve=0, **options)


def left(limiter: Limiter) -> int:
    (window,) = limiter.snapshot().windows
    return window.left


async def calls(limiter: Limiter, count: int, note: Callable[[], None] = lambda: None) -> None:
    async def call() -> None:
        with anyio.fail_after(DEADLOCK_S):
            permit = await limiter.acquire()
        note()
        permit.sent()
        await anyio.sleep(0)
        permit.settle()

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(call)


def until_waiting(limiter: Limiter, count: int) -> None:
    while limiter.snapshot().waiting < count:
        time.sleep(0.001)


class OtherLoop:
    """A loop in a thread of its own, in which an async function runs; `call` runs code there."""

    def __init__(self, backend: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(backend, main), daemon=True)
        self._thread.start()

    def _run(self, backend: str, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            anyio.run(main, backend=backend)
        except BaseException as error:
            self.error = error

    def join(self) -> None:
        self._thread.join(DEADLOCK_S)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


class _Changed:
    """A store that takes in another way."""

    def __init__(self, store: Any, take: Callable[..., int]) -> None:
        self._store = store
        self.take = take

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def run(backend: str, main: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
    return anyio.run(main, *args, backend=backend)


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
    assert left(limiter) == 0


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
    assert left(limiter) == 1


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
    assert (left(limiter), limiter._line._homes) == (0, {})


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_unit_that_comes_free_just_before_its_caller_parks_is_not_lost(backend: str) -> None:
    limiter = quick("1/hour")
    store = limiter._line.store
    answers = [NEVER]

    def take(*args: Any) -> int:
        return answers.pop() if answers else store.take(*args)

    limiter._line.store = _Changed(store, take)  # type: ignore[assignment]
    run(backend, calls, limiter, 1)
    assert (left(limiter), limiter._line._homes) == (0, {})


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
    assert most_used == 4
    assert (limiter.snapshot().waiting, limiter._line._homes) == (0, {})
    time.sleep(0.04)
    assert left(limiter) == 4


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
    limiter.acquire_nowait().settle()
    loop, task = asyncio_loop_with_a_waiter(limiter)
    loop.close()
    run(backend, calls, limiter, 3)
    assert limiter.snapshot().waiting == 0
    with destroyed_pending_tasks_are_expected():
        del task
    run(backend, calls, limiter, 1)


def test_all_waiters_of_a_closed_loop_go_at_once() -> None:
    limiter = quick("1/hour")
    permit = limiter.acquire_nowait()
    loop, task = asyncio_loop_with_a_waiter(limiter)
    others = [loop.create_task(limiter.acquire()) for _ in range(3)]
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    permit.settle()  # there is a time for which to set the timer
    assert (left(limiter), limiter.snapshot().waiting, limiter._line._homes) == (0, 0, {})
    with destroyed_pending_tasks_are_expected():
        del task, others
    assert left(limiter) == 0


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
    for _ in range(2):
        limiter.acquire_nowait().settle()
    loop, task = asyncio_loop_with_a_waiter(limiter)
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
    assert left(limiter) == 1


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
    assert (left(limiter), limiter.snapshot().waiting, limiter._line._homes) == (1, 0, {})


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
    assert (left(limiter), limiter.snapshot().waiting, limiter._line._homes) == (1, 0, {})


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
    assert left(limiter) == 2
    limiter.acquire_nowait().sent()
    (window,) = limiter.snapshot().windows
    assert window.left == 1
    assert window.used == 1
    limiter.acquire_nowait()
    limiter.acquire_nowait().release()
    assert left(limiter) == 1


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
    assert left(limiter) == 0


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

        limiter._line.store = _Changed(store, take)  # type: ignore[assignment]

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
    assert left(limiter) == 0
    del cycle
    collecting(limiter)
    run(backend, calls, limiter, 1)  # parks; the collection comes with its second try to take
    flying.release()
    assert (left(limiter), limiter._line._homes) == (1, {})


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
    assert (left(limiter), limiter._line._homes) == (1, {})


# ─── forks ────────────────────────────────────────────────────────────────────────────────


def in_a_fork(check: Callable[[], None]) -> None:
    """Run `check` in a forked child; fail if it fails, or does not return."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(DEADLOCK_S)
        try:
            check()
        except BaseException as error:
            os.write(2, f"in the child: {error!r}\n".encode())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_forked_child_goes_on_with_what_was_used_and_nobody_waiting(backend: str) -> None:
    limiter = quick("4/hour")
    limiter.acquire_nowait().settle()
    flying = limiter.acquire_nowait()

    def child() -> None:
        assert (left(limiter), limiter.snapshot().waiting) == (2, 0)
        flying.release()  # the parent's, and its business
        assert left(limiter) == 2
        run(backend, calls, limiter, 2)
        assert left(limiter) == 0

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
    assert left(limiter) == 3


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


# ─── many ─────────────────────────────────────────────────────────────────────────────────

MANY = """
import gc, sys, tracemalloc
import anyio, anyio.lowlevel
from fluence_async.limiter import Limiter

backend, how_many, how_many_weighed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
limiter = Limiter("1/minute")
arrived, served = [], []


async def come(group, count, function):
    for place in range(count):
        group.start_soon(function, place)
        if place % 100 == 0:
            await anyio.lowlevel.checkpoint()
    for _ in range(5):
        await anyio.lowlevel.checkpoint()


async def call(place, deadline=None):
    arrived.append(place)
    permit = await limiter.acquire(deadline=deadline)
    served.append(place)
    permit.release()


async def call_until(place):
    await call(place, deadline=1e12)


async def park_only(place):
    if backend == "asyncio":
        await asyncio_future
    else:
        await wait_task_rescheduled(lambda _: Abort.SUCCEEDED)


async def bytes_each(function):
    gc.collect()
    tracemalloc.start()
    async with anyio.create_task_group() as group:
        await come(group, how_many_weighed, function)
        gc.collect()
        held = tracemalloc.get_traced_memory()[0] / how_many_weighed
        group.cancel_scope.cancel()
    tracemalloc.stop()
    return held


def is_empty():
    line = limiter._line
    return not (line.queue.size or line._homes or list(line.queue) or line.queue._deadlines)


async def main():
    global asyncio_future, wait_task_rescheduled, Abort
    if backend == "asyncio":
        import asyncio
        asyncio_future = asyncio.get_running_loop().create_future()
    else:
        from trio.lowlevel import Abort, wait_task_rescheduled
    first = limiter.acquire_nowait()
    async with anyio.create_task_group() as group:
        await come(group, how_many, call)
        assert limiter.snapshot().waiting == how_many
        first.release()
    assert served == arrived and len(served) == how_many, "out of order"
    assert is_empty()

    first = limiter.acquire_nowait()
    bare = await bytes_each(park_only)
    for function in (call, call_until):
        held = await bytes_each(function) - bare
        assert held < 1300, f"{held} bytes a waiter"
        assert is_empty(), "something is left of those who were cancelled"
        print(backend, function.__name__, round(held), "bytes")
    first.release()
    assert repr(limiter) == "<Limiter 1/minute: 1 left; 0 waiting>"


anyio.run(main, backend=backend)
"""


def python(code: str, *arguments: str) -> str:
    """What `code` prints, in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_hundred_thousand_waiters_go_in_order_are_small_and_leave_nothing(backend: str) -> None:
    print(python(MANY, backend, "100000", "5000"))


def test_the_limiter_loads_no_event_loop_before_somebody_waits() -> None:
    python(
        """
import sys, types
sys.modules["fluence_async"] = types.ModuleType("fluence_async")  # the front door loads more
sys.modules["fluence_async"].__path__ = ["fluence_async"]
from fluence_async.limiter import Limiter
Limiter().acquire_nowait().settle()
assert not {"asyncio", "trio"} & set(sys.modules)
"""
    )
