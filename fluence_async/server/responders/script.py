"""Replies as a test wrote them down: one for each request, in order; then another answers."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from ..received import Match
from ..refusal import Refusal
from ..replies import ReplyLike
from ..turn import Turn
from ..written import a_line
from . import Responder, models_of

__all__ = ["Line", "Lines", "Script"]

Line: TypeAlias = ReplyLike | Callable[[Turn], ReplyLike | None]
"""A reply, or a function that is asked for one at each request from there on."""


class Lines:
    """Replies in order."""

    def __init__(self) -> None:
        self._lines: deque[Line] = deque()
        self._repeat = False

    def script(self, *lines: Line, repeat: bool = False) -> None:
        """Replace what was written before.

        Args:
            lines: One for each request. A function answers every request from its turn on: it
                takes the `Turn` and returns a reply, or None to leave it to the responder.
            repeat: Begin again after the last line.

        Raises:
            TypeError, ValueError: A line that is no reply, or would never answer.
        """
        for line in lines:
            if isinstance(line, type) or not callable(line):
                a_line(line)
        self._repeat = repeat
        self._lines = deque(lines)

    def next(self, turn: Turn) -> ReplyLike | None:
        """The next line; None if another is to answer.

        Raises:
            Refusal: A function returned what is no reply. Its status is one that is not tried
                again, for the mistake is the script's.
        """
        if not self._lines:
            return None
        line = self._lines[0]
        if callable(line):
            reply = line(turn)
            try:
                return None if reply is None else a_line(reply)
            except (TypeError, ValueError) as error:
                name = getattr(line, "__qualname__", repr(line))
                raise Refusal(501, f"The script's {name} returned what is wrong: {error}") from None
        self._lines.rotate(-1) if self._repeat else self._lines.popleft()
        return line

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self._lines)})"


class Script(Lines):
    """Lines for all requests and lines for some, and who answers after them."""

    def __init__(self, after: Responder) -> None:
        super().__init__()
        self._after = after
        self._parts: list[tuple[Match, Lines]] = []
        self.models: tuple[str, ...] | None = models_of(after)

    def when(self, match: Match) -> Lines:
        """Lines for the requests that `match` means, before those for all. Of two such parts that
        fit, the one that was written later answers."""
        for known, lines in self._parts:
            if known == match:
                return lines
        self._parts.insert(0, (match, lines := Lines()))
        return lines

    def forget(self) -> None:
        """Forget every line."""
        self.script()
        self._parts.clear()

    async def respond(self, turn: Turn) -> ReplyLike:
        """The next line."""
        for match, lines in self._parts:
            if match.fits(turn.headers, turn.body) and (reply := lines.next(turn)) is not None:
                return reply
        reply = self.next(turn)
        return await self._after.respond(turn) if reply is None else reply
