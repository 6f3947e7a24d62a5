"""What the processes of one file tell each other of its server: lessons in, lessons out.

Law: read and told under the file's lock, after all else: who is killed before that has learnt for
itself alone. What cannot be read says nothing, and what a later version wrote stays.
"""

from __future__ import annotations

from .._sansio.learning import LearningBucket
from .._sansio.lessons import LESSONS_SIZE, Lessons, is_of_later_version
from .._sansio.limits_file import LESSONS_AT
from ._ledger import Ledger

__all__ = ["Hearsay"]


class Hearsay:
    """What was last read there, or written."""

    def __init__(self) -> None:
        self._data = b""

    def read(self, ledger: Ledger, bucket: LearningBucket, now: int) -> None:
        """Let the bucket know what others have learnt."""
        data = ledger.file.read(LESSONS_SIZE, LESSONS_AT)
        if data != self._data:
            self._data = data
            lessons = Lessons.unpack(data, ledger.header.base)
            if lessons is not None:
                bucket.obey(lessons, now)

    def tell(self, ledger: Ledger, bucket: LearningBucket, now: int) -> None:
        """Write what the bucket has learnt, if that is new."""
        ours = [watch.own for watch in bucket.watches]
        data = bucket.lessons.pack(ledger.header.base, ours)
        if not self._data.startswith(data) and not is_of_later_version(self._data):
            ledger.file.write(data, LESSONS_AT)
            self._data = data
            ledger.commit(now)  # so that others look
