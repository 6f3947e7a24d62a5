"""An answer's text goes in, piece by piece, and onto standard output: as it is, or drawn."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self, TextIO

from .terminal import draws, printable

__all__ = ["PlainView", "View", "view_of"]


class View(Protocol):
    """Where an answer is shown. Left, it has shown all that it was given."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    def show(self, text: str) -> None:
        """Show the next piece of the answer's text."""
        ...


def view_of(stream: TextIO) -> View:
    """The view for an answer on `stream`: drawn on a terminal, plain anywhere else."""
    if not draws(stream):
        return PlainView(stream)
    from .drawn import DrawnView, console_of  # a third of a second, which a pipe is spared

    return DrawnView(console_of(stream))


class PlainView:
    """Writes the text as it is, at once; without control characters where a terminal reads."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._cleaned = stream.isatty()
        self._last = "\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._last != "\n" and not isinstance(error, BrokenPipeError):
            self._write("\n")

    def show(self, text: str) -> None:
        """Write the next piece of the answer's text."""
        shown = printable(text) if self._cleaned else text
        if shown:
            self._write(shown)

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
        self._last = text[-1]
