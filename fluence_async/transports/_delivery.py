"""Requests that nobody has answered yet go in; those that the peer's kernel has whole are told so.

Law: told is what the kernel knows. A connection's send queue (Linux: SIOCOUTQ) holds every byte
that the peer's kernel has not acknowledged; a request that is with our kernel, and nothing of it
in that queue, is with the peer's. It is asked every 100 ms, by one timer for all requests of a
transport, which rests while there are none: a request that is answered at once pays for an entry
in a set. Elsewhere than on Linux nothing is told, and nothing through a proxy, whose kernel is not
the server's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Final, Protocol

from ._base import Request

if sys.platform == "linux":
    import fcntl
    import termios

__all__ = ["EVERY_S", "Deliveries", "unacknowledged"]

EVERY_S: Final = 0.1
_SIZE = 4


class HasDescriptor(Protocol):
    """A socket, however wrapped."""

    def fileno(self) -> int:
        """Its descriptor; -1 once it is closed."""
        ...


class Timer(Protocol):
    """What will ring once."""

    def cancel(self) -> None:
        """Let it never ring."""
        ...


class OnItsWay(Protocol):
    """A request that is written, and not answered yet."""

    @property
    def request(self) -> Request:
        """Whose `on_delivered` is to be called."""
        ...

    def is_delivered(self) -> bool:
        """Whether the peer's kernel has all of it; asked again until it has."""
        ...


class Deliveries:
    """The unanswered requests of one transport.

    Args:
        later: Calls what it is given once, `EVERY_S` from now.
    """

    def __init__(self, later: Callable[[Callable[[], None]], Timer | None]) -> None:
        self._later = later
        self._waiting: set[OnItsWay] = set()
        self._timer: Timer | None = None

    def watch(self, sent: OnItsWay) -> None:
        """Tell it when it is delivered, unless `forget` comes first."""
        self._waiting.add(sent)
        if self._timer is None:
            self._timer = self._later(self._look)

    def forget(self, sent: OnItsWay) -> None:
        """It is answered, or has failed."""
        self._waiting.discard(sent)

    def _look(self) -> None:
        self._timer = None
        for sent in [each for each in self._waiting if each.is_delivered()]:
            self._waiting.discard(sent)
            if (tell := sent.request.on_delivered) is not None:
                tell()
        if self._waiting:
            self._timer = self._later(self._look)

    def close(self) -> None:
        """Tell nobody any more."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def unacknowledged(opened: HasDescriptor) -> int:
    """How many of the bytes that were written to a socket its peer's kernel has not acknowledged;
    where that cannot be known, one."""
    if sys.platform != "linux":
        return 1
    try:
        found = fcntl.ioctl(opened.fileno(), termios.TIOCOUTQ, bytes(_SIZE))
    except (OSError, ValueError):  # closed, or no kernel that tells
        return 1
    return int.from_bytes(found, sys.byteorder)
