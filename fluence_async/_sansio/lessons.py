"""What was learnt of one key's server goes in, bytes come out that a store may keep; and back.

Law: what is damaged, of another version, or cannot be true, says nothing: it is forgotten, and
learnt again. Whoever knows other limits than another leaves standing what that one wrote.

Times are of the store's own clock, so that they hold beyond a boot of the machine: `base` is what
must be added to the limiter's.
"""

from __future__ import annotations

from binascii import crc32
from collections.abc import Iterable
from struct import Struct
from typing import Final

import msgspec

from .counter import ALL_PARTS
from .learnt import Learnt
from .rate_limit import RateLimit

__all__ = ["LESSONS_SIZE", "Lessons", "can_be", "is_of_later_version"]

LESSONS_SIZE: Final = 3056
"""Room for twelve windows and more."""

_VERSION: Final = 1
_HEAD = Struct("<IHH")  # checksum, version, length
_LONGEST: Final = 4**6  # periods until a burst is tried again


class Lessons(msgspec.Struct, kw_only=True):
    """All that is known, in ns of the limiter's clock where it is a time.

    Attributes:
        windows: What is known of each limit, by its text.
        taught_at: When the last refusal taught something: what was taken before teaches no more.
        proven_at: When the last request was taken that was accepted; -1 if none was lately.
        tried_at: When the last request was taken that may be refused, for what is tried with it,
            and is not answered yet; -1 if there is none.
        pause: How long the last pause was that a refusal without a reason led to, since anything
            was accepted.
    """

    windows: dict[str, Learnt] = {}
    taught_at: int = -1
    proven_at: int = -1
    tried_at: int = -1
    pause: int = 0

    def of(self, rate: RateLimit) -> Learnt:
        """What is known of that limit."""
        return self.windows.setdefault(str(rate), Learnt())

    def pack(self, base: int, ours: Iterable[RateLimit]) -> bytes:
        """As it is kept. What others know of other limits goes, should room be short."""
        moved = self.moved(base)
        body = msgspec.msgpack.encode(moved)
        if len(body) > LESSONS_SIZE - _HEAD.size:
            names = [str(rate) for rate in ours]
            moved.windows = {name: moved.windows[name] for name in names[:12]}
            body = msgspec.msgpack.encode(moved)
        data = _HEAD.pack(0, _VERSION, len(body))[4:] + body
        return crc32(data).to_bytes(4, "little") + data

    @classmethod
    def unpack(cls, data: bytes, base: int) -> Lessons | None:
        """As it was kept; None if that is no use. `data` may be longer."""
        version, body = _opened(data)
        if version != _VERSION:
            return None
        try:
            return msgspec.msgpack.decode(body, type=cls).moved(-base)
        except msgspec.DecodeError:
            return None

    def moved(self, by: int) -> Lessons:
        """The same by another clock."""

        def at(time: int) -> int:
            return time + by if time > 0 else time

        return Lessons(
            windows={
                name: msgspec.structs.replace(
                    learnt,
                    retry_burst_at=at(learnt.retry_burst_at),
                    restore_at=at(learnt.restore_at),
                )
                for name, learnt in self.windows.items()
            },
            taught_at=at(self.taught_at),
            proven_at=at(self.proven_at),
            tried_at=at(self.tried_at),
            pause=self.pause,
        )


def _opened(data: bytes) -> tuple[int, bytes]:
    """The version, and what it wrote; version 0 if nobody did. All versions begin alike."""
    if len(data) >= _HEAD.size:
        checksum, version, size = _HEAD.unpack_from(data)
        end = _HEAD.size + size
        if end <= len(data) and checksum == crc32(data[4:end]):
            return version, data[_HEAD.size : end]
    return 0, b""


def is_of_later_version(data: bytes) -> bool:
    """Whether it is not to be disturbed."""
    return _opened(data)[0] > _VERSION


def can_be(learnt: Learnt, limit: int, hold: int, now: int) -> bool:
    """Whether that may be known of a window of that limit."""
    most = learnt.stated or limit
    return (
        limit <= most < 2**40
        and 1 <= learnt.burst <= most
        and 0 <= learnt.proven <= most
        and 0 <= learnt.alignments <= ALL_PARTS
        and 0 <= learnt.withheld <= limit // 2
        and 0 <= learnt.retry_burst_in <= _LONGEST * hold
        and learnt.retry_burst_at <= now + learnt.retry_burst_in
        and 0 <= learnt.restore_in <= 64 * hold
        and learnt.restore_at <= now + learnt.restore_in
    )
