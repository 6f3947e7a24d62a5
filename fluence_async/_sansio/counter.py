"""A sliding counter that the server may keep: requests go in; whether it would take one more
comes out, for every alignment that its windows may have.

Such a server cuts time into windows and counts those of the last one by the share of them that a
sliding window would still see. Law: with F in flight, a request may go at t if for every alignment
B in (t − W, t] that has not been refuted

    F + 1 + #{ub ≥ B} + (1 − (t − B) / W) · #{B − W ≤ ub < B} ≤ N

which only needs a look where the sum can be greatest: just before it falls, at t, every ub and
every ub + W, and at the ends of what is not refuted. An alignment is refuted when a request was
accepted that it must have refused, wherever the server stamped all of them.

Alignments are kept as the bits of one number: bit k stands for those with B mod W in the k-th of
64 parts of W. None left: the server keeps no such counter.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Final

__all__ = ["ALL_PARTS", "CounterGuard", "History"]

PARTS: Final = 64
_MANY: Final = 512
_STRETCHES: Final = 256
ALL_PARTS: Final = 2**PARTS - 1


class History:
    """When the requests of the last while arrived, as far as that is known, in order.

    Attributes:
        lasts: By when each had arrived, in ns.
        counted: The same of those that were accepted.
        firsts: And when these were taken.
    """

    __slots__ = ("counted", "firsts", "lasts")

    def __init__(self) -> None:
        self.lasts: list[int] = []
        self.counted: list[int] = []
        self.firsts: list[int] = []

    def note(self, last: int, times: int) -> None:
        """So many requests had arrived by `last`."""
        for _ in range(times):
            _put(self.lasts, last)

    def count(self, first: int, last: int, times: int) -> None:
        """So many of these, taken at `first`, were surely counted."""
        for _ in range(times):
            _put(self.counted, last)
            _put(self.firsts, first)

    def forget(self, before: int) -> None:
        """Drop what arrived before that."""
        if self.lasts and self.lasts[0] < before:
            del self.lasts[: bisect_left(self.lasts, before)]
            gone = bisect_left(self.counted, before)
            del self.counted[:gone], self.firsts[:gone]


def _put(times: list[int], at: int) -> None:
    if not times or times[-1] <= at:  # in order, as mostly
        times.append(at)
    else:
        insort(times, at)


class CounterGuard:
    """What one window knows of a counter.

    Args:
        period: Of the window, in ns.
        history: Of all windows.
        parts: The alignments that are not refuted, as bits.
    """

    __slots__ = ("_history", "_tight", "parts", "period")

    def __init__(self, period: int, history: History, parts: int = ALL_PARTS) -> None:
        self.period = period
        self.parts = parts
        self._history = history
        self._tight = 0  # an alignment that was against the last request that had to wait

    def known(self, now: int) -> int:
        """How many it may still count, besides those in flight."""
        lasts = self._history.lasts
        return len(lasts) - bisect_left(lasts, now - 2 * self.period)

    def free_at(self, now: int, taken: int, limit: int) -> int:
        """When one more may go, with `taken` in flight and itself: 0 for now."""
        if not self.parts or self.known(now) + taken <= limit:
            return 0
        if self._tight:  # mostly what was against it is still against it
            at = now - (now - self._tight) % self.period
            if wake := self._against(at, at, now, taken, limit):
                return wake
        for begin, end in self._worst(now):
            if wake := self._against(begin, end, now, taken, limit):
                self._tight = end
                return wake
        return 0

    def _against(self, begin: int, end: int, now: int, taken: int, limit: int) -> int:
        """When no alignment from `begin` to `end` is against it any more; 0 if none is now."""
        lasts, period = self._history.lasts, self.period
        within = taken + len(lasts) - bisect_left(lasts, begin)
        before = bisect_left(lasts, end) - bisect_left(lasts, begin - period)
        # within + before · (1 − (now − end) / period) ≤ limit, in whole numbers
        excess = (within + before - limit) * period - before * (now - end)
        if excess <= 0:
            return 0
        wait = -(-excess // before) if before else period
        return min(now + wait, max(now, end + period) + 1)

    def _worst(self, now: int) -> Iterator[tuple[int, int]]:
        """The alignments at which the sum can be greatest; of very many requests, stretches of
        alignments, each of them taken for as bad as its ends together."""
        period, lasts = self.period, self._history.lasts
        if self.known(now) > _MANY:
            for k in range(_STRETCHES):
                if self.parts >> (k * PARTS // _STRETCHES) & 1:
                    end = now - (now - -(-(k + 1) * period // _STRETCHES) + 1) % period
                    yield end - period // _STRETCHES - 1, end
            return
        middle = bisect_right(lasts, now - period)
        for last in lasts[bisect_right(lasts, now - 2 * period) : middle]:
            if self._is_open(last + period):
                yield last + period, last + period
        for last in lasts[middle : bisect_right(lasts, now)]:
            if self._is_open(last):
                yield last, last
        if self._is_open(now):
            yield now, now
        if self.parts == ALL_PARTS:
            return
        for part in range(PARTS):
            if self.parts >> part & 1:
                end = now - (now - -(-(part + 1) * period // PARTS) + 1) % period
                yield end, end

    def _is_open(self, at: int) -> bool:
        """Whether an alignment is not refuted."""
        return bool(self.parts >> (at % self.period * PARTS // self.period) & 1)

    def accepted(self, first: int, last: int, limit: int) -> None:
        """One that arrived somewhen from `first` to `last` was accepted: strike out the alignments
        that would have refused it. It may be noted already."""
        for part in range(PARTS):
            if self.parts >> part & 1 and self._least(part, first, last) > limit + 1:
                self.parts &= ~(1 << part)

    def _least(self, part: int, first: int, last: int) -> float:
        """The least that a counter aligned in this part can have counted, with this request."""
        period = self.period
        counted, firsts = self._history.counted, self._history.firsts
        begin = part * period // PARTS
        begin = last - (last - begin) % period
        end = begin + period // PARTS + 1
        if end > first:  # it may itself be of the window before
            return 0.0
        arrived = bisect_left(counted, first)  # surely before this one
        within = max(0, arrived - bisect_left(firsts, end))
        either = max(0, arrived - bisect_left(firsts, end - period)) - within
        return 1 + within + either * (1 - (last - begin) / period)
