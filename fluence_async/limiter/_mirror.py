"""What a file tells of all processes, in a bucket of this one's own.

Law: the bucket may know of more than the file does (that of before, if somebody has deleted it),
never of less. What this process writes it notes here itself; what others have written is read.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from copy import copy
from operator import sub

from .._sansio.bucket import ARRIVED, DONE, HELD, NEVER, SENT, Bucket, Claim
from .._sansio.claim import is_of_one_model, the_rest
from .._sansio.learning import LearningBucket
from .._sansio.limits_file import DIMENSIONS, RING, Costs
from .._sansio.rate_limit import RateLimit
from ..meta import RateLimitSnapshot
from ._hearsay import Hearsay
from ._ledger import NOTHING, Ledger, Place

__all__ = ["Mirror"]

_LOOK_AGAIN = 500_000_000
_LOOK_AGAIN_AT_ONCE = 50_000_000
"""For a place among the calls at once, which another process may give back at any moment."""


class Mirror:
    """A bucket, and how much of which file it has seen.

    Attributes:
        bucket: As full as everybody made it, since `read`.
        epoch: Of the file that it shows; 0 if it must begin from nothing.
        search_every: How often it is worth looking for dead processes, in ns.
        unexplained: Whether nothing explains the last refusal.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.epoch = 0
        self._columns: dict[str, int] = {}
        self._seen = 0
        self._in_flight: list[int] = []
        self.search_every = _LOOK_AGAIN
        self.unexplained = False
        self._hearsay = Hearsay()

    def fit(self, more: Iterable[RateLimit] = ()) -> int:
        """See that all that the windows must remember has room in a file, with more limits too.

        Returns:
            For how long what is seen of the others holds, in ns.

        Raises:
            ValueError: It has not.
        """
        bucket = copy(self.bucket)
        bucket.windows = tuple(map(copy, bucket.windows))
        if isinstance(self.bucket, LearningBucket):
            users = {watch.window: watch.own for watch in self.bucket.watches}
            for window, of in zip(bucket.windows, self.bucket.windows, strict=True):
                window.rate = users.get(of, of.rate)  # of more, as much is used as has room
        Bucket.tighten(bucket, more, 0)  # and nobody learns of it
        windows = bucket.windows
        dimensions = {window.dimension for window in windows}
        if len(dimensions) > DIMENSIONS:
            raise ValueError(
                f"limits {bucket}: a file counts {DIMENSIONS} dimensions at most (a model's are "
                f"its own), and these are {len(dimensions)}; use limiter='memory', or a Redis"
            )
        longest = self._memory(max(window.hold for window in windows))
        counted = [window for window in windows if window.dimension == "requests"]
        lasting = any(window.hold and not window.on_arrival for window in windows)
        entries = 1 + lasting  # at its arrival, and at its end
        if entries * min(each.rate.limit * -(-longest // each.hold) for each in counted) > RING:
            raise ValueError(
                f"limits {bucket}: more requests in the longest period than a file "
                f"remembers ({RING}); use limiter='memory'"
            )
        shortest = min(window.hold for window in windows if window.hold)
        self.search_every = min(_LOOK_AGAIN, shortest // 8)
        at_once = any(not window.hold for window in windows)
        return min(self.search_every, _LOOK_AGAIN_AT_ONCE) if at_once else self.search_every

    def _memory(self, hold: int) -> int:
        """How long what has arrived is needed: a sliding counter counts two periods."""
        return 2 * hold if self.bucket.learns else hold

    def columns(self, costs: Mapping[str, int]) -> Costs:
        """Costs as the file has them."""
        found = [0] * DIMENSIONS
        for dimension, cost in costs.items():
            if dimension in self._columns:
                found[self._columns[dimension]] = cost
        return tuple(found)

    def read(self, ledger: Ledger, now: int) -> None:
        """See what others have written."""
        header = ledger.header
        if self.epoch != header.epoch:
            self._begin(ledger, now)
        windows = [(each, self._columns[each.dimension]) for each in self.bucket.windows]
        heard = []
        for arrived, costs in ledger.entries(max(self._seen, header.head - RING)):
            heard.append((arrived, costs[0]))
            for window, column in windows:
                if costs[column] and arrived + window.hold > now:
                    window.put(arrived + window.hold, costs[column])
                    window.free -= costs[column]
        for window, column in windows:
            window.free -= header.in_flight[column] - self._in_flight[column]
        blocked = header.blocked - header.base
        self.bucket.blocked_until = max(self.bucket.blocked_until, blocked)
        if isinstance(self.bucket, LearningBucket):
            self.bucket.overhear(heard, header.in_flight[0] - self._in_flight[0], now)
            self._hearsay.read(ledger, self.bucket, now)
        self.note(ledger)

    def tell(self, ledger: Ledger, now: int) -> None:
        """Write what was learnt."""
        if isinstance(self.bucket, LearningBucket):
            self._hearsay.tell(ledger, self.bucket, now)

    def _begin(self, ledger: Ledger, now: int) -> None:
        """Prepare to read all of a file; what was known of another one still holds."""
        header = ledger.header
        if self.epoch:
            self.bucket = self.bucket.inherit(now)
        else:
            self.bucket.forget()
        if not header.has_room(window.dimension for window in self.bucket.windows):
            if ledger.is_idle(now):  # of dimensions that nobody counts any more
                ledger.reset(now)
            header = ledger.header
        before = (header.keep, header.tail, header.names)
        self._columns = {"requests": 0}
        for window in self.bucket.windows:
            self._columns[window.dimension] = header.column(window.dimension)
            if self._memory(window.hold) > header.keep:
                header.keep = self._memory(window.hold)
                header.tail = 0
        ledger.trim(now)
        if before != (header.keep, header.tail, header.names):
            ledger.commit(now)
        self.epoch = header.epoch
        self._seen = header.tail
        self._in_flight = [0] * len(header.in_flight)

    def note(self, ledger: Ledger) -> None:
        """The bucket has all that the file has."""
        self._seen = ledger.header.head
        self._in_flight = ledger.header.in_flight

    def take(self, claim: Claim, now: int, lane: int, ahead: Costs) -> int:
        """Take what others will leave who are to go first, if anything."""
        if not ahead:
            return self.bucket.take(claim, now, lane)
        bucket = self.bucket
        theirs = [(each, ahead[self._columns[each.dimension]]) for each in bucket.windows]
        for window, cost in theirs:
            window.free -= cost
        bucket.ahead = ahead[0]
        try:
            return bucket.take(claim, now, lane)
        finally:
            bucket.ahead = 0
            for window, cost in theirs:
                window.free += cost

    def is_held_up(self, now: int, by: Container[str], costs: Costs, lane: int) -> bool:
        """Whether who needs so much, in that lane's right, waits for limits of its model alone, and
        for none of the dimensions of a call `by` which it would be passed."""
        held_up = False
        for window in self.bucket.windows:
            name = window.dimension
            if window.is_short(costs[self._columns[name]], now, lane):
                if name in by or not is_of_one_model(name):
                    return False
                held_up = True
        return held_up

    def settle(
        self,
        claim: Claim,
        ub: int,
        said: tuple[bool | None, Sequence[RateLimitSnapshot]],
        ledger: Ledger,
        now: int,
    ) -> None:
        """Write that it had arrived by `ub`; learn from what the server said of it."""
        if claim.state in (HELD, SENT):
            self._arrive(claim, ub, ledger, now)
        if self.bucket.learns and claim.state == ARRIVED and claim.place.epoch == self.epoch:
            self.bucket.settle(claim, ub, *said)

    def _arrive(self, claim: Claim, ub: int, ledger: Ledger, now: int) -> None:
        place: Place = claim.place
        left = None
        if place.epoch == self.epoch:
            used, rest = place.costs, NOTHING
            if len(claim.costs) > 1:
                rest = self.columns(the_rest(claim))
                used = tuple(map(sub, used, rest))
            left = ledger.settle(place, now, ub, used, rest)
        if left is None:
            claim.state = DONE
            return
        claim.place = left
        self.bucket.settle(claim, ub)
        self.note(ledger)

    def refused(self, claim: Claim, ledger: Ledger, now: int) -> None:
        """Learn from a refusal; a pause is everybody's."""
        self.unexplained = self.bucket.refused(claim, now)
        self.block(ledger, now)

    def block(self, ledger: Ledger, now: int) -> None:
        """Write until when nobody may take."""
        header = ledger.header
        blocked = self.bucket.blocked_until + header.base
        if blocked > max(header.blocked, now + header.base):
            header.blocked = blocked
            ledger.commit(now)

    def release(
        self,
        claim: Claim,
        unseen: int,
        costs: Mapping[str, int] | None,
        ledger: Ledger,
        now: int,
    ) -> None:
        """Write that it is over: that it never left, or may still arrive, or what it came to."""
        over = now
        if claim.state == SENT:
            over += unseen
            self._arrive(claim, over, ledger, now)
        place: Place = claim.place
        written: object = None
        if place.epoch == self.epoch:
            if claim.state == HELD:
                written = ledger.give_back(place, now)
            elif claim.state == ARRIVED and any(place.costs):
                used = [min(cost, NEVER) for cost in self.columns(the_rest(claim, costs))]
                if over == now:  # what has no period is back, and need not be remembered
                    for window in self.bucket.windows:
                        used[self._columns[window.dimension]] *= bool(window.hold)
                written = ledger.settle(place, now, over, used)
        if written:
            self.bucket.release(claim, over, costs)
            self.note(ledger)
        claim.state = DONE

    def bury(self, ledger: Ledger, now: int, unseen: int) -> None:
        """What dead processes had sent may still arrive for a while, and then no more."""
        orphans = ledger.orphans(now)
        self.read(ledger, now)
        for place in orphans:
            arrived = now + unseen
            if ledger.settle(place, now, arrived, place.costs):
                for window in self.bucket.windows:
                    if cost := place.costs[self._columns[window.dimension]]:
                        window.put(arrived + window.hold, cost)
                if isinstance(self.bucket, LearningBucket):
                    requests = place.costs[0]
                    self.bucket.overhear([(arrived, requests)], -requests, now)
        self.note(ledger)
