"""A prepared call goes in, what became of it comes out: the only place that runs a user's tools.

Law: whatever a tool does (raise, dawdle, return what is no JSON, cancel itself) becomes an event;
only a cancellation from outside passes through.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import anyio
from anyio.to_thread import run_sync

from ._sansio.arguments import check_count, check_seconds
from ._sansio.tool_calls import Prepared, as_content, prepare
from ._telling import Telling
from .tool_events import ToolFailed, ToolReturned
from .tools import FunctionTool
from .types import Tool, ToolCall

__all__ = ["OnToolError", "Toolbox"]

OnToolError: TypeAlias = Literal["raise", "tell"]
"""What becomes of a tool's exception: the run raises `ToolError`, or the model is told of it."""


class Toolbox:
    """The tools of one run, and how they are called.

    Args:
        tools: The tools, each with a name of its own.
        telling: How the hooks are told.
        max_parallel: How many calls may run at once.
        timeout: Seconds for a call whose tool has no bound of its own; None for none.
        on_error: Whether the model is told what a tool raised.
    """

    def __init__(
        self,
        tools: Sequence[FunctionTool[..., Any]],
        *,
        telling: Telling,
        max_parallel: int,
        timeout: float | None,
        on_error: OnToolError,
    ) -> None:
        if timeout is not None:
            check_seconds("tool_timeout", timeout, way_out="; None means no bound")
        if on_error not in ("raise", "tell"):
            raise ValueError(f"on_tool_error={on_error!r}: must be 'raise' or 'tell'")
        check_count("max_parallel", max_parallel, least=1)
        self._tools = _by_name(tools)
        self._decoders = {name: tool.decode for name, tool in self._tools.items()}
        self._telling = telling
        self._bound = anyio.Semaphore(max_parallel)
        self._timeout = timeout
        self._tells = on_error == "tell"

    @property
    def definitions(self) -> list[Tool]:
        """The tools as a request offers them."""
        return [tool.definition for tool in self._tools.values()]

    def prepare(self, call: ToolCall) -> Prepared:
        """The call with its arguments, or what is wrong with it."""
        return prepare(call, self._decoders)

    async def call(self, prepared: Prepared, turn: int, call_id: str) -> ToolReturned | ToolFailed:
        """Make a call, which the answer to `call_id` asks for, once there is room for it; never
        raises what the tool raised."""
        call = prepared.call
        if prepared.problem is not None:
            return ToolFailed(turn=turn, call=call, error=prepared.problem, content=prepared.advice)
        try:
            async with self._bound:
                tool = self._tools[call.function.name]
                result = await self._told(tool, prepared.arguments, call_id)
            return ToolReturned(turn=turn, call=call, result=result, content=as_content(result))
        except Exception as error:  # noqa: BLE001 - a boundary: the tool is not ours
            failure = error
        except anyio.get_cancelled_exc_class() as error:
            if anyio.current_effective_deadline() == -math.inf:
                raise
            failure = RuntimeError("the tool cancelled itself")
            failure.__cause__ = error
        content = f"Error: {type(failure).__name__}: {failure}" if self._tells else None
        return ToolFailed(turn=turn, call=call, error=failure, content=content)

    async def _told(
        self, tool: FunctionTool[..., Any], arguments: Mapping[str, Any], call_id: str
    ) -> object:
        began = anyio.current_time()
        failure: BaseException | None = None
        try:
            return await self._within_time(tool, arguments)
        except BaseException as error:
            failure = error
            raise
        finally:
            self._telling.tool_called(call_id, tool.name, anyio.current_time() - began, failure)

    async def _within_time(
        self, tool: FunctionTool[..., Any], arguments: Mapping[str, Any]
    ) -> object:
        timeout = self._timeout if tool.timeout is None else tool.timeout
        with anyio.move_on_after(timeout):
            if tool.in_thread:
                # A thread cannot be stopped: cancelled, it runs to its end and nobody listens.
                # In a tuple, because trio takes no coroutine from a thread.
                (result,) = await run_sync(lambda: (tool(**arguments),), abandon_on_cancel=True)
            else:
                result = tool(**arguments)
            return await result if inspect.isawaitable(result) else result
        raise TimeoutError(f"the tool {tool.name} took longer than {timeout:g} s")

    def __repr__(self) -> str:
        return f"<Toolbox: {', '.join(self._tools)}>"


def _by_name(tools: Sequence[FunctionTool[..., Any]]) -> dict[str, FunctionTool[..., Any]]:
    given: Any = tools
    if not isinstance(given, Iterable):
        name = given.name if isinstance(given, FunctionTool) else "my_tool"
        raise TypeError(f"tools={tools!r}: must be a list of tools, as tools=[{name}]")
    found: dict[str, FunctionTool[..., Any]] = {}
    for tool in tools:
        if not isinstance(tool, FunctionTool):
            raise TypeError(f"{tool!r} is no tool: decorate the function with @tool")
        if tool.name in found:
            raise ValueError(f"two tools are called {tool.name!r}: give one tool(name=...)")
        found[tool.name] = tool
    if not found:
        raise ValueError("tools is empty: name one, or use create")
    return found
