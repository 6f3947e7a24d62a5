"""The name of a store goes in, the store comes out, also where that is an annex.

Law: an annex is imported when it is named, and what it needs is said when it is not there.
"""

from __future__ import annotations

from .cache import CacheStore, open_store

__all__ = ["named_store"]

_REDIS = ("redis://", "rediss://", "unix://")


def named_store(cache: str | CacheStore) -> CacheStore:
    """The store that a session's `cache=` names.

    Raises:
        ValueError: It names none.
        ImportError: It names a Redis, without the extra `redis`.
    """
    if not isinstance(cache, str) or not cache.startswith(_REDIS):
        return open_store(cache)
    try:
        from .contrib.redis import RedisCache
    except ImportError as error:
        raise ImportError(
            "a cache in Redis needs coredis: pip install 'fluence-async[redis]'"
        ) from error
    return RedisCache(cache)
