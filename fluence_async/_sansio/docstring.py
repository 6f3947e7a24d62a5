"""A docstring goes in, what a model should know of the function comes out.

Law: Google style, https://google.github.io/styleguide/pyguide.html#383-functions-and-methods. What
stands before the first section describes the function; the section `Args:` its parameters.
"""

from __future__ import annotations

import inspect
import re

__all__ = ["described"]

_SECTION = re.compile(
    r"^(Args|Arguments|Parameters|Returns?|Yields?|Raises|Examples?|Attributes|Notes?|Todo"
    r"|References|See Also|Warnings?):[ \t]*$",
    re.MULTILINE,
)
_PARAMETERS = {"Args", "Arguments", "Parameters"}
_ENTRY = re.compile(r"\*{0,2}(\w+)[ \t]*(?:\([^)]*\))?:[ \t]*(.*)")


def described(docstring: str | None) -> tuple[str, dict[str, str]]:
    """The function's description, and each parameter's, in one line each; empty where missing."""
    before, *sections = _SECTION.split(inspect.cleandoc(docstring or ""))
    parameters: dict[str, str] = {}
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        if title in _PARAMETERS:
            parameters |= _entries(body)
    return before.strip(), parameters


def _entries(body: str) -> dict[str, str]:
    """`name (type): text` with its further lines, each indented deeper than its first."""
    found: dict[str, list[str]] = {}
    margin: int | None = None
    name = ""
    for line in body.expandtabs().splitlines():
        text = line.lstrip()
        if not text:
            continue
        indent = len(line) - len(text)
        margin = indent if margin is None else margin
        entry = _ENTRY.fullmatch(text) if indent <= margin else None
        if entry is not None:
            name = entry[1]
            found[name] = [entry[2]]
        elif indent > margin and name:
            found[name].append(text)
        else:
            name = ""
    return {name: " ".join(texts).strip() for name, texts in found.items()}
