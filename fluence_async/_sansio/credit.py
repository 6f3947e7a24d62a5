"""What a server says remains of its limits goes in; credit, and what others used, come out.

Law: credit is so many as it takes whatever it counts like: those that remained, less all that it
may have counted after it said so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..meta import RateLimitSnapshot
from .note import Note
from .watch import Watch

__all__ = ["hear"]


def hear(
    watches: Sequence[Watch],
    reports: Iterable[RateLimitSnapshot],
    note: Note,
    now: int,
    *,
    since: int,
) -> list[Watch]:
    """Take what the server says remains after a request as credit, less what it may have counted
    `since` then. Of which windows it spoke."""
    heard = []
    for report in reports:
        number = _meant(watches, report)
        if number is None or report.remaining is None:
            continue
        watch = watches[number]
        heard.append(watch)
        other = report.period_s is not None and watch.regard(report.limit, now)
        remaining = min(report.remaining, watch.limit)
        # the units in flight may have come after it, and some were drained while it was on its way
        slack = note.flying + (now - note.taken_at) // watch.gap
        watch.hear(remaining, note.depths[number] - slack, now)
        credit = remaining - since - note.flying + 1
        foreign = note.bounds[number] - since - remaining
        if other:
            watch.credit = max(0, credit)
        elif foreign > 0:  # somebody else uses the key: leave it to them
            watch.concede(foreign, report.reset_s, now)
            watch.credit = max(0, credit)
        else:
            watch.credit = max(watch.credit, credit)
    return heard


def _meant(watches: Sequence[Watch], report: RateLimitSnapshot) -> int | None:
    """The window that a report is of: by its period, or by its limit; or the only one."""
    for number, watch in enumerate(watches):
        rate = watch.window.rate
        if report.period_s is not None:
            if report.period_s == rate.period_s:
                return number
        elif report.limit == rate.limit:
            return number
    return 0 if report.period_s is None and len(watches) == 1 else None
