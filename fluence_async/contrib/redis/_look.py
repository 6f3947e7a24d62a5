"""A limiter's units in Redis seen from outside: the limits go in, how they stand comes out.

Law: looking leaves no trace. It only reads, and takes no part in the line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, cast

import anyio
import msgspec
from coredis.exceptions import RedisError
from coredis.retry import NoRetryPolicy

from ..._sansio.bucket import Bucket, Window
from ..._sansio.learner import heed
from ..._sansio.learnt import Learnt, LimiterSnapshot
from ..._sansio.lessons import Lessons
from ..._sansio.rate_limit import RateLimit, read_limits
from ...limiter.limiter import Policy
from ._address import check_address
from ._connecting import text_client
from ._units import KEYS, costs_of

__all__ = ["RedisLook"]

_S = 1_000_000_000
_US = 1_000
_TIMEOUT_S = 2.0
_ASIDE = 2**51


class RedisLook:
    """Whoever looks at the units of one name.

    Args:
        url: As of `RedisLimiter`.
        name: As of `RedisLimiter`.
        limits: What the programs obey.
        bucket: An empty one that obeys them.
        policy: Of whom looks: what was learnt counts for those who learn.
        clock: In ns.

    Attributes:
        where: The Redis, without password.
    """

    def __init__(
        self,
        url: str,
        name: str,
        limits: str | RateLimit | Iterable[str | RateLimit],
        *,
        bucket: Callable[[Iterable[RateLimit]], Bucket] = Bucket,
        policy: Policy = "any-generous",
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self.where: str = check_address(url)
        self._url = url
        self._keys = [f"fluence:{{{name}}}:{part}" for part in KEYS]
        self._limits = read_limits(limits)
        self._bucket = bucket
        self._policy = policy
        self._clock = clock

    async def look(self, *, beside: str = "") -> LimiterSnapshot:
        """How the limits stand.

        Args:
            beside: Whose tickets do not count.

        Raises:
            OSError: Redis cannot be reached.
        """
        try:
            with anyio.fail_after(_TIMEOUT_S):
                return await self._look(beside)
        except* (RedisError, OSError, TimeoutError) as errors:
            error: BaseException = errors
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            why = str(error) or type(error).__name__
            failure = ConnectionError(f"the Redis at {self.where} cannot be reached: {why}")
        raise failure

    async def _look(self, beside: str) -> LimiterSnapshot:
        units, tickets, seen, state = self._keys
        async with text_client(
            self._url, NoRetryPolicy(), connect_timeout=_TIMEOUT_S, stream_timeout=_TIMEOUT_S
        ) as client:
            told: datetime = await client.time()
            there = round(told.timestamp() * 1e6)
            fields = ["lessons", "clock", "blocked", "passed", "lately"]
            lessons, *known = cast("list[str | None]", await client.hmget(state, fields))
            clock, blocked, passed, lately = (int(word or 0) for word in known)
            there = max(there, clock)
            out: Any = await client.zrange(units, 0, -1, withscores=True)
            stand: Any = await client.zrange(tickets, 0, -1, withscores=True)
            held: Any = await client.zrange(seen, 0, -1, withscores=True)
        now = self._clock()
        bucket = self._bucket(self._limits)
        for permit, arrived in out:
            for window in bucket.windows:
                cost = costs_of(permit).get(window.dimension, 0)
                back = now + (int(arrived) - there) * _US + window.hold
                if cost and back > now:
                    window.free -= cost
                    if arrived <= there:  # or else it is in flight, until a lease ends
                        window.put(back, cost)
        learnt = self._heard(lessons, now - there * _US, bucket.windows, now)
        there_still = {
            who for who, until in held if until >= there and who.partition("/")[0] != beside
        }
        lanes = [_lane(turn) for who, turn in stand if who in there_still]
        return LimiterSnapshot(
            windows=tuple(each.snapshot(now, learnt.get(each)) for each in bucket.windows),
            waiting=len(lanes),
            paused_s=max(0, blocked - there) / 1e6,
            waiting_batch=sum(lanes),
            passed=passed if sum(lanes) or lately > there else 0,
        )

    def _heard(
        self, lessons: str | None, ahead: int, windows: Iterable[Window], now: int
    ) -> dict[Window, Learnt]:
        """What the processes there have learnt; nothing if that makes no sense."""
        if lessons is None or self._policy == "window":
            return {}
        try:
            found = msgspec.json.decode(lessons, type=Lessons).moved(ahead)
        except msgspec.DecodeError:
            return {}
        return heed(windows, found, now, generous=self._policy == "any-generous")


def _lane(turn: float) -> int:
    """Of a ticket, as `_step.lua` numbers them."""
    return int(0 <= turn < _ASIDE or turn >= 2 * _ASIDE)
