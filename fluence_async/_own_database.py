"""A path and a number go in; whether the file there is a database of ours comes out.

Law: what is not ours stays as it is: content, rights and times. Only a file that is new, empty, or
a database with our number is made this user's alone. Its first bytes say which, so that no SQLite
is let at another's file: that alone might write it. Whoever makes one must therefore write the
number with its first transaction, before any log is used.

See https://www.sqlite.org/fileformat.html#the_database_header.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["inode_of_ours", "own"]

_MAGIC = b"SQLite format 3\0"
_NUMBER_AT = 68
_READ_ONLY = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_READ_WRITE = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0)


def own(path: Path, application_id: int) -> int:
    """Make the file if there is none, and let only its owner read it; its inode, or 0 if it is not
    ours, and was left alone.

    Raises:
        OSError: It cannot be had.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(path, _READ_WRITE, 0o600)
    try:
        status = os.fstat(file)
        if not _is_ours(file, status, application_id):
            return 0
        if os.name == "posix" and stat.S_IMODE(status.st_mode) & 0o077:
            os.fchmod(file, 0o600)
        return status.st_ino
    finally:
        os.close(file)


def inode_of_ours(path: Path, application_id: int) -> int:
    """The inode of the file, which is only looked at; 0 if it is not ours.

    Raises:
        OSError: It cannot be read.
    """
    file = os.open(path, _READ_ONLY)
    try:
        status = os.fstat(file)
        return status.st_ino if _is_ours(file, status, application_id) else 0
    finally:
        os.close(file)


def _is_ours(file: int, status: os.stat_result, application_id: int) -> bool:
    if not stat.S_ISREG(status.st_mode):
        return False
    head = os.read(file, _NUMBER_AT + 4)
    return not head or (
        head.startswith(_MAGIC) and head[_NUMBER_AT:] == application_id.to_bytes(4, "big")
    )
