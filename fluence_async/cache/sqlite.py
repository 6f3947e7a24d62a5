"""Answers in a file that outlives the process, and that processes of one user share: SQLite.

Law: the file is a cache and nothing else. A damaged one is put aside (`….broken`) and begun anew if
its head says that it is ours, or it is in the default place; anything else is left alone. What
cannot be done at once (full, locked, no such disk) raises, and the session goes on without; what a
kill leaves behind is either an answer or none.

All of SQLite runs in one worker thread of the loop.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync

from .._own_database import OwnConnection, inode_of_ours, make, own
from .._sansio.arguments import check_path
from ._store import DAY_S, check_bounds

__all__ = ["SqliteCache"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
_logger = logging.getLogger("fluence_async")
_turns: RunVar[CapacityLimiter] = RunVar("fluence_async.cache.sqlite")

_of_parents: list[sqlite3.Connection | None] = []
"""What a fork brought along is never closed: that would let go of locks that the parent holds."""

_APPLICATION_ID = 0x666C7563  # "fluc"
_BUSY_S = 0.25
_USED_S = 60.0
"""How exactly it is known when an entry was last used: a hit need not write each time."""
_SLACK_BYTES = 2**16
_DAMAGED = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR})
"""The statements below are right, so that an error in one of them is one of the schema."""
_SCHEMA = (
    """CREATE TABLE answers (
        key TEXT PRIMARY KEY, value BLOB NOT NULL, expires REAL NOT NULL, used REAL NOT NULL
    )""",
    "CREATE INDEX answers_used ON answers (used)",
    "CREATE INDEX answers_expires ON answers (expires)",
)
_USED_BYTES = """SELECT (page_count - freelist_count) * page_size
FROM pragma_page_count, pragma_freelist_count, pragma_page_size"""
_PUT = "INSERT OR REPLACE INTO answers (key, value, expires, used) VALUES (?, ?, ?, ?)"
# Ending long after any can: a clock was set back. A little after: this caller had to wait its turn.
_LEASE = """INSERT INTO answers (key, value, expires, used) VALUES (:key, :holder, :ends, :now)
ON CONFLICT (key) DO UPDATE SET value = :holder, expires = :ends, used = :now
WHERE value = :holder OR expires <= :now OR expires > :ends + 10
"""
_DELETE = "DELETE FROM answers WHERE key = ?"
_EVICT = """DELETE FROM answers WHERE rowid IN (
    SELECT rowid FROM answers ORDER BY used LIMIT (SELECT 1 + count(*) / 8 FROM answers)
)
"""


class SqliteCache:
    """A cache in a file, for any number of sessions, loops, threads and processes of one user.

    Answers are in it as the server sent them, readable by its owner only; prompts and keys are
    not. The file must be on a local disk; one that is no such cache is left alone, with a warning.

    Args:
        path: The file; by default `fluence/answers.sqlite3` in the user's cache directory.
        max_bytes: The most that the file holds, in bytes; the least recently used go first.
        ttl_s: How long an answer is kept where the call does not say, in seconds.

    Raises:
        ValueError, TypeError: A path or a bound that cannot work.

    Example:
        ```python
        fluence = FluenceSession(cache=SqliteCache("answers.sqlite3", ttl_s=7 * 86_400))
        ```
    """

    ttl_s: float

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        max_bytes: int = 256 * 2**20,
        ttl_s: float = DAY_S,
    ) -> None:
        check_path("path", path)
        check_bounds(max_bytes, ttl_s)
        self.ttl_s = ttl_s
        self._path = Path(path) if path is not None else _user_cache() / "answers.sqlite3"
        self._named = path is not None
        self._max_bytes = max_bytes
        self._forget()

    def _forget(self) -> None:
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._inode = 0

    async def get(self, key: str) -> bytes | None:
        """The value of `key`; None if there is none, or none any more."""
        return await self._in_thread(_get, key)

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep `value` for `ttl_s` seconds, if it fits."""
        await self._in_thread(_put, key, value, ttl_s, self._max_bytes)

    async def delete(self, key: str) -> None:
        """Forget `key`."""
        await self._in_thread(_run, _DELETE, key)

    async def clear(self) -> None:
        """Forget everything."""
        await self._in_thread(_run, "DELETE FROM answers")

    async def lease(self, key: str, holder: bytes, for_s: float) -> bool:
        """Whether `holder` has the lease of `key`, from now on for `for_s` seconds."""
        return bool(await self._in_thread(_lease, key, holder, for_s))

    async def release(self, key: str, holder: bytes) -> None:
        """End `holder`'s lease of `key`."""
        release = "DELETE FROM answers WHERE key = ? AND value = ?"
        await self._in_thread(_run, release, f"lease {key}", holder)

    async def aclose(self) -> None:
        """Close the file; the next use opens it again."""
        if self._connection is not None and self._pid == os.getpid():
            await run_sync(self._close, limiter=_turn())

    # ─── the thread ───────────────────────────────────────────────────────────────────────

    async def _in_thread(
        self, work: Callable[[sqlite3.Connection, *Ts], T], *args: *Ts
    ) -> T | None:
        if self._pid != os.getpid():
            _of_parents.append(self._connection)
            self._forget()

        def locked() -> T | None:
            with self._lock:
                try:
                    return work(self._open(), *args)
                except sqlite3.DatabaseError as error:
                    if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
                        raise
                    self._put_aside(error)
                    return None

        return await run_sync(locked, limiter=_turn(), abandon_on_cancel=True)

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            while not (inode := own(self._path, _APPLICATION_ID)):
                self._put_aside("it is none")
            self._inode = inode
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        connection = OwnConnection(
            self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.text_factory = bytes  # whatever type damage makes of a value, it is only bytes
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            if not make(connection, _APPLICATION_ID, _SCHEMA):
                raise OSError(f"{self._path} is another program's database")
            (page,) = connection.execute("PRAGMA page_size").fetchone()
            pages = (self._max_bytes + 4 * _SLACK_BYTES) // page
            connection.execute(f"PRAGMA max_page_count = {pages}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _put_aside(self, why: object) -> None:
        """Begin anew, unless another process did so already, or it is not ours to move."""
        self._shut()
        with contextlib.suppress(FileNotFoundError):
            inode = inode_of_ours(self._path, _APPLICATION_ID)
            if not inode and self._named:
                what = f"{self._path} is another program's file, or damaged beyond recognition"
                raise OSError(f"{what}: it is left as it is; choose another path, or delete it")
            if inode in (0, self._inode):
                self._path.replace(f"{self._path}.broken")
                for part in ("-wal", "-shm"):
                    Path(f"{self._path}{part}").unlink(missing_ok=True)
        _logger.warning("the cache %s is damaged (%s): begun anew", self._path, why)

    def _close(self) -> None:
        with self._lock:
            self._shut()

    def _shut(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    def __del__(self) -> None:
        if getattr(self, "_connection", None) is not None and self._pid == os.getpid():
            self._shut()

    def __repr__(self) -> str:
        return f"<SqliteCache in {self._path}>"


def _turn() -> CapacityLimiter:
    """The running loop's one thread for SQLite."""
    try:
        return _turns.get()
    except LookupError:
        limiter = CapacityLimiter(1)
        _turns.set(limiter)
        return limiter


# ─── what is done in it ───────────────────────────────────────────────────────────────────


def _get(connection: sqlite3.Connection, key: str) -> bytes | None:
    now = time.time()
    found = "SELECT value, expires, used FROM answers WHERE key = ?"
    row = connection.execute(found, (key,)).fetchone()
    if row is None:
        return None
    value, expires, used = row
    if not isinstance(value, bytes) or not isinstance(expires, float) or expires <= now:
        _run(connection, _DELETE, key)
        return None
    if not isinstance(used, float) or abs(now - used) > _USED_S:
        with contextlib.suppress(sqlite3.OperationalError):  # locked: it was found all the same
            connection.execute("UPDATE answers SET used = ? WHERE key = ?", (now, key))
    return value


def _put(
    connection: sqlite3.Connection, key: str, value: bytes, ttl_s: float, max_bytes: int
) -> None:
    now = time.time()
    room = max_bytes - len(value) - _SLACK_BYTES // 4
    if room < 0:
        return
    if _used_bytes(connection) > room:
        connection.execute("DELETE FROM answers WHERE expires <= ?", (now,))
    while _used_bytes(connection) > room and connection.execute(_EVICT).rowcount:
        pass
    connection.execute(_PUT, (key, value, now + ttl_s, now))


def _used_bytes(connection: sqlite3.Connection) -> int:
    (size,) = connection.execute(_USED_BYTES).fetchone()
    return int(size)


def _lease(connection: sqlite3.Connection, key: str, holder: bytes, for_s: float) -> bool:
    now = time.time()
    lease = {"key": f"lease {key}", "holder": holder, "now": now, "ends": now + for_s}
    return connection.execute(_LEASE, lease).rowcount == 1


def _run(connection: sqlite3.Connection, statement: str, *values: str | bytes) -> None:
    connection.execute(statement, values)


def _user_cache() -> Path:
    """Where this user's programs keep what they can do without."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local") / "fluence"
    if sys.platform == "darwin":
        return Path.home() / "Library/Caches/fluence"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fluence"
