"""May a failed attempt be tried again, and after how long: error, attempt, elapsed → wait or None.

Law: pure; jitter and clocks come in. What the server asks for is kept (Retry-After is a lower
bound), what it cannot mean (negative, not a number, beyond a float, past) is ignored in favour
of backoff, and what nobody would wait for raises the error at once, with `retry_after` set.
The retry quota is AWS's standard mode
(https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html): an outage drains
it, so that a thousand calls against a dead server make few more than a thousand requests.

Of `backoff` only the wait generator and the jitter are used: its decorators sleep with asyncio
and measure with the wall clock.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC

from ..errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    FluenceError,
    QuotaExceededError,
    RateLimitError,
    StreamInterruptedError,
    StreamServerError,
    StreamTimeoutError,
    TLSError,
)
from ..options import RetryPolicy

__all__ = [
    "RetryQuota",
    "full_jitter",
    "is_retryable",
    "parse_retry_after",
    "retry_wait",
]

_RETRYABLE_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
_DOUBLINGS = 64
"""Beyond these the backoff's bound has long met its cap."""
_SECONDS = re.compile(r"\s*(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*", re.ASCII)


class RetryQuota:
    """What an origin may still cost in retries: drained by failures, filled by successes."""

    __slots__ = ("_left",)

    CAPACITY = 500
    RETRY_COST = 14
    THROTTLE_COST = 5
    REFUND = 1

    def __init__(self) -> None:
        self._left = self.CAPACITY

    @property
    def left(self) -> int:
        """Units left, of `CAPACITY`."""
        return self._left

    def take(self, error: FluenceError) -> int:
        """Take what a retry after `error` costs; 0 if there is not enough, and nothing is taken."""
        cost = self.THROTTLE_COST if isinstance(error, RateLimitError) else self.RETRY_COST
        if cost > self._left:
            return 0
        self._left -= cost
        return cost

    def give_back(self, taken: int) -> None:
        """A call ended well: give back what its last retry took, or one unit if it took none."""
        self._left = min(self.CAPACITY, self._left + (taken or self.REFUND))

    def __repr__(self) -> str:
        return f"RetryQuota({self._left} of {self.CAPACITY} left)"


def is_retryable(error: FluenceError) -> bool:
    """Whether another attempt could end otherwise. Quota, TLS, the caller's own mistakes and
    answers that make no sense could not."""
    match error:
        case TLSError() | QuotaExceededError():
            return False
        case APITimeoutError() | StreamTimeoutError():
            return error.clock not in ("total", "queue")
        case APIStatusError():
            return error.status_code in _RETRYABLE_STATUSES
        case StreamServerError():
            return error.code != "insufficient_quota" and error.status_code in _RETRYABLE_STATUSES
        case APIConnectionError():
            return not error.permanent
        case StreamInterruptedError():
            return True
        case _:
            return False


def retry_wait(
    policy: RetryPolicy,
    error: FluenceError,
    *,
    attempt: int,
    elapsed_s: float,
    jitter: Callable[[float], float],
) -> float | None:
    """Seconds to wait after attempt number `attempt` (from 1) failed of `error`; None to give up.

    Args:
        policy: How often and how long.
        error: What the attempt failed of.
        attempt: Its number, counting from 1.
        elapsed_s: Seconds since the first attempt began.
        jitter: From an upper bound to a wait, as `full_jitter`.
    """
    if attempt > policy.max_retries or not is_retryable(error):
        return None
    bound = _backoff_bound(policy, attempt)
    wait = jitter(bound)
    retry_after: float | None = getattr(error, "retry_after", None)
    if retry_after is not None:
        if retry_after > policy.max_retry_after_s:
            return None
        wait = retry_after + wait
    if policy.budget_s is not None and elapsed_s + wait > policy.budget_s:
        return None
    return wait


def _backoff_bound(policy: RetryPolicy, attempt: int) -> float:
    from backoff import expo  # here, because it imports asyncio: 40 ms that few programs need

    waits = expo(base=2, factor=policy.base_s, max_value=policy.cap_s)
    next(waits)
    bound = 0.0
    for _ in range(min(attempt, _DOUBLINGS)):
        bound = next(waits)
    return bound


def full_jitter(bound: float) -> float:
    """A wait drawn evenly between 0 and `bound`: spreads the retries of a crowd the widest."""
    from backoff import full_jitter as draw  # here, for the same reason

    return draw(bound)


def parse_retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that a response asks to wait; None if it asks nothing that makes sense.

    `retry-after-ms` (milliseconds) wins over `retry-after` (seconds, with or without fraction,
    or an HTTP date, which is measured against the response's own `date`).

    Args:
        headers: Names in lower case.
        now: The wall clock in seconds since the epoch, for a response without a `date`.
    """
    milliseconds = _positive(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if value is None:
        return None
    seconds = _positive(value)
    if seconds is not None:
        return seconds
    at = _timestamp(value)
    if at is None:
        return None
    sent = _timestamp(headers.get("date"))
    wait = at - (now if sent is None else sent)
    return wait if wait > 0 else None


def _positive(text: str | None) -> float | None:
    if text is None or not _SECONDS.fullmatch(text):
        return None
    number = float(text)
    return number if 0 < number < math.inf else None


def _timestamp(text: str | None) -> float | None:
    if text is None or not text.isascii() or text.count(",") > 1:  # a repeated header has more
        return None
    from email.utils import parsedate_to_datetime  # here: 20 ms of import for a rare header

    try:
        date = parsedate_to_datetime(text)
        # Without a zone it is UTC, as every HTTP date, and not this machine's local time.
        return (date if date.tzinfo is not None else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, OSError):
        return None
