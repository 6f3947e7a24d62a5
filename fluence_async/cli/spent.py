"""A ledger goes in, what was spent comes out: a table by day and model, or JSON."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .. import UsageTotals
from ..ledger import LedgerEntry, default_path, read_ledger
from .terminal import printable

__all__ = ["show_spent"]

_BAR = 24
_PIPED_COLUMNS = 120
_FIGURES = ("calls", "failed", "cached", "prompt", "completion", "cost")

Row = tuple[str, str, UsageTotals]


def show_spent(path: Path | None, *, days: int, as_json: bool) -> None:
    """Print what the ledger at `path` holds of the last `days` days.

    Raises:
        FileNotFoundError: There is none.
        ValueError: The file is no ledger.
        OSError: It cannot be read.
    """
    since = (datetime.now(UTC) - timedelta(days=days - 1)).date().isoformat()
    entries = read_ledger(path, since=since)
    where = str(path or default_path())
    if as_json:
        found = {"ledger": where, "since": since, "entries": entries}
        print(msgspec.json.encode(found).decode())
    elif not entries:
        print(f"Nothing was spent since {since} (UTC), says {printable(where)}")
    else:
        _draw(_rows(entries))


def _rows(entries: list[LedgerEntry]) -> list[Row]:
    """The sums by day and model, whatever the tags."""
    sums: dict[tuple[str, str], UsageTotals] = {}
    for entry in entries:
        sums.setdefault((entry.day, entry.model), UsageTotals()).add(entry.totals)
    return [(day, model, totals) for (day, model), totals in sums.items()]


def _draw(rows: list[Row]) -> None:
    shown = sys.stdout.isatty()
    console = Console(
        file=sys.stdout,
        width=None if shown else _PIPED_COLUMNS,
        no_color=not shown or bool(os.environ.get("NO_COLOR")),
        highlight=False,
    )
    needed = console.measure(_table(rows, bar=0), options=console.options.update(width=999)).maximum
    console.print(_table(rows, bar=min(console.width - needed - 2, _BAR)))


def _table(rows: list[Row], *, bar: int) -> Table:
    """The rows and their total, with bars of at most `bar` columns where there is room for them."""
    total = UsageTotals()
    for _, _, totals in rows:
        total.add(totals)
    table = Table(box=None, pad_edge=False, show_footer=True)
    table.add_column("day (UTC)", "total", no_wrap=True)
    table.add_column("model", overflow="fold")
    for name, value in zip(_FIGURES, _figures(total), strict=True):
        table.add_column(name, value, justify="right", no_wrap=True)
    drawn = bar >= len("tokens")
    if drawn:
        table.add_column("tokens", no_wrap=True, style="cyan")
    most = max(totals.total_tokens for _, _, totals in rows)
    before = ""
    for day, model, totals in rows:
        bars = [_bar(totals.total_tokens, most, bar)] if drawn else []
        name = escape(printable(model))
        table.add_row(day if day != before else "", name, *_figures(totals), *bars)
        before = day
    return table


def _figures(totals: UsageTotals) -> list[str]:
    about = "~" if totals.estimated_tokens else ""
    return [
        f"{totals.calls:,}",
        f"{totals.failed:,}",
        f"{totals.cached + totals.coalesced:,}",
        f"{about}{totals.prompt_tokens:,}",
        f"{about}{totals.completion_tokens:,}",
        f"{totals.cost:,.{2 if totals.cost >= 1 else 4}f}" if totals.cost else "",
    ]


def _bar(tokens: int, most: int, columns: int) -> str:
    """As long as `tokens` are many, to an eighth of a column."""
    eighths = tokens * columns * 8 // most if most else 0
    whole, rest = divmod(max(eighths, 1 if tokens else 0), 8)
    return "█" * whole + (chr(0x2590 - rest) if rest else "")
