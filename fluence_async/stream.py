"""The reply, chunk by chunk: an open response goes in, chunks come out, then an honest end.

Law: a stream that ends without an error is complete. It is complete when its end marker has
been read, or when every choice that was asked for has a finish reason and the body ended
cleanly between events; everything else raises, with what had arrived in `partial`.

This class is the sole owner of the body. Its clocks are a stamp for each read, handed to the
transport as one deadline (a cancel scope around each read would cost four times the chunk).
Bytes are liveness (`idle`), events are progress: a stream of pings is alive and makes none.
While nobody reads, no clock but `total` runs.

Rejected: an async generator, which can be left suspended with the connection in its hands.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import NoReturn, Self

import anyio

from ._call import Call, read_body
from ._sansio.codec import ChunkDecoder, is_event_stream, is_json
from ._sansio.fold import Fold
from ._sansio.secret import ApiKey
from .errors import (
    BadChunkError,
    Clock,
    FluenceError,
    ResponseError,
    StreamError,
    StreamInterruptedError,
    StreamTimeoutError,
)
from .meta import Meta
from .transports._base import BodyBroken, BodyTimeout, Response, TransportError
from .types import ChatCompletion, ChatCompletionChunk, Usage

__all__ = ["ChatStream", "TextStream"]

_DRAIN_BYTES = 64 * 1024
_DRAIN_S = 0.1
_MAX_STREAM = 256 * 2**20

OnDone = Callable[["ChatStream", FluenceError | type[BaseException] | None], None]
"""Told what ended a stream: an error, the class of what cancelled its reader, or neither."""


class ChatStream:
    """A streamed answer: an async iterator of chunks, and an async context manager.

    Made by `chat.completions.stream(...)` or `create(..., stream=True)`. Iterating raises a
    `StreamError` with the partial answer if the stream does not come to its end. Bytes that are no
    UTF-8 are read as U+FFFD, as server-sent events define it, and are no error.

    Example:
        ```python
        async with fluence.chat.completions.stream(model="fluence-chat", messages="Hi") as stream:
            async for chunk in stream:
                print(chunk.text, end="")
        print(stream.completion.finish_reason, stream.usage)
        ```
    """

    def __init__(
        self,
        response: Response,
        call: Call,
        *,
        key: ApiKey,
        clock: Callable[[], float],
    ) -> None:
        self._response = response
        self._call = call
        self._clock = clock
        self._on_done: OnDone = _ignore
        self._key = key
        self._decoder = ChunkDecoder(key=key, keep_raw=call.keep_raw)
        self._fold = Fold(call.choices)
        self._ready: deque[ChatCompletionChunk] = deque()
        self._idle_s = math.inf if call.timeout.idle is None else call.timeout.idle
        self._progress_s = math.inf if call.timeout.progress is None else call.timeout.progress
        self._patience_s = min(self._idle_s, self._progress_s)
        self._total_at = call.total_at
        self._error: FluenceError | None = None
        self._ended = False
        self._closed = False
        self._reading = False
        self._cancelled_by: type[BaseException] | None = None
        self._received = 0

    # ─── what is known of it ──────────────────────────────────────────────────────────────

    @property
    def meta(self) -> Meta:
        """Request id, attempts, times."""
        return self._call.meta

    @property
    def call_id(self) -> str:
        """What hooks know the call by."""
        return self._call.call_id

    @property
    def usage(self) -> Usage | None:
        """The tokens that the call cost, once the server has said so."""
        return self._fold.usage

    @property
    def partial(self) -> ChatCompletion:
        """Everything that has arrived so far, folded."""
        return self._with_meta(self._fold.completion())

    @property
    def complete(self) -> bool:
        """The stream has come to its end, and nothing is missing."""
        return self._ended and self._error is None

    @property
    def done_seen(self) -> bool:
        """The end marker `[DONE]` has been read; a complete stream may lack it."""
        return self._decoder.done

    @property
    def completion(self) -> ChatCompletion:
        """The whole answer.

        Raises:
            RuntimeError: The stream has not come to its end; `partial` has what there is.
        """
        if not self.complete:
            raise RuntimeError(
                "the stream has not come to its end, so there is no completion yet: read it with "
                "'async for', or take stream.partial"
            )
        return self._with_meta(self._fold.completion())

    def _with_meta(self, completion: ChatCompletion) -> ChatCompletion:
        vars(completion)["meta"] = self._call.meta
        return completion

    # ─── reading ──────────────────────────────────────────────────────────────────────────

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ChatCompletionChunk:
        """The next chunk.

        Cancelled at its only await, it has taken nothing that a later read would miss.

        Raises:
            StreamError: The stream broke; `partial` has what had arrived.
        """
        # One coroutine from here to the response: a live stream comes by once for each chunk.
        ready = self._ready
        if ready:
            return ready.popleft()
        if self._reading:
            raise RuntimeError("two tasks read one stream at once: give each a stream of its own")
        self._reading = True
        try:
            now = self._clock()
            progress_at = now + self._progress_s
            until = min(now + self._patience_s, self._total_at)
            while not self._ended:
                if self._closed or self._decoder.error is not None:
                    self._check()
                if self._decoder.done:
                    await self._finish()
                    break
                try:
                    data = await self._response.receive(until)
                except BodyTimeout:
                    self._time_out(until, progress_at)
                except BodyBroken as error:
                    self._break_off(error)
                    continue
                except BaseException as error:
                    self._note_cancelled(type(error))
                    raise
                self._cancelled_by = None
                if not data:
                    await self._end_of_body()
                    break
                self._accept(self._decoder.feed(data), len(data))
                if ready:
                    return ready.popleft()
                until = min(self._clock() + self._idle_s, progress_at, self._total_at)
        finally:
            self._reading = False
        if ready:  # it was in the drain, or the whole of an answer that is no stream
            return ready.popleft()
        raise StopAsyncIteration

    def take_ready(self) -> list[ChatCompletionChunk]:
        """The chunks that have come already, without waiting for more; perhaps none."""
        ready = [*self._ready]
        self._ready.clear()
        return ready

    @property
    def text_stream(self) -> TextStream:
        """The pieces of the first choice's text, without the empty ones."""
        return TextStream(self)

    async def get_final_completion(self) -> ChatCompletion:
        """Read to the end; the whole answer.

        Raises:
            StreamError: The stream broke.
        """
        async for _ in self:
            pass
        return self.completion

    async def get_final_text(self) -> str:
        """Read to the end; the first choice's whole text.

        Raises:
            StreamError: The stream broke.
        """
        return (await self.get_final_completion()).text

    async def begin(self, on_done: OnDone) -> Self:
        """Read until the first chunk is ready, or the end: until then, the attempt may still
        fail and be tried again. From then on `on_done` is told, once, how it ended."""
        try:
            content_type = self._response.headers.get("content-type", "")
            if is_event_stream(content_type):
                with suppress(StopAsyncIteration):
                    self._ready.appendleft(await anext(self))
            else:
                await self._take_whole(content_type)
        except BaseException:
            self._closed = True
            raise
        self._on_done = on_done
        if self._ended:
            self._tell_done(None)
        return self

    async def _take_whole(self, content_type: str) -> None:
        """A server that does not stream answers with one JSON body: one chunk."""
        if not is_json(content_type):
            kind = self._key.scrub(content_type)[:100]
            raise ResponseError(
                f"the server answered with {kind!r} where a stream of events "
                "belongs; is base_url that of a chat API, or is a login page in between?",
                status_code=self._response.status,
            )
        body = await read_body(self._call, self._response, self._clock)
        self._accept(self._decoder.whole(body))
        if self._decoder.error is not None:
            raise self._decoder.error

    def _check(self) -> None:
        """Raise what there is to raise, once everything before it has been read."""
        if self._closed and self._error is None:
            self._error = self._told(
                StreamInterruptedError("the stream was closed before its end was read")
            )
        if self._error is not None:
            raise self._error
        if self._decoder.error is not None:
            self._fail(self._decoder.error)

    def _accept(self, chunks: list[ChatCompletionChunk], size: int = 0) -> None:
        """Take in what so many bytes of the stream amounted to."""
        if chunks:
            self._fold.extend(chunks)
            self._ready.extend(chunks)
            meta = self._call.meta
            if meta.first_token_s is None and self._fold.started:
                meta.first_token_s = self._clock() - self._call.started
        self._received += size
        if self._received > _MAX_STREAM:
            self._fail(BadChunkError(f"the stream has over {_MAX_STREAM} bytes: none has"))

    # ─── ending ───────────────────────────────────────────────────────────────────────────

    async def _end_of_body(self) -> None:
        if not self._decoder.end():
            self._fail(StreamInterruptedError("the stream ended in the middle of an event"))
        if not self._fold.chunks and not self._decoder.done:
            self._fail(StreamInterruptedError("the stream was empty"))
        if not self._fold.finished and not self._decoder.done:
            self._fail(
                StreamInterruptedError(
                    "the stream ended before its end was seen: no finish reason and no [DONE]"
                )
            )
        await self._finish()

    async def _finish(self) -> None:
        self._ended = True
        self._tell_done(None)
        await self.aclose()

    def _time_out(self, until: float, progress_at: float) -> NoReturn:
        clock: Clock
        if until == self._call.total_at:
            clock, what = "total", "the answer was not whole"
        elif until == progress_at and self._progress_s != self._idle_s:
            clock, what = "progress", "the server sent no event, only pings"
        else:
            clock, what = "idle", "the server sent nothing"
        seconds = getattr(self._call.timeout, clock)
        self._fail(
            StreamTimeoutError(
                f"{what} for {seconds:g} s; allow more with timeout=Timeout({clock}=...)",
                clock=clock,
            )
        )

    def _break_off(self, error: BodyBroken) -> None:
        if self._closed:
            return
        if error.undecodable:
            self._fail(ResponseError(str(error), status_code=self._response.status), cause=error)
        self._fail(StreamInterruptedError(f"the stream was cut: {error}"), cause=error)

    def _note_cancelled(self, kind: type[BaseException] | None) -> None:
        """Should nobody read on, the call was cancelled, and not left."""
        if kind is not None and issubclass(kind, anyio.get_cancelled_exc_class()):
            self._cancelled_by = kind

    def _fail(self, error: FluenceError, *, cause: TransportError | None = None) -> NoReturn:
        """Raise `error`, now and at every later read, with what had arrived."""
        self._error = self._told(error)
        self._closed = True
        self._response.abort()
        self._tell_done(error)
        raise error from cause

    def _told(self, error: FluenceError) -> FluenceError:
        error.meta = self._call.meta
        if isinstance(error, StreamError):
            error.partial = self.partial if self._fold.chunks else None
        return error

    def _tell_done(self, error: FluenceError | type[BaseException] | None) -> None:
        """Tell how it ended, to who waits to hear it, once."""
        on_done, self._on_done = self._on_done, _ignore
        meta = self._call.meta
        meta.total_s = self._clock() - self._call.started
        tokens = self._fold.usage.completion_tokens if self._fold.usage is not None else 0
        first = meta.first_token_s
        # A count that no float holds is no count.
        if first is not None and meta.total_s > first and 0 < tokens < 2**53:
            meta.tokens_per_s = (tokens - 1) / (meta.total_s - first)
        on_done(self, error)

    # ─── closing ──────────────────────────────────────────────────────────────────────────

    async def aclose(self) -> None:
        """Let go of the connection, from any task, at any time; idempotent.

        After the end marker it reads on to the end of the body, at most 64 KiB and 100 ms, so
        that the connection can be used again; otherwise it closes the connection.
        """
        if self._closed:
            return
        self._closed = True
        try:
            with anyio.CancelScope(shield=True):
                if self._ended or self._decoder.done or self._fold.finished:
                    await self._drain()
                    self._ended = self._ended or self._decoder.done
                await self._response.aclose()
        except BaseException:  # a task's own `cancel` passes the shield
            self._response.abort()
            raise
        finally:
            self._tell_done(None if self._ended else self._cancelled_by)

    async def _drain(self) -> None:
        """Read on to the end of the body, within bounds; the usage may still be on its way."""
        until = self._clock() + _DRAIN_S
        size = 0
        try:
            while size < _DRAIN_BYTES and (data := await self._response.receive(until)):
                size += len(data)
                self._accept(self._decoder.feed(data))
        except TransportError:
            pass  # what was asked for has come; only the connection is lost

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._note_cancelled(kind)
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_closed", True):
            return
        self._response.abort()
        self._on_done(self, self._cancelled_by)
        warnings.warn(
            f"{self!r} was dropped unclosed; use 'async with', or await stream.aclose()",
            ResourceWarning,
            stacklevel=1,
            source=self,
        )

    def __repr__(self) -> str:
        if self._error is not None:
            state = type(self._error).__name__
        else:
            state = "complete" if self._ended else "closed" if self._closed else "open"
        return f"<ChatStream of {self._call.model!r}: {state}, {self._fold.chunks} chunks>"


def _ignore(stream: ChatStream, error: FluenceError | type[BaseException] | None) -> None:
    """Who was told once is not told again."""


class TextStream:
    """The pieces of a stream's text: `async for text in stream.text_stream`."""

    def __init__(self, stream: ChatStream) -> None:
        self._stream = stream

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """The next piece of text, never empty.

        Raises:
            StreamError: The stream broke.
        """
        while True:
            chunk = await self._stream.__anext__()
            if chunk.text:
                return chunk.text

    def __repr__(self) -> str:
        return f"<TextStream of {self._stream!r}>"
