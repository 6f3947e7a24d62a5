"""The servers of the simulation: an arrival and its time go in, a verdict comes out.

Law: each is the textbook's own counting, and shares no line with the limiter. `wait` is exact: the
least time after which the server, left alone, accepts one more. Times are seconds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["SERVERS", "FixedWindow", "Rule", "Server", "SlidingCounter", "SlidingLog", "Verdict"]


class Rule(ABC):
    """One limit: `limit` in any `period`, however it is counted."""

    def __init__(self, limit: int, period: float) -> None:
        self.limit = limit
        self.period = period

    @abstractmethod
    def room(self, now: float) -> float:
        """How many more it would take now; at least 1 accepts."""

    @abstractmethod
    def count(self, now: float) -> None:
        """Count an arrival."""

    @abstractmethod
    def wait(self, now: float) -> float:
        """Seconds until there is room for one."""


class FixedWindow(Rule):
    """Windows one after the other, the first one begun at `phase`; or each by a first request."""

    def __init__(self, limit: int, period: float, phase: float | None = 0.0) -> None:
        super().__init__(limit, period)
        self.by_request = phase is None
        self.begun = (phase or 0.0) - period
        self.used = 0

    def _roll(self, now: float) -> None:
        if now >= self.begun + self.period:
            self.used = 0
            if self.by_request:
                self.begun = now
            else:
                self.begun += (now - self.begun) // self.period * self.period

    def room(self, now: float) -> float:
        self._roll(now)
        return self.limit - self.used

    def count(self, now: float) -> None:
        self._roll(now)
        self.used += 1

    def wait(self, now: float) -> float:
        return 0.0 if self.room(now) >= 1 else self.begun + self.period - now


class SlidingLog(Rule):
    """Every arrival counts for a period."""

    def __init__(self, limit: int, period: float) -> None:
        super().__init__(limit, period)
        self.stamps: deque[float] = deque()

    def room(self, now: float) -> float:
        while self.stamps and self.stamps[0] + self.period <= now:
            self.stamps.popleft()
        return self.limit - len(self.stamps)

    def count(self, now: float) -> None:
        self.stamps.append(now)

    def wait(self, now: float) -> float:
        missing = 1 - self.room(now)
        return 0.0 if missing <= 0 else self.stamps[int(missing) - 1] + self.period - now


class SlidingCounter(Rule):
    """Fixed windows, of which the one before counts by the share that a sliding one would see."""

    def __init__(self, limit: int, period: float, phase: float = 0.0) -> None:
        super().__init__(limit, period)
        self.begun = phase - period
        self.used = self.before = 0

    def room(self, now: float) -> float:
        passed = int((now - self.begun) // self.period)
        if passed:
            self.before, self.used = (self.used if passed == 1 else 0), 0
            self.begun += passed * self.period
        weight = 1 - (now - self.begun) / self.period
        return self.limit - self.used - self.before * weight

    def count(self, now: float) -> None:
        self.room(now)
        self.used += 1

    def wait(self, now: float) -> float:
        missing = 1 - self.room(now)
        if missing <= 0:
            return 0.0
        end = self.begun + self.period - now
        if self.before:
            soon = missing / self.before * self.period
            if soon <= end:
                return soon + 1e-6
        return end + max(0.0, 1 - (self.limit - 1) / self.used) * self.period + 1e-6


class TokenBucket(Rule):
    """`limit / period` tokens a second, kept up to a capacity."""

    def __init__(self, limit: int, period: float, capacity: float) -> None:
        super().__init__(limit, period)
        self.capacity = self.tokens = capacity
        self.at = 0.0

    def room(self, now: float) -> float:
        grown = (now - self.at) * self.limit / self.period
        self.tokens = min(self.capacity, self.tokens + grown)
        self.at = now
        return self.tokens + 1e-9

    def count(self, now: float) -> None:
        self.room(now)
        self.tokens -= 1

    def wait(self, now: float) -> float:
        return max(0.0, (1 - self.room(now)) * self.period / self.limit)


class GCRA(Rule):
    """The same by a theoretical arrival time, as most gateways have it."""

    def __init__(self, limit: int, period: float, burst: int) -> None:
        super().__init__(limit, period)
        self.gap = period / limit
        self.burst = burst
        self.tat = 0.0

    def room(self, now: float) -> float:
        return self.burst - max(0.0, self.tat - now) / self.gap + 1e-9

    def count(self, now: float) -> None:
        self.tat = max(self.tat, now) + self.gap

    def wait(self, now: float) -> float:
        return max(0.0, self.tat - (self.burst - 1) * self.gap - now)


Maker = Callable[[int, float, float], Rule]
"""Limit, period, and a phase as a share of the period."""

SERVERS: dict[str, Maker] = {
    "fixed window": lambda n, w, phase: FixedWindow(n, w, phase * w),
    "opened window": lambda n, w, _: FixedWindow(n, w, None),
    "sliding log": lambda n, w, _: SlidingLog(n, w),
    "sliding counter": lambda n, w, phase: SlidingCounter(n, w, phase * w),
    "token bucket": lambda n, w, _: TokenBucket(n, w, n),
    "small bucket": lambda n, w, _: TokenBucket(n, w, max(2, n // 10)),
    "GCRA": lambda n, w, phase: GCRA(n, w, max(2, int(n * (0.05 + 0.3 * phase)))),
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an arrival, and what the answer's headers say of every limit."""

    accepted: bool
    wait: float
    headers: dict[str, str]


class Server:
    """All limits of one key: an arrival counts in all of them, or is refused.

    Args:
        rules: The limits.
        counts_refusals: Count refused arrivals as well, as some servers do.
        headers: Say `x-ratelimit-*` with every answer, a name for each limit.
        retry_after: Say Retry-After with a refusal.
    """

    def __init__(
        self,
        rules: list[Rule],
        *,
        counts_refusals: bool = False,
        headers: bool = False,
        retry_after: bool = False,
    ) -> None:
        self.rules = rules
        self.counts_refusals = counts_refusals
        self.headers = headers
        self.retry_after = retry_after

    def wait(self, now: float) -> float:
        """Seconds until one would be accepted, if none comes meanwhile."""
        return max(rule.wait(now) for rule in self.rules)

    def admit(self, now: float) -> Verdict:
        """Count an arrival, or refuse it. `now` never decreases."""
        accepted = all(rule.room(now) >= 1 for rule in self.rules)
        if accepted or self.counts_refusals:
            for rule in self.rules:
                rule.count(now)
        wait = 0.0 if accepted else self.wait(now)
        headers = {} if not self.headers else self._headers(now)
        if self.retry_after and not accepted:
            headers["retry-after"] = f"{wait:.3f}"
        return Verdict(accepted, wait, headers)

    def _headers(self, now: float) -> dict[str, str]:
        said = {}
        for rule, name in zip(self.rules, ("minute", "hour"), strict=False):
            said[f"x-ratelimit-limit-{name}"] = str(rule.limit)
            said[f"x-ratelimit-remaining-{name}"] = str(max(0, int(rule.room(now))))
            said[f"x-ratelimit-reset-{name}"] = f"{rule.wait(now):.3f}s"
        return said
