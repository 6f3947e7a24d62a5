"""The documented rate limits, counted by the server: a request comes in, a verdict goes out.

Law: a sliding log. An accepted request counts in a window of length P from its stamp on, for
less than P: at most `count` are accepted in any half-open interval [t, t + P). A refused
request counts nowhere, and a request is counted in all windows or in none.

This is deliberately not the SDK's limiter and shares no line with it: the one proves the
other. Rejected: fixed windows, which let twice the limit through at their border.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Verdict", "Windows"]

_SECONDS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_LIMIT = re.compile(r"([1-9]\d*)/(second|minute|hour|day)")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one request. Times are seconds on the server's clock.

    Attributes:
        accepted: Whether it was counted.
        wait_s: How long until a request would be accepted; 0 if this one was.
        window: The tightest window, as `"100/minute"`.
        limit: Its limit.
        remaining: What is left in it after this request.
        reset_s: How long until it is whole again.
    """

    accepted: bool
    wait_s: float
    window: str
    limit: int
    remaining: int
    reset_s: float

    def headers(self, time_scale: float = 1.0) -> dict[str, str]:
        """The answer's headers, in the client's seconds: the server's divided by `time_scale`."""
        headers = {
            "x-ratelimit-limit-requests": str(self.limit),
            "x-ratelimit-remaining-requests": str(self.remaining),
            "x-ratelimit-reset-requests": f"{math.ceil(self.reset_s / time_scale * 1000) / 1000}s",
        }
        if not self.accepted:
            headers["retry-after"] = str(math.ceil(self.wait_s / time_scale))
            headers["retry-after-ms"] = str(math.ceil(self.wait_s / time_scale * 1000))
        return headers


class _Window:
    """The stamps of one key that still count in one window."""

    __slots__ = ("limit", "name", "period", "stamps")

    def __init__(self, name: str, limit: int, period: float) -> None:
        self.name = name
        self.limit = limit
        self.period = period
        self.stamps: deque[float] = deque()

    def forget(self, now: float) -> None:
        while self.stamps and self.stamps[0] + self.period <= now:
            self.stamps.popleft()

    @property
    def remaining(self) -> int:
        return self.limit - len(self.stamps)

    def wait(self, now: float) -> float:
        return 0.0 if self.remaining else self.stamps[0] + self.period - now

    def reset(self, now: float) -> float:
        return self.stamps[-1] + self.period - now if self.stamps else 0.0


class Windows:
    """The limits of every key.

    Args:
        limits: Each as `"count/second"`, `minute`, `hour` or `day`.

    Raises:
        ValueError: A limit that cannot be read.
    """

    def __init__(self, limits: Sequence[str]) -> None:
        if not limits:
            raise ValueError("limits is empty; for a server without limits say limits=None")
        self._limits = [_read(limit) for limit in limits]
        self._keys: dict[str, list[_Window]] = {}

    def admit(self, key: str, now: float) -> Verdict:
        """Count the request of `key` that came at `now`, or refuse it. `now` never decreases."""
        windows = self._keys.get(key)
        if windows is None:
            windows = self._keys[key] = [_Window(*limit) for limit in self._limits]
        for window in windows:
            window.forget(now)
        accepted = all(window.remaining for window in windows)
        if accepted:
            for window in windows:
                window.stamps.append(now)
        wait = 0.0 if accepted else max(window.wait(now) for window in windows)
        tightest = min(windows, key=lambda w: (w.remaining, -w.wait(now), -w.reset(now)))
        return Verdict(
            accepted=accepted,
            wait_s=wait,
            window=tightest.name,
            limit=tightest.limit,
            remaining=tightest.remaining,
            reset_s=tightest.reset(now),
        )


def _read(limit: str) -> tuple[str, int, float]:
    match = _LIMIT.fullmatch(limit)
    if match is None:
        raise ValueError(f'limit {limit!r} is not "count/second", minute, hour or day')
    return limit, int(match[1]), _SECONDS[match[2]]
