"""Who waits, in the order in which they are served, and until when.

Law: lane 0 before lane 1, but for the turns that lane 1 is owed (`_sansio/lanes.py`); within a
lane retries before first attempts; among equals, first come first served. Whoever leaves is gone
at once, from wherever in the queue, so that a queue from which all have left holds nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Any

from .._sansio.bucket import NEVER, Claim
from .._sansio.lanes import before, passed_after, turns_owed
from ._park import Home
from ._store import Store

__all__ = ["WaitQueue", "Waiter"]


class Waiter:
    """One parked call: its claim, on what; until when it waits (in ns; NEVER); where to wake it."""

    __slots__ = ("claim", "deadline", "home", "known_at", "rank", "store", "ticket")

    def __init__(self, claim: Claim, rank: int, deadline: int, home: Home, store: Store) -> None:
        self.claim: Claim = claim
        self.store: Store = store
        self.rank: int = rank
        self.deadline: int = deadline
        self.home: Home = home
        self.ticket: Any = home.ticket()
        self.known_at: int = NEVER
        """If it is sent away: when a unit would have been free, as far as that was known."""

    def __lt__(self, other: Waiter) -> bool:
        return self.deadline < other.deadline

    @property
    def lane(self) -> int:
        """0 interactive, 1 batch."""
        return self.rank // 2


class WaitQueue:
    """Waiters by rank: 0 and 1 are the retries and the first attempts of lane 0, 2 and 3 of lane 1.

    Every operation is O(1), save those on deadlines: O(log n), and nothing for who has none.

    Attributes:
        size: How many wait.
        passed: How many of lane 0 were served while lane 1 waited, and are not made up for.
    """

    __slots__ = ("_deadlines", "_ranks", "passed", "size")

    def __init__(self) -> None:
        # linked and hashed: a deque cannot lose its middle, a dict is slow at losing its head
        self._ranks: list[OrderedDict[Waiter, None]] = [OrderedDict() for _ in range(4)]
        self.size: int = 0
        self.passed: int = 0
        self._deadlines: list[Waiter] = []  # a heap, in which who left may linger a while

    def __iter__(self) -> Iterator[Waiter]:
        for waiters in self._ranks:
            yield from waiters

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._ranks[waiter.rank]

    @property
    def lanes(self) -> tuple[int, int]:
        """How many wait in each lane."""
        first, second, third, fourth = map(len, self._ranks)
        return first + second, third + fourth

    def place(self, rank: int) -> tuple[int, int]:
        """How many would be served before one that came now with this rank, and in which lane's
        right it would be."""
        interactive, batch = self.lanes
        if rank < 2:
            interactive = sum(map(len, self._ranks[: rank + 1]))
        else:
            batch = sum(map(len, self._ranks[2 : rank + 1]))
        freely, reserved = before(interactive, batch, self.passed, rank // 2)
        return freely + reserved - 1, int(reserved > 0)

    def head(self) -> tuple[Waiter, int] | None:
        """Who is served next, and in which lane's right."""
        ranks = self._ranks
        if turns_owed(self.passed):
            for waiters in ranks[2:]:
                if waiters:
                    return next(iter(waiters)), 0
        for waiters in ranks:
            if waiters:
                head = next(iter(waiters))
                return head, head.lane
        return None

    def served(self, lane: int) -> None:
        """One of that lane took its units; if it waited, it is still here."""
        batch_waits = bool(self._ranks[3] or self._ranks[2])
        self.passed = passed_after(self.passed, lane, batch_waits)

    def append(self, waiter: Waiter) -> None:
        """Let one come."""
        self._ranks[waiter.rank][waiter] = None
        self.size += 1
        if waiter.deadline < NEVER:
            heappush(self._deadlines, waiter)

    def remove(self, waiter: Waiter) -> None:
        """Let one go."""
        del self._ranks[waiter.rank][waiter]
        self.size -= 1
        if not (self._ranks[3] or self._ranks[2]):
            self.passed = 0
        if len(self._deadlines) > 2 * self.size:
            self._collect_deadlines()

    def next_deadline(self) -> int:
        """When the first of them gives up; NEVER if none does."""
        deadlines = self._deadlines
        while deadlines and deadlines[0] not in self:
            heappop(deadlines)
        return deadlines[0].deadline if deadlines else NEVER

    def first_expired(self, now: int) -> Waiter | None:
        """One whose deadline has passed; it is still in the queue."""
        return self._deadlines[0] if self.next_deadline() <= now else None

    def expire(self, waiter: Waiter) -> None:
        """Let one's deadline be past. O(n)."""
        waiter.deadline = 0
        self._collect_deadlines()

    def _collect_deadlines(self) -> None:
        self._deadlines = [waiter for waiter in self if waiter.deadline < NEVER]
        heapify(self._deadlines)
