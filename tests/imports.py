"""A package's source goes in, and who imports whom comes out, read from the syntax trees.

Also what is imported inside functions, under `TYPE_CHECKING`, and by `import_module`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PACKAGE = "fluence_async"


class Module(NamedTuple):
    """One module's text."""

    text: str
    is_package: bool = False

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)


House = Mapping[str, Module]
"""Modules by name without the package's: `""`, `errors`, `_sansio.sse`."""


class Import(NamedTuple):
    """One import; `target` is named like a module of the house if it is `ours`."""

    target: str
    ours: bool
    for_types: bool
    line: int


def read_house(root: Path) -> House:
    """The modules of the package at `root`."""
    house = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        house[name] = Module(path.read_text("utf-8"), is_package)
    return house


def imports(name: str, house: House) -> Iterator[Import]:
    """Every import of a module, wherever it stands in it."""

    def walk(node: ast.AST, for_types: bool) -> Iterator[Import]:
        for full in imported(node, name, house):
            ours = full.split(".")[0] == PACKAGE
            target = full.removeprefix(PACKAGE).removeprefix(".") if ours else full.split(".")[0]
            yield Import(target, ours, for_types, getattr(node, "lineno", 0))
        guards = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in ast.iter_child_nodes(node):
            in_body = isinstance(node, ast.If) and child in node.body
            yield from walk(child, for_types or (guards and in_body))

    return walk(house[name].tree, False)


def imported(node: ast.AST, importer: str, house: House) -> list[str]:
    """The full names of the modules that one node imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
        ("import_module", "__import__")
    ):
        literal = node.args and isinstance(node.args[0], ast.Constant)
        return [str(node.args[0].value) if literal else "<computed>"]  # type: ignore[attr-defined]
    if not isinstance(node, ast.ImportFrom):
        return []
    base = node.module or ""
    if node.level:
        parts = f"{PACKAGE}.{importer}".rstrip(".").split(".")
        up = node.level - house[importer].is_package
        base = ".".join([*parts[: len(parts) - up], *base.split(".")]).rstrip(".")
    names = []
    for alias in node.names:
        inner = f"{base}.{alias.name}"
        names.append(inner if inner.removeprefix(f"{PACKAGE}.") in house else base)
    return names
