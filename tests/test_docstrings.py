"""The examples in the docstrings of what is public run as they stand, against the local server."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import re
import textwrap
from collections.abc import Iterator

import msgspec
import pytest

import fluence_async
from fluence_async import FluenceSession, tool
from fluence_async.testing import FluenceServer

MODULES = ("tools", "tool_run", "typed_answer", "completions", "limits", "_sansio.partial_json")
"""Whose examples are run: the rooms of `run_tools` and `parse`, and what is seen of limits."""


def examples() -> Iterator[tuple[str, str]]:
    for name in MODULES:
        module = importlib.import_module(f"fluence_async.{name}")
        for item in vars(module).values():
            if getattr(item, "__module__", None) != module.__name__:
                continue
            inner = vars(item).values() if inspect.isclass(item) else ()
            for part in (item, *inner):
                doc = inspect.getdoc(part) if callable(part) else None
                for code in re.findall(r"```python\n(.*?)```", doc or "", re.DOTALL):
                    yield f"{name}.{getattr(part, '__qualname__', '')}", textwrap.dedent(code)


@pytest.mark.parametrize(("name", "code"), [pytest.param(*e, id=e[0]) for e in examples()])
def test_an_example_runs(name: str, code: str) -> None:
    @tool
    def get_weather(city: str) -> str:
        """Get the weather in a city."""
        return "18 °C"

    class Recipe(msgspec.Struct):
        title: str
        servings: int

    async def run() -> None:
        async with FluenceServer() as server:
            async with FluenceSession(api_key=server.api_key, base_url=server.base_url) as fluence:
                names = {
                    **{public: getattr(fluence_async, public) for public in fluence_async.__all__},
                    **vars(importlib.import_module("fluence_async._sansio.partial_json")),
                    "fluence": fluence,
                    "get_weather": get_weather,
                    "Recipe": Recipe,
                    "msgspec": msgspec,
                }
                flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
                result = eval(compile(code, name, "exec", flags, dont_inherit=True), names)
                if inspect.isawaitable(result):
                    await result

    asyncio.run(run())


def test_every_public_way_to_ask_has_an_example() -> None:
    shown = {name for name, _ in examples()}
    assert {
        f"completions.Completions.{way}" for way in ("create", "stream", "parse", "run_tools")
    } <= shown
    assert {
        "tools.tool",
        "tools.FunctionTool.decode",
        "tool_run.ToolRun",
        "typed_answer.TypedAnswer",
    } <= shown
