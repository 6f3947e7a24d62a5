"""Another's answers, some of them spoilt by chance: to try a program against a bad day.

Law: the fate of the n-th request follows from the seed and n alone, so that a bad day can be had
again. A fault is one that real servers and networks have, and none lasts for ever but a stall.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from ..faults import Close, Event, Lost, Pause, Pings, Reset, Stall, Stream, Trickle
from ..hostile import Corrupt, Truncate
from ..replies import Answer, ReplyLike, Status, answer_in
from ..turn import Turn
from . import Responder, models_of

__all__ = ["Chaos"]

_Fault = tuple[str, Callable[[Any, Random], ReplyLike]]

_ANY: tuple[_Fault, ...] = (
    ("429, Retry-After 1", lambda _, __: Status(429, retry_after="1")),
    ("500", lambda _, __: Status(500)),
    ("503", lambda _, __: Status(503)),
    ("reset before the headers", lambda _, __: Reset()),
    ("answered, and the answer lost", lambda reply, _: Lost(reply)),
    ("a pause of 2 s before it", lambda reply, _: [Pause(2), reply]),
    ("in small pieces", lambda reply, _: Trickle(reply, size=16, gap=0.005)),
    ("cut, with a proper end", lambda reply, r: Truncate(reply, r.randrange(40, 400))),
    ("some bits changed", lambda reply, r: Corrupt(reply, every=300, seed=r.randrange(2**32))),
)
"""What can befall any reply."""

_STREAMED: tuple[_Fault, ...] = (
    ("reset in mid-stream", lambda texts, _: Stream(*texts, Reset())),
    ("closed in mid-stream", lambda texts, _: Stream(*texts, Close())),
    ("ended in mid-stream", lambda texts, _: Stream(*texts, end=False)),
    ("stalled in mid-stream", lambda texts, _: Stream(*texts, Stall())),
    ("only pings from mid-stream on", lambda texts, _: Stream(*texts, Pings(1))),
    ("an error event in mid-stream", lambda texts, _: Stream(*texts, Status(500))),
    ("a broken event in mid-stream", lambda texts, _: Stream(*texts, Event("{broken"))),
)
"""What can befall a streamed answer; made from the texts that get through."""


class Chaos:
    """Lets another answer, and spoils some of its answers.

    Args:
        after: Who answers.
        seed: Which bad day it is.
        rate: The share of requests that something befalls.
        tell: Is told of each request what becomes of it, in a line.

    Raises:
        ValueError: `rate` is no share.
    """

    def __init__(
        self,
        after: Responder,
        *,
        seed: int = 0,
        rate: float = 0.3,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"rate={rate!r}: must be a share from 0 to 1")
        self._after = after
        self._seed = seed
        self._rate = rate
        self._tell = tell
        self._count = 0
        self.models: tuple[str, ...] | None = models_of(after)

    def __repr__(self) -> str:
        return f"Chaos(seed={self._seed}, rate={self._rate})"

    async def respond(self, turn: Turn) -> ReplyLike:
        """The other's answer, or what becomes of it."""
        self._count += 1
        random = Random(f"{self._seed}:{self._count}")  # noqa: S311 - to be the same again
        number, reply = self._count, await self._after.respond(turn)
        fate = "as it should be"
        if random.random() < self._rate:
            fate, reply = _spoilt(turn, reply, random)
        if self._tell is not None:
            self._tell(f"{number:5}  {fate:30}  {turn.text[:40]!r}")
        return reply


def _spoilt(turn: Turn, reply: ReplyLike, random: Random) -> tuple[str, ReplyLike]:
    answer = answer_in(reply) if turn.chat.stream else None
    faults = _ANY if answer is None or not answer.texts else _ANY + _STREAMED
    fault = fate, spoil = random.choice(faults)
    if isinstance(answer, Answer) and fault in _STREAMED:
        return fate, spoil(answer.texts[: random.randrange(len(answer.texts))], random)
    return fate, spoil(reply, random)
