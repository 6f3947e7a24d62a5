"""A bucket that learns how the server really counts: answers go in, what is safe comes out.

Law: confirmed windows always hold; what is learnt only ever holds back more. What the limits do
not tell (how deep a burst may be, whether a sliding counter is kept, whether somebody else uses
the key) is tried with as few requests as will do, and one refusal teaches one lesson: those that
were under way when it was learnt teach nothing more.

    a 429 of what was          teaches
    a trial of the counter     that the server keeps one, for good
    deeper than was proven     a smaller burst; one more is tried after W, 4 W, 16 W …
    neither                    5 % less; restored after W, 2 W, 4 W … ; and a pause, doubled
    before anything succeeded  nothing: it is of an earlier run; a pause, doubled

A request counts as accepted when its headers say so, or when a second has gone by without a
refusal, since these come at once.

Where the server says itself what remains, that is credit: so many it takes whatever it counts
like, less those that it may have counted after it said so. Then there is nothing to be tried.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from ..meta import RateLimitSnapshot
from .bucket import ARRIVED, HELD, NEVER, SENT, Bucket, Claim
from .counter import History
from .learnt import Learnt, WindowSnapshot
from .rate_limit import RateLimit
from .watch import Note, Watch, hear

__all__ = ["LearningBucket"]

_S: Final = 1_000_000_000
_REFUSED_WITHIN: Final = _S
_MOST_TRIALS: Final = 8


class LearningBucket(Bucket):
    """A bucket that watches how the server takes what is sent.

    Args:
        limits: The windows.
        strict: Never send what a sliding counter could refuse, instead of trying.
        options: As of `Bucket`.
    """

    learns: bool = True

    __slots__ = (
        "_history", "_memory", "_pause", "_proven_at", "_quiet", "_settled", "_strict", "_taken",
        "_taught_at", "_trials", "_unsure", "_withholds", "watches",
    )  # fmt: skip

    def __init__(
        self, limits: Iterable[RateLimit], *, strict: bool = False, **options: float
    ) -> None:
        self.watches: tuple[Watch, ...] = ()
        self._strict = strict
        self._history = History()
        self._taken = self._settled = 0
        self._unsure: OrderedDict[Claim, None] = OrderedDict()
        self._trials = 1
        self._taught_at = -1
        self._proven_at = -1
        self._pause = 0
        self._withholds = False
        super().__init__(limits, **options)  # type: ignore[arg-type]

    def tighten(self, limits: Iterable[RateLimit], now: int) -> None:
        super().tighten(limits, now)
        known = {watch.window: watch for watch in self.watches}
        self.watches = tuple(
            known.get(window) or Watch(window, Learnt(), self._history)
            for window in sorted(self.windows, key=lambda window: window.hold)
            if window.dimension == "requests"
        )
        for watch in self.watches:
            watch.narrow()
        self._retune()
        self._memory = 2 * max((watch.window.hold for watch in self.watches), default=0)

    # ─── taking ───────────────────────────────────────────────────────────────────────────

    def take(self, claim: Claim, now: int, lane: int = 0) -> int:
        costs = claim.costs
        watches = self.watches
        if self._withholds:
            self._restore(now)
        if wake := self._due(costs, now, lane):
            return self._restored_at(wake)
        cost = costs["requests"]
        flying = self._taken - self._settled
        over: list[Watch] = []
        loud = len(self._history.lasts) + flying + cost > self._quiet and any(
            not watch.is_quiet(flying + cost, now) for watch in watches
        )
        if loud and (wake := self._guarded(flying, cost, now, over)):
            return wake
        self._subtract(claim)
        self._taken += cost
        for watch in watches:
            begun = watch.begun
            watch.begun = (begun if begun > now else now) + cost * watch.gap  # noqa: FURB136
        claim.note = now
        if loud:
            for watch in watches:
                watch.credit = max(0, watch.credit - cost)
            claim.note = note = Note(now, watches, over, taken=self._taken, flying=flying + cost)
            if over or note.is_deep(watches):
                self._unsure[claim] = None
        return 0

    def _retune(self) -> None:
        """What a take need not think about depends on what was learnt."""
        self._quiet = min((watch.quiet for watch in self.watches), default=0)

    def _restore(self, now: int) -> None:
        for watch in self.watches:
            if watch.learnt.withheld and now >= watch.learnt.restore_at:
                watch.restore(now)
        self._withholds = any(watch.learnt.withheld for watch in self.watches)

    def _restored_at(self, wake: int) -> int:
        """If a settle decides, a unit that is given back may as well."""
        if wake == NEVER:
            for watch in self.watches:
                if watch.learnt.withheld:
                    wake = min(wake, watch.learnt.restore_at)
        return wake

    def _guarded(self, flying: int, cost: int, now: int, over: list[Watch]) -> int:
        """When nothing that is learnt, or not yet, is against it. Fills `over`."""
        wake, deeper = self._hindered(flying, cost, now, over)
        if not wake and not deeper and not over:
            return 0
        if self._unsure:
            self._believe(now)
            over.clear()
            wake, deeper = self._hindered(flying, cost, now, over)
        if wake:
            return self._sooner(wake)
        trials = len(self._unsure)
        tried = [watch for watch in over if not watch.credit]
        if tried and (deeper or self._strict or trials >= self._trials):
            later = max(watch.counter_free_at(flying + cost, now) for watch in tried)
            return later if self._strict else self._sooner(later)
        return self._sooner(NEVER) if deeper and trials else 0

    def _hindered(self, flying: int, cost: int, now: int, over: list[Watch]) -> tuple[int, bool]:
        """When it may go, and whether it would be a try of a deeper burst."""
        wake, deeper = 0, False
        for watch in self.watches:
            free_at = watch.burst_free_at(cost, now)
            if free_at and not watch.credit:
                if watch.may_retry_burst(now) and not watch.burst_free_at(cost - 1, now):
                    deeper = True
                else:
                    wake = max(wake, free_at)
            free_at = watch.counter_free_at(flying + cost, now)
            if free_at:
                if watch.learnt.counter and not watch.credit:
                    wake = max(wake, free_at)
                over.append(watch)
        return wake, deeper

    def _sooner(self, wake: int) -> int:
        """A request that is no longer unsure may change things before that."""
        if not self._unsure:
            return wake
        first: Note = next(iter(self._unsure)).note
        return min(wake, first.taken_at + _REFUSED_WITHIN)

    # ─── what becomes of it ───────────────────────────────────────────────────────────────

    def settle(
        self,
        claim: Claim,
        ub: int,
        accepted: bool | None = None,
        reports: Sequence[RateLimitSnapshot] = (),
    ) -> None:
        """As of `Bucket`; learns once of each. With `accepted`, `ub` is when the headers came."""
        before = claim.state
        super().settle(claim, ub, accepted, reports)
        if not HELD <= before <= ARRIVED or not self.watches:
            return
        if before != ARRIVED:
            claim.arrived, claim.accepted = ub, None
            self._settled += claim.costs["requests"]
            self._history.note(ub, claim.costs["requests"])
            if self._history.lasts[0] < ub - self._memory:
                self._history.forget(ub - self._memory)
        if accepted is not None and claim.accepted is None:
            claim.accepted = accepted
            self._unsure.pop(claim, None)
            if accepted:
                self._learn(claim, ub, reports)
            else:
                for watch in self.watches:
                    watch.begun -= claim.costs["requests"] * watch.gap

    def _learn(self, claim: Claim, now: int, reports: Sequence[RateLimitSnapshot]) -> None:
        note = claim.note
        quiet = type(note) is int  # its take was nothing to learn from
        first = note if quiet else note.taken_at
        self._history.count(first, claim.arrived, claim.costs["requests"])
        if quiet:
            self._proven_at = max(self._proven_at, note)
            self._pause = 0
            return
        self._accept(note, claim.arrived)
        if reports:
            hear(self.watches, reports, note, now, since=self._taken - note.taken)
            self._retune()

    def release(self, claim: Claim, now: int, costs: Mapping[str, int] | None = None) -> None:
        held = claim.state == HELD
        super().release(claim, now, costs)
        if held and self.watches:
            cost = claim.costs["requests"]
            self._taken -= cost
            for watch in self.watches:
                watch.begun -= cost * watch.gap
            self._unsure.pop(claim, None)

    def _accept(self, note: Note, ub: int) -> None:
        self._proven_at = max(self._proven_at, note.taken_at)
        self._pause = 0
        if note.taken_at > self._taught_at:  # or else others of its salvo were refused
            for watch, depth in zip(self.watches, note.depths, strict=True):
                if depth > watch.learnt.proven and not watch.learnt.reported:
                    watch.prove(depth)
                    self._retune()
        for watch in note.over:
            watch.refute(note.taken_at, ub)
            self._trials = 1 if watch.learnt.reported else min(2 * self._trials, _MOST_TRIALS)

    def _believe(self, now: int) -> None:
        """What was not refused for so long was accepted."""
        while self._unsure and self._sooner(NEVER) <= now:
            claim, _ = self._unsure.popitem(last=False)
            if SENT <= claim.state <= ARRIVED:
                self._accept(claim.note, now)

    # ─── refusals ─────────────────────────────────────────────────────────────────────────

    def refused(self, claim: Claim, now: int) -> bool:
        """The server refused it: learn from it, once per salvo. Whether nothing explains it."""
        if not self.watches:
            return False
        note = claim.note
        if type(note) is int:
            note = Note(note, (), [], taken=0, flying=0)
            note.depths = [watch.depth_at_most(now) for watch in self.watches]
        if note.taken_at <= self._taught_at:
            return False
        self._taught_at = now
        if self._proven_at < 0:
            self._hold_back(now)
            return False
        if any(not watch.learnt.counter for watch in note.over):
            for watch in self.watches:  # who counts one window so counts all
                watch.blame_counter()
            return False
        pairs = list(zip(self.watches, note.depths, strict=True))
        for surely in (True, False):
            for watch, depth in pairs:
                if watch.too_deep(depth, surely=surely):
                    watch.shrink(depth, now)
                    self._retune()
                    return False
        fullest = min(self.watches, key=lambda watch: watch.window.free / watch.limit)
        fullest.withhold(now)
        self._withholds = True
        self._hold_back(now)
        return True

    def _hold_back(self, now: int) -> None:
        shortest = self.watches[0].window.hold // 4
        self._pause = min(2 * self._pause or _S, max(_S // 100, shortest))
        self.blocked_until = max(self.blocked_until, now + min(self._pause, shortest))

    # ─── seeing it, and forks ─────────────────────────────────────────────────────────────

    def snapshot(self, now: int) -> tuple[WindowSnapshot, ...]:
        learnt = {watch.window: watch.learnt for watch in self.watches}
        return tuple(window.snapshot(now, learnt.get(window)) for window in self.windows)

    def inherit(self, now: int) -> LearningBucket:
        for watch in self.watches:
            watch.begin_anew()
        heir = super().inherit(now)
        assert isinstance(heir, LearningBucket)
        self.watches = ()
        heir._unsure = OrderedDict()  # noqa: SLF001 - it is this one's copy
        heir._settled = heir._taken  # noqa: SLF001
        return heir
