"""Deadlines in, one loop timer for all of them out.

Law: setting a deadline costs a comparison. The timer is armed for the earliest deadline there was;
when it fires it looks at what is watched now, ends what is late, and is armed for the next. A
cancel scope or a timer for each wait would cost more than the wait. It looks one turn
of the loop later than it could: when the loop was busy for longer than a deadline, what came in
time has only just been read, and a reader is told of that first.
"""

from __future__ import annotations

import asyncio
import math
from typing import Protocol

__all__ = ["Watchdog", "Watched"]


class Watched(Protocol):
    """What has a deadline.

    Attributes:
        deadline: On the loop's clock; `math.inf` for none.
    """

    deadline: float

    def expire(self) -> None:
        """The deadline has passed."""

    def end(self) -> None:
        """Whose watchdog it is, is closed."""


class Watchdog:
    """The deadlines of one transport."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._watched: set[Watched] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.wakes_at = math.inf

    def watch(self, watched: Watched) -> None:
        """Mind its deadline, until `forget`."""
        self._watched.add(watched)
        if watched.deadline < self.wakes_at:
            self.wake_at(watched.deadline)

    def forget(self, watched: Watched) -> None:
        """Mind it no more."""
        self._watched.discard(watched)

    def wake_at(self, when: float) -> None:
        """Look no later than at `when`: a deadline came forward to it."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_at(when, self._wake)
        self.wakes_at = when

    def _wake(self) -> None:
        self._timer, self.wakes_at = None, math.inf
        self.loop.call_soon(self._look, self.loop.time())

    def _look(self, now: float) -> None:
        for watched in tuple(self._watched):
            if watched.deadline <= now:
                watched.deadline = math.inf
                watched.expire()
        following = min((watched.deadline for watched in self._watched), default=math.inf)
        if following < self.wakes_at:
            self.wake_at(following)

    def close(self) -> None:
        """Mind nothing any more, and end what is minded."""
        while self._watched:
            self._watched.pop().end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer, self.wakes_at = None, math.inf
