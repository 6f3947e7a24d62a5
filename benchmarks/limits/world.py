"""A seeded world in virtual time: a sender and a server go in, what it came to comes out.

Law: event-driven and without a loop, a thread or a clock of its own. Everything random comes from
the seed, so a run is the same whenever and wherever it is repeated.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Protocol

from .networks import Way
from .servers import Server, Verdict

__all__ = ["Outcome", "Sender", "World", "ideal"]

S = 1_000_000_000


class Sender(Protocol):
    """Who decides when a request may go. Times are nanoseconds."""

    def take(self, now: int) -> tuple[Any, int]:
        """A claim and 0: send it. None and a time: ask again then, or after the next answer."""
        ...

    def delivered(self, claim: Any, now: int) -> None:
        """The server's kernel has it; of a refused one this may come after its answer."""

    def answered(self, claim: Any, now: int, verdict: Verdict) -> None:
        """Its headers are here."""

    def retry_s(self, attempt: int, verdict: Verdict, chance: Random) -> float:
        """How long a refused request waits before it asks again."""
        ...


@dataclass
class Outcome:
    """What a run came to.

    Attributes:
        accepted: When the server accepted, in seconds.
        refused: When it refused.
    """

    accepted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)

    @property
    def makespan(self) -> float:
        """When the last one was accepted."""
        return self.accepted[-1]

    def busiest(self, period: float) -> int:
        """The most arrivals of either kind in any half-open stretch of that length."""
        stamps = sorted(self.accepted + self.refused)
        most = begin = 0
        for end, at in enumerate(stamps):
            while stamps[begin] + period <= at:
                begin += 1
            most = max(most, end - begin + 1)
        return most


class World:
    """One sender, one server, a network, and as many requests as there are.

    Args:
        sender: Who decides.
        server: Who counts.
        network: How long things take.
        seed: Where all chance comes from.
        workers: How many requests may be under way or waiting for their retry at once.
    """

    def __init__(
        self,
        sender: Sender,
        server: Server,
        network: Callable[[Random], Way],
        *,
        seed: int = 0,
        workers: int = 200,
    ) -> None:
        self.sender, self.server, self.network = sender, server, network
        self.chance = Random(seed)
        self.free = workers
        self.outcome = Outcome()
        self._events: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self._numbers = count()
        self._ready: deque[int] = deque()
        self._woken_at = 0

    def run(self, calls: int) -> Outcome:
        """Let so many calls be made, all at once; ends when all are accepted."""
        self._ready.extend([0] * calls)
        self._pump(0)
        while len(self.outcome.accepted) < calls:
            now, _, do, args = heapq.heappop(self._events)
            do(now, *args)
        return self.outcome

    def _at(self, when: int, do: Callable[..., None], *args: Any) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), do, args))

    def _pump(self, now: int) -> None:
        while self._ready and (self.free or self._ready[0]):
            claim, wake = self.sender.take(now)
            if claim is None:
                if wake < 2**62 and (wake < self._woken_at or self._woken_at <= now):
                    self._woken_at = wake
                    self._at(wake, self._pump)
                return
            attempt = self._ready.popleft()
            self.free -= not attempt
            way = self.network(self.chance)
            self._at(now + int(way.up * S), self._arrive, claim, attempt, way)
            if way.told is not None:
                self._at(now + int((way.up + way.told) * S), self._tell, claim)

    def _arrive(self, now: int, claim: Any, attempt: int, way: Way) -> None:
        verdict = self.server.admit(now / S)
        if verdict.accepted:
            self.outcome.accepted.append(now / S)
        else:
            self.outcome.refused.append(now / S)
        wait = way.down if verdict.accepted else way.back
        self._at(now + int(wait * S), self._answer, claim, attempt, verdict)

    def _tell(self, now: int, claim: Any) -> None:
        self.sender.delivered(claim, now)
        self._pump(now)

    def _answer(self, now: int, claim: Any, attempt: int, verdict: Verdict) -> None:
        self.sender.answered(claim, now, verdict)
        if verdict.accepted:
            self.free += 1
        else:
            wait = self.sender.retry_s(attempt, verdict, self.chance)
            self._at(now + int(wait * S), self._again, attempt + 1)
        self._pump(now)

    def _again(self, now: int, attempt: int) -> None:
        self._ready.appendleft(attempt)
        self._pump(now)


def ideal(server: Server, calls: int) -> float:
    """When the last call would be accepted, were there no network and no secret."""
    now = 0.0
    for _ in range(calls):
        now += server.wait(now)
        while not server.admit(now).accepted:
            now += max(1e-6, server.wait(now))
    return now
