"""What a process learns of the server, and hears of what others learnt: answers go in, terms for
the script come out, and lessons for the others.

Law: the script decides by Redis's clock and by what everybody sent, and it cannot look at every
alignment that a sliding counter may have. So it tries none: as soon as two periods hold more than
the limit, requests go at a pace that any counter bears, one by one and a little slower than the
limit, which costs 3 % (more of limits below 50). How deep a burst may be is learnt as ever, and so
is who else uses the key.

Of two processes that learn at once, whose lesson comes first to Redis counts; the other takes that
in, and forgets its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from copy import copy, deepcopy

import msgspec

from ..._sansio.bucket import ARRIVED, SENT, Claim, Window, WindowSnapshot
from ..._sansio.counter import History
from ..._sansio.credit import hear
from ..._sansio.learner import Learner
from ..._sansio.lessons import Lessons
from ..._sansio.note import Note
from ...meta import RateLimitSnapshot

__all__ = ["Pupil"]

_US = 1_000
_BELIEVED = 1_000_000_000
_PACE, _LESS, _AT_ONCE = 0.97, 1.5, 0.01
_ANY_BURST = 10**9


class Pupil:
    """One process's part.

    Args:
        windows: Of the limiter; they are as wide as what is learnt allows.
        generous: As of `LearningBucket`.
    """

    def __init__(self, windows: Sequence[Window], *, generous: bool) -> None:
        self._learner = Learner(generous=generous)
        self._unsure: OrderedDict[Claim, None] = OrderedDict()
        self.changed = "0"  # how often the lessons had, that are known here
        self._ahead = 0  # Redis's clock, of ours, in ns
        self.watch(windows)
        self._told = self._telling = deepcopy(self._learner.lessons)

    def narrow(self) -> None:
        """Let the windows be as the user said, before he says more."""
        for watch in self._learner.watches:
            watch.resize(stated=False)

    def watch(self, windows: Sequence[Window]) -> None:
        """Learn of these."""
        self._learner.watch(windows, History())

    # ─── what Redis is told ───────────────────────────────────────────────────────────────

    def terms(self, window: Window, now: int) -> tuple[int, int, int, int]:
        """A window's gap in µs and the burst that it bears; the same of the slower pace."""
        for watch in self._learner.watches:
            if watch.window is window:
                limit, burst = watch.limit, watch.learnt.burst + watch.may_retry_burst(now)
                pace = max(0.5, min(_PACE * limit, limit - _LESS))
                return (
                    -(-watch.gap // _US),
                    _ANY_BURST if burst >= limit else burst,
                    int(window.hold / pace) // _US + 1,
                    max(1, int(_AT_ONCE * limit)),
                )
        return 0, 0, 0, 0

    def withheld(self, window: Window) -> int:
        """Units of it to be left unused."""
        return sum(each.learnt.withheld for each in self._learner.watches if each.window is window)

    def think(self, now: int) -> None:
        """What was not refused for a second was accepted; what was withheld is so no longer."""
        while self._unsure:
            claim = next(iter(self._unsure))
            if claim.note.taken_at + _BELIEVED > now:
                break
            del self._unsure[claim]
            if SENT <= claim.state <= ARRIVED:
                self._learner.accept(claim.note, now)
        for watch in self._learner.watches:
            if watch.learnt.withheld and now >= watch.learnt.restore_at:
                watch.restore(now)

    @property
    def in_doubt(self) -> bool:
        """Whether what is known may change in a second, without an answer."""
        return bool(self._unsure)

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

    def heard(self, changed: str, lessons: str, redis_now: int, now: int) -> None:
        """Take in what others learnt (`=`: what is known here, which they know now; nothing: a
        Redis that has forgotten). Times in ns."""
        self._ahead = redis_now - now
        if changed == self.changed:
            return
        self.changed = changed
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

    def note(self, claim: Claim, depths: Mapping[Window, int], flying: int, now: int) -> None:
        """It was taken, and goes so deep."""
        note = claim.note = Note(now, (), (), taken=0, flying=flying)
        note.depths = [depths[watch.window] for watch in self._learner.watches]
        note.bounds = [-1 for _ in note.depths]  # that is not known
        if note.is_deep(self._learner.watches):
            self._unsure[claim] = None

    # ─── what the server says ─────────────────────────────────────────────────────────────

    def settled(
        self, claim: Claim, now: int, accepted: bool, reports: Sequence[RateLimitSnapshot]
    ) -> None:
        """Its headers are here."""
        self._unsure.pop(claim, None)
        if accepted:
            self._learner.accept(claim.note, now)
            hear(self._learner.watches, reports, claim.note, now, since=0)

    def refused(self, claim: Claim, now: int) -> int:
        """It was refused: until when to pause."""
        return self._learner.refused(claim.note.taken_at, claim.note, now)

    def snapshot(self, windows: Iterable[WindowSnapshot]) -> tuple[WindowSnapshot, ...]:
        """With what is known of each."""
        learnt = {watch.window.rate: copy(watch.learnt) for watch in self._learner.watches}
        return tuple(
            msgspec.structs.replace(each, learnt=learnt.get(each.limit)) for each in windows
        )
