"""How a limiter stands: its line goes in, a snapshot comes out. Nothing is taken by looking."""

from __future__ import annotations

from collections.abc import Mapping

from .._sansio.bucket import Claim
from .._sansio.learnt import LimiterSnapshot
from .._sansio.tariff import Tariff
from ._line import Line

__all__ = ["Seen"]

_S = 1_000_000_000


class Seen:
    """What of a limiter can be looked at."""

    _line: Line
    _tariff: Tariff

    def snapshot(self) -> LimiterSnapshot:
        """What is used, left and waiting now; `snapshot().eta_s(100)` is when 100 more could go."""
        line = self._line
        now = line.clock()
        with line.lock:
            line.catch_up()
            return LimiterSnapshot(
                windows=line.store.snapshot(now),
                waiting=line.queue.size,
                paused_s=max(0, line.store.blocked_until - now) / _S,
                waiting_batch=line.queue.lanes[1],
                passed=line.queue.passed,
            )

    async def look(self) -> LimiterSnapshot:
        """The same, after asking whoever else knows (`RedisLimiter`); else at once."""
        return self.snapshot()

    def wait_s(
        self,
        *,
        lane: int = 0,
        front: bool = False,
        costs: Mapping[str, int] | None = None,
        model: str | None = None,
    ) -> float:
        """How long one more call would have to wait at least, as far as that is known, in seconds.
        Cheaper than `snapshot().eta_s()`, and 0.0 where that is None.

        Args:
            lane: As of `acquire`.
            front: As of `acquire`.
            costs: As of `acquire`.
            model: As of `acquire`.
        """
        claim = Claim(self._tariff.of(costs, model))
        line = self._line
        now = line.clock()
        with line.lock:
            known = line.earliest(claim, 2 * lane + (not front), now)
        return max(0, known - now) / _S

    def __repr__(self) -> str:
        now = self.snapshot()
        windows = ", ".join(f"{window.limit}: {window.left} left" for window in now.windows)
        pause = f", paused for {now.paused_s:.1f} s" if now.paused_s else ""
        return f"<{type(self).__name__} {windows}; {now.waiting} waiting{pause}>"
