"""What is known of how a server keeps one limit: plain data, which a store may keep.

Law: everything here can be forgotten without harm, and is then learnt again, at the price of the
refusals that it took the first time.
"""

from __future__ import annotations

import msgspec

from .counter import ALL_PARTS
from .rate_limit import RateLimit

__all__ = ["Learnt", "LimiterSnapshot", "WindowSnapshot"]


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
        restore_at: When some of them are used again, in ns of the limiter's clock.
        restore_in: And how much later the next, in ns.
        reported: It tells what remains, in its headers.
        stated: The limit that it states, where that is more than the user's and the user allows
            it to be used; 0 otherwise.
        distrusted_until: Before that nothing of the kind is believed, in ns of the limiter's clock.
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
        left: Units free; 0 also while more was used than the limit allows.
        next_free_s: Seconds until one is free; None if that hangs on an answer not yet here.
        learnt: How the server keeps it, as far as it has shown; None where nobody watches.
    """

    __module__ = "fluence_async.limiter"

    limit: RateLimit
    used: int
    left: int
    next_free_s: float | None
    learnt: Learnt | None = None


class LimiterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """A limiter at one moment.

    Attributes:
        windows: Its windows.
        waiting: Calls that wait, of all loops and threads.
        paused_s: Seconds until the pause that the server asked for is over; 0 if there is none.
    """

    __module__ = "fluence_async.limiter"

    windows: tuple[WindowSnapshot, ...]
    waiting: int
    paused_s: float
