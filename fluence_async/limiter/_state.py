"""A path goes in, a file comes out that may be locked, read and written: this user's alone.

Law: nothing here waits. A file that is not a plain one of this user's own is refused, and none is
touched before who reads it has seen that it is a limiter's.

Rejected: `fcntl.lockf`, whose locks a process loses by closing the file anywhere in it.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from .._sansio.limits_file import VERSION

if sys.platform != "win32":
    import fcntl

    _EXCLUSIVE_AT_ONCE = fcntl.LOCK_EX | fcntl.LOCK_NB

__all__ = ["StateFile", "state_path"]

_SPINS = 3


class StateFile:
    """An open file.

    Raises:
        OSError: It cannot be opened, is another user's, or this system has not what it takes.
    """

    def __init__(self, path: Path) -> None:
        self._fd = -1
        if sys.platform != "linux":
            raise OSError("a limiter's file needs Linux")
        self._fd = self._open(path)
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is not a plain file")
        if status.st_uid != os.geteuid():
            raise PermissionError(f"it belongs to another user (uid {status.st_uid})")
        self._protected = False

    def _open(self, path: Path) -> int:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)

    def protect(self) -> None:
        """Let only its owner read it: for who knows that it is a limiter's."""
        if not self._protected:
            self._protected = True
            if stat.S_IMODE(os.fstat(self._fd).st_mode) != 0o600:
                os.fchmod(self._fd, 0o600)

    @property
    def size(self) -> int:
        """In bytes."""
        return os.fstat(self._fd).st_size

    def lock(self) -> bool:
        """Whether it is now locked by this object alone; who holds it may be standing still."""
        for _ in range(_SPINS):
            try:
                fcntl.flock(self._fd, _EXCLUSIVE_AT_ONCE)
            except BlockingIOError:
                os.sched_yield()
            else:
                return True
        return False

    def unlock(self) -> None:
        """Let others have it."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def read(self, size: int, at: int) -> bytes:
        """So many bytes from there; fewer if the file ends."""
        return os.pread(self._fd, size, at)

    def write(self, data: bytes, at: int) -> None:
        """Write all of it."""
        if os.pwrite(self._fd, data, at) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def clear(self, size: int) -> None:
        """Let it be so many zeros, with room on the disk."""
        os.ftruncate(self._fd, 0)
        try:
            os.posix_fallocate(self._fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            os.ftruncate(self._fd, size)  # a file system that promises no room

    def is_at(self, path: Path) -> bool:
        """Whether that path still leads here."""
        try:
            return os.path.samestat(os.fstat(self._fd), os.lstat(path))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Let go of it, and of its lock. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            with suppress(OSError):
                os.close(fd)

    def __del__(self) -> None:
        self.close()


def state_path(name: str) -> Path:
    """Where this user's programs keep the limits of that name."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state")
    return state / "fluence" / f"{name}.{VERSION}.limits"  # one of another version stays whole
