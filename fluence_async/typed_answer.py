"""A type and a question go in, a value of that type comes out, whole or field by field: `parse`.

Law: a field is handed over once, when it is closed, and the whole is decoded once more at its end:
the result never depends on how the answer was cut. A stream that breaks raises, as any stream does.

Rejected: snapshots of the half-written answer at every chunk, which cost quadratic time and show
values (half a number, half a word) that were never said.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from ._sansio.answer_type import AnswerType
from .parsed import ParsedCompletion, ParsedField
from .stream import ChatStream
from .types import ChatCompletion

__all__ = ["TypedAnswer"]

T = TypeVar("T")


class TypedAnswer(Generic[T]):
    """A typed answer: `await` it for the result, or read it field by field.

    Made by `chat.completions.parse(...)`. As an async context manager it is an async iterator of
    `ParsedField`: each field once, as soon as it is closed; of a list, each item.

    Example:
        ```python
        async with fluence.chat.completions.parse(
            model="fluence-chat", messages="A soup for 4", response_type=Recipe
        ) as answer:
            async for field in answer:
                print(field.name, field.value)
        print(answer.result.value)
        ```
    """

    def __init__(
        self,
        kind: AnswerType[T],
        ask: Callable[[], Coroutine[Any, Any, ChatCompletion]],
        open_stream: Callable[[], Coroutine[Any, Any, ChatStream]],
    ) -> None:
        self._kind = kind
        self._ask = ask
        self._open_stream = open_stream
        self._fields = kind.reader()
        self._ready: deque[ParsedField] = deque()
        self._stream: ChatStream | None = None
        self._result: ParsedCompletion[T] | None = None

    def __await__(self) -> Generator[Any, Any, ParsedCompletion[T]]:
        return self._whole().__await__()

    async def _whole(self) -> ParsedCompletion[T]:
        return self._kind.parsed(await self._ask())

    # ─── field by field ───────────────────────────────────────────────────────────────────

    @property
    def stream(self) -> ChatStream:
        """The stream beneath: its usage, meta, and what has arrived so far.

        Raises:
            RuntimeError: It is not open.
        """
        if self._stream is None:
            raise RuntimeError("the answer is not open: use 'async with', or await it")
        return self._stream

    @property
    def result(self) -> ParsedCompletion[T]:
        """The whole answer, read as the type.

        Raises:
            RuntimeError: The stream has not come to its end.
        """
        if self._result is None:
            self._result = self._kind.parsed(self.stream.completion)
        return self._result

    async def get_result(self) -> ParsedCompletion[T]:
        """Read to the end; the whole answer, read as the type.

        Raises:
            StreamError: The stream broke.
        """
        async for _ in self:
            pass
        return self.result

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ParsedField:
        """The next field that is closed.

        Raises:
            StreamError: The stream broke.
        """
        while not self._ready:
            chunk = await self.stream.__anext__()
            # what came in one read is scanned in one go
            texts = [chunk.text, *(more.text for more in self.stream.take_ready())]
            self._ready.extend(self._fields.feed("".join(texts)))
        return self._ready.popleft()

    # ─── opening and closing ──────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        if self._stream is not None:
            raise RuntimeError("this answer was entered before: call .parse(...) again")
        self._stream = await self._open_stream()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stream.__aexit__(kind, error, traceback)

    def __repr__(self) -> str:
        return f"<TypedAnswer {self._kind!r}: {self._stream or 'not open'}>"
