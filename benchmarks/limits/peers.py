"""The peers' ways of keeping to a limit, for the simulation.

Their algorithms, not the libraries themselves, which are bound to a clock and a loop. All retry as
the openai library does: half a second doubled up to eight, less a quarter at most, and Retry-After
up to a minute.
"""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from random import Random
from typing import Any

from .servers import Verdict

__all__ = ["PEERS", "Peer"]

S = 1_000_000_000
Limits = list[tuple[int, float]]
HELD: Any = object()


class Peer:
    """Sends at once; who has limits to keep overrides `due` and `count`."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def take(self, now: int) -> tuple[Any, int]:
        due = self.due(now)
        if due > now:
            return None, due
        self.count(now)
        return HELD, 0

    @abstractmethod
    def due(self, now: int) -> int:
        """When the next request may go."""
        return now

    def count(self, now: int) -> None:
        """It goes."""

    def delivered(self, claim: Any, now: int) -> None:
        """Nobody but us listens."""

    def answered(self, claim: Any, now: int, verdict: Verdict) -> None:
        """Nobody but us listens."""

    def retry_s(self, attempt: int, verdict: Verdict, chance: Random) -> float:
        said = float(verdict.headers.get("retry-after", 0))
        if 0 < said <= 60:
            return said
        return min(0.5 * 2.0 ** min(attempt, 10), 8.0) * (1 - 0.25 * chance.random())


class Retries(Peer):
    """No limiter, only retries."""


class TokenBucket(Peer):
    """aiolimiter's leaky bucket, and everybody's first own limiter: full at first, refilled
    steadily."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.tat = [0] * len(limits)
        self.gaps = [int(period * S / limit) for limit, period in limits]

    def due(self, now: int) -> int:
        return max(
            max(now, tat - (limit - 1) * gap)
            for tat, gap, (limit, _) in zip(self.tat, self.gaps, self.limits, strict=True)
        )

    def count(self, now: int) -> None:
        self.tat = [max(now, t) + gap for t, gap in zip(self.tat, self.gaps, strict=True)]


class SendLog(Peer):
    """pyrate-limiter's log of send times."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.log: list[int] = []

    def due(self, now: int) -> int:
        due = now
        for limit, period in self.limits:
            if len(self.log) >= limit:
                due = max(due, self.log[-limit] + int(period * S))
        return due

    def count(self, now: int) -> None:
        self.log.append(now)
        longest = max(int(period * S) for _, period in self.limits)
        if len(self.log) > 4 * max(limit for limit, _ in self.limits):
            del self.log[: bisect_right(self.log, now - longest)]


class EvenPacing(Peer):
    """One by one, at the pace of the slowest limit."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self.gap = max(int(period * S / limit) for limit, period in limits)
        self.next = 0

    def due(self, now: int) -> int:
        return max(now, self.next)

    def count(self, now: int) -> None:
        self.next = now + self.gap


PEERS = {
    "retries only": Retries,
    "token bucket (aiolimiter)": TokenBucket,
    "log of sends (pyrate-limiter)": SendLog,
    "even pacing": EvenPacing,
}
