"""Points in time in, the one that comes first out, with the name of its clock.

Law: bytes are liveness, events are progress. A stream of pings is alive and makes none, so it
needs a clock of its own; a clock that one byte resets (as an HTTP library's read timeout) never
ends a trickle.
"""

from __future__ import annotations

import math
from typing import Self

import msgspec

from ..errors import Clock

__all__ = ["Deadline", "soonest"]


class Deadline(msgspec.Struct, frozen=True, gc=False):
    """A point in time and the clock that sets it."""

    at: float
    clock: Clock

    @classmethod
    def after(cls, start: float, seconds: float | None, clock: Clock) -> Self:
        """`seconds` after `start`; never, if None."""
        return cls(math.inf if seconds is None else start + seconds, clock)


def soonest(*deadlines: Deadline) -> Deadline:
    """The deadline that comes first; of equal ones the first named."""
    first = deadlines[0]
    for deadline in deadlines:
        if deadline.at < first.at:
            first = deadline
    return first
