"""Calls wait here until the limits have room for them: `acquire` in, a `Permit` out.

Law: what may be taken is the store's business (`_sansio/bucket.py`); this is the waiting. There is
one queue: lane by lane, first come first served, and no small cost overtakes a large one. Who
finds nobody ahead and units free goes on without a pause. Whatever may free units or tell when
they come back (a settle, a release, the timer, somebody leaving) pumps: it serves the queue's head
as long as the store gives, then sets the timers for the next time.

A limiter belongs to no loop, thread or session. Its state is under one lock, held for
microseconds and never over an await; a waiter is woken in its own loop. Every loop with waiters
has a timer for the queue's head, wherever that waits, so that a loop that stands still holds up
nobody; one that is closed is noticed when its waiter is to be woken: the unit comes back, and all
its waiters go. A permit that nobody holds any more is released.

Rejected: a task that hands out units (it lives in one loop and must be closed); a lock that is
awaited (its holder can be cancelled); polling.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import msgspec
from anyio import WouldBlock

from .._sansio.bucket import DONE, FRESH, NEVER, Bucket, Claim, WindowSnapshot
from .._sansio.rate_limit import DOCUMENTED_LIMITS, RateLimit, read_limits
from ._park import Home, LoopClosed, home_in, running_loop
from ._queue import Waiter, WaitQueue
from ._store import Store

__all__ = ["Limiter", "LimiterSnapshot", "Permit"]

_S = 1_000_000_000
_ONE_REQUEST: Mapping[str, int] = {"requests": 1}


class LimiterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A limiter at one moment.

    Attributes:
        windows: Its windows.
        waiting: Calls that wait, of all loops and threads.
        paused_s: Seconds until the pause that the server asked for is over; 0 if there is none.
    """

    windows: tuple[WindowSnapshot, ...]
    waiting: int
    paused_s: float


class Permit(Claim):
    """The right to send one request. From `Limiter.acquire`; `release` it in a `finally`.

    All methods return at once, and may be called in any state, any order and any number of times.

    Attributes:
        waited_s: How long the limiter let the call wait, in seconds.
    """

    __slots__ = ("_limiter", "_store", "waited_s")

    def __init__(self, limiter: Limiter, store: Store, costs: Mapping[str, int]) -> None:
        self.costs = costs
        self.state = FRESH
        self.waited_s = 0.0
        self._limiter = limiter
        self._store = store

    def sent(self) -> None:
        """The first byte may have left this machine: the unit cannot be given back any more."""
        self._store.sent(self)

    def settle(self, *, costs: Mapping[str, int] | None = None) -> None:
        """The response's headers are here, so the request has arrived: the unit comes back one
        period from now.

        Args:
            costs: What it came to, where a dimension's cost was an estimate.
        """
        if FRESH < self.state < DONE:
            self._limiter._change(self._store.settle, self, costs)  # noqa: SLF001

    def release(self) -> None:
        """The request is over. If nothing was sent, its unit is free again at once; if it was sent
        and never settled, it may still arrive, and the unit comes back that much later."""
        if FRESH < self.state < DONE:
            self._limiter._change(self._store.release, self)  # noqa: SLF001

    def __del__(self) -> None:
        if FRESH < self.state < DONE:
            self._limiter._reclaim(self._store.release, self)  # noqa: SLF001

    def __repr__(self) -> str:
        return f"<Permit {('waiting', 'held', 'sent', 'done')[self.state]}>"


class Limiter:
    """Units of one or several rate limits, handed out so that the server never counts too many.

    Args:
        limits: `"100/minute"`, or several, or `RateLimit`s; by default the documented two.
        clock: Nanoseconds that never go back.
        reserve: The share of each window that only lane 0 may use.
        margin_s: Added to every period and every pause, in seconds: rounding of stamps.
        drift: Added to every period, as a share of it: the rates of two clocks.
        unseen_s: How long an unanswered request may still arrive after it was given up.

    Raises:
        ValueError: A limit or a number makes no sense.

    Example:
        ```python
        limiter = Limiter(["5/second", "100/minute"])
        permit = await limiter.acquire()
        try:
            permit.sent()
            ...  # send the request, await the response's headers
            permit.settle()
        finally:
            permit.release()
        ```
    """

    def __init__(
        self,
        limits: str | RateLimit | Iterable[str | RateLimit] = DOCUMENTED_LIMITS,
        *,
        clock: Callable[[], int] = time.monotonic_ns,
        reserve: float = 0.06,
        margin_s: float = 0.05,
        drift: float = 5e-4,
        unseen_s: float = 10.0,
    ) -> None:
        if not 0 <= reserve < 1:
            raise ValueError(f"reserve={reserve!r}: must be a share from 0 up to below 1")
        for name, value in {"margin_s": margin_s, "drift": drift, "unseen_s": unseen_s}.items():
            if not 0 <= value < math.inf:
                raise ValueError(f"{name}={value!r}: must be finite and not negative")
        self._clock = clock
        self._store: Store = Bucket(
            read_limits(limits),
            reserve=reserve,
            margin=round(margin_s * _S),
            drift=drift,
            unseen=round(unseen_s * _S),
        )
        self._begin()
        _limiters.add(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._queue = WaitQueue()
        self._homes: dict[Any, Home] = {}
        self._lost: deque[tuple[Callable[[Claim, int], None], Permit]] = deque()

    def _begin_in_fork(self) -> None:
        # the lock may be held by a thread that is not here, the waiters' loops are the parent's
        self._begin()
        self._store = self._store.inherit(self._clock())

    # ─── what callers do ──────────────────────────────────────────────────────────────────

    async def acquire(
        self,
        *,
        lane: int = 0,
        front: bool = False,
        deadline: float | None = None,
        costs: Mapping[str, int] | None = None,
    ) -> Permit:
        """Wait for the right to send one request. Returns without a pause if nobody waits and
        units are free; cancelled anywhere, it leaves nothing behind.

        Args:
            lane: 0 for interactive calls, 1 for batch calls, which give way.
            front: A retry: before the first attempts of its lane.
            deadline: When to give up, in seconds of the running loop's clock.
            costs: Units of each dimension; one request if it is not named.

        Raises:
            LimitWaitError: The wait is known to pass the deadline.
            APITimeoutError: The deadline passed (`clock="queue"`); how long the wait would be
                hung on answers of other calls.
            ValueError: No limit counts such a cost, or it can never fit in.
        """
        permit = self._permit(lane, costs)
        since = self._clock()
        with self._lock:
            if self._take(permit, lane, front, since):
                return permit
            waiter = self._enqueue(permit, 2 * lane + (not front), since, deadline)
        try:
            await waiter.home.park(waiter.ticket)
        except BaseException:
            self._leave(waiter)
            permit.release()  # it may have been granted in this very tick
            raise
        if permit.state == FRESH:
            raise self._refusal(waiter)
        permit.waited_s = (self._clock() - since) / _S
        return permit

    def acquire_nowait(
        self, *, lane: int = 0, front: bool = False, costs: Mapping[str, int] | None = None
    ) -> Permit:
        """Like `acquire`, for who cannot wait.

        Raises:
            anyio.WouldBlock: Units are short, or others come first.
            ValueError: No limit counts such a cost, or it can never fit in.
        """
        permit = self._permit(lane, costs)
        now = self._clock()
        with self._lock:
            if self._queue:
                self._pump(now, running_loop())
            if self._take(permit, lane, front, now):
                return permit
        raise WouldBlock

    def pause(self, seconds: float) -> None:
        """The server asked for a pause (Retry-After): nobody gets a permit before it is over. A
        later pause prolongs it at most.

        Raises:
            ValueError: `seconds` is negative or not finite.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"a pause of {seconds!r} s: must be finite and not negative")
        with self._lock:
            self._store.block(self._clock() + round(seconds * _S))

    def tighten(self, limits: str | RateLimit | Iterable[str | RateLimit]) -> None:
        """Obey these limits too: of two for the same period, the smaller counts. Waiting calls
        that no longer fit in get a ValueError.

        Raises:
            ValueError: A limit makes no sense.
        """
        found = read_limits(limits)
        now = self._clock()
        with self._lock:
            self._store.tighten(found, now)
            for waiter in self._queue:
                try:
                    self._store.check(waiter.claim.costs, waiter.lane)
                except ValueError:
                    self._queue.expire(waiter)
            self._pump(now, running_loop())

    def snapshot(self) -> LimiterSnapshot:
        """What is used, left and waiting now."""
        now = self._clock()
        with self._lock:
            self._release_lost(now)
            return LimiterSnapshot(
                windows=self._store.snapshot(now),
                waiting=len(self._queue),
                paused_s=max(0, self._store.blocked_until - now) / _S,
            )

    def __repr__(self) -> str:
        now = self.snapshot()
        windows = ", ".join(f"{window.limit}: {window.left} left" for window in now.windows)
        pause = f", paused for {now.paused_s:.1f} s" if now.paused_s else ""
        return f"<Limiter {windows}; {now.waiting} waiting{pause}>"

    # ─── what permits do ──────────────────────────────────────────────────────────────────

    def _change(self, change: Callable[..., None], permit: Permit, *args: object) -> None:
        now = self._clock()
        with self._lock:
            change(permit, now, *args)
            if self._queue:
                self._pump(now, running_loop())

    def _reclaim(self, release: Callable[[Claim, int], None], permit: Permit) -> None:
        # from a finalizer, perhaps amid our own locked lines: take note, and let a loop do it
        self._lost.append((release, permit))
        for home in tuple(self._homes.values()):
            with suppress(LoopClosed):
                home.post(self._ring, home)

    def _release_lost(self, now: int) -> None:
        while self._lost:
            release, permit = self._lost.popleft()
            release(permit, now)

    # ─── waiting; the lock is held ────────────────────────────────────────────────────────

    def _permit(self, lane: int, costs: Mapping[str, int] | None) -> Permit:
        if lane not in (0, 1):
            raise ValueError(f"lane={lane!r}: must be 0 (interactive) or 1 (batch)")
        if costs is None:
            return Permit(self, self._store, _ONE_REQUEST)
        costs = {**_ONE_REQUEST, **costs}
        self._store.check(costs, lane)
        return Permit(self, self._store, costs)

    def _take(self, permit: Permit, lane: int, front: bool, now: int) -> bool:
        if self._lost:
            self._release_lost(now)
        if self._queue and self._queue.ahead(2 * lane + (not front)):
            return False
        return not self._store.take(permit, now, lane)

    def _enqueue(self, permit: Permit, rank: int, now: int, deadline: float | None) -> Waiter:
        loop = running_loop()
        home = self._homes.get(loop) or home_in(loop, self._ring)
        until = NEVER
        if deadline is not None and deadline < math.inf:
            until = now + int((deadline - home.time()) * _S)
            known = self._store.earliest(permit, now, rank // 2, self._queue.ahead(rank))
            if until < known > now:
                raise self._too_late(known - now)
            if until <= now:
                raise self._timed_out()
        waiter = Waiter(permit, rank, until, home)
        self._homes[loop] = home
        home.waiting += 1
        self._queue.append(waiter)
        self._pump(now, loop)
        return waiter

    def _pump(self, now: int, here: Any) -> None:
        """Serve the head of the queue as long as units last; set the timers for the next time."""
        try:
            wake = self._serve(now, here)
            for home in tuple(self._homes.values()):
                if wake < home.armed:
                    home.run(here, home.set_timer, max(0, wake - now) / _S)
                    home.armed = wake
        except LoopClosed as gone:
            self._homes.pop(gone.home.loop, None)
            for waiter in [each for each in self._queue if each.home is gone.home]:
                self._queue.remove(waiter)
            self._pump(now, here)
