"""One window's server, as it shows itself: takes, acceptances and refusals go in; whether one more
would be safe, or a trial, comes out.

Law: a window that nothing is known of is begun slowly, as if the server took bursts of twice what
it has taken at most, and never of many more. With a gap of g = period / limit between two units, a
burst of b is kept to by

    max(tat, t) + g − t ≤ b · g        tat ← max(tat, t) + g at every take

which a burst of the whole limit always satisfies, if confirmed windows are kept. How deep a
request went is judged by the times at which requests were taken: these lie as far apart as the
arrivals do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from .bucket import Window
from .counter import ALL_PARTS, CounterGuard, History
from .learnt import Learnt

__all__ = ["Watch"]

_DEEPER: Final = 12
_HEADROOM: Final = 1  # arrivals do not lie quite as far apart as takes do


class Watch:
    """What is known of one window's server, and what has been sent to it.

    Attributes:
        window: The window, as wide as the server states if `generous`, or else as the user says.
        own: The user's limit.
        learnt: What is known for good.
        counter: What a sliding counter would say.
        credit: How many more the server takes at least, by what it said itself.
        begun: When all that was taken would be drained at the limit's pace, in ns.
        gap: Between two units at the limit's pace, in ns.
    """

    __slots__ = (
        "_reserve",
        "begun",
        "counter",
        "credit",
        "gap",
        "generous",
        "learnt",
        "own",
        "window",
    )

    def __init__(
        self, window: Window, learnt: Learnt, history: History, *, generous: bool = False
    ) -> None:
        self.window = window
        self.generous = generous
        self.own = window.rate
        self._reserve = window.reserve
        self.learnt = learnt
        self.counter = CounterGuard(window.hold, history, learnt.alignments)
        self.credit = 0
        self.gap = -(-window.hold // window.rate.limit)
        self.begun = 0

    @property
    def limit(self) -> int:
        """Units in a period."""
        return self.window.rate.limit

    def begin_anew(self) -> None:
        """In another process: what is in flight belongs to the one before."""
        self.credit = 0
        self.window.free += self.learnt.withheld
        self.learnt.withheld = 0

    def narrow(self) -> None:
        """The user may have given the window, as narrow as he said, another limit."""
        self.own, self._reserve = self.window.rate, self.window.reserve
        self.resize()
        self._fit()

    def resize(self, *, stated: bool = True) -> None:
        """Let the window be as wide as the server states, if that is allowed and is more."""
        window, own = self.window, self.own
        rate, reserve = own, self._reserve
        if stated and self.generous and self.learnt.stated > own.limit:
            rate = msgspec.structs.replace(own, limit=self.learnt.stated)
            reserve = reserve * rate.limit // own.limit
        if rate != window.rate:
            window.resize(rate, reserve)
        self.gap = -(-window.hold // rate.limit)

    def _fit(self) -> None:
        learnt = self.learnt
        learnt.burst, learnt.proven = min(learnt.burst, self.limit), min(learnt.proven, self.limit)

    def regard(self, stated: int | None, now: int) -> bool:
        """The server states a limit for this very period; whether that changes the window."""
        learnt = self.learnt
        if not self.generous or stated is None or now < learnt.restore_at:
            return False
        before = self.limit
        learnt.stated = stated if stated > self.own.limit else 0
        self.resize()
        self._fit()
        return self.limit != before

    def distrust(self, now: int) -> bool:
        """It refused: what it states is not believed for a while; whether it was until now."""
        learnt = self.learnt
        if not learnt.stated:
            return False
        learnt.stated = self.credit = 0
        self.resize()
        self._fit()
        self._restore_later(now)
        return True

    def forget(self) -> None:
        """Nothing was sent, as far as is known."""
        self.begun = self.credit = 0
        self.window.free -= self.learnt.withheld

    def obey(self, learnt: Learnt) -> None:
        """Know what others have learnt."""
        self.window.free += self.learnt.withheld - learnt.withheld
        self.learnt = learnt
        self.counter.parts = learnt.alignments
        self.resize()

    def overhear(
        self, arrived: Iterable[tuple[int, int]], before: int, flying: int, now: int
    ) -> None:
        """Others had so many in flight `before`, which are counted already, and have so many now;
        these arrived meanwhile. When each was taken is not known: about when it arrived."""
        for at, cost in arrived:
            fresh = max(0, cost - before)
            before = max(0, before - cost)
            if fresh:
                self.begun = max(self.begun, at) + fresh * self.gap
        if flying > before:
            self.begun = max(self.begun, now)
        self.begun += (flying - before) * self.gap

    def burst_free_at(self, cost: int, now: int) -> int:
        """When the burst allows it: 0 for now."""
        burst = self.learnt.burst
        if burst >= self.limit:
            return 0
        at = self.begun + (cost - burst) * self.gap
        return at if at > now and self.begun > now else 0

    def counter_free_at(self, taken: int, now: int) -> int:
        """When no sliding counter could refuse it: 0 for now."""
        if not self.learnt.alignments:
            return 0
        return self.counter.free_at(now, taken, self.limit)

    def may_retry_burst(self, now: int) -> bool:
        """Whether it is time to try a burst of one more."""
        learnt = self.learnt
        return learnt.ended and not learnt.reported and now >= learnt.retry_burst_at

    def depth(self, now: int) -> int:
        """How deep the request that was just taken goes."""
        return -((now - self.begun) // self.gap)

    def depth_at_most(self, now: int) -> int:
        """How deep one went whose take was nothing to mind, while bursts are still tried."""
        learnt = self.learnt
        return 0 if learnt.ended else min(self.counter.known(now), self.quiet)

    @property
    def quiet(self) -> int:
        """So many in two periods are nothing to mind, and nothing to learn from."""
        learnt = self.learnt
        return 0 if learnt.reported else learnt.burst - max(1, (learnt.burst - learnt.proven) // 2)

    def is_quiet(self, taken: int, now: int) -> bool:
        """Whether so many in flight are nothing that any server could mind, by what is known,
        and nothing that teaches anything."""
        learnt = self.learnt
        if learnt.reported:
            return False
        known = self.counter.known(now) + taken
        return known <= self.quiet or learnt.burst >= self.limit >= known

    def bound(self, depth: int, flying: int, now: int) -> int:
        """How many more the server takes at least, after one of this depth, whatever it counts
        like, if nobody else uses the key; below zero if that is not known."""
        learnt = self.learnt
        if not learnt.reported:
            return -1
        bound = min(self.window.free, learnt.burst - depth)
        if learnt.alignments:
            bound = min(bound, self.limit - self.counter.known(now) - flying)
        return bound

    def concede(self, units: int, reset_s: float | None, now: int) -> None:
        """So many units went to somebody else."""
        hold = self.window.hold
        if reset_s is not None:
            hold = min(hold, round(reset_s * 1e9) + hold // 1000)
        self.window.free -= units
        self.window.put(now + hold, units)

    def prove(self, depth: int) -> None:
        """The server took a burst of so many."""
        learnt = self.learnt
        if depth <= learnt.proven:
            return
        learnt.proven = min(depth, self.limit)
        reach = depth if learnt.ended else depth + min(depth, max(_DEEPER, depth // 20))
        learnt.burst = min(self.limit, max(learnt.burst, reach))

    def hear(self, remaining: int, depth: int, now: int) -> None:
        """The server says what remains after a request that went at least so deep."""
        learnt = self.learnt
        whole = remaining + 1 >= self.limit
        reach = self.limit if whole else max(1, remaining + depth - _HEADROOM)
        if not learnt.reported:
            learnt.reported = learnt.ended = True
            learnt.proven = learnt.burst = reach
        elif now >= learnt.retry_burst_at:
            self.prove(reach)

    def refute(self, first: int, last: int) -> None:
        """What a counter may have refused was accepted: it keeps none that would have."""
        if not self.learnt.counter:
            self.counter.accepted(first, last, self.limit)
            self.learnt.alignments = self.counter.parts

    # ─── lessons ──────────────────────────────────────────────────────────────────────────

    def blame_counter(self) -> None:
        """It refused what only a sliding counter refuses."""
        self.learnt.counter = True
        self.learnt.alignments = self.counter.parts = ALL_PARTS
        self.credit = 0

    def too_deep(self, depth: int, *, surely: bool) -> bool:
        """Whether the depth of a refused request explains the refusal: it was deeper than
        anything that was ever accepted; or at least more than half as deep as that."""
        learnt = self.learnt
        if surely:
            return depth > learnt.proven
        return depth > 2 and 2 * depth > learnt.proven + 1

    def shrink(self, depth: int, now: int) -> None:
        """A burst of `depth` was refused."""
        learnt = self.learnt
        learnt.burst = max(
            1, min(learnt.proven, learnt.burst) if depth > learnt.proven else depth * 3 // 4
        )
        learnt.proven = learnt.burst
        learnt.retry_burst_in = 4 * learnt.retry_burst_in if learnt.ended else self.window.hold
        learnt.retry_burst_at = now + learnt.retry_burst_in
        learnt.ended = True
        self.credit = 0
        self.begun = max(self.begun, now + learnt.burst * self.gap)

    def withhold(self, now: int) -> None:
        """It was refused for no reason that we know of: somebody else may use the key."""
        learnt, window = self.learnt, self.window
        step = min(-(-self.limit // 20), self.limit // 2 - learnt.withheld)
        if step > 0:
            learnt.withheld += step
            window.free -= step
        self._restore_later(now)
        self.credit = 0

    def _restore_later(self, now: int) -> None:
        learnt, window = self.learnt, self.window
        often = learnt.restore_in and now < learnt.restore_at + learnt.restore_in
        learnt.restore_in = min(2 * learnt.restore_in, 64 * window.hold) if often else window.hold
        learnt.restore_at = now + learnt.restore_in

    def restore(self, now: int) -> None:
        """Use some more again of what was withheld."""
        learnt = self.learnt
        step = min(-(-self.limit // 20), learnt.withheld)
        learnt.withheld -= step
        self.window.free += step
        learnt.restore_at = now + learnt.restore_in
