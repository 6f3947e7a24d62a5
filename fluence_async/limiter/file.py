"""A bucket that all processes of a machine share, through a file that outlives them.

Law: the file says what was sent; what may be sent follows from it in a bucket of each process's
own, which is brought up to date under the file's lock before it is asked. Nothing waits for that
lock: who cannot have it comes again in a millisecond, and what cannot be written at once is
written a little later.

Turns go by when each process's first caller came. Who is k-th waits for the k-th unit, and looks
again after half a second: another may have given units back, or died. What cannot be used (a full
disk, another user's file) is said once, and the limiter goes on alone, with all that it knew.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

from .._sansio.bucket import ARRIVED, DONE, FRESH, HELD, NEVER, SENT, Bucket, Claim
from .._sansio.learnt import WindowSnapshot
from .._sansio.limits_file import Damaged, Foreign
from .._sansio.rate_limit import RateLimit
from ..meta import RateLimitSnapshot
from ._ledger import Ledger
from ._mirror import Mirror
from ._store import Store
from ._turns import Turns

__all__ = ["FileStore", "open_store"]

_BUSY_NS, _BUSY_S = 1_000_000, 0.001
_DAMAGED = "the limiter's file %s is damaged (%s): begun anew"
_logger = logging.getLogger("fluence_async")


def open_store(
    path: str | os.PathLike[str], bucket: Bucket, unseen: int, clock: Callable[[], int]
) -> Store:
    """`bucket`, shared through a file; itself, and a warning, if that cannot be."""
    try:
        return FileStore(path, bucket, unseen, clock)
    except OSError as error:
        _say_alone(path, error)
        return bucket


def _say_alone(path: str | os.PathLike[str], error: Exception) -> None:
    text = "the limiter's file %s cannot be used (%s): other processes are not seen"
    _logger.warning(text, path, error)


class FileStore:
    """A store in a file, on a local disk.

    Args:
        path: Where.
        bucket: What this process promises; the windows begin with what the file tells.
        unseen: How long the request of a process that died may still arrive, in ns.
        clock: The limiter's clock, which is the same in all processes of this machine.
        wall: The wall clock, in ns.

    Raises:
        OSError: The file cannot be had.
        ValueError: It is too small for such limits.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        bucket: Bucket,
        unseen: int,
        clock: Callable[[], int],
        *,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = Path(path)
        self.learns: bool = bucket.learns
        self._mirror = Mirror(bucket)
        self._unseen = unseen
        self._clock = clock
        self._turns = Turns()
        self.stale_after: int = self._mirror.fit()
        self._ledger: Ledger | None = Ledger(self._path, wall)
        self._mutex = threading.RLock()  # the limiter's calls, and the thread that writes later
        self._inside = False
        self._pending: deque[Callable[[Ledger, int], None]] = deque()
        self._flusher: threading.Thread | None = None
        self._search_at = 0  # among the slots, for dead processes: that takes long

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
        wake = self._locked(self._take, claim, lane)
        if wake is not None:
            return wake
        return now + _BUSY_NS if self._ledger else self._bucket.take(claim, now, lane)

    def earliest(self, claim: Claim, now: int, lane: int, ahead: int) -> int:
        """Before when no try can succeed; `now` if nobody knows."""
        with self._mutex:
            self._locked()
            return self._bucket.earliest(claim, now, lane, ahead)

    def shared_until(self, claim: Claim, now: int, lane: int) -> int:
        """Until when everybody's limits hold it up; 0 if only those of its model do."""
        with self._mutex:
            return self._bucket.shared_until(claim, now, lane)

    def sent(self, claim: Claim) -> None:
        """Its first byte may have left this machine."""
        self._bucket.sent(claim)

    def settle(
        self,
        claim: Claim,
        ub: int,
        accepted: bool | None = None,
        reports: Sequence[RateLimitSnapshot] = (),
    ) -> None:
        """It had arrived by `ub`, and the server took it or not."""
        if claim.place is None:
            self._bucket.settle(claim, ub, accepted, reports)
        elif self._ledger is None:
            claim.state = DONE
        elif claim.state in (HELD, SENT) or (self.learns and claim.state == ARRIVED):
            self._write(partial(self._mirror.settle, claim, ub, (accepted, reports)))

    def refused(self, claim: Claim, now: int) -> bool:
        """The server refused it, for the rate of its requests."""
        if claim.place is None or not self.learns:
            return self._bucket.refused(claim, now)
        self._mirror.unexplained = False
        if self._ledger is not None:
            self._write(partial(self._mirror.refused, claim))
        return self._mirror.unexplained

    def release(self, claim: Claim, now: int, costs: Mapping[str, int] | None = None) -> None:
        """It is over, however far it came."""
        if claim.state == FRESH:
            if claim is self._turns.waiting:
                self._write(self._turns.leave)
        elif claim.place is None:
            self._bucket.release(claim, now, costs)
        elif self._ledger is None or (claim.state == ARRIVED and len(claim.costs) == 1):
            claim.state = DONE  # nothing of it is in flight
        elif claim.state != DONE:
            self._write(partial(self._mirror.release, claim, self._unseen, costs))

    def block(self, until: int) -> None:
        """Let nobody take before `until`."""
        self._bucket.block(until)
        if self._ledger is not None:
            self._write(self._mirror.block)

    def tighten(self, limits: Iterable[RateLimit], now: int) -> None:
        """Obey these limits too, in this process; ValueError if the file is too small for them."""
        more = tuple(limits)
        with self._mutex:
            before = str(self)
            if self._ledger is not None:
                self._mirror.fit(more)
            self._bucket.tighten(more, now)
            if self._ledger is not None and str(self) != before:
                self._mirror.epoch = 0  # the file knows what a new window must remember
                self.stale_after = self._mirror.fit()

    def snapshot(self, now: int) -> tuple[WindowSnapshot, ...]:
        """Every window."""
        with self._mutex:
            self._locked()
            return self._bucket.snapshot(now)

    def inherit(self, now: int) -> Store:
        """A forked child opens the file anew: the lock of this one is the parent's too."""
        ledger, self._ledger = self._ledger, None
        heir = self._bucket.inherit(now)
        if ledger is None:
            return heir
        ledger.close()
        return open_store(self._path, heir, self._unseen, self._clock)

    def __str__(self) -> str:
        return str(self._bucket)

    # ─── with the file's lock ─────────────────────────────────────────────────────────────

    def _locked(self, do: Callable[..., int] | None = None, *args: object) -> int | None:
        """Do it with the file locked, the bucket up to date, and the time as it then is: who was
        stopped on the way here would come with one long over. None if that cannot be now."""
        with self._mutex:
            ledger = self._ledger
            if ledger is None or self._inside:  # a finalizer, amid the lines below
                return None
            self._inside = True
            try:
                if not ledger.lock():
                    return None
                now = self._clock()
                try:
                    return self._do(ledger, now, do, *args)
                except Damaged as damage:
                    _logger.warning(_DAMAGED, self._path, damage)
                    ledger.reset(now)
                    return self._do(ledger, now, do, *args)
                finally:
                    ledger.unlock()
            except BlockingIOError:
                return None
            except (OSError, Foreign, Damaged, ValueError) as error:
                self._go_alone(error)
                return None
            except BaseException:
                self._mirror.epoch = 0  # of what was half done, the file knows more
                raise
            finally:
                self._inside = False

    def _do(self, ledger: Ledger, now: int, do: Callable[..., int] | None, *args: object) -> int:
        """Learn what others have written, then write what is known only here, then do it."""
        mirror = self._mirror
        if ledger.refresh(now) or mirror.epoch != ledger.header.epoch:
            mirror.read(ledger, now)
        while self._pending:
            self._pending.popleft()(ledger, now)
        done = do(ledger, now, *args) if do else 0
        if self.learns:
            mirror.tell(ledger, now)
        return done

    def _go_alone(self, error: Exception) -> None:
        """Answers to what is in flight are not waited for any more: nobody knows whose it is."""
        _say_alone(self._path, error)
        if self._ledger is not None:
            self._ledger.close()
        self._ledger = None
        self._mirror.bucket = self._bucket.inherit(self._clock())
        self._pending.clear()
        self.stale_after = NEVER

    def _take(self, ledger: Ledger, now: int, claim: Claim, lane: int) -> int:
        mirror, turns, others_wait = self._mirror, self._turns, ledger.header.tickets > 0
        turn = turns.turn(ledger, mirror, claim, now, lane) if others_wait else (lane, ())
        right, ahead = turn
        wake = mirror.take(claim, now, right, ahead) if ledger.has_room() else NEVER
        if wake and now >= self._search_at and any(ledger.header.in_flight):
            self._search_at = now + mirror.search_every
            mirror.bury(ledger, now, self._unseen)
            wake = mirror.take(claim, now, right, ahead) if ledger.has_room() else NEVER
        if wake:
            if claim.came:
                turns.stand(ledger, mirror, claim, now, lane)
            return wake
        claim.place = ledger.take(now, mirror.columns(claim.costs))
        mirror.note(ledger)
        if others_wait:
            turns.taken(ledger, now, lane)
        if turns.waiting is not None:
            turns.leave(ledger, now)
        return 0

    def _write(self, what: Callable[[Ledger, int], None]) -> None:
        self._pending.append(what)
        if self._locked() is None and self._flusher is None and self._ledger is not None:
            self._flusher = threading.Thread(target=self._flush, daemon=True)
            try:
                self._flusher.start()
            except RuntimeError:  # the interpreter is ending: whoever finds the slot, buries it
                self._flusher = None

    def _flush(self) -> None:
        while True:
            time.sleep(_BUSY_S)
            with self._mutex:
                self._locked()
                if not self._pending or self._ledger is None:
                    self._flusher = None
                    return
