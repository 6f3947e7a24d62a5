"""Replies as a test wrote them down: one for each request, in order; then another answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from ..replies import ReplyLike
from ..turn import Turn
from . import Responder

__all__ = ["Line", "Script"]

Line: TypeAlias = ReplyLike | Callable[[Turn], ReplyLike | None]
"""A reply, or a function that is asked for one at each request from there on."""


class Script:
    """Plays its lines, then leaves the answering to `after`."""

    def __init__(self, after: Responder) -> None:
        self._after = after
        self._lines: deque[Line] = deque()
        self._repeat = False

    def __repr__(self) -> str:
        return f"Script({list(self._lines)})"

    def write(self, *lines: Line, repeat: bool = False) -> None:
        """Replace the script.

        Args:
            lines: One for each request. A function answers every request from its turn on; if
                it returns None, the request is answered as if there were no script.
            repeat: Begin again after the last line.
        """
        for line in lines:
            if isinstance(line, type):
                raise TypeError(f"{line.__name__} is a class; write {line.__name__}()")
        self._repeat = repeat
        self._lines = deque(lines)

    async def respond(self, turn: Turn) -> ReplyLike:
        """The next line."""
        reply: ReplyLike | None = None
        if self._lines:
            line = self._lines[0]
            if callable(line):
                reply = line(turn)
            else:
                reply = line
                self._lines.rotate(-1) if self._repeat else self._lines.popleft()
        return await self._after.respond(turn) if reply is None else reply
