"""Our limiter in the simulation: the state machines themselves, as every store drives them."""

from __future__ import annotations

from random import Random

from fluence_async._sansio.bucket import SENT, Bucket, Claim, RateLimit
from fluence_async._sansio.learning import LearningBucket
from fluence_async._sansio.rate_headers import rate_reports
from fluence_async.limiter._early import Early

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

    Attributes:
        early: By when a request has arrived that is not answered; None to believe headers only.
    """

    def __init__(self, limits: Limits, policy: str = "any") -> None:
        rates = [RateLimit(limit, period) for limit, period in limits]
        if policy == "window":
            self.bucket: Bucket = Bucket(rates)
        else:
            self.bucket = LearningBucket(rates, strict=policy == "any-strict")
        self.early: Early | None = Early()
        self.shortest = round(min(period for _, period in limits) * S)

    def take(self, now: int) -> tuple[Claim | None, int]:
        claim = Claim(ONE)
        if wake := self.bucket.take(claim, now):
            return None, wake
        self.bucket.sent(claim)
        return claim, 0

    def delivered(self, claim: Claim, now: int) -> None:
        if self.early is not None and claim.state == SENT:
            self.bucket.settle(claim, self.early.bound(now))

    def answered(self, claim: Claim, now: int, verdict: Verdict) -> None:
        bucket = self.bucket
        reports = rate_reports(verdict.headers, now=now / S) if bucket.learns else ()
        bucket.settle(claim, now, accepted=verdict.accepted, reports=reports)
        if not verdict.accepted and bucket.refused(claim, now) and self.early is not None:
            self.early.blame(now, self.shortest)
        if (
            not verdict.accepted
            and 0 < (pause := float(verdict.headers.get("retry-after", 0))) <= 60
        ):
            bucket.block(now + int(pause * S))

    def retry_s(self, attempt: int, verdict: Verdict, chance: Random) -> float:
        said = float(verdict.headers.get("retry-after", 0))
        return said if 0 < said <= 60 else min(0.5 * 2.0 ** min(attempt, 10), 8.0) * chance.random()
