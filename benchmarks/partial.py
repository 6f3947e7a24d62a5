"""A typed answer read while it comes: the fields of 200 KB of JSON, beside one decode of the whole.

The answer comes in pieces of 4 bytes. In bulk the pieces that one read of 64 KiB brings are fed
together, as `parse` does; live, each piece comes alone, and then the call itself is most of it: an
empty method, called as often, stands beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import msgspec

from fluence_async._sansio.answer_type import AnswerType

from .table import Bar, Row, Table

__all__ = ["partial"]

SIZE, PIECE = 200_000, 4
IN_ONE_READ = 360  # pieces, in 64 KiB of events of some 180 bytes
WHOLE, BULK, LIVE, EMPTY = "msgspec, whole", "in bulk", "piece by piece", "an empty method"
ALLOWED, ALLOWED_DOUBLE = 5, 2.3


class Item(msgspec.Struct):
    """An item, as a catalogue has them."""

    name: str
    price: float
    tags: list[str]
    stock: int
    note: str


class Catalogue(msgspec.Struct):
    """An answer."""

    title: str
    items: list[Item]
    summary: str


class _Nothing:
    def feed(self, _text: str) -> list[None]:
        return []


def answer(size: int) -> str:
    """A catalogue of about `size` bytes."""
    item = Item("brown teapot", 12.5, ["tea", "kitchen ware"], 7, "It pours, and it does not drip.")
    count = size // len(msgspec.json.encode(item))
    return msgspec.json.encode(Catalogue("All", [item] * count, "That is all.")).decode()


def partial(*, quick: bool) -> list[Table]:
    """Measure in turns, CPU and not wall time."""
    text, double = answer(SIZE), answer(2 * SIZE)
    pieces, more = _cut(text), _cut(double)
    whole = msgspec.json.Decoder(Catalogue)
    kind: AnswerType[Catalogue] = AnswerType(Catalogue)
    loads: dict[str, Callable[[], object]] = {
        WHOLE: lambda: whole.decode(text),
        BULK: lambda: _feed(kind.reader().feed, _reads(pieces)),
        LIVE: lambda: _feed(kind.reader().feed, pieces),
        EMPTY: lambda: _feed(_Nothing().feed, pieces),
        "twice": lambda: _feed(kind.reader().feed, more),
    }
    rows = {name: Row(name, []) for name in loads}
    for _ in range(10 if quick else 40):
        for name, load in loads.items():
            rows[name].rounds.append(min(_seconds(load) for _ in range(3)) * 1e3)
    twice = rows.pop("twice")
    table = Table(
        "partial",
        f"CPU to read {len(text):,} bytes of typed answer in pieces of {PIECE} bytes",
        "ms",
        list(rows.values()),
        base=WHOLE,
    )
    for name in (BULK, LIVE):
        table.bar_at_most(ALLOWED, name, WHOLE)
    growth = min(twice.rounds) / min(rows[LIVE].rounds)
    says = f"twice the answer at most {ALLOWED_DOUBLE} × the time"
    table.bars.append(Bar(says, f"{growth:.2f}", growth <= ALLOWED_DOUBLE))
    return [table]


def _cut(text: str) -> list[str]:
    return [text[at : at + PIECE] for at in range(0, len(text), PIECE)]


def _reads(pieces: list[str]) -> Iterable[str]:
    return ("".join(pieces[at : at + IN_ONE_READ]) for at in range(0, len(pieces), IN_ONE_READ))


def _feed(feed: Callable[[str], object], pieces: Iterable[str]) -> None:
    for piece in pieces:
        feed(piece)


def _seconds(load: Callable[[], object]) -> float:
    began = time.process_time()
    load()
    return time.process_time() - began
