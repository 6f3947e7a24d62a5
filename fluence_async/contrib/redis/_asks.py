"""What a line wants of Redis, one ask of each model with limits of its own, and what Redis said.

Law: the line says what it wants whenever it is served, and Redis's word holds until the time that
it named. Of what it has said nothing yet is asked first; then in turns.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from ..._sansio.bucket import NEVER
from ..._sansio.tariff import own

__all__ = ["Ask", "Asks"]


class Ask(NamedTuple):
    """The lane in whose right it is, and costs."""

    lane: int
    costs: Mapping[str, int]

    @property
    def whose(self) -> str:
        """Of which model with limits of its own it is; `""` of none."""
        return own(self.costs)


class _Word(NamedTuple):
    ask: Ask
    until: int
    aside: bool


class Asks:
    """All of one process. Times in ns."""

    def __init__(self) -> None:
        self._wanted: dict[str, Ask] = {}
        self._words: dict[str, _Word] = {}

    def __bool__(self) -> bool:
        return bool(self._wanted)

    def want(self, ask: Ask, now: int) -> int:
        """Have it asked for. When Redis said that it can be had; NEVER if it must be asked."""
        self._wanted[ask.whose] = ask
        return self.known(ask, now)

    def known(self, ask: Ask, now: int) -> int:
        """When Redis said that it can be had; NEVER if it must be asked."""
        word = self._words.get(ask.whose)
        return word.until if word and word.ask == ask and word.until > now else NEVER

    def is_aside(self, ask: Ask) -> bool:
        """Whether Redis said that nothing but limits of its model holds it up."""
        word = self._words.get(ask.whose)
        return word is not None and word.ask == ask and word.aside

    def next(self, now: int) -> Ask | None:
        """What to ask now, if anything is wanted."""
        for ask in self._wanted.values():
            if self.known(ask, now) == NEVER:
                return ask
        for whose, ask in self._wanted.items():
            self._wanted[whose] = self._wanted.pop(whose)  # its turn is over
            return ask
        return None

    def wake(self, now: int) -> int:
        """When to ask next for one of those that are wanted; `now` for at once."""
        times = [self.known(ask, now) for ask in self._wanted.values()]
        return now if NEVER in times else min(times)

    def wait(self, now: int) -> int:
        """How long the shortest wait is that Redis told of."""
        return min(
            (word.until - now for word in self._words.values() if word.until > now), default=0
        )

    def told(self, ask: Ask, until: int, *, aside: bool) -> None:
        """Redis said that it must wait."""
        self._words[ask.whose] = _Word(ask, until, aside)

    def granted(self, ask: Ask) -> None:
        """Redis gave it."""
        self._words.pop(ask.whose, None)
        self._wanted.pop(ask.whose, None)

    def forget(self) -> None:
        """What was said holds no more."""
        self._words.clear()

    def keep(self, models: Collection[str]) -> Iterator[str]:
        """Want nothing any more but of these models; the others."""
        for whose in [each for each in self._wanted if each not in models]:
            self._words.pop(whose, None)
            del self._wanted[whose]
            yield whose
