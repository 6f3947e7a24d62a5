"""Idempotency keys: the same request again, its first result again.

Law: for a day, an equal key with an equal body gets the result of the first execution, also
while that is still running; nothing runs twice. An execution does not end because its client
went away: that is when it is needed. What is not worth keeping (an error) is forgotten, so
that trying again tries again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from .refusal import Refusal

__all__ = ["Idempotency"]

_DAY_S = 86_400.0
_MOST = 10_000  # results kept: the oldest go first, so that a server may run for months

T = TypeVar("T")


@dataclass(slots=True)
class _Entry(Generic[T]):
    digest: bytes
    since: float
    running: asyncio.Future[T]


class Idempotency(Generic[T]):
    """Results by key.

    Args:
        clock: The server's clock, in seconds.
        worth_keeping: Whether a result is to be kept.
    """

    def __init__(self, clock: Callable[[], float], worth_keeping: Callable[[T], bool]) -> None:
        self._clock = clock
        self._worth_keeping = worth_keeping
        self._entries: dict[Hashable, _Entry[T]] = {}

    async def once(
        self, key: Hashable, body: bytes, execute: Callable[[], Coroutine[Any, Any, T]]
    ) -> tuple[T, bool]:
        """The result for `key`, and whether it was executed now.

        Raises:
            Refusal: 400, if the key came before with another body.
        """
        self._forget()
        digest = hashlib.sha256(body).digest()
        entry = self._entries.get(key)
        fresh = entry is None
        if entry is None:
            running = asyncio.create_task(execute())
            entry = self._entries[key] = _Entry(digest, self._clock(), running)
            running.add_done_callback(partial(self._settle, key, entry))
        elif entry.digest != digest:
            raise Refusal(
                400,
                "This Idempotency-Key came before with another body; use a new key",
                param="Idempotency-Key",
            )
        return await asyncio.shield(entry.running), fresh

    def _settle(self, key: Hashable, entry: _Entry[T], done: asyncio.Future[T]) -> None:
        """Drop a result that is not worth keeping."""
        failed = done.cancelled() or done.exception() is not None
        if (failed or not self._worth_keeping(done.result())) and self._entries.get(key) is entry:
            del self._entries[key]

    def _forget(self) -> None:
        """Drop what is too old or too much, the oldest first."""
        expired = self._clock() - _DAY_S
        while self._entries:
            oldest = next(iter(self._entries))
            if len(self._entries) < _MOST and self._entries[oldest].since > expired:
                return
            self._entries.pop(oldest).running.cancel()

    async def aclose(self) -> None:
        """Stop whatever is still running."""
        running = [entry.running for entry in self._entries.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
