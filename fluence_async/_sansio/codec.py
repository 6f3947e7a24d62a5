"""Bytes in, the API's nouns out: a body → a completion, a stream → chunks, a status → an error.

Law: strict and fast first, lenient second, an error third. What servers really send differs
from what they document (null for a list, "0" for 0, half an emoji, two halves of which make one):
the second reading mends that, with one rule, *null means absent*, and numbers in strings are
numbers. What is still no chunk is an error and never a guess.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NoReturn, TypeVar

import msgspec

from ..errors import (
    BadChunkError,
    FluenceError,
    ResponseError,
    StreamInterruptedError,
    StreamServerError,
)
from ..types import (
    ChatCompletion,
    ChatCompletionChunk,
)
from .error_bodies import MAX_ERROR_TEXT, MAX_SNIPPET, error_of, reason, snippet, status_error
from .lenient_json import convert_answer, convert_chunk, is_bomb, is_error, loads
from .secret import ApiKey
from .sse import EventTooLarge, ServerSentEvent, SSEDecoder, lone_payload
from .surrogates import SurrogateJoiner
from .whole_answer import RawChunk, as_chunk

__all__ = ["ChunkDecoder", "decode_completion", "is_event_stream", "is_json"]

T = TypeVar("T")

_END = b"data: [DONE]\n\n"
_completion = msgspec.json.Decoder(ChatCompletion)
_chunk = msgspec.json.Decoder(ChatCompletionChunk)
_MOST_PARTS = 40_000  # of a large chunk, and of what is read leniently; of an answer, 25 times that
_LARGE = 2**18
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def is_event_stream(content_type: str) -> bool:
    """Whether a content type says server-sent events; a missing one is taken to."""
    return _media_type(content_type) in ("text/event-stream", "")


def is_json(content_type: str) -> bool:
    """Whether a content type says JSON."""
    media_type = _media_type(content_type)
    return media_type == "application/json" or media_type.endswith("+json")


@lru_cache(maxsize=64)
def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


# ─── whole bodies ─────────────────────────────────────────────────────────────────────────


def decode_completion(body: bytes, *, key: ApiKey, keep_raw: bool = False) -> ChatCompletion:
    """The completion in a response's body.

    Raises:
        APIStatusError: The body is an error object (sent with status 200).
        ResponseError: It is no completion.
    """
    if is_bomb(body, 25 * _MOST_PARTS):
        raise ResponseError("the server's answer has more parts than any completion")
    try:
        completion = _completion.decode(body)
    except _MALFORMED:
        completion = None
    if completion is None or not completion.choices or keep_raw:
        completion = _lenient_completion(body, key, keep_raw=keep_raw)
    for choice in completion.choices:
        message = choice.message  # made fit to be sent back
        message.role = message.role or "assistant"
        message.tool_calls = message.tool_calls or None
    return completion


def _lenient_completion(body: bytes, key: ApiKey, *, keep_raw: bool) -> ChatCompletion:
    try:
        raw = loads(body.decode("utf-8-sig", "replace"), _MOST_PARTS)
        if is_error(raw):
            raise status_error(error_of(raw, key), snippet(body, key, MAX_ERROR_TEXT))
        if not isinstance(raw.get("choices"), list):
            raise ValueError('it has no "choices"')
        completion = convert_answer(raw, ChatCompletion)
    except (ValueError, RecursionError) as error:
        raise ResponseError(
            f"the server's answer is no completion ({reason(error, key)}): "
            f"{snippet(body, key)!r}; is base_url that of a chat API?",
            body=snippet(body, key, MAX_ERROR_TEXT),
        ) from None
    if keep_raw:
        vars(completion)["raw"] = raw
    return completion


# ─── streams ──────────────────────────────────────────────────────────────────────────────


class ChunkDecoder:
    """Bytes of a streamed answer in, chunks out.

    After each `feed`, `done` says whether the end marker has been read and `error` what, if
    anything, follows the chunks returned. After either, nothing more comes out.

    Args:
        key: Scrubbed from every error's text.
        keep_raw: Keep each chunk's JSON in `.raw`.
        max_event: The largest event, in bytes.
    """

    def __init__(self, *, key: ApiKey, keep_raw: bool = False, max_event: int = 16 * 2**20) -> None:
        self._sse = SSEDecoder(max_event=max_event)
        self._key = key
        self._keep_raw = keep_raw
        self._surrogates = SurrogateJoiner()
        self._largest = min(_LARGE, max_event)
        self._plain = False  # a whole event may come next, and would change nothing here
        self.done = False
        self.error: FluenceError | None = None

    def feed(self, data: bytes) -> list[ChatCompletionChunk]:
        """The chunks that `data` completes, in order."""
        if (
            self._plain
            and len(data) < self._largest
            and (payload := lone_payload(data)) is not None
        ):
            try:
                return [_chunk.decode(payload)]
            except _MALFORMED:
                pass
        # The last bytes of nearly every stream: a run of chunks, which is read as one batch once
        # the end marker behind it is cut off.
        run = data.removesuffix(_END)
        chunks = self._feed(run) if run else []
        if len(run) < len(data):
            chunks += self._feed(_END)
        self._plain = (
            not self._keep_raw
            and not self._surrogates.pending
            and not self.done
            and self.error is None
            and self._sse.between_events
        )
        return chunks

    def _feed(self, data: bytes) -> list[ChatCompletionChunk]:
        if self.done or self.error is not None:
            return []
        try:
            if not self._keep_raw and not self._surrogates.pending:
                lines = self._sse.feed_lines(data)
                if lines is not None:
                    return self._decode_lines(*lines)
            return self._decode_events(self._sse.feed(data))
        except EventTooLarge as error:
            self.error = BadChunkError(f"an event is larger than {error.limit} bytes: no chunk is")
            return []

    def end(self) -> bool:
        """The bytes have ended: whether between events, and not in the middle of one. An end
        marker that lacks nothing but its blank line has been seen."""
        if not self._sse.mid_event:
            return True
        return not self._feed(b"\n\n") and self.done

    def whole(self, body: bytes) -> list[ChatCompletionChunk]:
        """The chunks that a JSON body (in place of the stream that was asked for) amounts to."""
        if not body.strip():
            self.error = StreamInterruptedError("the stream was empty")
            return []
        try:
            completion = decode_completion(body, key=self._key, keep_raw=self._keep_raw)
        except FluenceError as error:
            self.error = error
            return []
        self.done = True
        return [as_chunk(completion)]

    def _decode_lines(self, lines: bytes, count: int) -> list[ChatCompletionChunk]:
        try:
            chunks = _chunk.decode_lines(lines) if len(lines) < _LARGE else []
        except _MALFORMED:
            chunks = []
        if len(chunks) == count:
            return chunks
        return self._decode_each(line.decode("utf-8", "replace") for line in lines.split(b"\n"))

    def _decode_events(self, events: list[ServerSentEvent]) -> list[ChatCompletionChunk]:
        return self._decode_each(
            event.data if event.event != "error" else event for event in events
        )

    def _decode_each(self, texts: Iterable[str | ServerSentEvent]) -> list[ChatCompletionChunk]:
        chunks: list[ChatCompletionChunk] = []
        for text in texts:
            try:
                if isinstance(text, ServerSentEvent):
                    self._raise_error_event(text.data)
                stripped = text.strip()
                if stripped == "[DONE]":
                    self.done = True
                    break
                if stripped:
                    chunks.append(self._decode_one(text))
            except FluenceError as error:
                self.error = error
                break
        return chunks

    def _decode_one(self, text: str) -> ChatCompletionChunk:
        bomb = len(text) >= _LARGE and is_bomb(text, _MOST_PARTS)
        if not bomb and not self._keep_raw and not self._surrogates.pending:
            try:
                return _chunk.decode(text)
            except _MALFORMED:
                pass
        try:
            raw = loads(text, _MOST_PARTS)
            if is_error(raw):
                self._raise_error(raw)
            kind = RawChunk if self._keep_raw else ChatCompletionChunk
            chunk = convert_chunk(raw, kind)
        except (ValueError, RecursionError) as error:
            raise BadChunkError(
                f"an event of the stream is no chunk ({reason(error, self._key)}): "
                f"{self._key.scrub(text[: 64 * 1024])[:MAX_SNIPPET]!r}"
            ) from None
        self._surrogates.join(chunk)
        if self._keep_raw:
            vars(chunk)["raw"] = raw
        return chunk

    def _raise_error_event(self, data: str) -> NoReturn:
        try:
            raw = loads(data, _MOST_PARTS)
        except (ValueError, RecursionError):
            raw = {"message": data}
        self._raise_error(raw)

    def _raise_error(self, raw: dict[str, Any]) -> NoReturn:
        error = error_of(raw, self._key)
        code = f" ({error.code})" if error.code else ""
        message = error.message or "no further word"
        raise StreamServerError(
            f"the server ended the stream with an error{code}: {message}",
            status_code=error.status,
            code=error.code,
            param=error.param,
        )

    def __repr__(self) -> str:
        state = "done" if self.done else "failed" if self.error else "reading"
        return f"<ChunkDecoder {state}>"
