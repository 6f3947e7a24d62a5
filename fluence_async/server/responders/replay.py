"""A recording answers: each request gets what an equal one got when it was recorded.

Law: requests are equal if their bodies are, as JSON, without the fields that are ignored. Equal
ones get their answers in the order of the recording, each once. What was not recorded is refused,
with what is different in the nearest that was: an answer is never made up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import msgspec

from ..recording import Exchange, read_exchanges
from ..refusal import Refusal
from ..replies import Step
from ..turn import Turn
from ..wire import Wire

__all__ = ["Replay"]

_SHOWN = 100


class Replay:
    """Answers from a file that `Upstream(record=...)` wrote.

    Args:
        path: The file.
        ignore: Fields of the request's body that need not be equal.
        repeat: Begin again with the first answer after the last; otherwise each is given once.
        timed: Let as much time pass before each piece as passed when it was recorded.

    Raises:
        ValueError: The file is no recording.
        OSError: It cannot be read.
    """

    models: tuple[str, ...] | None = None

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        ignore: Sequence[str] = (),
        repeat: bool = False,
        timed: bool = False,
    ) -> None:
        self._path = Path(path)
        self._ignored = frozenset(ignore)
        self._repeat = repeat
        self._timed = timed
        self._left = read_exchanges(self._path)

    @property
    def left(self) -> int:
        """How many exchanges are still to be played."""
        return len(self._left)

    def __repr__(self) -> str:
        return f"Replay({str(self._path)!r}, {self.left} left)"

    async def respond(self, turn: Turn) -> Step:
        """What was answered to an equal request.

        Raises:
            Refusal: 404: none is left.
        """
        asked = self._meant(msgspec.json.decode(turn.body))
        for exchange in self._left:
            if self._meant(exchange.request) == asked:
                self._left.remove(exchange)
                if self._repeat:
                    self._left.append(exchange)
                return _Recorded(exchange, timed=self._timed)
        raise Refusal(404, self._why(asked), code="not_recorded")

    def _meant(self, request: Any) -> Any:
        if not isinstance(request, dict):
            return request
        return {name: value for name, value in request.items() if name not in self._ignored}

    def _why(self, asked: dict[str, Any]) -> str:
        """What is different in the request that is nearest to `asked`."""
        if not self._left:
            return f"Every exchange of {self._path.name} has been played"
        nearest = min((_differences(self._meant(e.request), asked) for e in self._left), key=len)
        said = "; ".join(
            f"{name} was {_shown(was)} and is {_shown(now)}" for name, (was, now) in nearest.items()
        )
        return (
            f"No exchange that is left of {self._path.name} is of this request; in the nearest "
            f"{said}. Record anew, or say ignore=[...]"
        )


def _differences(was: dict[str, Any], now: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = sorted({*was, *now})
    return {n: (was.get(n), now.get(n)) for n in names if was.get(n) != now.get(n)}


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


class _Recorded(Step):
    """An answer as it was recorded, piece by piece."""

    def __init__(self, exchange: Exchange, *, timed: bool) -> None:
        self.exchange = exchange
        self.timed = timed

    @property
    def executes(self) -> bool:
        """Whether it was an answer."""
        return self.exchange.status == 200

    async def play(self, wire: Wire) -> None:
        """Send it."""
        exchange = self.exchange
        pieces = [piece.data for piece in exchange.body]
        streamed = exchange.headers.get("content-type", "").startswith("text/event-stream")
        if exchange.complete and not streamed:
            if self.timed:
                await asyncio.sleep(sum(piece.after for piece in exchange.body))
            await wire.respond(exchange.status, exchange.headers, b"".join(pieces))
            return
        await wire.head(exchange.status, exchange.headers)
        for piece, data in zip(exchange.body, pieces, strict=True):
            if self.timed:
                await asyncio.sleep(piece.after)
            await wire.body(data)
        if not exchange.complete:
            wire.close()
        await wire.end()
