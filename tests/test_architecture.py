"""The house: which room each module is in, and the laws that hold it up.

Every law is a function from source texts to a list of violations, each of which says what to do.
The real package must have none, and for every law there is a small house that breaks it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.imports import PACKAGE, House, Module, imports, read_house

ROOT = Path(__file__).parent.parent / PACKAGE

# ─── the map ──────────────────────────────────────────────────────────────────────────────

ROWS: tuple[tuple[str, ...], ...] = (
    ("words",),
    ("sansio",),
    ("tools",),
    ("transports", "limiter"),
    ("cache",),
    ("usage",),
    ("redis",),
    ("exchange",),
    ("stream",),
    ("tool_run", "typed_answer"),
    ("completions",),
    ("session",),
    ("door",),
    ("server",),
    ("cli",),
    ("testing", "contrib"),
)
"""The rooms from the ground up: one may import itself and any row below, not its neighbours."""


def package(name: str, modules: str) -> tuple[str, ...]:
    return (name, *(f"{name}.{module}" for module in modules.split()))


ROOMS: dict[str, tuple[str, ...]] = {
    "words": ("errors", "hooks", "meta", "options", "parsed", "tool_events", "types"),
    "sansio": package(
        "_sansio",
        "answer_type arguments bucket budget caching claim codec counter credit docstring"
        " error_bodies fold lanes learner learning learnt lenient_json lessons limits_file metering"
        " note origin outlook partial_json processing rate_headers rate_limit request retry schema"
        " secret sse sse_writing surrogates tariff ticket tool_calls trials watch"
        " whole_answer window",
    ),
    "tools": ("tools",),
    "transports": package(
        "transports",
        "_base _delivery _failures _head _inflate _lifetime _proxies _watchdog aiohttp"
        " _aiohttp_connections _aiohttp_response httpcore _httpcore_body _httpcore_pool"
        " _httpcore_progress _trio_network",
    ),
    "limiter": package(
        "limiter",
        "_early _hearsay _ledger _line _look _mirror _park _process _queue _seeing _state _store"
        " _turns"
        " file limiter memory permit",
    ),
    "cache": ("_own_database", *package("cache", "_flight _lease _store cache memory sqlite")),
    "usage": ("ledger", "usage"),
    "redis": package(
        "contrib.redis",
        "_address _asks _background _connecting _courier _look _pupil _store _units cache limiter",
    ),
    "exchange": ("_call", "_stay", "_telling", "_admission", "_exchange"),
    "stream": ("stream",),
    "tool_run": ("_tool_calling", "tool_run"),
    "typed_answer": ("typed_answer",),
    "completions": ("_cached", "completions"),
    "session": ("_annexes", "_binding", "_defaults", "limits", "session"),
    "door": ("",),
    "server": (
        *package("server", "app chat control faults hostile idempotency local received recording"),
        *(f"server.{name}" for name in "refusal replies script_json tokens turn windows".split()),
        "server.wire",
        "server.written",
        *package(
            "server.responders",
            "arithmetic calls chaos findings prose replay rules schema script small_talk upstream",
        ),
    ),
    "cli": (
        "__main__",
        *package(
            "cli",
            "app asking blocks chat conversation drawn gauge markdown render serve spent terminal",
        ),
    ),
    "contrib": package("contrib", "opentelemetry"),
    "testing": (
        *package("testing", "bomb_table cache_contract fault fault_table network server"),
        *package("testing.limiter_contract", "_limiter dimensions units waiting"),
        *package(
            "testing.transport_contract",
            "_expect _server bodies cancelling closing connecting delivering"
            " encodings heads sending",
        ),
    ),
}
"""Every module's room; `""` is the package itself."""

ARGUED_UPWARD: dict[tuple[str, str], str] = {
    ("completions", "session"): "`Chat` is given its session, which made it",
    ("_telling", "stream"): "it is handed the stream whose end it tells of",
}
"""Imports under TYPE_CHECKING that point up or sideways, and why."""

PUBLIC_API_ONLY: dict[str, frozenset[str]] = {
    "cli": frozenset({"", "ledger", "limits", "server", "types"}),
    "server": frozenset({"types", "_sansio.codec", "_sansio.secret", "_sansio.sse_writing"}),
}
"""What a program may use outside its own room: the command line only what its user could, the
server only the words and the bytes, because the one must prove the other; and what keeps a key out
of a text, of which there must be one."""

LIBRARIES: dict[str, frozenset[str]] = {
    "aiohttp": frozenset(
        {
            "transports.aiohttp",
            "transports._aiohttp_connections",
            "transports._aiohttp_response",
            "server",
        }
    ),
    "anyio": frozenset(
        {
            "transports",
            "limiter",
            "cache",
            "usage",
            "redis",
            "exchange",
            "stream",
            "tool_run",
            "completions",
            "session",
            "cli",
            "testing",
        }
    ),
    "backoff": frozenset({"_sansio.retry"}),
    "coredis": frozenset(
        f"contrib.redis.{name}" for name in ("_connecting", "_courier", "_look", "cache")
    ),
    "httpcore2": frozenset(
        {
            "transports.httpcore",
            "transports._httpcore_body",
            "transports._httpcore_pool",
            "transports._trio_network",
        }
    ),
    "markdown_it": frozenset({"cli"}),
    "msgspec": frozenset(ROOMS),
    "opentelemetry": frozenset({"contrib.opentelemetry"}),
    "prompt_toolkit": frozenset({"cli"}),
    "rich": frozenset({"cli"}),
    "trio": frozenset(
        {
            "contrib.redis._background",
            "limiter._park",
            "transports.httpcore",
            "transports._httpcore_pool",
            "transports._httpcore_progress",
            "transports._trio_network",
        }
    ),
    "typer": frozenset({"cli"}),
}
"""Every foreign library, and the rooms or modules that may import it."""

# fmt: off
PURE = frozenset({
    "__future__", "abc", "base64", "binascii", "bisect", "codecs", "collections",
    "contextlib", "copy", "dataclasses", "datetime", "decimal", "difflib", "email", "enum",
    "fractions", "functools", "hashlib", "heapq", "hmac", "html", "inspect", "ipaddress",
    "itertools", "json", "math", "numbers", "operator", "re", "reprlib", "string",
    "struct", "textwrap", "types", "typing", "unicodedata", "urllib",
})
# fmt: on
"""Of the standard library, what the rules may import: values in, values out."""

IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "breakpoint", "__import__"})
CLOCK_READINGS = (".now", ".utcnow", ".today")

MAX_FILE, MAX_FUNCTION = 300, 60
LONG_FILES: dict[str, str] = {
    "stream": "one class, sole owner of the body; a third of it is what a caller reads",
    "contrib.redis._store": "one state with two faces: what a line asks, what the courier carries",
    "testing.fault_table": "one table",
    "errors": "one tree, read as one",
    "types": "one vocabulary; three quarters of it are fields and what they mean",
}
LONG_FUNCTIONS: dict[str, str] = {}

FORBIDDEN_NAMES = re.compile(
    "utils?|helpers?|commons?|core|managers?|handlers?|clients?|misc", re.IGNORECASE
)

# ─── the laws ─────────────────────────────────────────────────────────────────────────────


def room_of(module: str) -> str | None:
    return next((room for room, modules in ROOMS.items() if module in modules), None)


def row_of(room: str) -> int:
    return next(n for n, rooms in enumerate(ROWS) if room in rooms)


def every_module_has_a_room(house: House) -> Iterator[str]:
    mapped = {module for modules in ROOMS.values() for module in modules}
    for name in sorted(house.keys() - mapped):
        yield f"{name}: has no room: decide what it is about and enter it in ROOMS, or put it away"
    for name in sorted(mapped - house.keys()):
        yield f"{name}: is in ROOMS and not in the package: strike it out"


def imports_point_down(house: House) -> Iterator[str]:
    for name in house:
        for to in imports(name, house):
            here, there = room_of(name), room_of(to.target)
            if not to.ours or here is None or there is None:
                continue
            if here != there and row_of(there) >= row_of(here):
                if to.for_types and (name, to.target) in ARGUED_UPWARD:
                    continue
                yield (
                    f"{name}:{to.line}: {here} imports {there} ({to.target}), not below it: move"
                    " what is needed down, or hand it in as an argument"
                )


def programs_use_the_public_api(house: House) -> Iterator[str]:
    for name in house:
        room = room_of(name)
        allowed = PUBLIC_API_ONLY.get(room or "")
        for to in imports(name, house) if allowed is not None else ():
            if to.ours and room_of(to.target) != room and to.target not in (allowed or ()):
                yield f"{name}:{to.line}: {room} imports {to.target}, which no user could"


def the_rules_are_pure(house: House) -> Iterator[str]:
    for name, module in house.items():
        if room_of(name) != "sansio" and not name.startswith("_sansio."):
            continue
        for to in imports(name, house):
            if not to.ours and to.target in sys.stdlib_module_names and to.target not in PURE:
                yield f"{name}:{to.line}: imports {to.target}: take its result as an argument"
        for node in ast.walk(module.tree):
            line = f"{name}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.AsyncFunctionDef | ast.AsyncFor | ast.AsyncWith | ast.Await):
                yield f"{line}: waits: rules are values in, values out"
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in IMPURE_CALLS:
                yield f"{line}: calls {ast.unparse(node.func)}"
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(CLOCK_READINGS):
                yield f"{line}: reads a clock: take `now` as an argument"


def libraries_stay_in_their_rooms(house: House) -> Iterator[str]:
    for name in house:
        for to in imports(name, house):
            if to.ours or room_of(name) is None or to.target in sys.stdlib_module_names:
                continue
            allowed = LIBRARIES.get(to.target)
            if allowed is None:
                yield f"{name}:{to.line}: imports {to.target}, which is not in LIBRARIES"
            elif not {name, room_of(name)} & allowed:
                yield f"{name}:{to.line}: imports {to.target}, whose place is {sorted(allowed)}"


def sizes_are_small(house: House) -> Iterator[str]:
    long_files, long_functions = set(), set()
    for name, module in house.items():
        lines = len(module.text.splitlines())
        if lines > MAX_FILE:
            long_files.add(name)
            if name not in LONG_FILES:
                yield f"{name}: {lines} lines: split it, or argue in LONG_FILES"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                full = f"{name}.{node.name}"
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MAX_FUNCTION:
                    long_functions.add(full)
                    if full not in LONG_FUNCTIONS:
                        yield f"{full}: {lines} lines: split it, or argue in LONG_FUNCTIONS"
    for name in sorted((LONG_FILES.keys() & house.keys()) - long_files):
        yield f"{name}: is short enough now: strike it out of LONG_FILES"
    for full in sorted(LONG_FUNCTIONS.keys() - long_functions):
        if full.rpartition(".")[0] in house:
            yield f"{full}: is short enough now, or gone: strike it out of LONG_FUNCTIONS"


def names_say_what_it_is(house: House) -> Iterator[str]:
    for name, module in house.items():
        defined = [node.name for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)]
        for word in [*name.split("."), *defined]:
            for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", word):
                if FORBIDDEN_NAMES.fullmatch(part):
                    yield f"{name}: {word}: `{part}` does not say what it is"


def no_import_cycle(house: House) -> Iterator[str]:
    graph = {
        name: {
            to.target
            for to in imports(name, house)
            if to.ours and not (to.for_types and (name, to.target) in ARGUED_UPWARD)
        }
        for name in house
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield "a cycle: " + " → ".join(name or PACKAGE for name in reversed(error.args[1]))


Law = Callable[[House], Iterator[str]]

LAWS: list[Law] = [
    every_module_has_a_room,
    imports_point_down,
    programs_use_the_public_api,
    the_rules_are_pure,
    libraries_stay_in_their_rooms,
    sizes_are_small,
    names_say_what_it_is,
    no_import_cycle,
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__)
def test_the_package_keeps_the_law(law: Law) -> None:
    violations = list(law(read_house(ROOT)))
    assert not violations, "\n".join(["", *violations])


# ─── and every law can be broken ──────────────────────────────────────────────────────────

BREACHES: list[tuple[Law, dict[str, str], str]] = [
    (every_module_has_a_room, {"novelty": ""}, "novelty: has no room"),
    (every_module_has_a_room, {}, "errors: is in ROOMS and not in the package"),
    (imports_point_down, {"errors": "from .session import x", "session": ""}, "errors:1"),
    (imports_point_down, {"errors": "def f():\n    from . import session", "session": ""}, ":2"),
    (imports_point_down, {"errors": "import fluence_async.session", "session": ""}, "errors:1"),
    (imports_point_down, {"errors": "from fluence_async import session", "session": ""}, ":1"),
    (imports_point_down, {"errors": "import_module('fluence_async.session')"}, "errors:1"),
    (
        imports_point_down,
        {"errors": "if TYPE_CHECKING:\n    from .session import x", "session": ""},
        "errors:2",
    ),
    (imports_point_down, {"session": "from . import __version__", "": ""}, "session:1"),
    (imports_point_down, {"_sansio.sse": "from ..stream import x", "stream": ""}, "_sansio.sse:1"),
    (
        imports_point_down,
        {"transports._base": "from ..limiter import x", "limiter": ""},
        "transports imports limiter",
    ),
    (programs_use_the_public_api, {"cli": "from ..session import x"}, "cli:1"),
    (programs_use_the_public_api, {"server": "from .._sansio import retry"}, "server:1"),
    (the_rules_are_pure, {"_sansio.sse": "import time"}, "imports time"),
    (the_rules_are_pure, {"_sansio.sse": "def f():\n    from os import path"}, "_sansio.sse:2"),
    (the_rules_are_pure, {"_sansio.novelty": "import random"}, "imports random"),
    (the_rules_are_pure, {"_sansio.sse": "async def f(): ..."}, "waits"),
    (the_rules_are_pure, {"_sansio.sse": "datetime.now(UTC)"}, "reads a clock"),
    (the_rules_are_pure, {"_sansio.sse": "open('x')"}, "calls open"),
    (the_rules_are_pure, {"_sansio.sse": "print('x')"}, "calls print"),
    (libraries_stay_in_their_rooms, {"stream": "import aiohttp"}, "whose place is"),
    (libraries_stay_in_their_rooms, {"stream": "def f():\n    import trio"}, "stream:2"),
    (libraries_stay_in_their_rooms, {"_sansio.sse": "import anyio.abc"}, "whose place is"),
    (libraries_stay_in_their_rooms, {"stream": "import requests"}, "not in LIBRARIES"),
    (libraries_stay_in_their_rooms, {"stream": "import_module(name)"}, "<computed>"),
    (sizes_are_small, {"session": "x = 1\n" * (MAX_FILE + 1)}, "301 lines"),
    (sizes_are_small, {"session": "def f():\n" + "    x = 1\n" * MAX_FUNCTION}, "61 lines"),
    (names_say_what_it_is, {"http_utils": ""}, "`utils`"),
    (names_say_what_it_is, {"session": "class HTTPClient: ..."}, "`Client`"),
    (no_import_cycle, {"types": "from .meta import x", "meta": "from . import types"}, "a cycle"),
    (
        no_import_cycle,
        {
            "types": "from .meta import x",
            "meta": "if typing.TYPE_CHECKING:\n    from .types import x",
        },
        "a cycle",
    ),
]


@pytest.mark.parametrize(("law", "texts", "expected"), BREACHES)
def test_a_breach_is_seen(law: Law, texts: dict[str, str], expected: str) -> None:
    packages = {"", "_sansio", "transports", "limiter", "server", "cli"}
    house = {name: Module(text, name in packages) for name, text in texts.items()}
    assert any(expected in violation for violation in law(house)), list(law(house))


def test_every_law_has_a_breach() -> None:
    assert {law for law, _, _ in BREACHES} == set(LAWS)


def test_every_room_has_one_row() -> None:
    assert sorted(room for row in ROWS for room in row) == sorted(ROOMS)
