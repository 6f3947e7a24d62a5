"""A bucket that all processes of a machine share, through a file that outlives them.

Law: the file says what was sent; what may be sent follows from it in a bucket of each process's
own, which is brought up to date under the file's lock before it is asked. Nothing waits for that
lock: who cannot have it comes again in a millisecond, and what cannot be written at once is
written a little later.

Turns go by when the first caller of each process came. Who is k-th waits for the k-th unit, and
looks again after half a second at most, because another may have given units back, or died.

What cannot be used (no room on the disk, another user's file, another version's) is said once, and
the limiter goes on in this process alone, with all that it knew.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

from .._sansio.bucket import DONE, FRESH, HELD, NEVER, SENT, Bucket, Claim, WindowSnapshot
from .._sansio.limits_file import RING, Damaged, Foreign
from .._sansio.rate_limit import RateLimit
from ._ledger import Ledger, Place
from ._mirror import Mirror
from ._store import Store
from ._turns import Turns

__all__ = ["FileStore", "open_store"]

_S = 1_000_000_000
_BUSY_NS = _S // 1000
_LOOK_AGAIN = _S // 2
_logger = logging.getLogger("fluence_async")


def open_store(path: str | os.PathLike[str], bucket: Bucket, unseen: int) -> Store:
    """`bucket`, shared through a file; itself, and a warning, if that cannot be."""
    try:
        return FileStore(path, bucket, unseen)
    except OSError as error:
        _say_alone(path, error)
        return bucket


def _say_alone(path: str | os.PathLike[str], error: Exception) -> None:
    _logger.warning(
        "the limiter's file %s cannot be used (%s): other processes are not seen", path, error
    )


class FileStore:
    """A store in a file, on a local disk.

    Args:
        path: Where.
        bucket: What this process promises; the windows begin with what the file tells.
        unseen: How long the request of a process that died may still arrive, in ns.
        wall: The wall clock, in ns.

    Attributes:
        stale_after: How long an answer of `take` holds at most, in ns.

    Raises:
        OSError: The file cannot be had.
        ValueError: It is too small for such limits.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        bucket: Bucket,
        unseen: int,
        *,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = Path(path)
        self._mirror = Mirror(bucket)
        self._unseen = unseen
        self._turns = Turns()
        self._fit()
        self._ledger: Ledger | None = Ledger(self._path, wall)
        self._mutex = threading.Lock()
        self._pending: deque[Callable[[Ledger, int], None]] = deque()
        self._flusher: threading.Thread | None = None
        self._now: int | None = None
        self._search_at = 0

    def _fit(self) -> None:
        """See that what a window must remember has room in the file."""
        windows = self._bucket.windows
        longest = max(window.hold for window in windows)
        counted = [window for window in windows if window.dimension == "requests"]
        if min(each.rate.limit * -(-longest // each.hold) for each in counted) > RING:
            raise ValueError(
                f"limits {self._bucket}: more requests in the longest period than a file "
                f"remembers ({RING}); use limiter='memory'"
            )
        self.stale_after: int = min(_LOOK_AGAIN, min(window.hold for window in windows) // 8)

    @property
    def _bucket(self) -> Bucket:
        return self._mirror.bucket

    @property
    def blocked_until(self) -> int:
        """Nobody takes before this."""
        return self._bucket.blocked_until

    def check(self, costs: Mapping[str, int], lane: int) -> None:
        """Raise ValueError if such a claim could never be taken."""
        self._bucket.check(costs, lane)

    def take(self, claim: Claim, now: int, lane: int) -> int:
        """Take all or nothing: 0, or when to try again."""
        wake = self._locked(now, self._take, claim, lane)
        if wake is None:
            alone = self._ledger is None
            return self._bucket.take(claim, now, lane) if alone else now + _BUSY_NS
        return wake

    def earliest(self, claim: Claim, now: int, lane: int, ahead: int) -> int:
        """Before when no try can succeed; `now` if nobody knows."""
        self._locked(now, _nothing)
        return self._bucket.earliest(claim, now, lane, ahead)

    def sent(self, claim: Claim) -> None:
        """Its first byte may have left this machine."""
        self._bucket.sent(claim)

    def settle(self, claim: Claim, ub: int, costs: Mapping[str, int] | None = None) -> None:
        """It had arrived by `ub`, and came to `costs`."""
        if claim.place is None:
            self._bucket.settle(claim, ub, costs)
        elif self._ledger is None:
            claim.state = DONE
        elif claim.state in (HELD, SENT):
            self._write(ub, partial(self._settle, claim, ub, costs))

    def release(self, claim: Claim, now: int) -> None:
        """It is over, however far it came."""
        if claim.state == FRESH:
            if claim is self._turns.waiting:
                self._write(now, self._turns.leave)
        elif claim.place is None:
            self._bucket.release(claim, now)
        elif self._ledger is None:
            claim.state = DONE
        elif claim.state == SENT:
            self._write(now, partial(self._settle, claim, now + self._unseen, None))
        elif claim.state == HELD:
            self._write(now, partial(self._give_back, claim))

    def block(self, until: int) -> None:
        """Let nobody take before `until`."""
        self._bucket.block(until)
        if self._ledger is not None:
            self._write(self._now, self._block)

    def tighten(self, limits: Iterable[RateLimit], now: int) -> None:
        """Obey these limits too, in this process."""
        self._bucket.tighten(limits, now)
        if self._ledger is not None:
            self._fit()
            self._mirror.epoch = 0

    def snapshot(self, now: int) -> tuple[WindowSnapshot, ...]:
        """Every window."""
        self._locked(now, _nothing)
        return self._bucket.snapshot(now)

    def inherit(self, now: int) -> Store:
        """What a forked child goes on with: the same file, opened anew, because the lock of this
        one is shared with the parent."""
        ledger, self._ledger = self._ledger, None
        heir = self._bucket.inherit(now)
        if ledger is None:
            return heir
        ledger.close()
        return open_store(self._path, heir, self._unseen)

    def __str__(self) -> str:
        return str(self._bucket)

    # ─── with the file's lock ─────────────────────────────────────────────────────────────

    def _locked(self, now: int, do: Callable[..., int], *args: object) -> int | None:
        """Do it with the file locked and the bucket up to date; None if that cannot be now."""
        ledger = self._ledger
        if ledger is None or not self._mutex.acquire(blocking=False):
            return None
        try:
            if not ledger.lock(now):
                return None
            try:
                return self._repairing(ledger, now, do, *args)
            finally:
                ledger.unlock()
        except (OSError, Foreign, Damaged, ValueError) as error:
            self._go_alone(error, now)
            return None
        except BaseException:
            self._mirror.epoch = 0  # of what was half done, the file knows more
            raise
        finally:
            self._mutex.release()

    def _repairing(self, ledger: Ledger, now: int, do: Callable[..., int], *args: object) -> int:
        try:
            self._catch_up(ledger, now)
            return do(ledger, now, *args)
        except Damaged as damage:
            _logger.warning("the limiter's file %s is damaged (%s): begun anew", self._path, damage)
            ledger.reset(now)
            self._catch_up(ledger, now)
            return do(ledger, now, *args)

    def _catch_up(self, ledger: Ledger, now: int) -> None:
        """Learn what others have written, then write what is known only here."""
        if ledger.refresh(now) or self._mirror.epoch != ledger.header.epoch:
            self._mirror.read(ledger, now)
        self._now = now
        while self._pending:
            self._pending.popleft()(ledger, now)

    def _go_alone(self, error: Exception, now: int) -> None:
        """Answers to what is in flight are not waited for any more: nobody knows whose it is."""
        _say_alone(self._path, error)
        if self._ledger is not None:
            self._ledger.close()
        self._ledger = None
        self._mirror.bucket = self._bucket.inherit(now)
        self._pending.clear()
        self.stale_after = NEVER

    def _take(self, ledger: Ledger, now: int, claim: Claim, lane: int) -> int:
        ahead = self._turns.ahead(ledger, claim, now, lane)
        wake = self._mirror.take(claim, now, lane, ahead) if ledger.has_room() else NEVER
        if wake and now >= self._search_at:
            self._search_at = now + self.stale_after
            self._mirror.bury(ledger, now, self._unseen)
            wake = self._mirror.take(claim, now, lane, ahead) if ledger.has_room() else NEVER
        costs = self._mirror.columns(claim.costs)
        if wake:
            if claim.came:
                self._turns.stand(ledger, claim, now, lane, costs)
            return wake
        claim.place = ledger.take(now, costs)
        self._mirror.note(ledger)
        self._turns.leave(ledger, now)
        return 0

    # ─── what must be written, now or a little later ──────────────────────────────────────

    def _write(self, now: int | None, what: Callable[[Ledger, int], None]) -> None:
        self._pending.append(what)
        if now is not None and self._locked(now, _nothing) is None:
            self._now = now
            self._write_later()

    def _write_later(self) -> None:
        if self._flusher is None and self._ledger is not None:
            self._flusher = threading.Thread(target=self._flush, daemon=True)
            with suppress(RuntimeError):  # the interpreter is ending
                self._flusher.start()

    def _flush(self) -> None:
        while self._pending and self._ledger is not None:
            time.sleep(_BUSY_NS / _S)
            self._locked(self._now or 0, _nothing)
        self._flusher = None
        if self._pending:
            self._write_later()

    def _settle(
        self, claim: Claim, ub: int, costs: Mapping[str, int] | None, ledger: Ledger, now: int
    ) -> None:
        if claim.state not in (HELD, SENT):
            return
        place: Place = claim.place
        if place.epoch == self._mirror.epoch:
            held = self._mirror.columns(claim.costs)
            came_to = self._mirror.columns({**claim.costs, **(costs or {})})
            if ledger.settle(place, now, ub, held, [max(0, cost) for cost in came_to]):
                self._bucket.settle(claim, ub, costs)
                self._mirror.note(ledger)
        claim.state = DONE

    def _give_back(self, claim: Claim, ledger: Ledger, now: int) -> None:
        if claim.state == SENT:
            self._settle(claim, now + self._unseen, None, ledger, now)
        elif claim.state == HELD:
            place: Place = claim.place
            if place.epoch == self._mirror.epoch:
                ledger.give_back(place, now, self._mirror.columns(claim.costs))
                self._bucket.release(claim, now)
                self._mirror.note(ledger)
            claim.state = DONE

    def _block(self, ledger: Ledger, now: int) -> None:
        header = ledger.header
        header.blocked = max(header.blocked, self._bucket.blocked_until + header.base)
        ledger.commit(now)


def _nothing(ledger: Ledger, now: int) -> int:
    return 0
