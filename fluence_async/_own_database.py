"""A path and a number go in; whether the file there is a database of ours comes out.

Law: what is not ours stays as it is: content, rights and times. Only a file that is new, empty, or
a database with our number is made this user's alone. Its first bytes say which, so that no SQLite
is let at another's file: that alone might write it. So the number is written with the first
transaction, before any log is used.

A file with an `OwnConnection` of this process is not opened here as well: to close any descriptor
of a file lets go of all POSIX locks that the process has on it, SQLite's too, and then another
process may take itself for the last one and delete the log.

See https://www.sqlite.org/fileformat.html#the_database_header and
https://www.sqlite.org/howtocorrupt.html, 2.2.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["OwnConnection", "inode_of_ours", "is_made", "make", "own"]

_MAGIC = b"SQLite format 3\0"
_NUMBER_AT = 68
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_READ_WRITE = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)

_lock = threading.RLock()  # reentrant: garbage that is collected in here may close a connection
_held: Counter[tuple[int, int]] = Counter()
"""How many connections this process has, by device and inode."""


class OwnConnection(sqlite3.Connection):
    """A connection to a file of ours; `options` as of `sqlite3.connect`. To be closed.

    Raises:
        OSError: There is no such file.
    """

    def __init__(self, path: Path, **options: Any) -> None:
        with _lock:
            status = path.stat()
            self._place = status.st_dev, status.st_ino
            _held[self._place] += 1
        self._holds = True
        try:
            super().__init__(path, **options)
        except BaseException:
            self._let_go()
            raise

    def close(self) -> None:
        """Close it, and say so."""
        super().close()
        self._let_go()

    def _let_go(self) -> None:
        with _lock:
            if self._holds:
                self._holds = False
                _held[self._place] -= 1
                if _held[self._place] <= 0:  # below: it was the parent's
                    del _held[self._place]


def _forget() -> None:
    """A fork has no locks."""
    global _lock  # noqa: PLW0603 - somebody may hold it who is not here
    _lock = threading.RLock()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def own(path: Path, application_id: int) -> int:
    """Make the file if there is none, and let only its owner read it; its inode, or 0 if it is not
    ours, and was left alone.

    Raises:
        OSError: It cannot be had.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _inode_of(path, application_id, _READ_WRITE)


def inode_of_ours(path: Path, application_id: int) -> int:
    """The inode of the file, which is only looked at; 0 if it is not ours.

    Raises:
        OSError: It cannot be read.
    """
    return _inode_of(path, application_id, _READ_ONLY)


def _inode_of(path: Path, application_id: int, flags: int) -> int:
    with _lock:
        if inode := _inode_of_held(path):
            return inode
        file = os.open(path, flags, 0o600)
        try:
            status = os.fstat(file)
            if not _is_ours(file, status, application_id):
                return 0
            loose = os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077
            if flags == _READ_WRITE and loose:
                os.fchmod(file, 0o600)
            return status.st_ino
        finally:
            os.close(file)


def _inode_of_held(path: Path) -> int:
    """The inode of a file with a connection of this process: that has looked whose it is."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0
    return status.st_ino if (status.st_dev, status.st_ino) in _held else 0


def _is_ours(file: int, status: os.stat_result, application_id: int) -> bool:
    if not stat.S_ISREG(status.st_mode):
        return False
    head = os.read(file, _NUMBER_AT + 4)
    return not head or (
        head.startswith(_MAGIC) and head[_NUMBER_AT:] == application_id.to_bytes(4, "big")
    )


# ─── what is in it ────────────────────────────────────────────────────────────────────────


def is_made(connection: sqlite3.Connection, application_id: int) -> bool:
    """Whether the database has our number."""
    return bool(connection.execute("PRAGMA application_id").fetchone() == (application_id,))


def make(connection: sqlite3.Connection, application_id: int, schema: Iterable[str]) -> bool:
    """Make the tables if they are not there, and use a log; False if it is another program's.

    Raises:
        sqlite3.Error: It is damaged, locked or full.
    """
    if not is_made(connection, application_id):
        connection.execute("BEGIN IMMEDIATE")  # several processes may be at it
        if not is_made(connection, application_id):
            if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                connection.execute("ROLLBACK")
                return False
            for statement in (*schema, f"PRAGMA application_id = {application_id}"):
                connection.execute(statement)
        connection.execute("COMMIT")
    with suppress(sqlite3.OperationalError):  # locked: another process is at it just now
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    return True
