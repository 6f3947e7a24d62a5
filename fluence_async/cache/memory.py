"""Answers in this process's memory, as long as there is room: the oldest in use go first.

Law: never more bytes than `max_bytes`, keys and a fair share of the dict included.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from ._store import DAY_S, check_bounds

__all__ = ["MemoryCache"]

_ENTRY_BYTES = 400
"""What an entry takes beside its value: key, tuple, their headers, the dict's slot."""


class MemoryCache:
    """A cache in memory, for any number of sessions, loops and threads of a process.

    Args:
        max_bytes: The most that it holds, in bytes; the least recently used go first.
        ttl_s: How long an answer is kept where the call does not say, in seconds.
        clock: Seconds that never go back.

    Raises:
        ValueError: A bound that cannot work.

    Example:
        ```python
        fluence = FluenceSession(cache=MemoryCache(max_bytes=2**30, ttl_s=600))
        ```
    """

    ttl_s: float

    def __init__(
        self,
        *,
        max_bytes: int = 64 * 2**20,
        ttl_s: float = DAY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_bounds(max_bytes, ttl_s)
        self.ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: OrderedDict[str, tuple[bytes, float]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    async def get(self, key: str) -> bytes | None:
        """The value of `key`; None if there is none, or none any more."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            value, expires = entry
            if self._clock() >= expires:
                self._remove(key)
                return None
            self._entries.move_to_end(key)
            return value

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep `value` for `ttl_s` seconds, if it fits."""
        with self._lock:
            self._remove(key)
            if len(value) + _ENTRY_BYTES > self._max_bytes:
                return
            self._entries[key] = value, self._clock() + ttl_s
            self._bytes += len(value) + _ENTRY_BYTES
            while self._bytes > self._max_bytes:
                self._remove(next(iter(self._entries)))

    async def delete(self, key: str) -> None:
        """Forget `key`."""
        with self._lock:
            self._remove(key)

    async def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    async def aclose(self) -> None:
        """Forget everything; nothing else is held."""
        await self.clear()

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry[0]) + _ENTRY_BYTES

    def __repr__(self) -> str:
        return f"<MemoryCache: {len(self._entries)} answers, {self._bytes} bytes>"
