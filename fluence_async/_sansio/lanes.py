"""Whose turn it is, interactive or batch: counts of who waits go in, an order comes out.

Law: interactive calls go first, and batch calls never starve. While batch calls wait, every tenth
grant is theirs: for each nine interactive calls that passed them by, one of them is owed a turn,
goes before everybody, and takes as if it were interactive. Were the reserve held against it, an
interactive lane that lives on the reserve would keep it out for ever.

In a queue a turn is taken as soon as it is owed; while limits of its model alone keep a batch call
from that, others pass, and one turn is owed at most. Among processes the one that is owed may be
asleep: turns that it missed meanwhile are still owed, and units are left for them.
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["EVERY", "Before", "before", "passed_after", "turns_owed"]

EVERY: Final = 10
"""Of so many grants, one is a batch call's, if any waits."""


def turns_owed(passed: int) -> int:
    """How many batch calls go before everybody, when so many interactive ones passed them by."""
    return passed // (EVERY - 1)


def passed_after(passed: int, lane: int, batch_waits: bool) -> int:
    """By how many they have been passed after a grant to `lane`."""
    if not batch_waits:
        return 0
    return max(0, passed - (EVERY - 1)) if lane else passed + 1


class Before(NamedTuple):
    """Who is served up to a call, itself included: how many without regard to the reserve, and
    then how many in the batch lane's own right, which leave it."""

    freely: int
    reserved: int


def before(interactive: int, batch: int, passed: int, lane: int) -> Before:
    """Who is served up to a call that is the next in its lane, if nobody else comes.

    Args:
        interactive: How many interactive calls wait; for one of them, those before it.
        batch: How many batch calls wait; for one of them, those before it.
        passed: By how many the first batch call was passed.
        lane: The call's own.
    """
    if not lane:
        return Before(interactive + 1 + min(batch, turns_owed(passed + interactive)), 0)
    turns = min(batch + 1, turns_owed(passed + interactive))
    if turns > batch:  # it has one itself, and those who come after it do not count
        needed = max(0, turns * (EVERY - 1) - passed)
        return Before(needed + turns, 0)
    return Before(interactive + turns, batch + 1 - turns)
