"""A session's cache: keys in, recordings out, and the calls that are under way.

Law: a store may be broken, full, locked or slow. That is a miss and a warning, never an error for
the caller; and what comes out of it is believed only when its seal holds.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping

import anyio
import msgspec

from .._sansio.arguments import check_seconds
from .._sansio.caching import CacheKey, Recording, answer_key, is_fresh, seal, unseal
from ._store import CacheStore, LeasingStore
from .memory import MemoryCache

__all__ = ["Cache", "Cached", "check_asked"]

_logger = logging.getLogger("fluence_async")
_STORE_S = 2.0
"""How long a store may take: who waits for it could have asked the server by then."""
_QUIET_S = 60.0
"""How long one warning stands for all."""


class Cached(msgspec.Struct, frozen=True):
    """Where a call's answer may be found and is kept, and for how long."""

    cache: Cache
    key: CacheKey
    ttl_s: float


def check_asked(cache: bool | float | None) -> None:
    """Refuse what no call's `cache=` can mean."""
    if cache is None or isinstance(cache, bool):
        return
    check_seconds("cache", cache, finite=True, way_out="; False means no cache")


class Cache:
    """What a session keeps of its answers.

    Args:
        store: Where they are kept.
        clock: Seconds since the epoch.

    Attributes:
        leases: The store lets one process ask for all.
    """

    def __init__(self, store: CacheStore, *, clock: Callable[[], float] = time.time) -> None:
        self.store = store
        self._clock = clock
        self._at_once = isinstance(store, MemoryCache)
        self.leases: bool = isinstance(store, LeasingStore)
        self._quiet_until = -math.inf

    def place(
        self,
        asked: bool | float | None,
        body: bytes,
        url: str,
        credential: str,
        headers: Mapping[str, str],
    ) -> Cached | None:
        """Where the answer to a request is, if the call's `cache=` and its nature allow for one."""
        if asked is False:
            return None
        key = answer_key(
            body, url=url, credential=credential, headers=headers, sampled=asked is not None
        )
        ttl_s = self.store.ttl_s if asked is None or asked is True else asked
        return None if key is None else Cached(self, key, ttl_s)

    async def read(self, key: CacheKey, ttl_s: float) -> Recording | None:
        """The answer of `key`, if there is one of at most `ttl_s` seconds."""
        try:
            sealed: object = await self._get(key)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with it, the call goes on
            self._warn("read", error)
            return None
        if sealed is None:
            return None
        recording = unseal(sealed, key) if isinstance(sealed, bytes) else None
        if recording is None:
            _logger.warning("the cache %r held a damaged answer, which is dropped", self.store)
            await self._delete(key)
        elif is_fresh(recording, now=self._clock(), ttl_s=ttl_s):
            return recording
        return None

    async def write(
        self, key: CacheKey, body: bytes, *, ttl_s: float, streamed: bool, request_id: str | None
    ) -> None:
        """Keep an answer, if the store can."""
        recording = Recording(self._clock(), ttl_s, streamed, request_id, body)
        try:
            with anyio.fail_after(_STORE_S):
                await self.store.put(key.name, seal(recording, key), ttl_s)
        except Exception as error:  # noqa: BLE001 - as above
            self._warn("written", error)

    async def lease(self, key: CacheKey, holder: bytes, for_s: float) -> bool:
        """Whether it is for `holder` to ask: also where the store cannot say."""
        if not isinstance(self.store, LeasingStore):
            return True
        try:
            with anyio.fail_after(_STORE_S):
                return await self.store.lease(key.name, holder, for_s)
        except Exception as error:  # noqa: BLE001 - as above
            self._warn("written", error)
            return True

    async def release(self, key: CacheKey, holder: bytes) -> None:
        """End the lease that `holder` may have, cancelled or not."""
        if not isinstance(self.store, LeasingStore):
            return
        try:
            with anyio.fail_after(_STORE_S, shield=True):
                await self.store.release(key.name, holder)
        except Exception as error:  # noqa: BLE001 - as above
            self._warn("written", error)

    async def _get(self, key: CacheKey) -> bytes | None:
        if self._at_once:  # a scope around it would cost more than all the rest of a hit
            return await self.store.get(key.name)
        with anyio.fail_after(_STORE_S):
            return await self.store.get(key.name)

    async def _delete(self, key: CacheKey) -> None:
        try:
            with anyio.fail_after(_STORE_S):
                await self.store.delete(key.name)
        except Exception as error:  # noqa: BLE001 - as above
            self._warn("written", error)

    def _warn(self, what: str, error: Exception) -> None:
        """Once in a while: what is broken is so for every call."""
        now = time.monotonic()
        level = logging.DEBUG if now < self._quiet_until else logging.WARNING
        if level == logging.WARNING:
            self._quiet_until = now + _QUIET_S
        _logger.log(
            level,
            "the cache %r could not be %s (%s: %s); calls go on without it",
            self.store,
            what,
            type(error).__name__,
            error,
        )

    def __repr__(self) -> str:
        return f"<Cache in {self.store!r}>"
