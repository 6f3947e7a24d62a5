"""`chat.completions`: what a caller asks goes down once, and its answer comes up once.

```
create / stream → encode → Call → exchange.run → begin: a whole completion | a ChatStream
parse / run_tools → made of the two
```
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Unpack, overload

from ._cached import answered
from ._call import Call, read_body, read_error_body
from ._exchange import Exchange
from ._sansio.answer_type import AnswerType
from ._sansio.codec import decode_completion, is_event_stream, is_json
from ._sansio.request import check_names
from ._tool_calling import OnToolError, Toolbox
from .errors import APIConnectionError, ResponseError
from .options import ChatParams, ParseParams, ToolRunParams
from .stream import ChatStream
from .tool_run import ToolRun
from .tools import FunctionTool
from .transports._base import Response
from .typed_answer import TypedAnswer
from .types import ChatCompletion

if TYPE_CHECKING:
    from .session import FluenceSession

__all__ = ["Chat", "ChatStreamContext", "Completions"]

T = TypeVar("T")


class Chat:
    """What can be done with a chat model: `completions`."""

    def __init__(self, session: FluenceSession) -> None:
        self.completions: Completions = Completions(session)

    def __repr__(self) -> str:
        return "<Chat: completions>"


class Completions:
    """`POST /v1/chat/completions`, in four ways: `create` asks for a whole answer, `stream` for one
    chunk by chunk, `parse` for one of a type, and `run_tools` lets the model call functions."""

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
            **params: At least `model` and `messages` (a str, or a list of messages); then what is
                asked (`temperature`, `max_tokens`, `tools`, `response_format`, `extra_body`, …) and
                how (`timeout`, `max_retries`, `tags`, …): `help(fluence_async.ChatParams)`.

        Returns:
            The answer: a `ChatCompletion`, or a `ChatStream` that must be read or closed.

        Raises:
            ValueError, TypeError: A parameter that the API would refuse; nothing was sent.
            APIStatusError: The API said no (400, 401, 429, 500, …).
            APIConnectionError, StreamError: No whole answer, or no first chunk, after all retries.
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
        return await self._ask(params)

    async def _ask(self, params: Mapping[str, Any]) -> ChatCompletion:
        exchange, call = self._session._prepare(params, stream=False)  # noqa: SLF001
        run = answered if call.cached is not None else Exchange.run
        return await run(exchange, call, _whole)

    async def _open_stream(self, params: Mapping[str, Any]) -> ChatStream:
        exchange, call = self._session._prepare(params, stream=True)  # noqa: SLF001
        run = answered if call.cached is not None else Exchange.run
        return await run(exchange, call, _stream)

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

    @overload
    def parse(self, *, response_type: type[T], **params: Unpack[ParseParams]) -> TypedAnswer[T]: ...

    @overload
    def parse(self, *, response_type: Any, **params: Unpack[ParseParams]) -> TypedAnswer[Any]: ...

    def parse(self, *, response_type: Any, **params: Unpack[ParseParams]) -> TypedAnswer[Any]:
        """Ask for an answer of a type: `await` it, or read it field by field in `async with`.

        An answer that is not of the type is a result too: `parsed` is None and `parse_error` says
        why; `value` raises it.

        Args:
            response_type: A Struct, dataclass, TypedDict, list, union: whatever msgspec has a
                schema for. It is sent as `response_format`, strict where the type allows it.
            **params: As of `create`.

        Returns:
            To be awaited for a `ParsedCompletion`, or entered for its fields as they are closed.

        Raises:
            TypeError, ValueError: The type has no schema, or `n` is not 1.

        Example:
            ```python
            class Recipe(msgspec.Struct):
                title: str
                servings: int


            answer = await fluence.chat.completions.parse(
                model="fluence-chat", messages="A soup for 4", response_type=Recipe
            )
            print(answer.value)
            ```
        """
        check_names(params)
        if params.get("n") not in (None, 1):
            raise ValueError(f"n={params.get('n')}: one answer is parsed, so n must be 1")
        kind: AnswerType[Any] = AnswerType(response_type)
        request = {**params, "response_format": kind.response_format}
        return TypedAnswer(kind, lambda: self._ask(request), lambda: self._open_stream(request))

    def run_tools(
        self,
        *,
        tools: Sequence[FunctionTool[..., Any]],
        max_turns: int = 10,
        max_parallel: int = 8,
        tool_timeout: float | None = None,
        on_tool_error: OnToolError = "raise",
        max_corrections: int = 1,
        **params: Unpack[ToolRunParams],
    ) -> ToolRun:
        """Let the model call tools until it has answered: `await` it, or follow it in `async with`.

        Every turn is a stream. Once its answer is whole, the tools that it calls run side by side,
        and their results begin the next turn. What forces a call (`tool_choice`) holds for the
        first turn only.

        Args:
            tools: Functions made tools by `@tool`.
            max_turns: The most answers to ask for.
            max_parallel: How many tools may run at once.
            tool_timeout: Seconds that a call of a tool may take, where the tool does not say.
            on_tool_error: What becomes of an exception in a tool: `raise` ends the run with a
                `ToolError`, `tell` tells the model its class and message.
            max_corrections: How often in a row the model is told that its calls cannot be made (no
                such tool, arguments that do not fit) before that is a `ToolError`; 0 for never.
            **params: As of `create`; `timeout` and the like hold for each turn.

        Returns:
            To be awaited for itself at its end, or entered for its events.

        Raises:
            TypeError, ValueError: A parameter that cannot work.

        Example:
            ```python
            run = await fluence.chat.completions.run_tools(
                model="fluence-chat", messages="What is the weather in Paris?", tools=[get_weather]
            )
            print(run.completion.text, run.usage)
            ```
        """
        check_names(params)
        toolbox = Toolbox(
            tools,
            telling=self._session._telling,  # noqa: SLF001
            max_parallel=max_parallel,
            timeout=tool_timeout,
            on_error=on_tool_error,
        )
        return ToolRun(
            self._open_stream, params, toolbox, max_turns=max_turns, max_corrections=max_corrections
        )

    def __repr__(self) -> str:
        return "<Completions: create, stream, parse, run_tools>"


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
            await self._stream.__aexit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<ChatStreamContext: {self._stream or 'not entered'}>"


# How a good response is taken over, and who is told of the end.


async def _whole(exchange: Exchange, call: Call, response: Response) -> ChatCompletion:
    content_type = response.headers.get("content-type", "")
    wrong = content_type and not is_json(content_type)
    read = read_error_body if wrong else read_body  # what is no answer may have no end
    body = await read(call, response, exchange.clock)
    await response.aclose()
    if not body:
        raise APIConnectionError("the server answered 200 with an empty body")
    if wrong:
        raise _wrong_type(content_type, response, body, exchange)
    completion = decode_completion(body, key=exchange.key, keep_raw=call.keep_raw)
    meta = call.meta
    meta.total_s = exchange.clock() - call.started
    vars(completion)["meta"] = meta
    exchange.telling.finished(call, completion)
    return completion


async def _stream(exchange: Exchange, call: Call, response: Response) -> ChatStream:
    stream = ChatStream(response, call, key=exchange.key, clock=exchange.clock)
    return await stream.begin(partial(exchange.telling.stream_done, call))


def _wrong_type(
    content_type: str, response: Response, body: bytes, exchange: Exchange
) -> ResponseError:
    kind = exchange.key.scrub(content_type)[:100]
    if is_event_stream(content_type):
        kind = "a stream that was not asked for"
    text = exchange.key.scrub(body[: 64 * 1024].decode("utf-8", "replace"))
    return ResponseError(
        f"the server answered with {kind!r} where JSON belongs: {text[:200]!r}; is base_url that "
        "of a chat API, or is a login page in between?",
        status_code=response.status,
        body=text[:2048],
    )
