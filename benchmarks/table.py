"""Rounds of figures go in, an aligned plain table of medians, ratios and bars comes out.

A ratio is taken within a round, where both sides met the same machine, and then the median of
the rounds: two medians divided by each other would mix one's good moments with the other's bad.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

import msgspec

__all__ = ["Bar", "Row", "Table"]


class Row(msgspec.Struct, frozen=True):
    """One peer's figure in each round that it took part in; all took part in the first ones."""

    name: str
    rounds: list[float]

    def over(self, base: Row) -> list[float]:
        """How many times `base` this is, round by round."""
        return [own / other for own, other in zip(self.rounds, base.rounds, strict=False)]


class Bar(msgspec.Struct, frozen=True):
    """What had to be reached, what was found, and whether that is enough."""

    says: str
    found: str
    met: bool


class Table(msgspec.Struct):
    """Figures of one `unit`, less being better; ratios are to the row `base`, if there is one."""

    benchmark: str
    title: str
    unit: str
    rows: list[Row]
    base: str = ""
    bars: list[Bar] = []
    notes: list[str] = []

    def row(self, name: str) -> Row | None:
        """The row of that name, if its peer is here."""
        return next((row for row in self.rows if row.name == name), None)

    def bar_at_most(self, limit: float, name: str, base: str) -> None:
        """Add the bar that `name` costs at most `limit` times what `base` does."""
        if (own := self.row(name)) and (other := self.row(base)):
            ratio = median(own.over(other))
            says = f"{name} at most {limit:g} × {base}"
            self.bars.append(Bar(says, f"{ratio:.2f}", ratio <= limit))

    def bar_times_less(self, limit: float, name: str, base: str) -> None:
        """Add the bar that `base` costs at least `limit` times what `name` does."""
        if (own := self.row(name)) and (other := self.row(base)):
            ratio = median(other.over(own))
            says = f"{name} at least {limit:g} × less than {base}"
            self.bars.append(Bar(says, f"{ratio:.1f}", ratio >= limit))

    def lines(self) -> Iterator[str]:
        """The table as text, line by line."""
        yield f"{self.benchmark}: {self.title}"
        if self.rows:
            yield from self._figures()
        if self.bars:
            width = max(len(bar.says) for bar in self.bars)
            yield ""
            for bar in self.bars:
                verdict = "met" if bar.met else "NOT MET"
                yield f"  bar: {bar.says:{width}}   {bar.found:>8}   {verdict}"
        yield from (f"  {note}" for note in self.notes)

    def _figures(self) -> Iterator[str]:
        width = max(len(row.name) for row in self.rows)
        base = self.row(self.base)
        over = f"× {self.base}" if base else ""
        yield f"  {'':{width}}{self.unit:>22}   {over:>22}".rstrip()
        pair = f"{'median':>12}{'least':>10}"
        yield f"  {'':{width}}{pair}" + (f"   {pair}" if base else "")
        for row in self.rows:
            line = f"  {row.name:{width}}{_pair(row.rounds)}"
            yield line + (f"   {_pair(row.over(base))}" if base else "")


def _pair(figures: list[float]) -> str:
    return f"{_short(median(figures)):>12}{_short(min(figures)):>10}"


def _short(figure: float) -> str:
    """Three significant digits or so; no fraction from a hundred on."""
    digits = 2 if figure < 10 else 1 if figure < 100 else 0
    return f"{figure:,.{digits}f}"
