"""What tests of the limiter have in common: callers in virtual time, loops in threads, forks."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskGroup

from fluence_async.errors import APITimeoutError, LimitWaitError
from fluence_async.limiter import Limiter, Permit

# ─── in memory and in a file ──────────────────────────────────────────────────────────────

_paths: Iterator[Path] | None = None


@pytest.fixture(params=["memory", "file"], autouse=True)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    """Where the units of `virtual` and `quick` limiters are, each in a file of its own. A module
    whose tests hold for both says `from tests.shell.limiting import store`."""
    global _paths
    if request.param == "file":
        _paths = (tmp_path / str(number) for number in itertools.count())
    yield
    _paths = None


def new_path() -> Path | None:
    """For one more limiter."""
    return None if _paths is None else next(_paths)


# ─── in virtual time ──────────────────────────────────────────────────────────────────────

HOLD = 60 + 0.05 + 0.03
"""A minute's window: the period, 50 ms, and 5e-4 of the period."""


def virtual(*limits: str, **options: Any) -> Limiter:
    """A limiter by the running loop's clock, which stands still when that has ended."""
    now = 0

    def clock() -> int:
        nonlocal now
        with suppress(RuntimeError):
            now = round(anyio.current_time() * 1e9)
        return now

    return Limiter(limits, clock=clock, path=new_path(), **options)


async def all_parked() -> None:
    """Let every task go on until it waits."""
    for _ in range(6):
        await anyio.lowlevel.checkpoint()


def left(limiter: Limiter) -> list[int]:
    return [window.left for window in limiter.snapshot().windows]


class Callers:
    """Tasks that acquire, and note who was served when, in seconds since the first of them."""

    def __init__(self, limiter: Limiter, group: TaskGroup) -> None:
        self.limiter = limiter
        self.group = group
        self.begun = anyio.current_time()
        self.served: list[tuple[Any, float]] = []
        self.permits: dict[Any, Permit] = {}
        self.failed: dict[Any, BaseException] = {}
        self.scopes: dict[Any, anyio.CancelScope] = {}

    @property
    def names(self) -> list[Any]:
        return [name for name, _ in self.served]

    async def come(self, *names: Any, **how: Any) -> None:
        """Come one after the other (trio starts tasks in no order)."""
        for name in names:
            self.group.start_soon(partial(self._call, name, **how))
            await all_parked()

    async def _call(self, name: Any, settle: bool = True, **how: Any) -> None:
        with anyio.CancelScope() as self.scopes[name]:
            try:
                permit = self.permits[name] = await self.limiter.acquire(**how)
            except (ValueError, APITimeoutError, LimitWaitError) as error:
                self.failed[name] = error
                return
            self.served.append((name, round(anyio.current_time() - self.begun, 4)))
            if settle:
                permit.settle()
                permit.release()


@asynccontextmanager
async def callers(limiter: Limiter) -> AsyncIterator[Callers]:
    async with anyio.create_task_group() as group:
        yield Callers(limiter, group)
        group.cancel_scope.cancel()
    assert limiter.snapshot().waiting == 0


def after(seconds: float) -> float:
    return anyio.current_time() + seconds


# ─── in real time, with windows of milliseconds ───────────────────────────────────────────

BACKENDS = ["asyncio", "trio"]
DEADLOCK_S = 20


def quick(limit: str = "2/0.01s", **options: Any) -> Limiter:
    return Limiter(limit, margin_s=0, drift=0, reserve=0, path=new_path(), **options)


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
    give_up = time.monotonic() + DEADLOCK_S
    while limiter.snapshot().waiting < count:
        assert time.monotonic() < give_up
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


class Changed:
    """A store that takes in another way."""

    def __init__(self, store: Any, take: Callable[..., int]) -> None:
        self._store = store
        self.take = take

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def run(backend: str, main: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
    return anyio.run(main, *args, backend=backend)


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
