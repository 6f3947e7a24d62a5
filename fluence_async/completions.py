"""`chat.completions`: what a caller asks goes down once, and its answer comes up once.

```
create / stream → encode → Call → exchange.run → begin: a whole completion | a ChatStream
```
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Unpack, overload

from ._cached import answered
from ._call import Call, read_body
from ._exchange import Exchange
from ._sansio.codec import decode_completion, is_event_stream, is_json
from .errors import APIConnectionError, ResponseError
from .options import ChatParams
from .stream import ChatStream
from .transports._base import Response
from .types import ChatCompletion

if TYPE_CHECKING:
    from .session import FluenceSession

__all__ = ["Chat", "ChatStreamContext", "Completions"]


class Chat:
    """What can be done with a chat model: `completions`."""

    def __init__(self, session: FluenceSession) -> None:
        self.completions: Completions = Completions(session)

    def __repr__(self) -> str:
        return "<Chat: completions>"


class Completions:
    """`POST /v1/chat/completions`, whole or as a stream."""

    def __init__(self, session: FluenceSession) -> None:
        self._session = session

    @overload
    async def create(
        self, *, stream: Literal[False] = False, **params: Unpack[ChatParams]
    ) -> ChatCompletion: ...

    @overload
    async def create(
        self, *, stream: Literal[True], **params: Unpack[ChatParams]
    ) -> ChatStream: ...

    @overload
    async def create(
        self, *, stream: bool, **params: Unpack[ChatParams]
    ) -> ChatCompletion | ChatStream: ...

    async def create(
        self, *, stream: bool = False, **params: Unpack[ChatParams]
    ) -> ChatCompletion | ChatStream:
        """Ask for an answer.

        Args:
            stream: Return a `ChatStream` once the first chunk is there, not the whole answer.
            **params: The request and the call's options, as of `ChatParams`: at least `model`
                and `messages` (a str, or a list of messages).

        Returns:
            The answer: a `ChatCompletion`, or a `ChatStream` that must be read or closed.

        Raises:
            ValueError, TypeError: A parameter that the API would refuse; nothing was sent.
            APIStatusError: The API said no (400, 401, 429, 500, …).
            APIConnectionError: No whole answer arrived, after all retries.
            StreamError: A stream broke before its first chunk, after all retries.
            ResponseError: What arrived is no answer.
            LimitWaitError: The limiter's wait would pass the deadline.

        Example:
            ```python
            answer = await fluence.chat.completions.create(
                model="fluence-chat", messages="Hello, how are you?", temperature=0.7
            )
            print(answer.text)
            ```
        """
        if stream:
            return await self._open_stream(params)
        exchange, call = self._session._prepare(params, stream=False)  # noqa: SLF001
        run = answered if call.cached is not None else Exchange.run
        return await run(exchange, call, _Begin(exchange).whole)

    async def _open_stream(self, params: ChatParams) -> ChatStream:
        exchange, call = self._session._prepare(params, stream=True)  # noqa: SLF001
        run = answered if call.cached is not None else Exchange.run
        return await run(exchange, call, _Begin(exchange).stream)

    def stream(self, **params: Unpack[ChatParams]) -> ChatStreamContext:
        """Ask for a stream, as a context manager: `async with ….stream(...) as stream:`.

        Takes what `create` takes and raises what it raises, on entry; the stream is closed on
        the way out, however that is.

        Example:
            ```python
            async with fluence.chat.completions.stream(
                model="fluence-chat", messages="Hi"
            ) as stream:
                async for chunk in stream:
                    print(chunk.text, end="")
            ```
        """
        return ChatStreamContext(lambda: self._open_stream(params))

    def __repr__(self) -> str:
        return "<Completions: create, stream>"


class ChatStreamContext:
    """A stream that opens on entry and is closed on exit; `await` opens it as well."""

    def __init__(self, open_stream: Callable[[], Coroutine[Any, Any, ChatStream]]) -> None:
        self._open = open_stream
        self._stream: ChatStream | None = None

    def __await__(self) -> Generator[Any, Any, ChatStream]:
        return self._open().__await__()

    async def __aenter__(self) -> ChatStream:
        if self._stream is not None:
            raise RuntimeError("this stream was entered before: call .stream(...) again")
        self._stream = await self._open()
        return self._stream

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            await self._stream.aclose()

    def __repr__(self) -> str:
        return f"<ChatStreamContext: {self._stream or 'not entered'}>"


class _Begin:
    """How a good response is taken over, and who is told of the end."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def whole(self, call: Call, response: Response) -> ChatCompletion:
        exchange = self._exchange
        body = await read_body(call, response, exchange.clock)
        await response.aclose()
        content_type = response.headers.get("content-type", "")
        if not body:
            raise APIConnectionError("the server answered 200 with an empty body")
        if content_type and not is_json(content_type):
            raise _wrong_type(content_type, response, body, exchange)
        completion = decode_completion(body, key=exchange.key, keep_raw=call.keep_raw)
        meta = call.meta
        meta.total_s = exchange.clock() - call.started
        vars(completion)["meta"] = meta
        exchange.telling.finished(call, completion)
        return completion

    async def stream(self, call: Call, response: Response) -> ChatStream:
        exchange = self._exchange
        stream = ChatStream(response, call, key=exchange.key, clock=exchange.clock)

        return await stream.begin(partial(exchange.telling.stream_done, call))


def _wrong_type(
    content_type: str, response: Response, body: bytes, exchange: Exchange
) -> ResponseError:
    kind = (
        "a stream that was not asked for" if is_event_stream(content_type) else content_type[:100]
    )
    text = exchange.key.scrub(body[: 64 * 1024].decode("utf-8", "replace"))
    return ResponseError(
        f"the server answered with {kind!r} where JSON belongs: {text[:200]!r}; is base_url that "
        "of a chat API, or is a login page in between?",
        status_code=response.status,
        body=text[:2048],
    )
