r"""Replies that are wrong on purpose, for scripts: every fault that a streaming client meets.

```python
Stream("Hello", " world")                          # what the API sends, chunk by chunk
Stream("Hel", Reset())                             # a RST in mid-answer
Stream("Hel", Close())                             # a FIN inside the chunked body
Stream("Hello", end=False)                         # a clean end, but no finish_reason, no [DONE]
Stream("Hello", Finish())                          # the finish_reason, but no [DONE]
Stream("Hello", Stall())   Stream("Hel", Pings())  # silence; only comments
Stream("Hel", Status(500))                         # an error event
Stream(Event("{not json"))                         # a broken chunk
Stream("Hel", b"data: {")                          # bytes inside the body
Stream("Hel", Raw(b"xyz\r\n"), Close())            # bytes outside its framing: a bad chunk size
Trickle(Stream("Hello"), gap=0.3)                  # byte by byte, headers too
[Pause(0.5), "Hello"]                              # a slow answer
[b"HTTP/1.1 103 Early Hints\r\n\r\n", "Hello"]     # any bytes, then an answer
Reset()   Close()   Stall()                        # before the headers
Lost("Hello")                                      # executed, and the answer lost on its way
```
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from .replies import (
    DONE,
    STREAM_HEADERS,
    Answer,
    Call,
    ReplyLike,
    Status,
    Step,
    answer_in,
    checked_status,
    executes,
    play,
)
from .turn import event
from .wire import Wire
from .written import a_reply

__all__ = [
    "Close",
    "Done",
    "End",
    "Event",
    "Finish",
    "Lost",
    "Pause",
    "Pings",
    "Raw",
    "Repeat",
    "Reset",
    "Stall",
    "Stream",
    "Trickle",
]


# ─── what a stream is made of ─────────────────────────────────────────────────────────────


class Event(Step):
    """One event with this data, whatever it says."""

    def __init__(self, data: str, *, event: str | None = None) -> None:
        self.data = data
        self.event = event

    async def play(self, wire: Wire) -> None:
        """Send it."""
        await wire.body(event(self.data, self.event))


class Finish(Step):
    """The chunk with the `finish_reason`."""

    def __init__(self, reason: str = "stop") -> None:
        self.reason = reason

    async def play(self, wire: Wire) -> None:
        """Send it."""
        await wire.body(wire.turn.chunk({}, finish_reason=self.reason))


class Done(Step):
    """The event `[DONE]`."""

    async def play(self, wire: Wire) -> None:
        """Send it."""
        await wire.body(DONE)


class End(Step):
    """The proper end of a stream: `Finish`, the usage if it was asked for, `Done`."""

    def __init__(self, reason: str = "stop", *, usage: Mapping[str, Any] | None = None) -> None:
        self.reason = reason
        self.usage = usage

    async def play(self, wire: Wire) -> None:
        """Send it."""
        await Finish(self.reason).play(wire)
        if wire.turn.chat.wants_usage:
            await wire.body(wire.turn.usage_chunk(self.usage or wire.turn.usage(0)))
        await Done().play(wire)


class Stream(Step):
    """A streamed answer, exactly as written; a stream even if none was asked for.

    Args:
        steps: A `str` is a delta of text, a mapping the JSON of an event, `bytes` a piece of
            the body, and a `Call` its deltas.
        status: The HTTP status.
        headers: Put over the usual ones.
        length: A `Content-Length`, true or not, in place of chunks.
        version: `"1.0"` for an HTTP/1.0 response, which ends with the connection.
        end: Whether to end properly after the steps; by default yes, unless one of them speaks
            of the end (`Finish`, `Done`, `End`, `Status`).
    """

    def __init__(
        self,
        *steps: ReplyLike,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        length: int | None = None,
        version: str = "1.1",
        end: bool | None = None,
    ) -> None:
        self.steps: list[ReplyLike] = [a_reply(step) for step in steps]
        if end is None:
            end = not any(isinstance(step, Finish | Done | End | Status) for step in steps)
        if end:
            called = any(isinstance(step, Call) for step in steps)
            self.steps.append(End("tool_calls" if called else "stop"))
        self.status: int = checked_status(self, status)
        self.headers: dict[str, str] = {**STREAM_HEADERS, **(headers or {})}
        self.length = length
        self.version = version

    @property
    def executes(self) -> bool:
        """A stream has begun, so a model has."""
        return True

    async def play(self, wire: Wire) -> None:
        """Send it."""
        await wire.head(self.status, self.headers, length=self.length, version=self.version)
        await play(self.steps, wire)
        await wire.end()


# ─── what may happen on the way ───────────────────────────────────────────────────────────


class Pause(Step):
    """Nothing, for some seconds."""

    def __init__(self, seconds: float) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float):
            raise TypeError(f"Pause({seconds!r}): must be a number of seconds")
        self.seconds = seconds

    @property
    def silent(self) -> bool:
        """It is."""
        return True

    async def play(self, wire: Wire) -> None:  # noqa: ARG002 - nothing is sent
        """Wait."""
        await asyncio.sleep(self.seconds)


class Stall(Step):
    """Nothing, until the client hangs up."""

    async def play(self, wire: Wire) -> None:  # noqa: ARG002 - nothing is sent
        """Wait for ever."""
        await asyncio.get_running_loop().create_future()


class Reset(Step):
    """The connection ends with a RST."""

    async def play(self, wire: Wire) -> None:
        """Do it."""
        await wire.reset()


class Close(Step):
    """The connection ends with a FIN, here and now."""

    async def play(self, wire: Wire) -> None:
        """Do it."""
        wire.close()


class Raw(Step):
    """Its bytes go out as they are, past any framing."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    async def play(self, wire: Wire) -> None:
        """Send them."""
        await wire.send(self.data)


class _Around(Step):
    """A step around another."""

    def __init__(self, what: ReplyLike) -> None:
        self.what: ReplyLike = a_reply(what)

    @property
    def answer(self) -> Answer | None:
        """The one that is in it."""
        return answer_in(self.what)

    @property
    def executes(self) -> bool:
        """Whether what is in it does."""
        return executes(self.what)


class Trickle(_Around):
    """What is in it goes out in pieces of `size` bytes, `gap` seconds apart."""

    def __init__(self, what: ReplyLike, *, gap: float = 0.004, size: int = 1) -> None:
        super().__init__(what)
        self.gap = gap
        self.size = size

    async def play(self, wire: Wire) -> None:
        """Send it slowly."""
        before, wire.trickle = wire.trickle, (self.size, self.gap)
        await play(self.what, wire)
        wire.trickle = before


class Repeat(_Around):
    """What is in it again and again, `times` times or, without, for ever."""

    def __init__(self, what: ReplyLike, times: int | None = None) -> None:
        super().__init__(what)
        self.times = times

    async def play(self, wire: Wire) -> None:
        """Play it again and again."""
        done = 0
        while self.times is None or done < self.times:
            await play(self.what, wire)
            done += 1


class Pings(Repeat):
    """The comment `: ping` for ever, `gap` seconds apart."""

    def __init__(self, gap: float = 0.05) -> None:
        super().__init__([b": ping\n\n", Pause(gap)])


class Lost(_Around):
    """The answer is executed, and a RST comes in its place: the same `Idempotency-Key` brings it
    back, and nothing is executed twice."""

    async def play(self, wire: Wire) -> None:
        """Reset the connection."""
        await wire.reset()
