"""What became of requests goes in; what is known of the server comes to be so, and a pause comes
out where nothing explains a refusal.

Law: one refusal teaches one lesson, the first of these that fits; and those that were under way
when it was learnt teach nothing more, whoever sent them.

    a 429 of what was           teaches
    before anything succeeded   nothing: it is of an earlier run; a pause, doubled
    a trial of the counter      that the server keeps one, for good
    deeper than was proven      a smaller burst; one more is tried after W, 4 W, 16 W …
    as deep as that, almost     the same
    none of these               5 % less; restored after W, 2 W, 4 W … ; and a pause, doubled

Whatever it teaches, windows that are wider than the user's limits, because the server states so,
are not for W, 2 W, 4 W …
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .counter import History
from .learnt import Learnt
from .lessons import Lessons, can_be
from .note import Note
from .watch import Watch
from .window import Window

__all__ = ["Learner", "heed"]

_S: Final = 1_000_000_000
_MOST_TRIALS: Final = 8
_LATELY: Final = 60 * _S  # as exactly as it is written down when something was accepted


class Learner:
    """The watches of one key's windows, and what they have come to know.

    Args:
        generous: Use what the server states beyond the user's limits.

    Attributes:
        watches: Of each window of requests, the shortest first.
        lessons: What is known: plain data, which a store may share.
        trials: How many requests may be under way at once that a sliding counter could refuse.
    """

    __slots__ = ("_generous", "lessons", "trials", "watches")

    def __init__(self, *, generous: bool = False) -> None:
        self._generous = generous
        self.watches: tuple[Watch, ...] = ()
        self.lessons = Lessons()
        self.trials = 1

    def watch(self, windows: Iterable[Window], history: History) -> None:
        """Have a watch for each window of requests; one that is known keeps its own."""
        known = {watch.window: watch for watch in self.watches}
        self.watches = tuple(
            known.get(window)
            or Watch(window, self.lessons.of(window.rate), history, generous=self._generous)
            for window in sorted(windows, key=lambda window: window.hold)
            if window.dimension == "requests"
        )
        for watch in self.watches:
            self.lessons.windows[str(watch.window.rate)] = watch.learnt
            watch.narrow()

    def obey(self, lessons: Lessons, now: int) -> None:
        """Know what others have learnt; what cannot be, they have not."""
        for watch in self.watches:
            name = str(watch.own)
            learnt = lessons.windows.get(name)
            if learnt is None or not can_be(learnt, watch.own.limit, watch.window.hold, now):
                lessons.windows[name] = watch.learnt
            else:
                watch.obey(learnt)
        lessons.taught_at = min(lessons.taught_at, now)
        if not now - self.watches[-1].window.hold < lessons.proven_at <= now:
            lessons.proven_at = -1
        lessons.pause = min(max(0, lessons.pause), self._longest_pause)
        self.lessons = lessons

    @property
    def _longest_pause(self) -> int:
        return self.watches[0].window.hold // 4

    def succeeded(self, taken_at: int) -> None:
        """One that was taken then was accepted."""
        lessons = self.lessons
        lessons.pause = 0
        if lessons.proven_at < 0 or taken_at > lessons.proven_at + _LATELY:
            lessons.proven_at = taken_at

    def accept(self, note: Note, arrived: int) -> None:
        """One that was worth a note was accepted, and had arrived by then."""
        self.succeeded(note.taken_at)
        if note.taken_at > self.lessons.taught_at:  # or else others of its salvo were refused
            for watch, depth in zip(self.watches, note.depths, strict=True):
                if not watch.learnt.reported:
                    watch.prove(depth)
        for watch in note.over:
            watch.refute(note.taken_at, arrived)
            self.trials = 1 if watch.learnt.reported else min(2 * self.trials, _MOST_TRIALS)

    def refused(self, taken_at: int, note: Note | None, now: int) -> int:
        """One was refused, for the rate of requests: until when to pause, 0 for not at all. There
        is no note of one whose take was nothing to mind."""
        lessons = self.lessons
        if taken_at <= lessons.taught_at:
            return 0
        lessons.taught_at = now
        if lessons.proven_at < 0:
            return self._pause(now)
        narrowed = [watch for watch in self.watches if watch.distrust(now)]
        if note is not None and any(not watch.learnt.counter for watch in note.over):
            for watch in self.watches:  # who counts one window so counts all
                watch.blame_counter()
            return 0
        depths = note.depths if note else [each.depth_at_most(now) for each in self.watches]
        for surely in (True, False):
            for watch, depth in zip(self.watches, depths, strict=True):
                if watch.too_deep(depth, surely=surely):
                    watch.shrink(depth, now)
                    return 0
        if narrowed:
            return 0
        fullest = min(self.watches, key=lambda watch: watch.window.free / watch.limit)
        fullest.withhold(now)
        return self._pause(now)

    def _pause(self, now: int) -> int:
        lessons = self.lessons
        longest = self._longest_pause
        lessons.pause = min(2 * lessons.pause or _S, max(_S // 100, longest))
        return now + min(lessons.pause, longest)


def heed(
    windows: Iterable[Window], lessons: Lessons, now: int, *, generous: bool = True
) -> dict[Window, Learnt]:
    """What a store's lessons say of windows that are only looked at: these become as wide, and have
    as much withheld, as for those who learn. What is not known, or cannot be, is left out."""
    held = dict(lessons.windows)
    learner = Learner(generous=generous)
    learner.watch(windows, History())
    learner.obey(lessons, now)
    return {
        watch.window: watch.learnt
        for watch in learner.watches
        if watch.learnt is held.get(str(watch.own))
    }
