"""Where answers are kept: what a store must do to stand behind a session.

Law: a store keeps bytes and understands nothing. It may lose anything at any time and may raise
whatever it likes: to the caller of a session that is a miss and a warning. What it hands out is
checked before it is believed.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from .._sansio.arguments import check_count, check_seconds

__all__ = ["DAY_S", "CacheStore", "LeasingStore", "check_bounds"]

DAY_S = 86_400.0


@runtime_checkable
class CacheStore(Protocol):
    """A store of your own: `FluenceSession(cache=my_store)`. It passes the contract in
    `fluence_async.testing.cache_contract`.

    Attributes:
        ttl_s: How long an answer is kept where the call does not say, in seconds.
    """

    ttl_s: float

    async def get(self, key: str) -> bytes | None:
        """The value of `key`; None if there is none, or none any more."""
        ...

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep `value` under `key` for `ttl_s` seconds, in place of what was there."""
        ...

    async def delete(self, key: str) -> None:
        """Forget `key`; it need not be there."""
        ...

    async def clear(self) -> None:
        """Forget everything."""
        ...

    async def aclose(self) -> None:
        """Let go of files and connections. Idempotent."""
        ...


@runtime_checkable
class LeasingStore(CacheStore, Protocol):
    """A store that processes share: of equal calls one of them asks, and the others wait.

    A lease of a key has nothing to do with its value. It may get lost like anything in a store:
    it saves requests, and nothing relies on it.
    """

    async def lease(self, key: str, holder: bytes, for_s: float) -> bool:
        """Whether `holder` has the lease of `key`, from now on for `for_s` seconds: nobody else
        had it, or it had run out."""
        ...

    async def release(self, key: str, holder: bytes) -> None:
        """End the lease of `key`, if it is still `holder`'s."""
        ...


def check_bounds(max_bytes: int, ttl_s: float) -> None:
    """Refuse what no store can keep to."""
    check_count("max_bytes", max_bytes, least=1)
    check_seconds("ttl_s", ttl_s, finite=True)
