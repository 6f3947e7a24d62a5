"""Who waits, in the order in which they are served, and until when.

Law: lane 0 before lane 1, but for the turns that lane 1 is owed (`_sansio/lanes.py`); within a
lane retries before first attempts; among equals, first come first served. Only who waits for its
own model's limits, and for nothing else, may be passed, by the calls of other models: so there is a
head of the queue for each model that has limits. Whoever leaves is gone at once, from wherever in
the queue, so that a queue from which all have left holds nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Any

from .._sansio.bucket import NEVER, Claim
from .._sansio.lanes import EVERY, before, passed_after, turns_owed
from .._sansio.tariff import own
from ._park import Home
from ._store import Store

__all__ = ["WaitQueue", "Waiter"]


class Waiter:
    """One parked call: its claim, on what; until when it waits (in ns; NEVER); where to wake it;
    whose limits it has to keep beside everybody's; how many came before it."""

    __slots__ = (
        "claim", "deadline", "home", "known_at", "number", "own", "rank", "store", "ticket",
    )  # fmt: skip

    def __init__(self, claim: Claim, rank: int, deadline: int, home: Home, store: Store) -> None:
        self.claim: Claim = claim
        self.store: Store = store
        self.rank: int = rank
        self.deadline: int = deadline
        self.home: Home = home
        self.own: str = own(claim.costs)
        self.number: int = 0
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

    __slots__ = ("_came", "_deadlines", "_ranks", "passed", "size")

    def __init__(self) -> None:
        # linked and hashed: a deque cannot lose its middle, a dict is slow at losing its head
        self._ranks: list[dict[str, OrderedDict[Waiter, None]]] = [
            {"": OrderedDict()} for _ in range(4)
        ]
        self._came = 0
        self.size: int = 0
        self.passed: int = 0
        self._deadlines: list[Waiter] = []  # a heap, in which who left may linger a while

    def __iter__(self) -> Iterator[Waiter]:
        for models in self._ranks:
            for waiters in models.values():
                yield from waiters

    def __contains__(self, waiter: Waiter) -> bool:
        return waiter in self._ranks[waiter.rank].get(waiter.own, ())

    @property
    def lanes(self) -> tuple[int, int]:
        """How many wait in each lane."""
        first, second, third, fourth = (_count(models) for models in self._ranks)
        return first + second, third + fourth

    def place(self, rank: int, own: str | None = None) -> tuple[int, int]:
        """How many would be served before one that came now with this rank, and in which lane's
        right it would be.

        Args:
            rank: Its rank.
            own: Whose limits it has to keep: then only those are counted whom it can never pass.
        """
        ranks = self._ranks
        if own is not None:
            whose = {"", own}
            ranks = [{each: models[each] for each in whose & models.keys()} for models in ranks]
        counts = [_count(models) for models in ranks]
        if rank < 2:
            interactive, batch = sum(counts[: rank + 1]), sum(counts[2:])
        else:
            interactive, batch = sum(counts[:2]), sum(counts[2 : rank + 1])
        freely, reserved = before(interactive, batch, self.passed, rank // 2)
        lane = int(reserved > 0)
        if lane and own is not None:  # those whom it may pass bring its turn nearer all the same
            lane = int(before(self.lanes[0], batch, self.passed, 1).reserved > 0)
        return freely + reserved - 1, lane

    def heads(self) -> Iterator[tuple[Waiter, int]]:
        """Who is served next, and in which lane's right; then who may be, one after another, if
        those before are held up by limits of their own."""
        if turns_owed(self.passed):
            for models in self._ranks[2:]:
                yield from ((head, 0) for head in _firsts(models))
        for models in self._ranks:
            yield from ((head, head.lane) for head in _firsts(models))

    def served(self, lane: int) -> None:
        """One of that lane took its units; if it waited, it is still here. Batch is owed one turn
        at most, which it takes at once, if only limits of its model let it."""
        passed = passed_after(self.passed, lane, self._batch_waits())
        self.passed = min(passed, EVERY - 1)

    def _batch_waits(self) -> bool:
        return any(_count(models) for models in self._ranks[2:])

    def append(self, waiter: Waiter) -> None:
        """Let one come."""
        self._came += 1
        waiter.number = self._came
        models = self._ranks[waiter.rank]
        waiters = models.get(waiter.own)
        if waiters is None:
            waiters = models[waiter.own] = OrderedDict()
        waiters[waiter] = None
        self.size += 1
        if waiter.deadline < NEVER:
            heappush(self._deadlines, waiter)

    def remove(self, waiter: Waiter) -> None:
        """Let one go."""
        models = self._ranks[waiter.rank]
        waiters = models[waiter.own]
        del waiters[waiter]
        if not waiters and waiter.own:
            del models[waiter.own]
        self.size -= 1
        if self.passed and not self._batch_waits():
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


def _count(models: Mapping[str, Collection[Waiter]]) -> int:
    return sum(map(len, models.values()))


def _firsts(models: Mapping[str, OrderedDict[Waiter, None]]) -> list[Waiter]:
    """The first of each model, in the order in which they came."""
    firsts = [next(iter(waiters)) for waiters in models.values() if waiters]
    if len(firsts) > 1:
        firsts.sort(key=_number)
    return firsts


def _number(waiter: Waiter) -> int:
    return waiter.number
