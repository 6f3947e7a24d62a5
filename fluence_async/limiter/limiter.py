"""Calls wait here until the limits have room for them: `acquire` in, a `Permit` out.

Law: lane by lane, first come first served, and no small cost overtakes a large one. Who finds
nobody ahead and units free goes on without a pause. Cancelled anywhere, a call leaves nothing: no
unit, no place in the queue. A limiter may be used by any number of loops, threads and sessions at
once, and outlives them.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final, Literal, get_args

from anyio import WouldBlock

from .._sansio.arguments import check_number
from .._sansio.bucket import FRESH, Bucket
from .._sansio.learning import LearningBucket
from .._sansio.learnt import LimiterSnapshot
from .._sansio.rate_limit import DOCUMENTED_LIMITS, RateLimit, read_limits
from .._sansio.tariff import ONE_REQUEST, Tariff
from ._early import Early
from ._line import Line
from ._process import boot_clock
from ._seeing import Seen
from .file import open_store
from .permit import Permit

__all__ = ["Limiter", "LimiterSnapshot", "Policy"]

_S = 1_000_000_000
Policy = Literal["any", "any-strict", "any-generous", "window"]
_POLICIES: Final[tuple[Policy, ...]] = get_args(Policy)


def as_policy(text: str) -> Policy:
    """The policy of that name.

    Raises:
        ValueError: There is none.
    """
    for policy in _POLICIES:
        if policy == text:
            return policy
    raise ValueError(f"policy={text!r}: one of {', '.join(map(repr, _POLICIES))}")


class Limiter(Seen):
    """Units of one or several rate limits, handed out so that the server never counts too many.

    Args:
        limits: `"100/minute"`, `"90000 tokens/minute"`, `"8 concurrent"`, each with or without
            `" for <model>"`; several of these, or `RateLimit`s; by default the documented two.
        policy: How the server may count. `"window"`: as its limits say, in fixed windows, by a
            sliding log or a full token bucket; all units can be had at once, nothing is learnt.
            `"any"`: however; the limiter begins slowly and learns, from refusals and headers, how
            deep a burst may be, whether a sliding counter is kept, whether others use the key.
            `"any-strict"`: the same, and nothing is tried that a sliding counter could refuse.
            `"any-generous"`: as `"any"`, and where the server states a larger limit than yours for
            the same period, in its headers, that is used, until it states less or refuses.
        path: A file, through which all limiters of this machine with that path count together; it
            remembers what they sent, and what they learnt.
        strict: Let a unit come back a period after its response's headers, and never earlier: for
            a server that keeps requests waiting before it counts them. Otherwise also after the
            server's kernel has all of the request (`Permit.delivered`), or the headers say for how
            long the server was at it.
        clock: Nanoseconds that never go back; with a path, the same for all processes.
        reserve: The share of each window that only lane 0 may use.
        margin_s: Added to every period and every pause, in seconds: rounding of stamps.
        drift: Added to every period, as a share of it: the rates of two clocks.
        unseen_s: How long an unanswered request may still arrive after it was given up.

    Raises:
        ValueError, TypeError: A limit or a number makes no sense.

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
        policy: Policy = "window",
        path: str | os.PathLike[str] | None = None,
        strict: bool = False,
        clock: Callable[[], int] | None = None,
        reserve: float = 0.06,
        margin_s: float = 0.05,
        drift: float = 5e-4,
        unseen_s: float = 10.0,
    ) -> None:
        as_policy(policy)
        check_number("reserve", reserve, below=1)
        for name, value in {"margin_s": margin_s, "drift": drift, "unseen_s": unseen_s}.items():
            check_number(name, value)
        unseen = round(unseen_s * _S)
        make: Callable[..., Bucket] = Bucket
        if policy != "window":
            make = partial(
                LearningBucket, strict=policy == "any-strict", generous=policy == "any-generous"
            )
        margin = round(margin_s * _S)
        found = read_limits(limits)
        self._tariff = Tariff(found)
        bucket = make(found, reserve=reserve, margin=margin, drift=drift, unseen=unseen)
        clock = clock or (time.monotonic_ns if path is None else boot_clock())
        shared = path is not None and open_store(path, bucket, unseen, clock)
        self._line = Line(shared or bucket, clock, None if strict else Early())

    async def acquire(
        self,
        *,
        lane: int = 0,
        front: bool = False,
        deadline: float | None = None,
        costs: Mapping[str, int] | None = None,
        model: str | None = None,
    ) -> Permit:
        """Wait for the right to send one request. Returns without a pause if nobody waits and
        units are free; cancelled anywhere, it leaves nothing behind.

        Args:
            lane: 0 for interactive calls, 1 for batch calls, which give way, but for every tenth
                that goes.
            front: A retry: before the first attempts of its lane.
            deadline: When to give up, in seconds of the running loop's clock.
            costs: Units of each dimension; one of requests and of calls at once, if not named.
            model: Whom the request asks; what limits of its own that model has, it costs too.

        Raises:
            LimitWaitError: The wait is known to pass the deadline.
            APITimeoutError: The deadline passed (`clock="queue"`); how long the wait would be
                hung on answers of other calls.
            ValueError: No limit counts such a cost, or it can never fit in.
        """
        permit = self._permit(lane, costs, model)
        line = self._line
        since = line.clock()
        with line.lock:
            if line.take(permit, rank := 2 * lane + (not front), since):
                return permit
            waiter = line.enqueue(permit, rank, since, math.inf if deadline is None else deadline)
        try:
            await waiter.home.park(waiter.ticket)
        except BaseException:
            line.leave(waiter)
            raise
        now = line.clock()
        if permit.state == FRESH:
            raise line.refusal(waiter, now)
        permit.waited_s = (now - since) / _S
        return permit

    def acquire_nowait(
        self,
        *,
        lane: int = 0,
        front: bool = False,
        costs: Mapping[str, int] | None = None,
        model: str | None = None,
    ) -> Permit:
        """Like `acquire`, for who cannot wait.

        Raises:
            anyio.WouldBlock: Units are short, or others come first.
            ValueError: No limit counts such a cost, or it can never fit in.
        """
        permit = self._permit(lane, costs, model)
        line = self._line
        now = line.clock()
        with line.lock:
            if line.queue.size:
                line.pump(now)
            if line.take(permit, 2 * lane + (not front), now):
                return permit
        raise WouldBlock

    def pause(self, seconds: float) -> None:
        """The server asked for a pause (Retry-After): nobody gets a permit before it is over. A
        later pause prolongs it at most.

        Raises:
            TypeError: `seconds` is no number.
            ValueError: It is negative or not finite.
        """
        check_number("seconds", seconds)
        with self._line.lock:
            self._line.store.block(self._line.clock() + round(seconds * _S))

    def tighten(self, limits: str | RateLimit | Iterable[str | RateLimit]) -> None:
        """Obey these limits too: of two for the same period (and dimension, and model), the
        smaller counts. Waiting calls that no longer fit in get a ValueError.

        Raises:
            ValueError: A limit makes no sense, or has no room where the units are.
        """
        found = read_limits(limits)
        line = self._line
        now = line.clock()
        with line.lock:
            line.store.tighten(found, now)
            self._tariff = self._tariff.and_these(found)
            for waiter in line.queue:
                try:
                    line.store.check(waiter.claim.costs, waiter.lane)
                except ValueError:
                    line.queue.expire(waiter)
            line.pump(now)

    def counts(self, dimension: str, model: str | None = None) -> bool:
        """Whether a request costs any of a dimension, if it asks that model."""
        return not self._tariff.simple and self._tariff.counts(dimension, model)

    def _permit(self, lane: int, costs: Mapping[str, int] | None, model: str | None) -> Permit:
        if lane not in (0, 1):
            raise ValueError(f"lane={lane!r}: must be 0 (interactive) or 1 (batch)")
        if costs is None and self._tariff.simple:
            return Permit(self._line, ONE_REQUEST)
        units = self._tariff.of(costs, model)
        self._line.store.check(units, lane)
        return Permit(self._line, units)
