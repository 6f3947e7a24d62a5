"""aiohttp's response in, one that keeps the seam's promises out.

Traps of aiohttp 3.14 that are closed here: a body that is malformed (C parser), or whose
connection we close, never wakes its reader; what had arrived hides behind the error; a reset ends
a body without a length as if it were whole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress

import aiohttp
from aiohttp.http import HttpProcessingError

from ._aiohttp_connections import Line
from ._base import BodyBroken, BodyTimeout, TransportError
from ._failures import authority, brief
from ._watchdog import Watchdog

__all__ = ["AiohttpResponse"]

_ERRORS = (TransportError, aiohttp.ClientError, HttpProcessingError, RuntimeError)
"""What a read raises: what we set, what aiohttp sets, and (RuntimeError) that it has nothing to
read from any more."""


# The states of a body. No Enum: its members cost a read more than the read's own questions.
_OPEN, _READING, _ENDED, _CLOSED = range(4)


class AiohttpResponse:
    """The head of an answer, and its body to be pulled."""

    def __init__(
        self,
        url: str,
        answer: aiohttp.ClientResponse,
        headers: Mapping[str, str],
        line: Line,
        watchdog: Watchdog,
    ) -> None:
        self.status = answer.status
        self.headers = headers
        self._url = url
        self._answer = answer
        self._content = answer.content
        self._line = line
        self._state = _OPEN
        self._watchdog = watchdog
        self.deadline = math.inf
        watchdog.watch(self)
        if answer.connection is not None:  # else all of the body is here
            line.reader = self

    async def receive(self, deadline: float) -> bytes:
        """The next bytes of the body; see `Response.receive`."""
        if self._state is not _OPEN:
            return self._not_open()
        self.deadline = deadline
        if deadline < self._watchdog.wakes_at:
            self._watchdog.wake_at(deadline)
        self._state = _READING
        try:
            data = await self._content.readany()
        except _ERRORS as error:
            data = self._left_over(error)
        finally:
            self.deadline = math.inf
            if self._state is _READING:
                self._state = _OPEN
        if not data:
            self._end()
        return data

    def _not_open(self) -> bytes:
        if self._state is _ENDED:
            return b""
        if self._state is _READING:
            raise RuntimeError("another task is receiving from this response")
        raise BodyBroken(f"the body from {authority(self._url)} was closed")

    def _left_over(self, error: Exception) -> bytes:
        """What had arrived before the body broke; once there is nothing left, the error."""
        failure = error if isinstance(error, TransportError) else self._broken(error)
        if self._state is _READING:  # and was not closed meanwhile
            self._content.set_exception(None)  # type: ignore[arg-type]
            data = self._content.read_nowait()
            self._content.set_exception(failure)
            if data:
                return data
            self._close()
        raise failure

    def _end(self) -> None:
        # A body without a length ends with its connection, and is whole only if that ends well.
        lost_by = self._line.error
        if lost_by is not None and not {"content-length", "transfer-encoding"} & set(self.headers):
            self._close()
            raise self._broken(lost_by)
        self._state = _ENDED
        self._let_go()

    def _broken(self, error: BaseException) -> BodyBroken:
        failure = BodyBroken(f"the body from {authority(self._url)} broke off: {brief(error)}")
        failure.__cause__ = error if isinstance(error, OSError) else None  # a parser quotes bytes
        return failure

    def cut_off(self) -> None:
        """The connection is gone: nobody else may wake the reader."""
        if not self._content.is_eof() and self._content.exception() is None:
            self._content.set_exception(
                BodyBroken(f"the body from {authority(self._url)} broke off, or is malformed")
            )

    def expire(self) -> None:
        """The deadline of the read has passed; see `Watched`."""
        self._content.set_exception(
            BodyTimeout(f"{authority(self._url)} sent nothing until the deadline")
        )

    def end(self) -> None:
        """The transport is closed, and its connections with it; see `Watched`. What nobody holds
        any more would be collected in any order, and aiohttp warns of its part of it."""
        self._close()

    # ─── closing ──────────────────────────────────────────────────────────────────────────

    def _let_go(self) -> None:
        self._watchdog.forget(self)
        if self._line.reader is self:
            self._line.reader = None

    async def aclose(self) -> None:
        """Let go of the connection; see `Response.aclose`."""
        self._close()

    def _close(self) -> None:
        if self._state is not _ENDED:
            self._state = _CLOSED
        self._let_go()
        if self._answer.connection is not None:  # else it went back to the pool, or is closed
            self._line.transport.abort()
        self._answer.close()

    def abort(self) -> None:
        """Close the connection without waiting; see `Response.abort`."""
        try:
            self._watchdog.loop.call_soon_threadsafe(self._close)
        except RuntimeError:  # the loop is closed
            if (connection := self._answer.connection) is not None:
                with suppress(Exception):
                    self._line.transport.abort()
                with suppress(Exception):
                    connection.close()
