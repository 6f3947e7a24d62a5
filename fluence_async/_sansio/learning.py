"""A bucket that learns how the server really counts: answers go in, what is safe comes out.

Law: confirmed windows always hold; what is learnt only ever holds back more. What the limits do
not tell (how deep a burst may be, whether a sliding counter is kept, whether somebody else uses
the key) is tried with as few requests as will do, and one refusal teaches one lesson: those that
were under way when it was learnt teach nothing more (`learner.py`).

Where the server says itself what remains, that is credit: so many it takes whatever it counts
like, less those that it may have counted after it said so. Then there is nothing to be tried.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy

from ..meta import RateLimitSnapshot
from .bucket import ARRIVED, HELD, NEVER, Bucket, Claim
from .counter import History
from .credit import hear
from .learner import Learner
from .learnt import WindowSnapshot
from .lessons import Lessons
from .note import Note
from .rate_limit import RateLimit
from .trials import Trials
from .watch import Watch

__all__ = ["LearningBucket"]


class LearningBucket(Bucket):
    """A bucket that watches how the server takes what is sent.

    Args:
        limits: The windows.
        strict: Never send what a sliding counter could refuse, instead of trying.
        generous: Where the server states a larger limit for the same period, use that.
        options: As of `Bucket`.
    """

    learns: bool = True

    __slots__ = (
        "_foreign", "_history", "_learner", "_memory", "_quiet", "_settled", "_strict", "_taken",
        "_trials", "_withholds",
    )  # fmt: skip

    def __init__(
        self,
        limits: Iterable[RateLimit],
        *,
        strict: bool = False,
        generous: bool = False,
        **options: float,
    ) -> None:
        self._learner = Learner(generous=generous)
        self._strict = strict
        self._history = History()
        self._taken = self._settled = 0  # by all who share the units; others have in flight:
        self._foreign = 0
        self._trials = Trials(self._learner)
        super().__init__(limits, **options)  # type: ignore[arg-type]

    @property
    def watches(self) -> tuple[Watch, ...]:
        """What is watched, window by window."""
        return self._learner.watches

    @property
    def lessons(self) -> Lessons:
        """All that was learnt."""
        return self._learner.lessons

    def tighten(self, limits: Iterable[RateLimit], now: int) -> None:
        for watch in self.watches:
            watch.resize(stated=False)
        super().tighten(limits, now)
        self._learner.watch(self.windows, self._history)
        self._retune()
        self._memory = 2 * max((watch.window.hold for watch in self.watches), default=0)

    def _retune(self) -> None:
        """What a take need not think about depends on what was learnt."""
        self._quiet = min((watch.quiet for watch in self.watches), default=0)
        self._withholds = any(watch.learnt.withheld for watch in self.watches)

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
        after = cost + self.ahead
        loud = len(self._history.lasts) + flying + after > self._quiet and any(
            not watch.is_quiet(flying + after, now) for watch in watches
        )
        if loud and (wake := self._guarded(flying, after, now, over)):
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
                self._trials.add(claim)
                self.lessons.tried_at = now
        return 0

    def _restore(self, now: int) -> None:
        for watch in self.watches:
            if watch.learnt.withheld and now >= watch.learnt.restore_at:
                watch.restore(now)
        self._retune()

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
        if self._trials:
            self._trials.believe(now)
            self._retune()
            over.clear()
            wake, deeper = self._hindered(flying, cost, now, over)
        if wake:
            return self._trials.sooner(wake, now)
        trials = self._trials.count(now)
        tried = [watch for watch in over if not watch.credit]
        if tried and (deeper or self._strict or trials >= self._learner.trials):
            later = max(watch.counter_free_at(flying + cost, now) for watch in tried)
            return later if self._strict else self._trials.sooner(later, now)
        return self._trials.sooner(NEVER, now) if deeper and trials else 0

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
            self._trials.over(claim)
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
            self._learner.succeeded(first)
            return
        self._learner.accept(note, claim.arrived)
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
            self._trials.over(claim)

    def refused(self, claim: Claim, now: int) -> bool:
        """The server refused it, for the rate of its requests: learn from it, once per salvo.
        Whether nothing explains it."""
        if not self.watches or claim.state < ARRIVED:
            return False
        note = None if type(claim.note) is int else claim.note
        taken_at = note.taken_at if note else claim.note
        until = self._learner.refused(taken_at, note, now)
        self.blocked_until = max(self.blocked_until, until)
        self._retune()
        return until > 0

    # ─── others who share the units ───────────────────────────────────────────────────────

    def forget(self) -> None:
        super().forget()
        self._history.forget(NEVER)
        self._foreign -= self._taken - self._settled  # a store tells of what is in flight here too
        self._settled = self._taken
        for watch in self.watches:
            watch.forget()

    def obey(self, lessons: Lessons, now: int) -> None:
        """Know what others have learnt."""
        self._learner.obey(lessons, now)
        self._retune()

    def overhear(self, arrived: Sequence[tuple[int, int]], more: int, now: int) -> None:
        """Others have requests in flight, so many `more` than before, and of theirs, these had
        arrived by then: times, each with a number of requests, in order."""
        settled = sum(cost for _, cost in arrived)
        taken = settled + more
        self._settled += settled
        self._taken += taken
        for at, cost in arrived:
            self._history.note(at, cost)
        for watch in self.watches:
            watch.overhear(arrived, max(0, self._foreign), self._foreign + more, now)
            watch.credit = max(0, watch.credit - max(0, taken))
        self._foreign += more

    # ─── seeing it, and forks ─────────────────────────────────────────────────────────────

    def snapshot(self, now: int) -> tuple[WindowSnapshot, ...]:
        learnt = {watch.window: copy(watch.learnt) for watch in self.watches}
        return tuple(window.snapshot(now, learnt.get(window)) for window in self.windows)

    def inherit(self, now: int) -> LearningBucket:
        for watch in self.watches:
            watch.begin_anew()
        heir = super().inherit(now)
        assert isinstance(heir, LearningBucket)
        self._learner = Learner()
        heir._trials = Trials(heir._learner)  # noqa: SLF001 - it is this one's copy
        heir._settled, heir._foreign = heir._taken, 0  # noqa: SLF001
        return heir
