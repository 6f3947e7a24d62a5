"""When a request was with the server's kernel goes in; by when it had arrived, before any answer
came, goes out.

A unit comes back a period after a time by which its request had certainly arrived. The headers are
such a time, and come late where an answer takes long. Earlier ones, each with a grace:

    delivered    the server's kernel has acknowledged every byte. The server reads them as soon as
                 it runs, and counts them when it has read them: within the grace.
    stated       the headers say for how long the server was at it, so it had begun so long before
                 they came, and never before the request was sent. The grace is for what it states
                 in whole milliseconds, and for the way from a gateway that states it to a server
                 behind it that counts.

Law: what holds a request back between its arrival and its count breaks both: a server that queues
requests before it counts them, a gateway that has taken all of a request and passes it on late. No
client can see that, but a refusal that nothing else explains hints at it: the grace is doubled,
once for all that was settled by the one before. For a server known to do so, there is
`Limiter(strict=True)`, and the headers alone are believed.
"""

from __future__ import annotations

from typing import Final

__all__ = ["Early"]

_S: Final = 1_000_000_000
_GRACE: Final = _S // 4
_MOST_GRACE: Final = 8 * _S


class Early:
    """The grace of one limiter.

    Attributes:
        grace: How much later than it was with the server's kernel a request may be counted, in ns.
    """

    __slots__ = ("_since", "grace")

    def __init__(self) -> None:
        self.grace: int = _GRACE
        self._since: int | None = None

    def bound(self, at: int) -> int:
        """By when a request had arrived that was with the server's kernel at `at`, in ns."""
        if self._since is None:
            self._since = at
        return at + self.grace

    def blame(self, now: int, period: int) -> None:
        """A request was refused, and nothing explains it; units that were settled with this grace
        come back after `period` at the earliest, in ns, and are not to blame before."""
        if self._since is not None and now >= self._since + period:
            self.grace = min(2 * self.grace, _MOST_GRACE)
            self._since = None

    def __repr__(self) -> str:
        return f"<Early {self.grace / _S:g} s>"
