"""Whose turn it is among the processes that wait, by their tickets in the file.

Law: interactive before batch, but for the turns that batch is owed (`_sansio/lanes.py`), then by
when the first caller of each had come. Who is owed a turn may be asleep: the others leave its units
and go on. A ticket must be shown anew within a second, or they go on as if it were not there: its
process may be standing still, or dead. So it is with what batch is owed. Whoever is held up by
limits of its model alone is passed by the calls of other models, and owed nothing for that.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from .._sansio.bucket import Claim
from .._sansio.lanes import passed_after, turns_owed
from .._sansio.limits_file import (
    NO_TICKET,
    PASSED,
    PASSED_AT,
    TICKETS,
    TICKETS_AT,
    TICKETS_SIZE,
    Costs,
    ticket_at,
)
from .._sansio.ticket import Ticket
from ._ledger import Ledger
from ._mirror import Mirror

__all__ = ["Turns", "passed_by", "shown"]

_STALE = 1_000_000_000
_MOST_PASSED = 2**32


class Turns:
    """One limiter among those that share a file.

    Attributes:
        waiting: For whom it has a ticket; None if it has none.
    """

    def __init__(self) -> None:
        self.waiting: Claim | None = None
        self._id = int.from_bytes(os.urandom(8), "little") | 1
        self._place = 0

    def turn(
        self, ledger: Ledger, mirror: Mirror, claim: Claim, now: int, lane: int
    ) -> tuple[int, Costs]:
        """In which lane's right it takes, and what others need who go first; empty if none do."""
        tickets = shown(ledger, now)
        if not tickets:
            ledger.header.tickets = 0
        came = claim.came or now
        owed = turns_owed(passed_by(ledger, now))
        others = [
            each
            for each in tickets
            if each.owner != self._id
            and not mirror.is_held_up(now, claim.costs, each.costs, 0 if owed else each.lane)
        ]
        batch = sorted((each for each in others if each.lane), key=lambda each: each.came)
        if lane and owed:
            before = [each.costs for each in batch if each.came < came]
            if len(before) < owed:
                return 0, _sum(before)
        first = [each.costs for each in others if (each.lane, each.came) < (lane, came)]
        if batch and not lane:  # of those behind its first caller, a process shows nothing
            first += [tuple(owed * cost for cost in batch[0].costs)] if owed else []
        return lane, _sum(first)

    def taken(self, ledger: Ledger, now: int, lane: int) -> None:
        """One of that lane took its units, while others may wait."""
        passed, seen = _passed(ledger)
        batch_waits = bool(lane) or abs(now - seen) < _STALE
        passed = passed_after(passed_by(ledger, now), lane, batch_waits)
        if batch_waits:
            _put_passed(ledger, passed, now if lane else seen)

    def stand(self, ledger: Ledger, mirror: Mirror, claim: Claim, now: int, lane: int) -> None:
        """Show a ticket for who is first here, and that batch is passed by, if only that holds it
        up."""
        costs = mirror.columns(claim.costs)
        tickets = _tickets(ledger)
        mine = self._place < len(tickets) and tickets[self._place].owner == self._id
        if not mine:
            free = (
                number
                for number, ticket in enumerate(tickets)
                if not ticket.owner or _is_stale(ticket, now)
            )
            self._place = next(free, len(tickets))
        if self._place < TICKETS:
            ticket = Ticket(self._id, lane, claim.came, now, costs)
            _put_ticket(ledger, self._place, ticket, now)
            self.waiting = claim
        if lane and not mirror.is_held_up(now, (), costs, lane):
            _put_passed(ledger, passed_by(ledger, now), now)

    def leave(self, ledger: Ledger, now: int) -> None:
        """Take it away, if there is one."""
        if self.waiting is not None:
            self.waiting = None
            tickets = _tickets(ledger)
            if self._place < len(tickets) and tickets[self._place].owner == self._id:
                _put_ticket(ledger, self._place, None, now)


def shown(ledger: Ledger, now: int) -> list[Ticket]:
    """The tickets that hold."""
    return [each for each in _tickets(ledger) if each.owner and not _is_stale(each, now)]


def passed_by(ledger: Ledger, now: int) -> int:
    """By how many grants batch was passed; 0 if none waits."""
    passed, seen = _passed(ledger)
    return passed if abs(now - seen) < _STALE else 0


def _tickets(ledger: Ledger) -> list[Ticket]:
    """All that may be some; some without an owner."""
    count = min(ledger.header.tickets, TICKETS)
    return Ticket.unpack_all(ledger.file.read(count * TICKETS_SIZE, TICKETS_AT)) if count else []


def _put_ticket(ledger: Ledger, place: int, ticket: Ticket | None, now: int) -> None:
    """Write one, or strike it out."""
    ledger.file.write(NO_TICKET if ticket is None else ticket.pack(), ticket_at(place))
    if place >= ledger.header.tickets:
        ledger.header.tickets = place + 1
        ledger.commit(now)


def _passed(ledger: Ledger) -> tuple[int, int]:
    """By how many grants the batch lane was passed, and when somebody in it last looked."""
    data = ledger.file.read(PASSED.size, PASSED_AT)
    passed, seen = PASSED.unpack(data.ljust(PASSED.size, b"\0"))
    return min(max(0, passed), _MOST_PASSED), seen


def _put_passed(ledger: Ledger, passed: int, seen: int) -> None:
    ledger.file.write(PASSED.pack(passed, seen), PASSED_AT)


def _is_stale(ticket: Ticket, now: int) -> bool:
    return abs(now - ticket.seen) >= _STALE


def _sum(costs: Iterable[Costs]) -> Costs:
    return tuple(map(sum, zip(*costs, strict=True)))
