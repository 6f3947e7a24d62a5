"""The units of one rate limit: some free, some with a time of return, the others in flight.

    window   limit, period, dimension, reserve · free · returns: (return_at, cost), in order
    always   free + in flight + sum(returns) = limit

Calls at once have no period: a unit is back when its call ends, and `hold` is 0.

Rejected: a heap of returns (the k-th in line asks for the k-th).
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from typing import Final

from .claim import counts_on_arrival
from .learnt import Learnt, WindowSnapshot, see
from .outlook import Outlook
from .rate_limit import RateLimit

__all__ = ["NEVER", "Window"]

NEVER: Final = 2**63 - 1
"""Not at a time that is known: a settle decides."""


class Window:
    """One of them, with all that is known of its units."""

    __slots__ = ("dimension", "free", "hold", "on_arrival", "rate", "reserve", "returns")

    def __init__(self, rate: RateLimit, hold: int, reserve: int) -> None:
        self.rate = rate
        self.dimension = rate.counted_as
        self.on_arrival = counts_on_arrival(self.dimension)
        self.hold = hold
        self.reserve = reserve
        self.free = rate.limit
        self.returns: deque[tuple[int, int]] = deque()

    def advance(self, now: int) -> None:
        returns = self.returns
        while returns and returns[0][0] <= now:
            self.free += returns.popleft()[1]

    def is_short(self, cost: int, now: int, lane: int) -> bool:
        """Whether so much cannot be had now."""
        self.advance(now)
        return cost > 0 and cost + (self.reserve if lane else 0) > self.free

    def put(self, at: int, cost: int) -> None:
        returns = self.returns
        if not returns or returns[-1][0] <= at:
            returns.append((at, cost))
        else:
            insort(returns, (at, cost))

    def free_at(self, units: int) -> int:
        """When so many are free, if none is taken: 0 for now, NEVER if a settle decides."""
        missing = units - self.free
        if missing <= 0:
            return 0
        for at, cost in self.returns:
            missing -= cost
            if missing <= 0:
                return at
        return NEVER

    @property
    def in_flight(self) -> int:
        return self.rate.limit - self.free - sum(cost for _, cost in self.returns)

    def resize(self, rate: RateLimit, reserve: int) -> None:
        self.free -= self.rate.limit - rate.limit
        self.rate = rate
        self.reserve = reserve

    def remember(self, elder: Window, now: int) -> None:
        """Be as if this window had stood as long as another one of its dimension."""
        self.free -= elder.in_flight
        for at, cost in elder.returns:
            self.free -= cost
            self.put(at - elder.hold + self.hold, cost)
        self.advance(now)

    def snapshot(self, now: int, learnt: Learnt | None = None) -> WindowSnapshot:
        self.advance(now)
        free, returns = self.free, tuple(self.returns)
        units = self.rate.limit - (learnt.withheld if learnt else 0)
        outlook = Outlook(now, units, self.hold, self.reserve, free, returns)
        return see(self.rate, outlook, learnt)
