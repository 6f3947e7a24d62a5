"""Where the units are: what a limiter asks of a store, in memory (`Bucket`), in a file, elsewhere.

Law: a store decides and never waits. It answers each question at once, for one claim, at a time
that comes in, in nanoseconds of the limiter's clock; the limiter calls it under its lock.

A file that processes share (`FileStore`) has the boot clock as the limiter's: `take` answers
when this process's turn comes, or in a millisecond while another process has the file's lock. A
store that is itself awaited (Redis) fits under the same queue: `take` hands out the unit in hand,
or leaves the question to a task of the store's own, which pumps when it is answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from .._sansio.bucket import Claim, WindowSnapshot
from .._sansio.rate_limit import RateLimit
from ..meta import RateLimitSnapshot

__all__ = ["Store"]


class Store(Protocol):
    """What `Bucket` does, and any other store after it."""

    @property
    def learns(self) -> bool:
        """Whether reports of what remains are of any use."""
        ...

    @property
    def blocked_until(self) -> int:
        """Nobody takes before this."""
        ...

    @property
    def stale_after(self) -> int:
        """For how long an answer of `take` holds at most, in ns: others may change it."""
        ...

    def check(self, costs: Mapping[str, int], lane: int) -> None:
        """Raise ValueError if such a claim could never be taken."""

    def take(self, claim: Claim, now: int, lane: int) -> int:
        """Take all or nothing, in that lane's right: 0, or when to try again (NEVER: when a settle
        or release decides)."""
        ...

    def earliest(self, claim: Claim, now: int, lane: int, ahead: int) -> int:
        """Before when no try can succeed, with so many requests ahead; `now` if nobody knows."""
        ...

    def shared_until(self, claim: Claim, now: int, lane: int) -> int:
        """Of a claim that was just told to wait, until when everybody's limits hold it up: 0 if
        only those of its model do, NEVER where that is not known."""
        ...

    def sent(self, claim: Claim) -> None:
        """Its first byte may have left this machine."""

    def settle(
        self,
        claim: Claim,
        ub: int,
        accepted: bool | None = None,
        reports: Sequence[RateLimitSnapshot] = (),
    ) -> None:
        """It had arrived by `ub`: what counts on arrival has a time of return, and it is ARRIVED.
        Again with the response's headers, when they come: the server took it or not, and says what
        remains. That moves no unit, the first `ub` stands; who learns, learns of it once."""

    def refused(self, claim: Claim, now: int) -> bool:
        """The server refused it, for the rate of its requests; whether nothing that is known of
        the server explains that."""
        ...

    def release(self, claim: Claim, now: int, costs: Mapping[str, int] | None = None) -> None:
        """It is over, however far it came. Held: all is back at once. Sent and never settled: all
        is settled, a while from now. Arrived: so is now what counts until the end, with what it
        came to if `costs` say; one that is only requests needs no release then."""

    def block(self, until: int) -> None:
        """Let nobody take before `until`."""

    def tighten(self, limits: Iterable[RateLimit], now: int) -> None:
        """Obey these limits too."""

    def snapshot(self, now: int) -> tuple[WindowSnapshot, ...]:
        """Every window."""
        ...

    def inherit(self, now: int) -> Store:
        """What a forked child goes on with; claims on this one move nothing any more."""
        ...
