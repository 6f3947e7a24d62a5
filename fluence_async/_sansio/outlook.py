"""When the next so many requests can go: windows as they stand and a count go in, a time comes out.

Law: the future is played, with the rule of `bucket.py` and as well as it can come: who waits and
who is asked about come at once, each takes one unit as soon as every window has it, and is settled
at once; what is in flight is answered now. So nobody goes before that time, unless a request that
is in flight is given up unsent. Units that come back together are taken together, so that the cost
is in their groups, not in the requests.

`Bucket.earliest` is the same from below: it takes every window by itself, which costs next to
nothing, and is asked for each call that comes to wait.

Rejected: a closed form (of two windows, who waits for one comes late to the other).
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

import msgspec

__all__ = ["Outlook", "earliest"]


class Outlook(msgspec.Struct, frozen=True):
    """One window at one moment, as plain data; times in ns of the limiter's clock.

    Attributes:
        now: The moment.
        limit: How many units there are, without those that are withheld.
        hold: How long after its arrival a request's unit comes back.
        reserve: How many of them are lane 0's alone.
        free: How many are free; below zero for a debt.
        returns: When how many come back, in order.
    """

    __module__ = "fluence_async.limiter"

    now: int
    limit: int
    hold: int
    reserve: int
    free: int
    returns: tuple[tuple[int, int], ...]

    @property
    def in_flight(self) -> int:
        """Units whose requests have not been answered."""
        return self.limit - self.free - sum(cost for _, cost in self.returns)

    def __repr__(self) -> str:
        return f"<Outlook: {self.free} free, {self.in_flight} in flight>"


class _Played:
    """A window whose future is played."""

    def __init__(self, window: Outlook) -> None:
        self.free = window.free
        self.hold = window.hold
        self.reserve = window.reserve
        self.returns = [*window.returns, (window.now + window.hold, window.in_flight)]
        heapify(self.returns)

    def room(self, now: int, kept: bool) -> int:
        """How many may be taken then."""
        while self.returns and self.returns[0][0] <= now:
            self.free += heappop(self.returns)[1]
        return self.free - self.reserve * kept

    def take(self, units: int, now: int) -> None:
        """Take them; they come back."""
        self.free -= units
        heappush(self.returns, (now + self.hold, units))

    def next_at(self, now: int, kept: bool) -> int:
        """When one may be taken."""
        while self.room(now, kept) < 1:
            now = self.returns[0][0]
        return now


def earliest(windows: Iterable[Outlook], start: int, freely: int, reserved: int) -> int | None:
    """When the last of so many requests can go.

    Args:
        windows: All that count requests.
        start: Nobody goes before.
        freely: How many go first, that may take the reserve.
        reserved: How many go after them, that leave it.

    Returns:
        The time; None if a window has no unit for it but those of requests in flight.
    """
    seen = tuple(windows)
    for each in seen:
        if each.limit - each.in_flight - each.reserve * (reserved > 0) < 1:
            return None
    played = [_Played(each) for each in seen]
    now = start
    for count, kept in ((freely, False), (reserved, True)):
        left = count
        while left:
            room = min(left, *(window.room(now, kept) for window in played))
            if room > 0:
                left -= room
                for window in played:
                    window.take(room, now)
            else:
                now = max(window.next_at(now, kept) for window in played)
    return now
