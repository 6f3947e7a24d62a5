"""Requests that the server may refuse, for what is tried with them: takes and answers go in; how
many are under way, and when that may be fewer, comes out.

Law: a request counts as accepted when its headers say so, or when a second has gone by without a
refusal, since these come at once. Of others who share the units, the last one tells when it took
such a request, with the lessons (`tried_at`, which `LearningBucket.take` sets; a Redis's script
keeps its own): a time that cannot be says nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from .claim import ARRIVED, SENT, Claim
from .learner import Learner
from .window import NEVER

__all__ = ["Trials"]

_REFUSED_WITHIN: Final = 1_000_000_000


class Trials:
    """Those of this process, each with its note, in order; and others'.

    Args:
        learner: Whom they teach.
    """

    __slots__ = ("_learner", "_unsure")

    def __init__(self, learner: Learner) -> None:
        self._learner = learner
        self._unsure: OrderedDict[Claim, None] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._unsure)

    def add(self, claim: Claim) -> None:
        """It was taken, and nobody knows whether it will be refused."""
        self._unsure[claim] = None

    def over(self, claim: Claim) -> None:
        """It was answered, or never sent, or counts as accepted; it may have been no trial."""
        if claim in self._unsure:
            del self._unsure[claim]
            lessons = self._learner.lessons
            if lessons.tried_at == claim.note.taken_at:
                lessons.tried_at = -1

    def believe(self, now: int) -> None:
        """What was not refused for so long was accepted."""
        while self._sure_at() <= now:
            claim = next(iter(self._unsure))
            self.over(claim)
            if SENT <= claim.state <= ARRIVED:
                self._learner.accept(claim.note, now)

    def count(self, now: int) -> int:
        """How many are under way, of which one at most is another's."""
        return len(self._unsure) + (self._others_sure_at(now) < NEVER)

    def sooner(self, wake: int, now: int) -> int:
        """`wake`, or before that when one of them is over."""
        return min(wake, self._sure_at(), self._others_sure_at(now))

    def _sure_at(self) -> int:
        """By when the first of this process is over; NEVER if there is none."""
        return _sure_at(next(iter(self._unsure))) if self._unsure else NEVER

    def _others_sure_at(self, now: int) -> int:
        """By when the last of the others is over; NEVER if there is none."""
        sure_at = self._learner.lessons.tried_at + _REFUSED_WITHIN
        if not now < sure_at <= now + _REFUSED_WITHIN:
            return NEVER
        if self._unsure and sure_at == _sure_at(next(reversed(self._unsure))):
            return NEVER
        return sure_at


def _sure_at(claim: Claim) -> int:
    taken_at: int = claim.note.taken_at
    return taken_at + _REFUSED_WITHIN
