"""The front door: what it offers, under which names, and what opening it costs."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import fluence_async

PUBLIC = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "Attempt",
    "AuthenticationError",
    "BadChunkError",
    "BadRequestError",
    "Budget",
    "BudgetExceededError",
    "BudgetState",
    "CallOptions",
    "Chat",
    "ChatCompletion",
    "ChatCompletionChunk",
    "ChatParams",
    "ChatStream",
    "ChatStreamContext",
    "Choice",
    "ChunkChoice",
    "ChunkReceived",
    "CompletionParams",
    "Completions",
    "ConflictError",
    "ContentPart",
    "DOCUMENTED_LIMITS",
    "Delta",
    "FluenceError",
    "FluenceSession",
    "FunctionCall",
    "FunctionDefinition",
    "FunctionTool",
    "InternalServerError",
    "JSONSchema",
    "LimitWaitError",
    "Limiter",
    "Message",
    "Meta",
    "NotFoundError",
    "ParseError",
    "ParsedCompletion",
    "ParsedField",
    "PermissionDeniedError",
    "Permit",
    "Price",
    "QuotaExceededError",
    "RateLimit",
    "RateLimitError",
    "RateLimitSnapshot",
    "ResponseError",
    "ResponseFormat",
    "RetryPolicy",
    "StreamError",
    "StreamInterruptedError",
    "StreamServerError",
    "StreamTimeoutError",
    "TLSError",
    "TextStream",
    "Timeout",
    "Tool",
    "ToolCall",
    "ToolCallCompleted",
    "ToolCallDelta",
    "ToolCallGrew",
    "ToolCallStarted",
    "ToolError",
    "ToolFailed",
    "ToolReturned",
    "ToolRun",
    "ToolRunEvent",
    "TurnFinished",
    "TurnLimitError",
    "TypedAnswer",
    "UnprocessableEntityError",
    "Usage",
    "UsageMeter",
    "UsageSnapshot",
    "UsageTotals",
    "__version__",
    "tool",
]
KEY = "sk-that-nobody-may-see"
HEAVY = ["aiohttp", "anyio._backends", "asyncio", "backoff", "httpcore2", "rich", "trio", "typer"]


def python(code: str, *, without: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter, in which the modules `without` cannot be imported."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({without!r}))\n"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", blocked + code],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def exports() -> list[tuple[str, object]]:
    return [(name, getattr(fluence_async, name)) for name in PUBLIC]


def test_what_is_exported_is_pinned() -> None:
    assert sorted(fluence_async.__all__) == PUBLIC


def test_every_public_error_is_exported() -> None:
    defined = {name for name in fluence_async.errors.__all__ if name.endswith("Error")}
    assert defined <= set(PUBLIC)


def test_every_export_presents_itself_as_public() -> None:
    private = {
        name: item.__module__
        for name, item in exports()
        if inspect.isclass(item) and re.search(r"\._|^(?!fluence_async)", item.__module__)
    }
    assert private == {}


def test_every_exported_class_says_what_it_is() -> None:
    silent = [name for name, item in exports() if inspect.isclass(item) and not item.__doc__]
    assert silent == []


def test_the_version_is_the_one_that_is_installed_or_built() -> None:
    project = (Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8")
    assert f'\nversion = "{fluence_async.__version__}"\n' in project


def parts(item: object, seen: set[int]) -> Iterator[object]:
    """An object of ours and all that it holds, however deep and private."""
    if id(item) in seen:
        return
    seen.add(id(item))
    yield item
    inner = [*getattr(item, "__dict__", {}).values()] if hasattr(item, "__dict__") else []
    for kind in type(item).__mro__:
        names = getattr(kind, "__slots__", ())
        inner += [getattr(item, name, None) for name in names if isinstance(names, tuple)]
    for part in inner:
        if type(part).__module__.partition(".")[0] == "fluence_async":
            yield from parts(part, seen)


def test_no_repr_holds_the_key() -> None:
    session = fluence_async.FluenceSession(api_key=KEY, default_headers={"x-of-mine": "1"})
    things = list(parts(session, set()))
    assert len(things) > 5
    for thing in things:
        assert KEY not in f"{thing!r} {getattr(thing, '__dict__', '')!r}"
        assert isinstance(thing, str) or KEY not in str(thing)  # the header's value is what it is


def test_importing_the_package_loads_no_http_library_and_no_backend() -> None:
    done = python(
        "import fluence_async, sys\n"
        f"print([name for name in sys.modules if name.startswith(tuple({HEAVY!r}))])"
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_importing_the_package_reads_none_of_its_variables() -> None:
    done = python(
        "import os\n"
        "read = []\n"
        "class Watched(os._Environ):\n"
        "    def __getitem__(self, name):\n"
        "        read.append(name)\n"
        "        return super().__getitem__(name)\n"
        "os.environ.__class__ = Watched\n"
        "os.environ.get('FLUENCE_SEEN')\n"
        "import fluence_async\n"
        "print([name for name in read if name.startswith('FLUENCE')])"
    )
    assert (done.stdout, done.stderr) == ("['FLUENCE_SEEN']\n", "")


def test_trio_without_its_extra_names_the_extra() -> None:
    done = python(
        "import trio, fluence_async\n"
        "async def main():\n"
        "    async with fluence_async.FluenceSession(api_key='k') as fluence:\n"
        "        await fluence.chat.completions.create(model='m', messages='hi')\n"
        "trio.run(main)",
        without=("httpcore2",),
    )
    assert done.returncode == 1
    assert "fluence-async[trio]" in done.stderr.splitlines()[-1]


def test_the_command_line_without_its_extra_says_the_way_out_in_one_line() -> None:
    done = python(
        "import runpy\nrunpy.run_module('fluence_async', run_name='__main__', alter_sys=True)",
        without=("typer",),
    )
    assert done.returncode != 0
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "fluence-async[cli]" in done.stderr
