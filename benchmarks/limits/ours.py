"""Our limiter in the simulation: the state machines themselves, as every store drives them."""

from __future__ import annotations

from random import Random

from fluence_async._sansio.bucket import Bucket, Claim, RateLimit
from fluence_async._sansio.learning import LearningBucket
from fluence_async._sansio.rate_headers import rate_reports

from .peers import Limits
from .servers import Verdict

__all__ = ["Ours"]

S = 1_000_000_000
ONE = {"requests": 1}


class Ours:
    """A bucket by a policy.

    Args:
        limits: Its windows: limit and period in seconds.
        policy: `"any"`, `"any-strict"` or `"window"`, as of `Limiter`.
    """

    def __init__(self, limits: Limits, policy: str = "any") -> None:
        rates = [RateLimit(limit, period) for limit, period in limits]
        if policy == "window":
            self.bucket = Bucket(rates)
        else:
            self.bucket = LearningBucket(rates, strict=policy == "any-strict")

    def take(self, now: int) -> tuple[Claim | None, int]:
        claim = Claim(ONE)
        if wake := self.bucket.take(claim, now):
            return None, wake
        self.bucket.sent(claim)
        return claim, 0

    def answered(self, claim: Claim, now: int, verdict: Verdict) -> None:
        bucket = self.bucket
        if isinstance(bucket, LearningBucket):
            reports = rate_reports(verdict.headers, now=now / S)
            bucket.settle(claim, now, accepted=verdict.accepted, reports=reports)
            if not verdict.accepted:
                bucket.refused(claim, now)
        else:
            bucket.settle(claim, now)
        if (
            not verdict.accepted
            and 0 < (pause := float(verdict.headers.get("retry-after", 0))) <= 60
        ):
            bucket.block(now + int(pause * S))

    def retry_s(self, attempt: int, verdict: Verdict, chance: Random) -> float:
        said = float(verdict.headers.get("retry-after", 0))
        return said if 0 < said <= 60 else min(0.5 * 2.0 ** min(attempt, 10), 8.0) * chance.random()
