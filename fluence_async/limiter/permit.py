"""The right to send one request, and what becomes of it: each step in, told to the store.

Law: the steps may come in any order, any number of times, from a finalizer too. A permit that
nobody holds any more is released.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .._sansio.claim import ARRIVED, DONE, FRESH, HELD, SENT, Claim, counts_on_arrival
from .._sansio.tariff import came_to
from .._sansio.window import NEVER
from ..meta import RateLimitSnapshot
from ._line import Line

__all__ = ["Permit"]

_S = 1_000_000_000


class Permit(Claim):
    """The right to send one request. From `Limiter.acquire`; `release` it in a `finally`.

    All methods return at once, and may be called in any state, any order and any number of times.

    Attributes:
        waited_s: How long the limiter let the call wait, in seconds.
    """

    __slots__ = ("_line", "_sent_at", "_store", "waited_s")

    def __init__(self, line: Line, costs: Mapping[str, int]) -> None:
        self.costs = costs
        self.state: int = FRESH
        self.came = 0
        self.place: Any = None
        self.waited_s: float = 0.0
        self._sent_at = NEVER
        self._line = line
        self._store = line.store  # after a fork the line has another

    @property
    def learns(self) -> bool:
        """Whether its limiter makes use of what the response's headers say of the limits."""
        return self._store.learns

    @property
    def stays(self) -> bool:
        """Whether it must be kept until its request is over: something of it counts until then."""
        costs = self.costs
        return len(costs) > 1 and self.state < DONE and not all(map(counts_on_arrival, costs))

    def sent(self) -> None:
        """The first byte may have left this machine: the unit cannot be given back any more."""
        if self.state == HELD:
            self._sent_at = self._line.clock()
        self._store.sent(self)

    def delivered(self) -> None:
        """The kernel of the server has every byte of the request, and nobody has answered yet: the
        unit comes back a period from now, and a grace (`limiter/_early.py`), however long the
        answer takes. Ignored with `Limiter(strict=True)`."""
        line = self._line
        if self.state == SENT and line.early is not None:
            line.change(self._store.settle, self, line.early.bound(line.clock()))

    def settle(
        self,
        *,
        accepted: bool = True,
        reports: Sequence[RateLimitSnapshot] = (),
        processed_s: float | None = None,
    ) -> None:
        """The response's headers are here, so the request has arrived: the unit comes back one
        period from now, or from an earlier time by which it is known to have arrived.

        Args:
            accepted: Whether the status is another than 429.
            reports: What the headers say remains of the limits.
            processed_s: How long the headers say that the server was at it, in seconds. Ignored
                with `Limiter(strict=True)`.
        """
        if not FRESH < self.state < DONE:
            return
        line = self._line
        now = line.clock()
        if processed_s is not None and (early := line.early) is not None:
            begun = max(self._sent_at, now - round(processed_s * _S))
            if begun + early.grace < now:
                line.change(self._store.settle, self, early.bound(begun))
        line.change(self._store.settle, self, now, accepted, reports)

    def refused(self, retry_after_s: float | None = None, *, for_rate: bool = True) -> None:
        """The server answered 429: the limiter learns from it, and all who share it pause once,
        for as long as the server asks.

        Args:
            retry_after_s: What Retry-After says; None if it says nothing that is to be kept to.
            for_rate: False for a quota that is used up, from which there is nothing to learn.
        """
        self.settle(accepted=False)
        line = self._line
        if retry_after_s is not None:
            line.change(self._store.block, line.clock() + round(retry_after_s * _S))
        if for_rate and self.state > FRESH:  # its arrival may still be written
            line.change(self._learn_refusal, line.clock())

    def _learn_refusal(self, now: int) -> None:
        early = self._line.early
        if self._store.refused(self, now) and early is not None:
            limits = [window.limit for window in self._line.store.snapshot(now)]
            shortest = min(limit.period_s for limit in limits if limit.dimension == "requests")
            early.blame(now, round(shortest * _S))

    def release(self, costs: Mapping[str, int] | None = None) -> None:
        """The request is over. If nothing was sent, its unit is free again at once; if it was sent
        and never settled, it may still arrive, and the unit comes back that much later.

        Args:
            costs: What it came to, where a dimension's cost was an estimate: of all but requests.
        """
        state = self.state
        if state == ARRIVED and len(self.costs) == 1:
            self.state = DONE  # it was but a request, which is settled
        elif FRESH < state < DONE:
            if costs is not None:
                costs = came_to(self.costs, costs)
            self._line.change(self._store.release, self, self._line.clock(), costs)

    def __del__(self) -> None:
        if FRESH < self.state < DONE:
            self.release()

    def __repr__(self) -> str:
        return f"<Permit {('waiting', 'held', 'sent', 'arrived', 'done')[self.state]}>"
