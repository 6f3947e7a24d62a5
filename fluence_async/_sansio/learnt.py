"""What is known of how a server keeps one limit: plain data, which a store may keep.

Law: everything here can be forgotten without harm, and is then learnt again, at the price of the
refusals that it took the first time.

The Structs say they are of `fluence_async.limiter`, and are looked for their annotations there:
they are objects here, not texts.
"""

import msgspec

from .counter import ALL_PARTS
from .lanes import before
from .outlook import Outlook, earliest
from .rate_limit import RateLimit

__all__ = ["Learnt", "LimiterSnapshot", "WindowSnapshot", "see"]

_S = 1_000_000_000


class Learnt(msgspec.Struct, kw_only=True):
    """How a server keeps one limit, as far as it has shown.

    Attributes:
        burst: How many requests it is believed to take at once, one more every `period / limit`.
        proven: How many of them it has taken.
        ended: A refusal or a header has shown that more than `proven` is too much.
        retry_burst_at: When one more than `burst` is tried again, in ns of the limiter's clock.
        retry_burst_in: And how much later if it is refused then, in ns.
        counter: It refused what only a sliding counter refuses.
        alignments: The alignments that such a counter may have, as bits; 0 if it keeps none.
        withheld: Units left unused, because it refused what the limit should have allowed.
        restore_at: When some of them are used again, in ns of the limiter's clock; and before when
            nothing is believed that the server states.
        restore_in: And how much later the next, in ns.
        reported: It tells what remains, in its headers.
        stated: The limit that it states, where that is more than the user's and the user allows
            it to be used; 0 otherwise.
    """

    __module__ = "fluence_async.limiter"

    burst: int = 1
    proven: int = 0
    ended: bool = False
    retry_burst_at: int = 0
    retry_burst_in: int = 0
    counter: bool = False
    alignments: int = ALL_PARTS
    withheld: int = 0
    restore_at: int = 0
    restore_in: int = 0
    reported: bool = False
    stated: int = 0


class WindowSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One window at one moment.

    Attributes:
        limit: Its rate limit.
        used: Units gone: in flight, or sent less than a period (and the margin) ago.
        left: Units free, without those that are withheld; 0 also while more was used than the limit
            allows.
        next_free_s: Seconds until one is free; None if that hangs on an answer not yet here.
        learnt: How the server keeps it, as far as it has shown; None where nobody watches.
        outlook: When which units come back; None if that is not known here (Redis knows it).
    """

    __module__ = "fluence_async.limiter"

    limit: RateLimit
    used: int
    left: int
    next_free_s: float | None
    learnt: Learnt | None = None
    outlook: Outlook | None = None


def see(rate: RateLimit, outlook: Outlook, learnt: Learnt | None) -> WindowSnapshot:
    """One window at one moment."""
    now, free = outlook.now, outlook.free
    next_free = now if free > 0 else None
    for at, cost in outlook.returns if free < 1 else ():
        free += cost
        if free > 0:
            next_free = at
            break
    return WindowSnapshot(
        limit=rate,
        used=outlook.limit - outlook.free,
        left=max(0, outlook.free),
        next_free_s=None if next_free is None else (next_free - now) / _S,
        learnt=learnt,
        outlook=outlook,
    )


class LimiterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A limiter at one moment.

    Attributes:
        windows: Its windows.
        waiting: Calls that wait, of all loops and threads.
        paused_s: Seconds until the pause that the server asked for is over; 0 if there is none.
        waiting_batch: Those of them that wait in lane 1.
        passed: How many of lane 0 were served while those waited, and are not made up for: after
            nine, one of lane 1 goes first.
    """

    __module__ = "fluence_async.limiter"

    windows: tuple[WindowSnapshot, ...]
    waiting: int
    paused_s: float
    waiting_batch: int = 0
    passed: int = 0

    def eta_s(self, calls: int = 1, *, lane: int = 0, model: str | None = None) -> float | None:
        """In how many seconds the last of `calls` further calls could go, at the earliest: after
        those that wait, if nobody else comes, and each takes one unit and is answered at once. What
        the limiter has learnt of the server may hold them back longer.

        Args:
            calls: How many, at least 1.
            lane: 0 for interactive calls, 1 for batch calls.
            model: Whom they ask, for the limits that this model has of its own; whether those that
                wait take of these, too, is not known.

        Returns:
            Seconds from the snapshot on; None if every unit is in flight, so that it hangs on
            answers that are not here yet, or if this limiter has not asked who knows (see
            `Limiter.look`).

        Raises:
            ValueError: `calls` or `lane` makes no sense.

        Example:
            ```python
            limiter = Limiter(["2/second"])
            assert limiter.snapshot().eta_s(2) == 0
            assert limiter.snapshot().eta_s(3) > 1
            ```
        """
        if type(calls) is not int or calls < 1:
            raise ValueError(f"calls={calls!r}: must be a whole number from 1 up")
        if lane not in (0, 1):
            raise ValueError(f"lane={lane!r}: must be 0 (interactive) or 1 (batch)")
        counted = [each for each in self.windows if each.limit.dimension == "requests"]
        everybodys = [each.outlook for each in counted if each.limit.model is None]
        windows = [each.outlook for each in counted if each.limit.model in (None, model)]
        interactive, batch = self.waiting - self.waiting_batch, self.waiting_batch
        at = self._after(everybodys, interactive, batch, calls, lane)
        if at is None or len(windows) == len(everybodys):
            return at
        alone = self._after(windows, 0, 0, calls, lane)
        return None if alone is None else max(at, alone)

    def _after(
        self, windows: list[Outlook | None], interactive: int, batch: int, calls: int, lane: int
    ) -> float | None:
        """In how many seconds the last of `calls` could go, after so many others."""
        seen = [each for each in windows if each is not None]
        if len(seen) < len(windows):
            return None
        more = [calls - 1 if each == lane else 0 for each in (0, 1)]
        now = max(each.now for each in seen)
        start = now + round(self.paused_s * _S)
        order = before(interactive + more[0], batch + more[1], self.passed, lane)
        at = earliest(seen, start, *order)
        return None if at is None else (at - now) / _S
