"""The line of waiting calls: claims go in, and each is woken when its units are taken.

Law: what may be taken is the store's business; this is order and waking. Whatever may free units
or tell when they come back (a settle, a release, the timer, somebody leaving) pumps: it serves the
queue's head as long as the store gives, then sets the timers for the next time. A head that only
its own model's limits hold up lets those of other models pass.

A line belongs to no loop, thread or session. Its state is under one lock, held for microseconds
and never over an await; a waiter is woken in its own loop. Every loop with waiters has a timer for
the queue's head, wherever that waits, so that a loop that stands still holds up nobody; one that
is closed is noticed when its waiter is to be woken: the units come back, and its waiters go.

Rejected: a task that hands out units (it lives in one loop and must be closed); a lock that is
awaited (its holder can be cancelled); polling.
"""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .._sansio.bucket import FRESH, NEVER, Claim
from .._sansio.tariff import own
from ..errors import APITimeoutError, FluenceError, LimitWaitError
from ._early import Early
from ._park import Home, LoopClosed, home_in, loop_of_task
from ._queue import Waiter, WaitQueue
from ._store import Store

__all__ = ["Line"]

_S = 1_000_000_000


class Line:
    """Everybody who waits for one store.

    Attributes:
        store: Where the units are.
        clock: Its clock, in ns.
        early: By when a request has arrived that is not answered; None to believe headers only.
        lock: Held by whoever touches anything here but `change` and `leave`, which take it.
        queue: Who waits.
    """

    def __init__(self, store: Store, clock: Callable[[], int], early: Early | None) -> None:
        self.store: Store = store
        self.clock = clock
        self.early = early
        self._begin()
        _lines.add(self)

    def _begin(self) -> None:
        self.lock: threading.Lock = threading.Lock()
        self.queue: WaitQueue = WaitQueue()
        self._homes: dict[Any, Home] = {}
        self._later: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()

    def begin_in_fork(self) -> None:
        """Go on in a forked child: the lock may be held by a thread that is not here, the waiters'
        loops are the parent's, and so are the answers to what is in flight."""
        self._begin()
        self.store = self.store.inherit(self.clock())

    # ─── with the lock held ───────────────────────────────────────────────────────────────

    def take(self, claim: Claim, rank: int, now: int) -> bool:
        """Whether a fresh claim was taken at once."""
        if self._later:
            self.catch_up()
        queue = self.queue
        if not queue.size:
            return not self.store.take(claim, now, rank // 2)
        ahead, lane = queue.place(rank)
        if ahead or self.store.take(claim, now, lane):
            return False
        queue.served(rank // 2)
        return True

    def earliest(self, claim: Claim, rank: int, now: int) -> int:
        """Before when a fresh claim is not served, as far as those who wait can tell."""
        ahead, lane = self.queue.place(rank, own(claim.costs))
        return self.store.earliest(claim, now, lane, ahead)

    def enqueue(self, claim: Claim, rank: int, now: int, deadline: float) -> Waiter:
        """Let the running task come in, until `deadline` in seconds of its loop. It has still to
        park, and may have been served by then.

        Raises:
            LimitWaitError: What it waits for is known to come later.
        """
        loop = loop_of_task()
        home = self._homes.get(loop) or home_in(loop, self._ring)
        until = NEVER
        if deadline < math.inf:
            until = now + int((deadline - home.time()) * _S)
            known = self.earliest(claim, rank, now)
            if until < known > now:
                raise self._too_late(known - now)
        claim.came = now
        waiter = Waiter(claim, rank, until, home, self.store)
        self._homes[loop] = home
        home.waiting += 1
        self.queue.append(waiter)
        self.pump(now, loop)
        return waiter

    def pump(self, now: int, here: Any = None) -> None:
        """Serve the head of the queue as long as units last, then set the timers.

        Args:
            now: The time, in ns.
            here: The loop whose task or timer this is; None if it is none's.
        """
        try:
            wake = self._serve(now, here)
            for home in tuple(self._homes.values()):
                if wake < home.armed:
                    home.post(home.set_timer, max(0, wake - now) / _S)
                    home.armed = wake
        except LoopClosed as gone:
            self._homes.pop(gone.home.loop, None)
            for waiter in [each for each in self.queue if each.home is gone.home]:
                self.queue.remove(waiter)
            self.pump(now, here)

    def _serve(self, now: int, here: Any) -> int:
        """Wake everybody whose time has come; return when the next one's does."""
        self.catch_up()
        queue = self.queue
        while (expired := queue.first_expired(now)) is not None:
            self._wake(expired, now, here)
        while queue.size:
            wake, served = self._next(now)
            if served is None:
                return min(wake, queue.next_deadline(), now + self.store.stale_after)
            self._wake(served, now, here)
        return NEVER

    def _next(self, now: int) -> tuple[int, Waiter | None]:
        """Whose units are taken, or who waits in vain; otherwise when to try again."""
        soonest = NEVER
        held_up: list[str] = []
        for head, lane in self.queue.heads():
            if head.own in held_up:
                continue
            wake = self.store.take(head.claim, now, lane)
            if not wake:
                self.queue.served(head.lane)
                return 0, head
            if head.deadline < wake < NEVER:
                head.known_at = wake
                return 0, head
            until = NEVER
            if head.own:
                until = self.store.shared_until(head.claim, now, lane)
            soonest = min(soonest, wake, until or wake)
            if until:
                break
            held_up.append(head.own)
        return soonest, None

    def _wake(self, waiter: Waiter, now: int, here: Any) -> None:
        self._remove(waiter)
        if waiter.claim.state == FRESH:
            self.store.release(waiter.claim, now)
        home = waiter.home
        if home.loop is here:
            home.wake(waiter.ticket)
            return
        try:
            home.post(home.wake, waiter.ticket)
        except LoopClosed:
            self.store.release(waiter.claim, now)
            raise

    def _remove(self, waiter: Waiter) -> None:
        self.queue.remove(waiter)
        home = waiter.home
        home.waiting -= 1
        if not home.waiting:
            self._homes.pop(home.loop, None)
            with suppress(LoopClosed):
                home.post(home.close)

    def catch_up(self) -> None:
        """Do what `change` left over."""
        while self._later:
            do, args = self._later.popleft()
            do(*args)

    # ─── without it ───────────────────────────────────────────────────────────────────────

    def change(self, do: Callable[..., None], *args: Any) -> None:
        """Settle or release a claim with the store's method, or drop a waiter; then pump.

        A finalizer may call this, and a garbage collection runs finalizers anywhere: amid the
        locked lines of this very thread, amid a loop's own. So it never waits for the lock: it
        leaves the change to whoever pumps next, and lets the loops do that.
        """
        if not self.lock.acquire(blocking=False):
            self._later.append((do, args))
            for home in tuple(self._homes.values()):
                with suppress(LoopClosed):
                    home.post(self._ring, home)
            return
        try:
            self.catch_up()
            do(*args)
            if self.queue.size:
                self.pump(self.clock(), loop_of_task())
        finally:
            self.lock.release()

    def leave(self, waiter: Waiter) -> None:
        """Wait no longer: it is as if it had never come, even if it has just been served."""
        self.change(self._drop, waiter, self.clock())

    def _drop(self, waiter: Waiter, now: int) -> None:
        if waiter in self.queue:
            self._remove(waiter)
        waiter.store.release(waiter.claim, now)

    def _ring(self, home: Home) -> None:
        now = self.clock()
        with self.lock:
            home.armed = NEVER
            self.pump(now, home.loop)

    def refusal(self, waiter: Waiter, now: int) -> FluenceError:
        """Why a waiter was woken without its units.

        Raises:
            ValueError: It no longer fits in.
        """
        self.store.check(waiter.claim.costs, waiter.lane)
        if waiter.known_at < NEVER:
            return self._too_late(waiter.known_at - now)
        return self._timed_out()

    def _too_late(self, wait: int) -> LimitWaitError:
        wait_s = max(0, wait) / _S
        return LimitWaitError(
            f"{self.store} has no unit for this call for another {wait_s:.1f} s, which is past "
            "its deadline: give it more time, or come back at retry_at",
            wait_s=wait_s,
            retry_at=time.time() + wait_s,
        )

    def _timed_out(self) -> APITimeoutError:
        return APITimeoutError(
            f"{self.store} had no unit before this call's deadline, and when one comes free hangs "
            "on calls still under way: give it a longer timeout, or make fewer at once",
            clock="queue",
        )


_lines: weakref.WeakSet[Line] = weakref.WeakSet()


def _begin_all_in_fork() -> None:
    for line in tuple(_lines):
        line.begin_in_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_begin_all_in_fork)
