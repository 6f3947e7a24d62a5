"""A task parks and is woken from anywhere, a timer rings: all that a limiter asks of a loop.

Law: a ticket is woken once, and a wake that comes before its task has parked is not lost. What
touches a loop is done in that loop: a wake at once where one of its own tasks is running (nothing
of the loop's own is interrupted then, not even by a finalizer), all else by `post`.

Rejected: `anyio.Event` (2.5 KB a waiter, against a future's tenth of it, and no other thread may
set it); a cancel scope for each waiter's deadline (1 KB; the limiter has one timer instead).
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .._sansio.bucket import NEVER

if TYPE_CHECKING:
    import asyncio

    import trio

__all__ = ["Home", "LoopClosed", "home_in", "loop_of_task"]

_SLACK_S = 1e-6
"""Timers aim a little late: a loop counts in floats, and one that rings an epsilon too early
would have to be set anew, again and again if its clock stands still meanwhile."""


class LoopClosed(Exception):
    """The loop of `home` is gone, and with it its tasks."""

    def __init__(self, home: Home) -> None:
        super().__init__()
        self.home = home


def loop_of_task() -> Any:
    """What stands for the loop of the task that is running here: an asyncio loop, a trio token, or
    None. Neither library is imported: one that is not loaded runs no task."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_task():
        return trio.lowlevel.current_trio_token()
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        with suppress(RuntimeError):  # "no running event loop"
            if asyncio.current_task() is not None:
                return asyncio.get_running_loop()
    return None


def home_in(loop: Any, ring: Callable[[Home], None]) -> Home:
    """The home of tasks that park in `loop`, as `loop_of_task` names it; `ring` is its timer's."""
    if loop is None:
        raise RuntimeError("acquire() waits in a task of asyncio or trio, and none is running")
    return _AsyncioHome(loop, ring) if hasattr(loop, "create_future") else _TrioHome(loop, ring)


class Home(ABC):
    """Where tasks of one loop park, with one timer.

    Attributes:
        loop: The loop, as `loop_of_task` names it.
        waiting: How many are parked here; kept by the limiter, like the next one.
        armed: When the timer rings, in the limiter's time.
    """

    __slots__ = ("armed", "loop", "ring", "waiting")

    def __init__(self, loop: Any, ring: Callable[[Home], None]) -> None:
        self.loop: Any = loop
        self.ring: Callable[[Home], None] = ring
        self.waiting: int = 0
        self.armed: int = NEVER

    @abstractmethod
    def time(self) -> float:
        """The loop's clock, in seconds."""

    @abstractmethod
    def ticket(self) -> Any:
        """What one task parks on."""

    @abstractmethod
    def park(self, ticket: Any) -> Awaitable[None]:
        """Wait until the ticket is woken."""

    @abstractmethod
    def wake(self, ticket: Any) -> None:
        """Wake the task that parks on `ticket`, or is about to. In the loop only."""

    @abstractmethod
    def set_timer(self, delay_s: float) -> None:
        """Let the timer ring in so many seconds, and at no other time. In the loop only."""

    @abstractmethod
    def close(self) -> None:
        """Let the timer never ring again. In the loop only."""

    @abstractmethod
    def post(self, do: Callable[..., object], *args: Any) -> None:
        """Do something in the loop, soon; from any thread and any place.

        Raises:
            LoopClosed: It will never be done.
        """


class _AsyncioHome(Home):
    __slots__ = ("_timer",)

    loop: asyncio.AbstractEventLoop

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[Home], None]) -> None:
        super().__init__(loop, ring)
        self._timer: asyncio.TimerHandle | None = None

    def time(self) -> float:
        return self.loop.time()

    def ticket(self) -> asyncio.Future[None]:
        return self.loop.create_future()

    def park(self, ticket: asyncio.Future[None]) -> asyncio.Future[None]:
        return ticket

    def wake(self, ticket: asyncio.Future[None]) -> None:
        if not ticket.done():
            ticket.set_result(None)

    def set_timer(self, delay_s: float) -> None:
        self.close()
        self._timer = self.loop.call_later(delay_s + _SLACK_S, self.ring, self)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def post(self, do: Callable[..., object], *args: Any) -> None:
        try:
            self.loop.call_soon_threadsafe(do, *args)
        except RuntimeError:  # "Event loop is closed"
            raise LoopClosed(self) from None


class _TrioTicket:
    __slots__ = ("task", "woken")

    def __init__(self) -> None:
        self.task: trio.lowlevel.Task | None = None
        self.woken = False

    def abort(self, _: object) -> trio.lowlevel.Abort:
        import trio

        self.task = None
        return trio.lowlevel.Abort.SUCCEEDED


class _TrioHome(Home):
    __slots__ = ("_timer",)

    loop: trio.lowlevel.TrioToken

    def __init__(self, loop: trio.lowlevel.TrioToken, ring: Callable[[Home], None]) -> None:
        super().__init__(loop, ring)
        self._timer: trio.CancelScope | None = None

    def time(self) -> float:
        import trio

        return trio.current_time()

    def ticket(self) -> _TrioTicket:
        return _TrioTicket()

    async def park(self, ticket: _TrioTicket) -> None:
        import trio

        if not ticket.woken:
            ticket.task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(ticket.abort)

    def wake(self, ticket: _TrioTicket) -> None:
        import trio

        ticket.woken = True
        task, ticket.task = ticket.task, None
        if task is not None:
            trio.lowlevel.reschedule(task)

    def set_timer(self, delay_s: float) -> None:
        import trio

        self.close()
        if self.waiting:  # or else the run may be over, where no task may be spawned
            self._timer = trio.CancelScope(deadline=trio.current_time() + delay_s + _SLACK_S)
            trio.lowlevel.spawn_system_task(self._sleep, self._timer, name=type(self).__qualname__)

    async def _sleep(self, timer: trio.CancelScope) -> None:
        import trio

        with timer:
            await trio.sleep_forever()
        if self._timer is timer:
            self._timer = None
            self.ring(self)

    def close(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def post(self, do: Callable[..., object], *args: Any) -> None:
        import trio

        try:
            self.loop.run_sync_soon(do, *args)
        except trio.RunFinishedError:
            raise LoopClosed(self) from None
