"""What is known of one call beside its answer, as plain data.

The same `Meta` is on answers, on streams and on errors. Times are seconds; those that have
not come yet are None.
"""

from __future__ import annotations

import msgspec

__all__ = ["Attempt", "Meta", "RateLimitSnapshot"]


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One request on the wire that failed and was tried again, or was the last.

    Attributes:
        error: The name of the error's class.
        message: The error's message.
        wait_s: Seconds waited after it before the next; None if it was the last.
        free: Sent again at once and uncounted, because a kept-alive connection proved stale.
    """

    error: str
    message: str
    wait_s: float | None = None
    free: bool = False


class RateLimitSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the server's `x-ratelimit-*` headers said, as far as they did.

    Attributes:
        limit: Requests that the window allows.
        remaining: Requests left in it.
        reset_s: Seconds until it is whole again.
        period_s: The window's period in seconds, where it was said.
    """

    limit: int | None = None
    remaining: int | None = None
    reset_s: float | None = None
    period_s: float | None = None


class Meta(msgspec.Struct, kw_only=True):
    """What is known of one call beside its answer.

    Attributes:
        request_id: The server's `x-request-id`.
        attempts: Requests put on the wire.
        failures: What each failed attempt failed of.
        limiter_wait_s: Seconds waited for the limiter, over all attempts.
        headers_s: Seconds from the call's start to the response's headers.
        first_token_s: Seconds from the call's start to the first text or tool call.
        total_s: Seconds from the call's start to its end.
        tokens_per_s: Completion tokens per second after the first, where usage is known.
        rate_limit: The server's own rate-limit headers.
        cached: Answered by the cache.
        coalesced: Answered by an equal call that was under way.
        tags: The tags that the call was given.
    """

    request_id: str | None = None
    attempts: int = 0
    failures: list[Attempt] = []
    limiter_wait_s: float = 0.0
    headers_s: float | None = None
    first_token_s: float | None = None
    total_s: float | None = None
    tokens_per_s: float | None = None
    rate_limit: RateLimitSnapshot | None = None
    cached: bool = False
    coalesced: bool = False
    tags: dict[str, str] = {}
