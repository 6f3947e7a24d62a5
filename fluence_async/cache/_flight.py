"""One request under way, and all who want its answer: the first sends it, the others read along.

Law: nobody's leaving is another's loss. Whoever has read all that is there and wants more reads
on for everyone, so that there is no reader whose end would end the rest, and no task to leave
behind. Whose time is up is cancelled, which takes nothing; a deadline of the response's own would
close it for all. If who was to send the request gives up, another takes its place; when the last
is gone, the connection is.

Rejected: a task that reads for all. It needs an owner that outlives every caller, it reads what
nobody wants any more, and a slow reader could not slow the server down.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self

import anyio

from .._sansio.caching import Recording
from ..errors import FluenceError
from ..transports._base import BodyBroken, BodyTimeout, Response

__all__ = ["Flight", "Tape", "View"]

_MAX_BODY = 64 * 2**20


class Flight:
    """Equal calls, waiting for one answer; each holds it (`with flight:`) as long as it may want
    something of it, and each open view of the answer holds it too.

    Args:
        forget: Called when nobody may join any more; any number of times.

    Attributes:
        tape: The answer, once it has begun to come.
        error: What the request failed of, for all who asked as the leader did.
        stream: The leader asked for a stream.
        abroad: The leader waits for another process.
    """

    def __init__(self, forget: Callable[[Flight], None]) -> None:
        self.tape: Tape | None = None
        self.error: FluenceError | None = None
        self.stream = False
        self.abroad = False
        self._forget = forget
        self._holders = 0
        self._led = False
        self._moved: anyio.Event | None = None

    def forget(self) -> None:
        """Let nobody join any more; those who have go on."""
        self._forget(self)

    @property
    def lonely(self) -> bool:
        """Only one is left on board."""
        return self._holders == 1

    def go_abroad(self) -> None:
        """The leader begins to wait for another process."""
        self.abroad = True

    def take_lead(self, *, stream: bool) -> bool:
        """Whether it is for this caller to get the answer: nobody else does."""
        if self._led or self.tape is not None or self.error is not None:
            return False
        self._led, self.stream = True, stream
        return True

    def land(self, *, tape: Tape | None = None, error: FluenceError | None = None) -> None:
        """Tell the others what the leader came to; neither of the two leaves the lead to them."""
        self._led = self.abroad = False
        self.tape, self.error = tape, error
        if error is not None:
            self.forget()
        if self._moved is not None:
            self._moved.set()
            self._moved = None

    async def wait(self) -> None:
        """Until the leader has come to something, or has left."""
        if self._moved is None:
            self._moved = anyio.Event()
        await self._moved.wait()

    def __enter__(self) -> Self:
        self._holders += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._holders -= 1
        if not self._holders:
            self.forget()
            if self.tape is not None:
                self.tape.abort()

    def __repr__(self) -> str:
        state = "failed" if self.error else "answered" if self.tape else "under way"
        return f"<Flight: {state}, {self._holders} on board>"


class Tape:
    """What has come of one answer, and the way to the rest of it.

    Args:
        response: Where the rest comes from.
        streamed: It is a stream of events.
        on_end: Awaited once, when its end has been read or nobody wants it, before it is let go.

    Attributes:
        cached: It comes from the store.
        request_id: The server's name for the request that it answers.
        came_to: Who is told by each reader how many tokens it found it to cost.
        pieces: What has come.
        ended: There is no more.
        broken: Why there will be no more.
    """

    def __init__(
        self,
        response: Response | None,
        *,
        streamed: bool,
        on_end: Callable[[Tape], Awaitable[None]] | None = None,
    ) -> None:
        self.streamed = streamed
        self.cached = False
        self.request_id: str | None = None
        self.came_to: Callable[[int, bool], None] | None = None
        self.pieces: list[bytes] = []
        self.ended = False
        self.broken: BodyBroken | None = None
        self._response = response
        self._on_end = on_end
        self._size = 0
        self._reading = False
        self._moved: anyio.Event | None = None

    @classmethod
    def stored(cls, recording: Recording) -> Self:
        """The tape of an answer from the store: all of it is there."""
        tape = cls(None, streamed=recording.streamed)
        tape.cached, tape.request_id = True, recording.request_id
        tape.pieces, tape.ended = [recording.body], True
        return tape

    @property
    def body(self) -> bytes:
        """All that has come."""
        return b"".join(self.pieces)

    async def more(self) -> None:
        """Until there is more, or no more to come, or it is worth asking again."""
        if self._reading:
            if self._moved is None:
                self._moved = anyio.Event()
            await self._moved.wait()
            return
        assert self._response is not None
        self._reading = True
        try:
            data = await self._response.receive(math.inf)
            if data:
                self._take(data)
            else:
                self.ended = True
                await self._response.aclose()
        except BodyBroken as error:
            self.broken = error
        finally:
            self._reading = False
            if self._moved is not None:
                self._moved.set()
                self._moved = None

    def _take(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > _MAX_BODY:
            raise BodyBroken(f"it is larger than {_MAX_BODY} bytes, which no completion is")
        self.pieces.append(data)

    async def leave(self, *, last: bool) -> None:
        """A reader has read all that it wants; at the tape's end the first one keeps it, and
        before that the last one."""
        if self._on_end is not None and (last or self.ended or self._end_marked()):
            on_end, self._on_end = self._on_end, None
            await on_end(self)

    def _end_marked(self) -> bool:
        return self.streamed and b"[DONE]" in b"".join(self.pieces[-4:])

    def abort(self) -> None:
        """Let go of the connection without waiting."""
        if self._response is not None:
            self._response.abort()

    def __repr__(self) -> str:
        state = "ended" if self.ended else "broken" if self.broken else "running"
        return f"<Tape: {state}, {self._size} bytes>"


class View:
    """A tape from its start, as a response of one's own.

    Args:
        tape: What is read.
        flight: Whom this reader keeps going.
        headers: As the tape's response has them, where the reader has yet to judge them.
    """

    status = 200
    headers: Mapping[str, str]

    def __init__(
        self, tape: Tape, flight: Flight, *, headers: Mapping[str, str] | None = None
    ) -> None:
        kind = "text/event-stream" if tape.streamed else "application/json"
        self.headers = headers or {"content-type": kind}
        self._tape = tape
        self._flight = flight.__enter__()
        self._at = 0
        self._closed = False
        self._scope: anyio.CancelScope | None = None

    async def receive(self, deadline: float) -> bytes:
        """The next bytes, at once as far as they are there.

        Raises:
            BodyTimeout: `deadline` passed first; the others go on.
            BodyBroken: The body broke, or this was closed.
        """
        tape = self._tape
        while not self._closed:
            if self._at < len(tape.pieces):
                self._at += 1
                return tape.pieces[self._at - 1]
            if tape.ended:
                return b""
            if tape.broken is not None:
                self._flight.forget()
                raise BodyBroken(str(tape.broken), undecodable=tape.broken.undecodable)
            self._scope = scope = anyio.CancelScope(deadline=deadline)
            try:
                with scope:
                    await tape.more()
            finally:
                self._scope = None
            if scope.cancelled_caught and not self._closed:
                raise BodyTimeout("nothing came until the deadline")
        raise BodyBroken("the response is closed")

    async def aclose(self) -> None:
        """Have read all that is wanted."""
        if self._closed:
            return
        self._closed = True
        if self._scope is not None:
            self._scope.cancel()
        try:
            await self._tape.leave(last=self._flight.lonely)
        finally:
            self._flight.__exit__()

    def abort(self) -> None:
        """Want no more; from any thread."""
        if self._closed:
            return
        self._closed = True
        if self._scope is not None:
            self._scope.cancel()
        self._flight.__exit__()

    def __repr__(self) -> str:
        return f"<View of {self._tape!r}>"
