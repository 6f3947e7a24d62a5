"""Markdown goes in, piece by piece, and is drawn on a terminal while it comes.

Finished blocks are printed for good; the open one is drawn over and over at the end, at most 12
times a second and in at most a fifth of the time, its last lines only where it is taller than
the window. Everything goes out in one write per frame, each line over the one before it, so
that nothing flickers.

Rejected: `rich.live.Live`. It draws from a thread, erases before it draws, and either cuts or
repeats what is taller than the window.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console

from .blocks import Block, BlockSplitter
from .markdown import THEME, render
from .terminal import printable

__all__ = ["DrawnView", "console_of", "frame_of"]

_FRAME_S = 1 / 12
_SHARE = 4  # a frame is followed by a pause at least so many times as long
_SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"


def console_of(stream: TextIO) -> Console:
    """A console that writes to a terminal and heeds NO_COLOR."""
    return Console(file=stream, force_terminal=True, theme=THEME, highlight=False)


def frame_of(height: int, finished: Sequence[str], unfinished: Sequence[str]) -> str:
    """What puts lines in the place of the last `height`, at whose last one the cursor is.

    Each line is drawn over its predecessor and erased from its end on. Unfinished lines are kept
    from wrapping (DECAWM off): should the terminal find a character wider than rich does, the
    count of lines still holds.
    """
    frame = "\r" + (f"\x1b[{height - 1}A" if height > 1 else "")
    frame += "".join(f"{line}\x1b[K\n" for line in finished)
    return frame + "\x1b[?7l" + "\x1b[K\n".join(unfinished) + "\x1b[J\x1b[?7h"


class DrawnView:
    """Draws markdown at the cursor of a terminal while it comes. Entered within a running loop."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._blocks = BlockSplitter()
        self._pieces: list[str] = []
        self._frames = 0
        self._height = 0  # unfinished lines that stand on the screen
        self._waiting = True  # for the first piece
        self._printed = False
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        self._tick()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._draw(self._finished(ended=True), [])

    def show(self, text: str) -> None:
        """Take the next piece of the answer's text, to be drawn in the next frame."""
        self._pieces.append(text)

    def _tick(self) -> None:
        before = time.perf_counter()
        if self._pieces or self._waiting:
            finished = self._finished(ended=False)
            unfinished = self._unfinished(finished)
            self._draw(finished, unfinished)
        pause = max(_FRAME_S, _SHARE * (time.perf_counter() - before))
        self._timer = asyncio.get_running_loop().call_later(pause, self._tick)

    def _finished(self, *, ended: bool) -> list[str]:
        """The lines that have become final."""
        text = printable("".join(self._pieces))
        self._pieces.clear()
        self._waiting = self._waiting and not text
        blocks = self._blocks.feed(text)
        if ended:
            blocks += self._blocks.finish()
        lines: list[str] = []
        for block in blocks:
            lines += self._lines(block)
            self._printed = True
        return lines

    def _unfinished(self, finished: list[str]) -> list[str]:
        """The lines that have not, as many of the last as the window holds; `finished` gains
        the first ones of a block that is too tall, if it may be cut."""
        room = max(self._console.height - 1, 1)
        block = self._blocks.open
        if block is None:
            return [self._spinner()] if self._waiting else []
        lines = self._lines(block)
        if len(lines) <= room or (cut := self._blocks.cut()) is None:
            return lines[-room:]
        finished += self._lines(cut)
        self._printed = True
        return self._unfinished(finished)

    def _lines(self, block: Block) -> list[str]:
        """The lines that show a block, with a blank one between it and the block before."""
        lines = render(block, self._console)
        return lines if block.glued or not self._printed else ["", *lines]

    def _spinner(self) -> str:
        self._frames += 1
        return _SPINNER[self._frames % len(_SPINNER)]

    def _draw(self, finished: list[str], unfinished: list[str]) -> None:
        """Put the lines where the unfinished ones of the frame before stand, in one write."""
        frame = frame_of(self._height, finished, unfinished)
        self._height = len(unfinished)
        stream = self._console.file
        stream.write(frame)
        stream.flush()
