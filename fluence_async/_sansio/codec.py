"""Bytes in, the API's nouns out: a body → a completion, a stream's bytes → chunks, a status → an error.

Law: strict and fast first, lenient second, an error third. What servers really send differs
from what they document (null for a list, "0" for 0, half an emoji, two halves of which make one):
the second reading mends that, with one rule, *null means absent*, and numbers in strings are
numbers. What is still no chunk is an error and never a guess.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn, TypeVar

import msgspec

from ..errors import APIStatusError, BadChunkError, FluenceError, ResponseError, StreamServerError
from ..types import ChatCompletion, ChatCompletionChunk, ChunkChoice, Delta, ToolCallDelta
from .secret import ApiKey
from .sse import EventTooLarge, ServerSentEvent, SSEDecoder
from .surrogates import SurrogateJoiner, whole_text

__all__ = ["ChunkDecoder", "decode_completion", "decode_status", "is_event_stream", "is_json"]

T = TypeVar("T")

MAX_SNIPPET = 200
MAX_ERROR_TEXT = 2048

_completion = msgspec.json.Decoder(ChatCompletion)
_chunk = msgspec.json.Decoder(ChatCompletionChunk)
_MALFORMED = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_STATUS_OF_CODE = {
    "invalid_request": 400,
    "invalid_request_error": 400,
    "authentication_error": 401,
    "rate_limit_exceeded": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "overloaded_error": 529,
}


class _RawChunk(ChatCompletionChunk, dict=True, gc=True):
    """A chunk that can hold the text it was read from (`keep_raw=True`)."""


_RawChunk.__name__ = _RawChunk.__qualname__ = ChatCompletionChunk.__name__


def is_event_stream(content_type: str) -> bool:
    """Whether a content type says server-sent events; a missing one is taken to."""
    return _media_type(content_type) in ("text/event-stream", "")


def is_json(content_type: str) -> bool:
    """Whether a content type says JSON."""
    media_type = _media_type(content_type)
    return media_type == "application/json" or media_type.endswith("+json")


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


# ─── whole bodies ─────────────────────────────────────────────────────────────────────────


def decode_completion(body: bytes, *, key: ApiKey, keep_raw: bool = False) -> ChatCompletion:
    """The completion in a response's body.

    Raises:
        APIStatusError: The body is an error object (sent with status 200).
        ResponseError: It is no completion.
    """
    try:
        completion = _completion.decode(body)
    except _MALFORMED:
        completion = None
    if completion is None or not completion.choices:
        completion = _lenient_completion(body, key)
    if keep_raw:
        completion.__dict__["raw"] = _loads(body.decode("utf-8", "replace"))
    return completion


def _lenient_completion(body: bytes, key: ApiKey) -> ChatCompletion:
    try:
        raw = _loads(body.decode("utf-8", "replace"))
        if raw.get("error"):
            error = _error_of(raw)
            raise _status_error(error, _snippet(body, key, MAX_ERROR_TEXT), key=key)
        if not isinstance(raw.get("choices"), list):
            raise ValueError('it has no "choices"')
        return _convert(_with_whole_text(raw), ChatCompletion)
    except (ValueError, RecursionError) as error:
        raise ResponseError(
            f"the server's answer is no completion ({_reason(error, key)}): "
            f"{_snippet(body, key)!r}; is base_url that of a chat API?",
            body=_snippet(body, key, MAX_ERROR_TEXT),
        ) from None


# ─── errors ───────────────────────────────────────────────────────────────────────────────


class _ApiError(msgspec.Struct):
    """What an error object says, wherever servers put it."""

    message: str = ""
    code: str | None = None
    param: str | None = None
    status: int | None = None
    retry_after: float | None = None


def decode_status(
    status: int, body: bytes, *, key: ApiKey, retry_after: float | None = None
) -> APIStatusError:
    """The error that a response's status and (start of the) body amount to."""
    try:
        error = _error_of(_loads(body.decode("utf-8", "replace")))
    except (ValueError, RecursionError):
        error = _ApiError()
    error.status = status
    error.retry_after = retry_after
    return _status_error(error, _snippet(body, key, MAX_ERROR_TEXT), key=key)


def _status_error(error: _ApiError, body: str, *, key: ApiKey) -> APIStatusError:
    status = error.status or _STATUS_OF_CODE.get(error.code or "", 500)
    cause = key.scrub(error.message)[:MAX_ERROR_TEXT] or body[:MAX_SNIPPET] or "no further word"
    code = f" {error.code}" if error.code else ""
    return APIStatusError.for_status(status, error.code)(
        f"{status}{code}: {cause}",
        status_code=status,
        code=error.code,
        param=error.param,
        body=body,
        retry_after=error.retry_after,
    )


def _error_of(raw: dict[str, Any]) -> _ApiError:
    """Reads `{"error": {...}}`, `{"error": "text"}`, `{"message": ...}` and `{"detail": ...}`."""
    error = raw.get("error") or raw
    if isinstance(error, str):
        return _ApiError(message=error)
    if not isinstance(error, dict):
        return _ApiError(message=str(error))
    message = error.get("message") or error.get("detail") or ""
    code, status = error.get("code"), error.get("status") or error.get("status_code")
    if isinstance(code, int):
        code, status = None, code
    code = code or error.get("type")
    if not isinstance(status, int) or not 400 <= status <= 599:
        status = _STATUS_OF_CODE.get(str(code))
    param = error.get("param")
    return _ApiError(
        message=message if isinstance(message, str) else json.dumps(message),
        code=str(code) if code is not None else None,
        param=param if isinstance(param, str) else None,
        status=status,
    )


def _snippet(body: bytes, key: ApiKey, size: int = MAX_SNIPPET) -> str:
    # Scrubbed before it is cut: half a key at the cut would not be found.
    return key.scrub(body[: 64 * 1024].decode("utf-8", "replace"))[:size]


def _reason(error: BaseException, key: ApiKey) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else key.scrub(str(error))[:200]


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
        self.done = False
        self.error: FluenceError | None = None

    @property
    def mid_event(self) -> bool:
        """An event is unfinished: an end of the bytes now would cut it."""
        return self._sse.mid_event

    def feed(self, data: bytes) -> list[ChatCompletionChunk]:
        """The chunks that `data` completes, in order."""
        if self.done or self.error is not None:
            return []
        try:
            if not self._keep_raw and not self._surrogates.pending:
                lines = self._sse.feed_lines(data)
                if lines is not None:
                    return self._decode_lines(*lines)
            return self._decode_events(self._sse.feed(data))
        except EventTooLarge as error:
            self.error = BadChunkError(str(error))
            return []

    def whole(self, body: bytes) -> list[ChatCompletionChunk]:
        """The chunks that a JSON body (in place of the stream that was asked for) amounts to."""
        try:
            completion = decode_completion(body, key=self._key, keep_raw=self._keep_raw)
        except FluenceError as error:
            self.error = error
            return []
        self.done = True
        return [_as_chunk(completion)]

    def _decode_lines(self, lines: bytes, count: int) -> list[ChatCompletionChunk]:
        try:
            chunks = _chunk.decode_lines(lines)
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
        if not self._keep_raw and not self._surrogates.pending:
            try:
                return _chunk.decode(text)
            except _MALFORMED:
                pass
        try:
            raw = _loads(text)
            if raw.get("error"):
                self._raise_error(raw)
            chunk = _convert(raw, _RawChunk if self._keep_raw else ChatCompletionChunk)
        except (ValueError, RecursionError) as error:
            raise BadChunkError(
                f"an event of the stream is no chunk ({_reason(error, self._key)}): "
                f"{self._key.scrub(text[: 64 * 1024])[:MAX_SNIPPET]!r}"
            ) from None
        self._surrogates.join(chunk)
        if self._keep_raw:
            chunk.__dict__["raw"] = raw
        return chunk

    def _raise_error_event(self, data: str) -> NoReturn:
        try:
            raw = _loads(data)
        except (ValueError, RecursionError):
            raw = {"message": data}
        self._raise_error(raw)

    def _raise_error(self, raw: dict[str, Any]) -> NoReturn:
        error = _error_of(raw)
        message = self._key.scrub(error.message)[:MAX_ERROR_TEXT] or "no further word"
        code = f" ({error.code})" if error.code else ""
        raise StreamServerError(
            f"the server ended the stream with an error{code}: {message}",
            status_code=error.status or 500,
            code=error.code,
            param=error.param,
        )

    def __repr__(self) -> str:
        state = "done" if self.done else "failed" if self.error else "reading"
        return f"<ChunkDecoder {state}>"


def _loads(text: str) -> dict[str, Any]:
    value = json.loads(text, parse_constant=_no_constant)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object was expected, not {type(value).__name__}")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _convert(raw: Mapping[str, Any], kind: type[T]) -> T:
    try:
        fields = {name: value for name, value in raw.items() if name != "error"}
        return msgspec.convert(_without_nulls(fields), kind, strict=False)
    except OverflowError as error:
        raise ValueError(str(error)) from None


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value


def _with_whole_text(value: Any) -> Any:
    if isinstance(value, str):
        return value if value.isascii() else whole_text(value)
    if isinstance(value, dict):
        return {name: _with_whole_text(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_whole_text(item) for item in value]
    return value


def _as_chunk(completion: ChatCompletion) -> ChatCompletionChunk:
    def delta(choice: Any) -> Delta:
        message = choice.message
        return Delta(
            content=message.text or None,
            role=message.role or None,
            refusal=message.refusal,
            reasoning_content=message.reasoning_content,
            tool_calls=[
                msgspec.convert({"index": index, **msgspec.to_builtins(call)}, ToolCallDelta)
                for index, call in enumerate(message.tool_calls or ())
            ]
            or None,
        )

    return ChatCompletionChunk(
        id=completion.id,
        created=completion.created,
        model=completion.model,
        choices=[
            ChunkChoice(
                index=choice.index,
                delta=delta(choice),
                finish_reason=choice.finish_reason,
                logprobs=choice.logprobs,
            )
            for choice in completion.choices
        ],
        usage=completion.usage,
        system_fingerprint=completion.system_fingerprint,
        service_tier=completion.service_tier,
    )
