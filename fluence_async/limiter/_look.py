"""A limiter's file seen from outside: a path and limits go in, how they stand comes out.

Law: looking leaves no trace. Nothing is created, written, taken or locked, so that no program ever
waits for who looks; what was read while somebody wrote is read again. What dead processes had in
flight counts as the next program will count it that comes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .._sansio.bucket import Bucket
from .._sansio.learner import heed
from .._sansio.learnt import LimiterSnapshot
from .._sansio.lessons import LESSONS_SIZE, Lessons
from .._sansio.limits_file import HEADER_SIZE, LESSONS_AT, Damaged, Foreign
from .._sansio.rate_limit import RateLimit, read_limits
from ._ledger import Ledger
from ._mirror import Mirror
from ._process import boot_clock
from ._state import StateFile, state_path
from ._turns import passed_by, shown

__all__ = ["FileLook"]

_S = 1_000_000_000
_TRIES = 20
_UNSEEN = 10 * _S


class _SeenFile(StateFile):
    """A file that is only read, whoever has its lock."""

    def _open(self, path: Path) -> int:
        self._first = b""
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)

    def protect(self) -> None:
        """Its owner does."""

    def lock(self) -> bool:
        return True

    def unlock(self) -> None:
        """It was not locked."""

    def read(self, size: int, at: int) -> bytes:
        data = super().read(size, at)
        self._first = self._first or (data if at == 0 else b"")
        return data

    @property
    def is_begun(self) -> bool:
        """Whether a limiter has ever written to it."""
        return bool(self._first.strip(b"\0"))

    @property
    def is_as_read(self) -> bool:
        """Whether nobody has written since the header was read."""
        return super().read(HEADER_SIZE, 0) == self._first

    def write(self, data: bytes, at: int) -> None:
        """It is not ours to write."""

    def clear(self, size: int) -> None:
        """Nor to clear."""


class FileLook:
    """Whoever looks at one file.

    Args:
        name: Of the limiter, from `limiter_name`.
        limits: What the programs obey.
        path: The file, if it is another than that name's.
        clock: As of `Limiter`.
        wall: The wall clock, in ns.

    Attributes:
        where: The file.
    """

    def __init__(
        self,
        name: str,
        limits: str | RateLimit | Iterable[str | RateLimit],
        *,
        path: str | os.PathLike[str] | None = None,
        clock: Callable[[], int] | None = None,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        self._path = Path(path or state_path(name))
        self.where: str = str(self._path)
        self._limits = read_limits(limits)
        self._clock = clock or boot_clock()
        self._wall = wall

    async def look(self) -> LimiterSnapshot:
        """How the limits stand; of a file that is not there, nothing was used.

        Raises:
            OSError: The file cannot be read.
            ValueError: It is none of a limiter's, or makes no sense.
        """
        for _ in range(_TRIES):
            try:
                found = self._try()
            except FileNotFoundError:
                bucket = Bucket(self._limits)
                return LimiterSnapshot(
                    windows=bucket.snapshot(self._clock()), waiting=0, paused_s=0.0
                )
            except Foreign as error:
                raise ValueError(f"{self.where} is no limiter's file: {error}") from error
            if found is not None:
                return found
        raise ValueError(
            f"{self.where} makes no sense, or changes all the time: the next program that keeps "
            "its limits there repairs it"
        )

    def _try(self) -> LimiterSnapshot | None:
        opened: list[_SeenFile] = []

        def open_file(path: Path) -> StateFile:
            opened.append(_SeenFile(path))
            return opened[-1]

        ledger = Ledger(self._path, self._wall, open_file)
        try:
            now = self._clock()
            ledger.refresh(now)
            if not opened[-1].is_begun:
                raise FileNotFoundError
            mirror = Mirror(Bucket(self._limits))
            mirror.fit()
            mirror.read(ledger, now)
            mirror.bury(ledger, now, _UNSEEN)
            tickets = shown(ledger, now)
            windows = mirror.bucket.windows
            told = Lessons.unpack(ledger.file.read(LESSONS_SIZE, LESSONS_AT), ledger.header.base)
            learnt = heed(windows, told, now) if told else {}
            found = LimiterSnapshot(
                windows=tuple(each.snapshot(now, learnt.get(each)) for each in windows),
                waiting=len(tickets),
                paused_s=max(0, mirror.bucket.blocked_until - now) / _S,
                waiting_batch=sum(ticket.lane > 0 for ticket in tickets),
                passed=passed_by(ledger, now),
            )
            return found if opened[-1].is_as_read else None
        except Damaged:
            return None
        finally:
            ledger.close()
