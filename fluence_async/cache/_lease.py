"""Equal calls of several processes: one of them asks, the others look for its answer, again and
again, as long as they can afford to.

Law: a lease saves requests and decides nothing. Who has waited for half of its call's time asks by
itself, and so does everyone whose store fails. A lease that nobody ends, because its holder was
killed or its stream broke, ends by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import anyio

from .._sansio.caching import Recording
from .cache import Cached

__all__ = ["LEASE_S", "Lease"]

LEASE_S = 20.0
"""Longer than most answers take, and not so long that a kill would hold up others for ever."""
_FIRST_S, _LONGEST_S = 0.01, 0.25


class Lease:
    """One caller's right to ask for an answer, among the processes that share its store.

    Args:
        cached: Where the answer is found.
    """

    def __init__(self, cached: Cached) -> None:
        self._cached = cached
        self._holder = os.urandom(8)
        self._asked = False

    async def take(self, patience_s: float, waits: Callable[[], None]) -> Recording | None:
        """Another process's answer; None if it is for this caller to ask.

        Args:
            patience_s: The longest time to wait.
            waits: Called once, if it comes to waiting.
        """
        self._asked = True
        if await self._is_mine():
            return await self._answer()  # another may have written it since this caller looked
        waits()
        pause_s, mine = _FIRST_S, False
        with anyio.move_on_after(min(patience_s, LEASE_S)):
            while not mine:
                await anyio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_S)
                mine = await self._is_mine()
                if (recording := await self._answer()) is not None:
                    return recording
        return None

    async def release(self) -> None:
        """Let the next one ask, or find the answer."""
        if self._asked:
            self._asked = False
            await self._cached.cache.release(self._cached.key, self._holder)

    async def _is_mine(self) -> bool:
        return await self._cached.cache.lease(self._cached.key, self._holder, LEASE_S)

    async def _answer(self) -> Recording | None:
        return await self._cached.cache.read(self._cached.key, self._cached.ttl_s)

    def __repr__(self) -> str:
        return f"<Lease of {self._cached.key!r}: {'asked for' if self._asked else 'idle'}>"
