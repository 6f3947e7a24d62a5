"""What a caller hands in goes in; nothing comes out, or an error that tells the way out.

Law: an error names the argument, the value, what it must be and what to write instead. A value of
the wrong type is a TypeError, one out of range a ValueError. No header's value is shown, since it
may be a secret.

Rejected: mending what was meant (a lone hook put into a list): one way to write a thing is enough.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

__all__ = [
    "check_count",
    "check_flag",
    "check_headers",
    "check_hooks",
    "check_number",
    "check_path",
    "check_seconds",
    "check_tags",
    "meant",
]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, 5.6.2


def meant(names: Iterable[str], known: Iterable[str], sign: str = "=") -> str:
    """The names, quoted, each with the known one that it is nearly."""
    known = sorted(known)
    shown = []
    for name in sorted(map(str, names)):
        near = get_close_matches(name, known, 1, 0.75)
        shown.append(f"{name!r} (did you mean {near[0]}{sign}?)" if near else repr(name))
    return ", ".join(shown)


def check_count(name: str, value: Any, *, least: int, way_out: str = "") -> None:
    """Refuse what is no whole number from `least` up; what is too small gets a way out."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name}={value!r}: must be a whole number, {least} or more")
    if value < least:
        raise ValueError(f"{name}={value}: must be {least} or more{way_out}")


def check_number(name: str, value: Any, *, below: float = math.inf) -> None:
    """Refuse what is no number from 0 up to below the bound."""
    must = "must be a number, 0 or more, " + ("finite" if below == math.inf else f"below {below}")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r}: {must}")
    if not 0 <= value < below:
        raise ValueError(f"{name}={value!r}: {must}")


def check_seconds(name: str, value: Any, *, finite: bool = False, way_out: str = "") -> None:
    """Refuse what is no time above 0."""
    must = f"must be above 0 seconds{', and finite' if finite else ''}{way_out}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}={value!r}: {must}")
    if not value > 0 or (finite and value == math.inf):
        raise ValueError(f"{name}={value!r}: {must}")


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither True nor False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: must be True or False")


def check_path(name: str, value: Any) -> None:
    """Refuse what can be no file's path; None stands for the usual one."""
    if value is None:
        return
    if not isinstance(value, str) and not hasattr(value, "__fspath__"):
        raise TypeError(f"{name}={value!r}: must be a file's path, as a str or a Path")
    if not str(value):
        raise ValueError(f"{name}={value!r} is empty: name a file")


def check_headers(name: str, headers: Any) -> None:
    """Refuse what no request could carry, and what would displace the key."""
    if not isinstance(headers, Mapping):
        raise TypeError(
            f"{name} must be a mapping, as {{'X-Tenant': 'acme'}}, not {_kind_of(headers)}"
        )
    for header, value in headers.items():
        if not isinstance(header, str) or not isinstance(value, str):
            raise TypeError(
                f"{name}: the header {header!r} and its value must be a str, and the value is "
                f"{_kind_of(value)}"
            )
        if _TOKEN.fullmatch(header) is None:
            raise ValueError(
                f"{name}: the header name {header!r} must be letters, digits and any of "
                "!#$%&'*+-.^_`|~, as 'X-Tenant'"
            )
        if header.lower() == "authorization":
            raise ValueError(
                f"{name}: the header {header!r} would displace the key: pass it as api_key="
            )
        if not value.isascii() or not value.isprintable():
            raise ValueError(
                f"{name}: the value of the header {header!r} must be printable ASCII, without "
                "line breaks"
            )


def check_tags(tags: Any) -> None:
    """Refuse what are no names and values."""
    if not isinstance(tags, Mapping):
        raise TypeError(f"tags={tags!r}: must be a mapping, as tags={{'tenant': 'acme'}}")
    for name, value in tags.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(f"tags={{{name!r}: {value!r}}}: name and value must be a str")
        try:
            f"{name}{value}".encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"tags={{{name!r}: {value!r}}}: half a surrogate pair, which no UTF-8 can carry"
            ) from None


def check_hooks(hooks: Any) -> None:
    """Refuse what cannot be told, and what would have to be awaited."""
    if not isinstance(hooks, Sequence) or isinstance(hooks, str | bytes):
        raise TypeError(f"hooks={hooks!r}: must be a list of callables, as hooks=[my_hook]")
    for position, hook in enumerate(hooks):
        which = f"hooks[{position}]={hook!r}"
        if isinstance(hook, type):
            raise TypeError(f"{which} is a class: make one, as hooks=[{hook.__name__}()]")
        if not callable(hook):
            raise TypeError(f"{which} cannot be called: a hook takes one fact, as hooks=[print]")
        if any(map(_is_awaited, (hook, type(hook).__call__))):
            raise TypeError(
                f"{which} is a coroutine function, and hooks are told, never awaited: let a plain "
                "function put the fact into a queue (asyncio.Queue.put_nowait, send_nowait of "
                "anyio's memory stream) that a task of yours reads"
            )


def _is_awaited(function: Any) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)


def _kind_of(value: object) -> str:
    return f"of type {type(value).__name__}"
