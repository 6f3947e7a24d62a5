"""Answers that need not be asked for again: where they are kept.

`FluenceSession(cache="memory")`, `"sqlite"`, `"redis://…"`, or a store of these or of your own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._store import CacheStore, LeasingStore
from .memory import MemoryCache

if TYPE_CHECKING:
    from .sqlite import SqliteCache

__all__ = ["CacheStore", "LeasingStore", "MemoryCache", "SqliteCache", "open_store"]


def open_store(cache: str | CacheStore) -> CacheStore:
    """The store that a session's `cache=` names.

    Raises:
        ValueError: It names none.
    """
    if cache == "memory":
        return MemoryCache()
    if cache == "sqlite":
        from .sqlite import SqliteCache

        return SqliteCache()
    if isinstance(cache, CacheStore) and not isinstance(cache, type):
        return cache
    raise ValueError(
        f"cache={cache!r}: must be 'memory', 'sqlite', 'redis://…', a CacheStore, or None"
    )


def __getattr__(name: str) -> Any:
    """SQLite is loaded by who uses it, not by `import fluence_async`."""
    if name == "SqliteCache":
        from .sqlite import SqliteCache

        return SqliteCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
