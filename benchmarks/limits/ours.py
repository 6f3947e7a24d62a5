"""Our limiter in the simulation: the state machines themselves, as every store drives them; and
several processes that share a file, by the file's own store."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from random import Random

from fluence_async._sansio.bucket import SENT, Bucket, Claim, RateLimit
from fluence_async._sansio.learning import LearningBucket
from fluence_async._sansio.rate_headers import rate_reports
from fluence_async.limiter._early import Early
from fluence_async.limiter._store import Store
from fluence_async.limiter.file import FileStore

from .peers import Limits
from .servers import Verdict

__all__ = ["Ours", "Several", "answer"]

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
        self.bucket: Store = _bucket(limits, policy)
        self.early: Early | None = Early()
        self.shortest = round(min(period for _, period in limits) * S)

    def take(self, now: int) -> tuple[Claim | None, int]:
        claim = Claim(ONE)
        if wake := self.bucket.take(claim, now, 0):
            return None, wake
        self.bucket.sent(claim)
        return claim, 0

    def delivered(self, claim: Claim, now: int) -> None:
        if self.early is not None and claim.state == SENT:
            self.bucket.settle(claim, self.early.bound(now))

    def answered(self, claim: Claim, now: int, verdict: Verdict) -> None:
        unexplained = answer(self.bucket, claim, now, verdict)
        if unexplained and self.early is not None:
            self.early.blame(now, self.shortest)

    def retry_s(self, attempt: int, verdict: Verdict, chance: Random) -> float:
        said = float(verdict.headers.get("retry-after", 0))
        return said if 0 < said <= 60 else min(0.5 * 2.0 ** min(attempt, 10), 8.0) * chance.random()


class Several(Ours):
    """Processes that share a file in a folder, and are asked in turn."""

    def __init__(
        self, folder: Path, limits: Limits, policy: str = "any", processes: int = 4
    ) -> None:
        self._path = folder / "limits"
        self._limits, self._policy = limits, policy
        self._now = 0
        self._stores = [self.process() for _ in range(processes)]
        self._turns = cycle(range(processes))
        self._of: dict[Claim, FileStore] = {}

    def process(self) -> FileStore:
        """One more of them, which begins with what is in the file."""
        bucket = _bucket(self._limits, self._policy)
        store = FileStore(self._path, bucket, 10 * S, lambda: self._now)
        store.stale_after = 10 * S  # nobody dies here
        return store

    def delivered(self, claim: Claim, now: int) -> None:
        """Not told: its processes wait for the headers."""

    def take(self, now: int) -> tuple[Claim | None, int]:
        self._now = now
        wakes = []
        for _ in self._stores:
            store = self._stores[next(self._turns)]
            claim = Claim(ONE)
            wake = store.take(claim, now, 0)
            if not wake:
                store.sent(claim)
                self._of[claim] = store
                return claim, 0
            wakes.append(min(wake, now + store.stale_after))
        return None, min(wakes)

    def answered(self, claim: Claim, now: int, verdict: Verdict) -> None:
        self._now = now
        answer(self._of.pop(claim), claim, now, verdict)


def _bucket(limits: Limits, policy: str) -> Bucket:
    rates = [RateLimit(limit, period) for limit, period in limits]
    if policy == "window":
        return Bucket(rates)
    return LearningBucket(rates, strict=policy == "any-strict", generous=policy == "any-generous")


def answer(store: Store, claim: Claim, now: int, verdict: Verdict) -> bool:
    """Tell a store of an answer; whether it is a refusal that nothing explains."""
    reports = rate_reports(verdict.headers, now=now / S) if store.learns else ()
    store.settle(claim, now, verdict.accepted, reports)
    unexplained = False
    if not verdict.accepted:
        unexplained = store.refused(claim, now)
        if 0 < (pause := float(verdict.headers.get("retry-after", 0))) <= 60:
            store.block(now + int(pause * S))
    return unexplained
