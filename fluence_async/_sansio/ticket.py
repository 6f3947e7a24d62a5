"""What a limiter's file says of a limiter that waits: a record in, bytes out, and back."""

from __future__ import annotations

from typing import NamedTuple

from .limits_file import TICKET, TICKETS_SIZE, Costs

__all__ = ["Ticket"]


class Ticket(NamedTuple):
    """A limiter that waits. Tickets are kept for fairness; nothing unsafe comes of a wrong one.

    Attributes:
        owner: Another number for each limiter.
        lane: Of its first caller.
        came: When that came.
        seen: When it was last seen to wait.
        costs: What it needs.
    """

    owner: int
    lane: int
    came: int
    seen: int
    costs: Costs

    def pack(self) -> bytes:
        """As it is written."""
        return TICKET.pack(*self[:4], *self.costs)

    @classmethod
    def unpack_all(cls, data: bytes) -> list[Ticket]:
        """Those that were read, and those without an owner."""
        return [
            cls(owner, lane, came, seen, tuple(costs))
            for owner, lane, came, seen, *costs in TICKET.iter_unpack(
                data[: len(data) // TICKETS_SIZE * TICKETS_SIZE]
            )
        ]
