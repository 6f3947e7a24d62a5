"""The house: which room each module is in, and the laws that hold it up.

Every law is a function from source texts to a list of violations, each of which says what to do.
The real package must have none, and for every law there is a small house that breaks it. Imports
are read from the syntax tree, also inside functions and under `TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PACKAGE = "fluence_async"
ROOT = Path(__file__).parent.parent / PACKAGE

# ─── the map ──────────────────────────────────────────────────────────────────────────────

ROWS: tuple[tuple[str, ...], ...] = (
    ("words",),
    ("sansio",),
    ("transports", "limiter"),
    ("exchange",),
    ("stream",),
    ("completions",),
    ("session",),
    ("door",),
    ("server",),
    ("cli",),
    ("testing",),
)
"""The rooms from the ground up: one may import itself and any row below, not its neighbours."""

ROOMS: dict[str, tuple[str, ...]] = {
    "words": ("errors", "hooks", "meta", "options", "types"),
    "sansio": (
        "_sansio",
        "_sansio.bucket",
        "_sansio.clocks",
        "_sansio.codec",
        "_sansio.fold",
        "_sansio.origin",
        "_sansio.request",
        "_sansio.retry",
        "_sansio.secret",
        "_sansio.sse",
        "_sansio.surrogates",
    ),
    "transports": ("transports", "transports._base", "transports.aiohttp", "transports.httpcore"),
    "limiter": ("limiter", "limiter.limiter"),
    "exchange": ("_exchange",),
    "stream": ("stream",),
    "completions": ("completions",),
    "session": ("session",),
    "door": ("",),
    "server": ("server",),
    "cli": ("cli", "__main__"),
    "testing": ("testing",),
}
"""Every module's room; `""` is the package itself."""

ARGUED_UPWARD: dict[tuple[str, str], str] = {
    ("completions", "session"): "a name for the type checker only: `Chat` is given its session",
}
"""Imports under TYPE_CHECKING that point up or sideways, and why."""

PUBLIC_API_ONLY: dict[str, frozenset[str]] = {
    "cli": frozenset({"", "server"}),
    "server": frozenset({"types", "_sansio.codec", "_sansio.sse"}),
}
"""What a program may use outside its own room: the command line only what its user could, the
server only the words and the bytes, because the one must prove the other."""

LIBRARIES: dict[str, frozenset[str]] = {
    "aiohttp": frozenset({"transports.aiohttp", "server", "testing"}),
    "anyio": frozenset(
        {"transports", "limiter", "exchange", "stream", "completions", "session", "cli", "testing"}
    ),
    "backoff": frozenset({"_sansio.retry"}),
    "httpcore2": frozenset({"transports.httpcore"}),
    "msgspec": frozenset(ROOMS),
    "prompt_toolkit": frozenset({"cli"}),
    "rich": frozenset({"cli"}),
    "trio": frozenset({"transports.httpcore"}),
    "typer": frozenset({"cli"}),
}
"""Every foreign library, and the rooms or modules that may import it."""

PURE = frozenset(
    """__future__ abc base64 binascii bisect codecs collections contextlib copy dataclasses datetime
    decimal email enum fractions functools hashlib heapq hmac html inspect ipaddress itertools json
    math numbers operator re reprlib string textwrap types typing unicodedata urllib""".split()
)
"""Of the standard library, what the rules may import: values in, values out."""

IMPURE_CALLS = frozenset({"open", "print", "input", "exec", "eval", "breakpoint", "__import__"})
CLOCK_READINGS = frozenset({"now", "utcnow", "today"})

MAX_FILE, MAX_FUNCTION, MAX_CORE = 300, 60, 4000
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {}

FORBIDDEN_NAMES = re.compile(
    "utils?|helpers?|commons?|core|managers?|handlers?|clients?|misc", re.IGNORECASE
)

# ─── reading ──────────────────────────────────────────────────────────────────────────────


class Source(NamedTuple):
    """One module. Names are relative to the package: `""`, `errors`, `_sansio.sse`."""

    text: str
    is_package: bool = False

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


class Import(NamedTuple):
    """One import. `target` is a module of ours without the package's name, or a foreign one."""

    target: str
    ours: bool
    typing_only: bool
    line: int


House = Mapping[str, Source]


def read(root: Path) -> House:
    house = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        house[name] = Source(path.read_text("utf-8"), is_package)
    return house


def imports(name: str, house: House) -> list[Import]:
    """All imports of a module, wherever they stand in it."""
    guarded = {
        id(inner)
        for node in ast.walk(house[name].tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for statement in node.body
        for inner in [ast.unparse(statement)]
    }
    del guarded
    found: list[Import] = []

    def visit(node: ast.AST, typing_only: bool) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for child in node.body:
                visit(child, True)
            for child in node.orelse:
                visit(child, typing_only)
            return
        for full in targets(node, name, house):
            ours = full == PACKAGE or full.startswith(f"{PACKAGE}.")
            target = full.removeprefix(PACKAGE).removeprefix(".") if ours else full.split(".")[0]
            found.append(Import(target, ours, typing_only, node.lineno))  # type: ignore[attr-defined]
        for child in ast.iter_child_nodes(node):
            visit(child, typing_only)

    visit(house[name].tree, False)
    return found
