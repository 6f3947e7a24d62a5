"""What a process learns of the server, and hears of what others learnt: answers go in, terms for
the script come out, and lessons for the others.

Law: the script decides by Redis's clock and by what everybody sent, and it cannot look at every
alignment that a sliding counter may have. So as soon as two periods hold more than the limit,
requests go at a pace that any counter bears, one by one and a little slower than the limit, which
costs 3 % (more of limits below 50). Where the server itself says what it has room for, that is had
at once, and one is tried whenever the limits have room, so that it says so. How deep a burst may be
is learnt as ever, and so is who else uses the key.

Of two processes that learn at once, whose lesson comes first to Redis counts; the other takes that
in, and forgets its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from copy import copy, deepcopy

import msgspec

from ..._sansio.bucket import Claim, Window, WindowSnapshot
from ..._sansio.counter import History
from ..._sansio.credit import hear
from ..._sansio.lanes import EVERY
from ..._sansio.learner import Learner
from ..._sansio.lessons import Lessons
from ..._sansio.note import Note
from ..._sansio.trials import Trials
from ...limiter.limiter import Policy
from ...meta import RateLimitSnapshot
from ._units import News, Reply

__all__ = ["Pupil"]

_US = 1_000
_PACE, _LESS, _AT_ONCE = 0.97, 1.5, 0.01
_ANY_BURST = 10**9


class Pupil:
    """One process's part.

    Args:
        windows: Of the limiter; they are as wide as what is learnt allows.
        policy: As of `Limiter`; with `"window"` nothing is learnt.

    Attributes:
        changed: How often the lessons had changed that are known here; "" if nothing is learnt.
    """

    def __init__(self, windows: Sequence[Window], policy: Policy) -> None:
        self.learns = policy != "window"
        self._tries = policy != "any-strict"
        self._learner = Learner(generous=policy == "any-generous")
        self._trials = Trials(self._learner)
        self.changed = "0" if self.learns else ""
        self._ahead = 0  # Redis's clock, of ours, in ns
        self._anew_at = -1  # what was granted before then, it has forgotten
        self.watch(windows)
        self._told = self._telling = deepcopy(self._learner.lessons)

    def narrow(self) -> None:
        """Let the windows be as the user said, before he says more."""
        for watch in self._learner.watches:
            watch.resize(stated=False)

    def watch(self, windows: Sequence[Window]) -> None:
        """Learn of these."""
        if self.learns:
            self._learner.watch(windows, History())

    # ─── what Redis is told ───────────────────────────────────────────────────────────────

    def terms(self, windows: Sequence[Window], now: int) -> Iterable[str]:
        """The rules as the script takes them: of when the lessons are that they follow, of how many
        grants one is batch's, and the windows."""
        yield from (self.changed, str(EVERY), str(len(windows)))
        for window in windows:
            limit = window.rate.limit - self._withheld(window)
            yield from map(str, (limit, window.hold // _US, window.reserve, window.dimension))
            yield from map(str, self._paces(window, now))

    def _withheld(self, window: Window) -> int:
        return sum(each.learnt.withheld for each in self._learner.watches if each.window is window)

    def _paces(self, window: Window, now: int) -> tuple[int, int, int, int, int]:
        for watch in self._learner.watches:
            if watch.window is window:
                limit, burst = watch.limit, watch.learnt.burst + watch.may_retry_burst(now)
                pace = max(0.5, min(_PACE * limit, limit - _LESS))
                return (
                    -(-watch.gap // _US),
                    _ANY_BURST if burst >= limit else burst,
                    int(window.hold / pace) // _US + 1,
                    max(1, int(_AT_ONCE * limit)),
                    int(self._tries and watch.learnt.reported and not watch.learnt.counter),
                )
        return 0, 0, 0, 0, 0

    def think(self, now: int) -> None:
        """What was not refused for a second was accepted; what was withheld is so no longer."""
        self._trials.believe(now)
        for watch in self._learner.watches:
            if watch.learnt.withheld and now >= watch.learnt.restore_at:
                watch.restore(now)

    @property
    def in_doubt(self) -> bool:
        """Whether what is known may change in a second, without an answer."""
        return bool(self._trials)

    @property
    def has_news(self) -> bool:
        """Whether the others do not know all."""
        return self._learner.lessons != self._told

    def news(self) -> Iterable[tuple[str, ...]]:
        """What they do not know yet, as the script takes it."""
        if self.has_news:
            self._telling = deepcopy(self._learner.lessons)
            words = msgspec.json.encode(self._telling.moved(self._ahead)).decode()
            yield ("learn", self.changed, words)

    # ─── what Redis says ──────────────────────────────────────────────────────────────────

    def heard(self, reply: Reply, windows: Sequence[Window], now: int) -> None:
        """Take in what others learnt (`=`: what is known here, which they know now; nothing: a
        Redis that has forgotten), and how full the windows are."""
        self._ahead = reply.now - now
        if reply.verdict == "lost":
            self._anew_at = now
        for window, used in zip(windows, reply.used, strict=False):  # one may be new
            window.free = window.rate.limit - used
        if self.learns and reply.changed != self.changed:
            self.changed = reply.changed
            self._obey(reply.lessons, now)

    def _obey(self, lessons: str, now: int) -> None:
        if lessons == "=":
            self._told = self._telling
            return
        self._told = Lessons()
        try:
            found = msgspec.json.decode(lessons or "{}", type=Lessons)
        except msgspec.DecodeError:
            return
        self._learner.obey(found.moved(-self._ahead), now)
        self._told = deepcopy(self._learner.lessons) if lessons else Lessons()

    def note(self, claim: Claim, reply: Reply, windows: Sequence[Window], now: int) -> None:
        """It was taken, by that reply, and goes so deep."""
        if self.learns:
            flying = reply.flying + claim.costs["requests"]
            over = self._learner.watches if reply.verdict == "tried" else ()
            note = claim.note = Note(now, (), over, taken=reply.granted, flying=flying)
            depths = dict(zip(windows, reply.depths, strict=False))
            note.depths = [depths.get(watch.window, 0) for watch in self._learner.watches]
            note.bounds = [-1 for _ in note.depths]  # that is not known
            if note.is_deep(self._learner.watches):
                self._trials.add(claim)

    # ─── what the server says ─────────────────────────────────────────────────────────────

    def settled(
        self, claim: Claim, now: int, accepted: bool, reports: Sequence[RateLimitSnapshot]
    ) -> Iterator[News]:
        """Its headers are here; of what they say, Redis is to be told."""
        if self.learns and claim.accepted is None and claim.note is not None:
            claim.accepted = accepted
            self._trials.over(claim)
            if accepted:
                self._learner.accept(claim.note, now)
                for watch in self._learner.watches:
                    watch.credit = 0  # that is Redis's to count
                for watch in hear(self._learner.watches, reports, claim.note, now, since=0):
                    if claim.note.taken_at > self._anew_at:
                        yield "credit", watch.window.hold // _US, watch.credit, claim.note.taken

    def refused(self, claim: Claim, now: int) -> int:
        """It was refused: until when to pause."""
        if not self.learns or claim.note is None:
            return 0
        return self._learner.refused(claim.note.taken_at, claim.note, now)

    def snapshot(
        self, windows: Sequence[Window], used: Sequence[int], wait_s: float
    ) -> tuple[WindowSnapshot, ...]:
        """The windows, of which so much is used, with what is known of each."""
        learnt = {watch.window: copy(watch.learnt) for watch in self._learner.watches}
        return tuple(
            WindowSnapshot(
                limit=window.rate,
                used=count,
                left=max(0, units - count),
                next_free_s=wait_s if count >= units else 0.0,
                learnt=learnt.get(window),
            )
            for window, count in zip(windows, used, strict=True)
            for units in [window.rate.limit - self._withheld(window)]
        )
