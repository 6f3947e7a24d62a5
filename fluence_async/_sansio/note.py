"""A take goes in, what is to be remembered of it until its answer comes out."""

from __future__ import annotations

from collections.abc import Sequence

from .watch import Watch

__all__ = ["Note"]


class Note:
    """What is known of one request since its take.

    Attributes:
        taken_at: When that was.
        depths: How deep it goes, in each window.
        over: The windows whose counter might refuse it.
        bounds: What the server had left for us at least, in each window, if we are alone.
        taken: How many were taken until then, itself included.
        flying: How many of these were in flight.
    """

    __slots__ = ("bounds", "depths", "flying", "over", "taken", "taken_at")

    def __init__(
        self,
        now: int,
        watches: Sequence[Watch],
        over: Sequence[Watch],
        *,
        taken: int,
        flying: int,
    ) -> None:
        self.taken_at = now
        self.depths = [watch.depth(now) for watch in watches]
        self.over = over
        self.bounds = [
            watch.bound(depth, flying, now)
            for watch, depth in zip(watches, self.depths, strict=True)
        ]
        self.taken = taken
        self.flying = flying

    def is_deep(self, watches: Sequence[Watch]) -> bool:
        """Whether it goes deeper than anything that was accepted."""
        pairs = zip(watches, self.depths, strict=True)
        return any(depth > watch.learnt.proven for watch, depth in pairs)
