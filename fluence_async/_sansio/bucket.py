"""The limiter's state machine: a claim and a time go in; "taken", or when to try again, comes out.

Law (confirmed windows). A unit is gone from its take until `ub + hold`, where `ub` is a time by
which its request had certainly arrived, and `hold` is the period and a margin:

    claim   │ FRESH │ HELD               │ SENT                     │ ARRIVED
    take    │ HELD  │                    │                          │
    sent    │       │ SENT               │                          │
    settle  │       │ ARRIVED, requests back at ub + hold           │ the first ub stands
    release │       │ DONE, back at once │ DONE, all back at        │ DONE, the rest back at
            │       │                    │ now + unseen + hold      │ now + hold

Why it holds, whatever the network does, for every server that forgets an arrival after a period:
were there limit + 1 arrivals within one period, look at the one that took its unit last. One of
the others had its unit back by then, so it had arrived a whole period earlier: a contradiction.
It takes a clock that never goes back, and all windows together or none. The margin is for the
rates of two clocks and the rounding of stamps.

Times are integers, in nanoseconds: with floats, one that slept exactly as long as it was told can
be short by an epsilon, over and over. Writes are ordered so that a state cut off between two of
them (by a fork) counts a unit too many, never one too few.

Rejected: a log of send times (a request that lingers arrives after its unit is back), a token
bucket (twice the limit in one period).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Final

from ..meta import RateLimitSnapshot
from .claim import ARRIVED, DONE, FRESH, HELD, SENT, Claim, NeverFitsError, the_rest
from .learnt import WindowSnapshot
from .rate_limit import DOCUMENTED_LIMITS, RateLimit
from .tariff import shared
from .window import NEVER, Window

__all__ = [
    "ARRIVED",
    "DOCUMENTED_LIMITS",
    "DONE",
    "FRESH",
    "HELD",
    "NEVER",
    "SENT",
    "Bucket",
    "Claim",
    "RateLimit",
    "Window",
    "WindowSnapshot",
]

_S: Final = 1_000_000_000


class Bucket:
    """All windows of one key, taken together or not at all.

    Args:
        limits: The windows.
        reserve: The share of each window that only lane 0 may use, rounded down to units. Without
            it, priority is worth nothing: an hour's window that lane 1 has emptied stays empty.
        margin: What is added to every hold and every block, in ns.
        drift: And to a hold, for each ns of its period.
        unseen: How long an unanswered request may still arrive after it was given up, in ns.
    """

    learns: bool = False
    stale_after: int = NEVER  # nobody but the asker changes what it is told
    __slots__ = ("_drift", "_margin", "_reserve", "_unseen", "ahead", "blocked_until", "windows")

    def __init__(
        self,
        limits: Iterable[RateLimit],
        *,
        reserve: float = 0.06,
        margin: int = _S // 20,
        drift: float = 5e-4,
        unseen: int = 10 * _S,
    ) -> None:
        self._reserve = reserve
        self._margin = margin
        self._drift = drift
        self._unseen = unseen
        self.blocked_until: int = 0
        self.ahead: int = 0  # requests of others that are to go first: for those who learn
        self.windows: tuple[Window, ...] = ()
        self.tighten(limits, 0)

    def tighten(self, limits: Iterable[RateLimit], now: int) -> None:
        """Obey these limits too: of two for the same dimension and period, the smaller. A new
        window begins with what the longest of its dimension remembers."""
        for rate in limits:
            alike = [each for each in self.windows if each.dimension == rate.counted_as]
            same = [each for each in alike if each.rate.period_s == rate.period_s]
            if not same:
                window = Window(rate, self._hold(rate), int(rate.limit * self._reserve))
                if alike:
                    window.remember(max(alike, key=lambda each: each.hold), now)
                self.windows += (window,)
            elif rate.limit < same[0].rate.limit:
                same[0].resize(rate, int(rate.limit * self._reserve))

    def _hold(self, rate: RateLimit) -> int:
        if not rate.period_s:
            return 0
        return round(rate.period_s * _S * (1 + self._drift)) + self._margin

    def check(self, costs: Mapping[str, int], lane: int) -> None:
        """Raise ValueError if a claim of these costs could never be taken in this lane."""
        counted = {"requests"} | {window.dimension for window in self.windows}
        for name, cost in costs.items():
            dimension = name.partition(":")[0]
            if name not in counted:
                raise ValueError(f"costs name {dimension!r}, and limits count {sorted(counted)}")
            if type(cost) is not int or cost < (dimension == "requests"):
                raise ValueError(f"costs[{dimension!r}]={cost!r}: must be a whole number of units")
        for window in self.windows:
            most = window.rate.limit - (window.reserve if lane else 0)
            if costs.get(window.dimension, 0) > most:
                way_out = "split the request"
                if window.rate.dimension == "tokens":
                    way_out = f"lower max_tokens, or {way_out}"
                raise NeverFitsError(
                    f"costs[{window.rate.dimension!r}]={costs[window.dimension]} never fit into "
                    f"{window.rate}: at most {most} in lane {lane}; {way_out}",
                    window.rate,
                    most,
                )

    def take(self, claim: Claim, now: int, lane: int = 0) -> int:
        """Take a fresh claim's units, all or none.

        Returns:
            0 if they are taken; otherwise before when it is no use to try again, unless a claim
            is settled or released first. `NEVER` if only that decides.
        """
        wake = self._due(claim.costs, now, lane)
        if not wake:
            self._subtract(claim)
        return wake

    def _due(self, costs: Mapping[str, int], now: int, lane: int) -> int:
        wake = self.blocked_until if now < self.blocked_until else 0
        for window in self.windows:
            returns = window.returns
            if returns and returns[0][0] <= now:
                window.advance(now)
            cost = costs.get(window.dimension)
            if cost:
                if lane:
                    cost += window.reserve
                if cost > window.free:
                    wake = max(wake, window.free_at(cost))
        return wake

    def shared_until(self, claim: Claim, now: int, lane: int) -> int:
        """Until when everybody's limits hold it up, as `take` says it; 0 if only those of its model
        do."""
        return self._due(shared(claim.costs), now, lane)

    def _subtract(self, claim: Claim) -> None:
        for window in self.windows:
            window.free -= claim.costs.get(window.dimension, 0)
        claim.state = HELD

    def earliest(self, claim: Claim, now: int, lane: int, ahead: int) -> int:
        """Before when it is no use to try, if `ahead` requests go first and none of what is in
        flight is released; `now` if that is not known."""
        earliest = max(now, self.blocked_until)
        for window in self.windows:
            window.advance(now)
            units = claim.costs.get(window.dimension, 0)
            if units:
                units += window.reserve if lane else 0
                units += ahead if window.dimension == "requests" else 0
                rounds, last = divmod(units - 1, window.rate.limit)
                at = window.free_at(last + 1)
                known = at if now < at < NEVER else now
                earliest = max(earliest, known + rounds * window.hold)
        return earliest

    def sent(self, claim: Claim) -> None:
        """The first byte may have left this machine."""
        if claim.state == HELD:
            claim.state = SENT

    def settle(
        self,
        claim: Claim,
        ub: int,
        accepted: bool | None = None,  # noqa: ARG002 - for those who learn
        reports: Sequence[RateLimitSnapshot] = (),  # noqa: ARG002 - as above
    ) -> None:
        """The request had arrived by `ub`, so what counts on arrival has a time of return. May be
        called again, when more is known of how the server took it: the first bound stands."""
        if claim.state not in (HELD, SENT):
            return
        claim.state = ARRIVED
        for window in self.windows:
            if window.on_arrival and (cost := claim.costs.get(window.dimension)):
                window.put(ub + window.hold, cost)

    def release(self, claim: Claim, now: int, costs: Mapping[str, int] | None = None) -> None:
        """The request is over. Held: nothing left this machine, so its units are free again. Sent
        and never settled: it may still arrive. `costs` is what it came to, where that was an
        estimate: what was too much is given back at once, what was too little becomes a debt
        (`free` below zero)."""
        if claim.state == HELD:
            claim.state = DONE
            for window in self.windows:
                window.free += claim.costs.get(window.dimension, 0)
            return
        if claim.state == SENT:
            now += self._unseen
            self.settle(claim, now)
        if claim.state == ARRIVED:
            claim.state = DONE
            if len(claim.costs) > 1:
                self._settle_rest(claim, now, the_rest(claim, costs))

    def _settle_rest(self, claim: Claim, now: int, came_to: Mapping[str, int]) -> None:
        for window in self.windows:
            used = came_to.get(window.dimension, 0)
            if used:
                window.put(now + window.hold, used)
            if not window.on_arrival:
                window.free += claim.costs.get(window.dimension, 0) - used

    def refused(self, claim: Claim, now: int) -> bool:  # noqa: ARG002 - for those who learn
        """The server refused it, for the rate of its requests. Whether nothing explains that: the
        windows hold, so nothing does."""
        return True

    def block(self, until: int) -> None:
        """Let nobody take before `until` and the margin; an earlier block is never shortened."""
        self.blocked_until = max(self.blocked_until, until + self._margin)

    def snapshot(self, now: int) -> tuple[WindowSnapshot, ...]:
        """Every window."""
        return tuple(window.snapshot(now) for window in self.windows)

    def forget(self) -> None:
        """Know of no unit that was taken: a store is to tell of all of them."""
        for window in self.windows:
            window.returns.clear()
            window.free = window.rate.limit

    def __str__(self) -> str:
        return ", ".join(str(window.rate) for window in self.windows)

    def inherit(self, now: int) -> Bucket:
        """The same for another owner: there, what is in flight here will not be answered; here,
        claims move nothing any more."""
        heir = copy(self)
        self.windows = ()
        for window in heir.windows:
            if window.in_flight:
                window.put(now + self._unseen + window.hold, window.in_flight)
        return heir
