"""Tools and a conversation go in, events come out until the model has answered: `run_tools`.

```
turn: open a stream → chunks → whole answer ─ no calls → the end
        ↑                                   └ calls → tools, side by side → results ┐
        └───────────────────────────────────────────────────────────────────────────┘
```

Law: tools are called once an answer is whole, never on the word of a stream that may still break.
They run in a task group of the run's own, so that none outlives the `async with`; leaving it early
cancels them. An exception of the `async with` passes through as it is, not in a group.

Rejected: an async generator (it can be left suspended with tasks and a connection in its hands);
tools that begin while the answer is still being written (a cut stream would have had effects).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.abc import TaskGroup

from ._sansio.arguments import check_count
from ._sansio.tool_calls import Conversation, Prepared, ToolCallReader, added
from ._tool_calling import Toolbox
from .errors import ToolError
from .stream import ChatStream
from .tool_events import (
    ChunkReceived,
    ToolCallCompleted,
    ToolFailed,
    ToolRunEvent,
    TurnFinished,
)
from .types import ChatCompletion, MessageLike, Usage

__all__ = ["ToolRun"]

OpenStream = Callable[[dict[str, Any]], Coroutine[Any, Any, ChatStream]]


class ToolRun:
    """A run of model and tools: an async context manager and an async iterator of events.

    Made by `chat.completions.run_tools(...)`. `await` it to run it to its end and have itself.

    Example:
        ```python
        async with fluence.chat.completions.run_tools(
            model="fluence-chat", messages="What is the weather in Paris?", tools=[get_weather]
        ) as run:
            async for event in run:
                if isinstance(event, ChunkReceived):
                    print(event.text, end="")
        print(run.completion.text, len(run.turns), run.usage)
        ```
    """

    def __init__(
        self,
        open_stream: OpenStream,
        params: Mapping[str, Any],
        toolbox: Toolbox,
        *,
        max_turns: int,
        max_corrections: int,
    ) -> None:
        _check(params)
        check_count("max_turns", max_turns, least=1)
        check_count("max_corrections", max_corrections, least=0)
        self._toolbox = toolbox
        self._params = {**params, "tools": self._toolbox.definitions}
        self._open_stream = open_stream
        self._conversation = Conversation(
            params["messages"], max_turns=max_turns, max_corrections=max_corrections
        )
        self._ready: deque[ToolRunEvent] = deque()
        self._entered = False
        self._group: TaskGroup | None = None
        self._stream: ChatStream | None = None
        self._reader = ToolCallReader(1)
        self._calling = False
        self._woken: anyio.Event | None = None
        self._error: Exception | None = None
        self._ended = False

    # ─── what is known of it ──────────────────────────────────────────────────────────────

    @property
    def completion(self) -> ChatCompletion:
        """The model's last answer.

        Raises:
            RuntimeError: The run has not come to its end.
        """
        if not self._ended:
            raise RuntimeError(
                "the run has not come to its end, so there is no completion yet: read it with "
                "'async for', or await it"
            )
        return self.turns[-1]

    @property
    def messages(self) -> list[MessageLike]:
        """The conversation with all that its whole turns added, fit to be sent again."""
        return self._conversation.messages

    @property
    def turns(self) -> list[ChatCompletion]:
        """The model's answers so far, each with its own usage and meta."""
        return [*self._conversation.turns]

    @property
    def usage(self) -> Usage | None:
        """The tokens that all turns cost, as far as the server has said so."""
        return added(self._conversation.usage, self._stream.usage if self._stream else None)

    # ─── reading ──────────────────────────────────────────────────────────────────────────

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ToolRunEvent:
        """The next event.

        Raises:
            ToolError: A tool raised, or the model called one wrongly once too often.
            TurnLimitError: The model called tools in the last turn that it had.
            FluenceError: A turn failed, as `create` and `stream` do.
        """
        while not self._ready:
            if self._error is not None:
                raise self._error
            if self._ended:
                raise StopAsyncIteration
            await self._advance()
        return self._ready.popleft()

    async def _advance(self) -> None:
        """Do the next thing; cancelled at its only await, it can be done again."""
        if self._group is None:
            raise RuntimeError("the run is not open: use 'async with', or await it")
        if self._calling:
            self._woken = anyio.Event()
            await self._woken.wait()
        elif self._stream is None:
            await self._open_turn()
        else:
            await self._read(self._stream)

    async def _open_turn(self) -> None:
        try:
            self._stream = await self._open_stream(self._conversation.params(self._params))
        except Exception as error:
            self._error = error
            raise
        self._reader = ToolCallReader(self._turn)

    async def _read(self, stream: ChatStream) -> None:
        try:
            chunk = await stream.__anext__()
        except StopAsyncIteration:
            await stream.aclose()
            self._stream = None
            self._take(stream.completion, stream.call_id)
        else:
            self._ready.append(ChunkReceived(turn=self._turn, chunk=chunk))
            self._ready.extend(self._reader.feed(chunk))

    @property
    def _turn(self) -> int:
        """The number of the turn whose answer is being read."""
        return len(self._conversation.turns) + 1

    def _take(self, completion: ChatCompletion, call_id: str) -> None:
        """The turn's answer is whole: call its tools, or be done."""
        turn, group = self._turn, self._group
        assert group is not None
        try:
            calls = self._conversation.answered(completion)
            self._ready.extend(
                ToolCallCompleted(turn=turn, index=index, call=call)
                for index, call in zip(self._reader.indexes, calls, strict=False)
            )
            prepared = [self._toolbox.prepare(call) for call in calls]
            self._conversation.checked(prepared)
        except ToolError as error:
            self._error = error
            return
        if calls:
            self._calling = True
            group.start_soon(self._call_all, prepared, turn, call_id)
        else:
            self._ended = True
            self._ready.append(TurnFinished(turn=turn, completion=completion))

    # ─── calling ──────────────────────────────────────────────────────────────────────────

    async def _call_all(self, calls: Sequence[Prepared], turn: int, call_id: str) -> None:
        contents: dict[str, str] = {}
        async with anyio.create_task_group() as group:
            for prepared in calls:
                group.start_soon(self._call, prepared, turn, call_id, contents, group)
        self._calling = False
        if self._error is None:
            self._conversation.called([prepared.call for prepared in calls], contents)
            self._ready.append(TurnFinished(turn=turn, completion=self.turns[-1]))
        self._wake()

    async def _call(
        self,
        prepared: Prepared,
        turn: int,
        call_id: str,
        contents: dict[str, str],
        group: TaskGroup,
    ) -> None:
        event = await self._toolbox.call(prepared, turn, call_id)
        if event.content is None:
            assert isinstance(event, ToolFailed)
            self._fail(event)
            group.cancel_scope.cancel()
        else:
            contents[event.call.id] = event.content
        self._ready.append(event)
        self._wake()

    def _fail(self, event: ToolFailed) -> None:
        if self._error is None:
            error = event.error
            self._error = ToolError(
                f"the tool {event.call.function.name!r} raised {type(error).__name__}: {error}; "
                "on_tool_error='tell' lets the model go on from it"
            )
            self._error.__cause__ = error

    def _wake(self) -> None:
        if self._woken is not None:
            self._woken.set()

    # ─── opening and closing ──────────────────────────────────────────────────────────────

    def __await__(self) -> Generator[Any, Any, Self]:
        return self._run().__await__()

    async def _run(self) -> Self:
        async with self:
            async for _ in self:
                pass
        return self

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("this run was entered before: call .run_tools(...) again")
        self._entered = True
        group = anyio.create_task_group()
        await group.__aenter__()
        self._group = group
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        group, self._group = self._group, None
        assert group is not None
        try:
            if self._stream is not None:
                await self._stream.__aexit__(kind, error, traceback)
        finally:
            group.cancel_scope.cancel()
            # told of no exception, the group wraps none: the caller's passes through as it is
            await group.__aexit__(None, None, None)

    def __repr__(self) -> str:
        state = "complete" if self._ended else "open" if self._group is not None else "not open"
        return f"<ToolRun: {state}, {len(self._conversation.turns)} turns>"


def _check(params: Mapping[str, Any]) -> None:
    if "messages" not in params:
        raise TypeError("messages is missing: pass a str or a list of messages")
    if params.get("n") not in (None, 1):
        raise ValueError(f"n={params['n']}: a run goes on from one answer, so n must be 1")
