"""Limits that programs share go in, how they stand comes out: live, drawn once, or as JSON."""

from __future__ import annotations

import math
import os
import re
import sys
from pathlib import Path

import anyio
import msgspec
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from .. import DOCUMENTED_LIMITS
from ..limits import LimiterSnapshot, SharedLimits, WindowSnapshot
from .drawn import console_of, frame_of
from .terminal import printable, quiet

__all__ = ["Gauge", "lesson", "limits_of", "show_live"]

_LOOK_S = 0.5
_BAR, _SHORTEST = 30, 4
_PIPED_COLUMNS = 81
_WIDE = 64
_MORE = (10, 100)
_LANES = ("interactive", "batch")


def limits_of(limits: list[str] | None, limiter: str, base_url: str | None) -> SharedLimits:
    """The limits that the options name.

    Raises:
        ValueError: There are none, or no key.
    """
    try:
        return SharedLimits(base_url=base_url, limits=limits or DOCUMENTED_LIMITS, limiter=limiter)
    except ImportError as error:
        raise ValueError(str(error)) from None


class Gauge:
    """How limits stand, in words and bars.

    Args:
        limits: Where to look.
    """

    def __init__(self, limits: SharedLimits) -> None:
        self._limits = limits
        home = f"{Path.home()}{os.sep}"
        self._where = printable(re.sub(f"^{re.escape(home)}", f"~{os.sep}", limits.where))

    async def show_once(self, *, as_json: bool) -> None:
        """Print it.

        Raises:
            OSError: There is no looking at them.
            ValueError: What is there is none of a limiter's.
        """
        now = await self._limits.look()
        if as_json:
            print(msgspec.json.encode(self._plain(now)).decode())
            return
        print(self._where)
        console = Console(file=sys.stdout, width=_PIPED_COLUMNS, no_color=True, highlight=False)
        for line in _drawn(now, console):
            print(line.rstrip())

    async def lines(self, console: Console) -> list[str]:
        """Look, and draw it; see `show_once`."""
        now = await self._limits.look()
        where = Text(self._where, style="dim", overflow="ellipsis", no_wrap=True)
        return _rendered(Group(where), console) + _drawn(now, console)

    def failed(self, error: OSError, console: Console) -> list[str]:
        """Say why there is nothing to draw."""
        return _rendered(Text(printable(str(error)), style="red"), console)

    def _plain(self, now: LimiterSnapshot) -> dict[str, object]:
        return {
            "where": self._limits.where,
            "windows": [
                {
                    "limit": str(window.limit),
                    "used": window.used,
                    "in_flight": _in_flight(window),
                    "left": window.left,
                    "next_free_s": window.next_free_s,
                    "learnt": window.learnt,
                }
                for window in now.windows
            ],
            "waiting": now.waiting,
            "waiting_batch": now.waiting_batch,
            "paused_s": now.paused_s,
            "eta_s": {
                name: {str(calls): now.eta_s(calls, lane=lane) for calls in _MORE}
                for lane, name in enumerate(_LANES)
            },
        }


async def show_live(gauge: Gauge) -> None:
    """Draw it over and over, until this is cancelled; the last frame stays.

    Raises:
        OSError: There was no looking at them from the first.
        ValueError: What is there is none of a limiter's.
    """
    console = console_of(sys.stdout)
    height = 0
    with quiet():
        try:
            while True:
                try:
                    lines = await gauge.lines(console)
                except OSError as error:
                    if not height:
                        raise
                    lines = gauge.failed(error, console)
                lines = lines[: max(console.height - 1, 1)]
                console.file.write(frame_of(height, (), lines))
                console.file.flush()
                height = len(lines)
                await anyio.sleep(_LOOK_S)
        finally:
            if height:
                console.file.write("\n")
                console.file.flush()


def _drawn(now: LimiterSnapshot, console: Console) -> list[str]:
    lessons = [Text(lesson(window), style="dim") for window in now.windows if window.learnt]
    windows = _windows(now, console)
    what = Group("", windows, "", _state(now), *lessons, "", _outlook(now))
    return _rendered(what, console)


def _rendered(what: RenderableType, console: Console) -> list[str]:
    """Its lines; the last column is left, where a terminal may be about to wrap."""
    with console.capture() as captured:
        console.print(what, width=console.width - 1)
    return captured.get().rstrip("\n").split("\n")


def _windows(now: LimiterSnapshot, console: Console) -> Table:
    """A row for each window, with as long a bar as there is room for."""
    width = console.width - 1
    bare = _table(now, width, bar=0)
    needed = console.measure(bare, options=console.options.update(width=999)).maximum
    return _table(now, width, bar=min(width - needed - 2, _BAR))


def _table(now: LimiterSnapshot, width: int, *, bar: int) -> Table:
    wide, drawn = width >= _WIDE, bar >= _SHORTEST
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("limit", no_wrap=True)
    if drawn:
        table.add_column("", no_wrap=True)
    numbers = ["used", *["in flight"] * wide, "left", "next free" if wide else "next"]
    for name in numbers:
        table.add_column(name, justify="right", no_wrap=True)
    for window in now.windows:
        bars = [_bar(window, bar)] if drawn else []
        flying = [f"{_in_flight(window):,}"] if wide else []
        figures = [f"{window.used:,}", *flying, f"{window.left:,}", _when(window.next_free_s)]
        table.add_row(str(window.limit), *bars, *figures)
    return table


def _bar(window: WindowSnapshot, columns: int) -> Text:
    """As long as the window is full, to an eighth of a column, on a track."""
    share = min(1.0, max(0.0, window.used / window.limit.limit))
    eighths = math.ceil(share * columns * 8) if window.left else columns * 8
    whole, rest = divmod(eighths, 8)
    style = "red" if not window.left else "yellow" if share >= 0.8 else "cyan"
    text = Text("█" * whole + (chr(0x2590 - rest) if rest else ""), style=style)
    return text.append("·" * (columns - len(text)), style="dim")


def _state(now: LimiterSnapshot) -> Text:
    """Who waits, and whether the server asked for a pause."""
    text = Text()
    if now.paused_s:
        text.append(f"paused for {_seconds(now.paused_s)}, as the server asked", style="yellow")
        text.append(" · ")
    if now.waiting:
        what = "program waits" if now.waiting == 1 else "programs wait"
        text.append(f"{now.waiting} {what}")
        if now.waiting_batch:
            text.append(f", {now.waiting_batch} with batch calls")
    elif any(window.used for window in now.windows):
        text.append("nobody waits")
    else:
        text.append("nothing is used")
    return text


def lesson(window: WindowSnapshot) -> str:
    """What was learnt of how the server keeps a window, in words."""
    learnt = window.learnt
    assert learnt is not None
    if learnt.burst >= window.limit.limit:
        said = [f"takes all {learnt.burst:,} at once"]
    elif learnt.ended:
        said = [f"takes bursts of {learnt.burst:,}"]
    else:
        said = [f"takes bursts of {max(1, learnt.proven):,} (more is tried)"]
    if learnt.counter:
        said.append("keeps a sliding counter")
    if learnt.stated:
        said.append("states this limit itself")
    if learnt.reported:
        said.append("tells what remains")
    text = f"{window.limit}: the server {', '.join(said)}"
    return f"{text}; {learnt.withheld:,} units withheld" if learnt.withheld else text


def _outlook(now: LimiterSnapshot) -> Table:
    """When more calls could go."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("more calls", justify="right", no_wrap=True)
    for name in _LANES:
        table.add_column(name, justify="right", no_wrap=True)
    for calls in _MORE:
        table.add_row(str(calls), *(_when(now.eta_s(calls, lane=lane)) for lane in (0, 1)))
    return table


def _in_flight(window: WindowSnapshot) -> int:
    return 0 if window.outlook is None else window.outlook.in_flight


def _when(seconds: float | None) -> str:
    if seconds is None:
        return "if answered"
    return _seconds(seconds) if seconds > 0 else "now"


def _seconds(seconds: float) -> str:
    """Rounded up, so that nobody comes too early."""
    if seconds < 10:
        return f"{math.ceil(seconds * 10) / 10:.1f} s"
    whole = math.ceil(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60:02}s"
    minutes = -(-whole // 60)
    return f"{minutes // 60}h {minutes % 60:02}m"
