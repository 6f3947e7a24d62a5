"""Whose turn it is among the processes that wait, by their tickets in the file.

Law: interactive before batch, then by when the first caller of each had come. A ticket must be
shown anew within a second, or the others go on as if it were not there: its process may be
standing still, or dead.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from .._sansio.bucket import Claim
from .._sansio.limits_file import TICKETS, Costs, Ticket
from ._ledger import Ledger

__all__ = ["Turns"]

_STALE = 1_000_000_000


class Turns:
    """One limiter among those that share a file.

    Attributes:
        waiting: For whom it has a ticket; None if it has none.
    """

    def __init__(self) -> None:
        self.waiting: Claim | None = None
        self._id = int.from_bytes(os.urandom(8), "little") | 1
        self._place = 0

    def ahead(self, ledger: Ledger, claim: Claim, now: int, lane: int) -> Costs:
        """What others need who came before; empty if there are none."""
        turn = (lane, claim.came or now)
        shown = [each for each in ledger.tickets() if each.owner and not _is_stale(each, now)]
        if not shown:
            ledger.header.tickets = 0
        first = (
            each.costs for each in shown if each.owner != self._id and (each.lane, each.came) < turn
        )
        return _sum(first)

    def stand(self, ledger: Ledger, claim: Claim, now: int, lane: int, costs: Costs) -> None:
        """Show a ticket for who is first here."""
        tickets = ledger.tickets()
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
            ledger.put_ticket(self._place, ticket, now)
            self.waiting = claim

    def leave(self, ledger: Ledger, now: int) -> None:
        """Take it away, if there is one."""
        if self.waiting is not None:
            self.waiting = None
            tickets = ledger.tickets()
            if self._place < len(tickets) and tickets[self._place].owner == self._id:
                ledger.put_ticket(self._place, None, now)


def _is_stale(ticket: Ticket, now: int) -> bool:
    return abs(now - ticket.seen) >= _STALE


def _sum(costs: Iterable[Costs]) -> Costs:
    return tuple(map(sum, zip(*costs, strict=True)))
