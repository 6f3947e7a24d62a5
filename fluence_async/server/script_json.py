"""A script written as JSON into the steps that it means, so that any language can write one.

A text is an answer, or in a stream a piece of one; a list is its members one after another; an
object is a step, named as in Python, with the rest of its fields as what is said by name there:

    "Hello"   {"Status": 429, "retry_after": "1"}   {"Pause": 0.5}   {"Reset": true}
    {"Stream": ["Hel", {"Reset": true}]}
    {"Answer": [{"Call": "get_weather", "arguments": {"city": "Paris"}}]}
    {"Trickle": {"Stream": ["Hello"]}, "gap": 0.01}
    {"Reply": 200, "json": {"any": "thing"}}

The step's own value is its argument; true stands for none, and where it takes several, a list for
all of them. `{"Bytes": "data: {"}` and `{"Base64": "..."}` are bytes as they are.
"""

from __future__ import annotations

import base64
import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

import msgspec

from . import faults, hostile, replies
from .replies import ReplyLike

__all__ = ["read_line"]

_STEPS: dict[str, Callable[..., Any]] = {
    name: getattr(module, name)
    for module in (replies, faults, hostile)
    for name in module.__all__
    if inspect.isclass(getattr(module, name)) and name != "Step"
}
_HOLD_STEPS = frozenset(
    {"Answer", "Corrupt", "Lost", "Repeat", "Shuffle", "Stream", "Trickle", "Truncate"}
)
_BYTES = ("Base64", "Bytes")


def read_line(value: Any) -> ReplyLike:
    """A line of a script, from decoded JSON.

    Raises:
        ValueError: It is none; the message says what stands there and what could.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return [read_line(each) for each in value]
    fields = value if isinstance(value, dict) else {}
    named = [name for name in fields if name in _STEPS or name in _BYTES]
    if len(named) != 1:
        known = ", ".join(sorted({*_STEPS, *_BYTES}))
        raise ValueError(
            f"{_shown(value)} is no step: a text, a list, or an object with one of {known}"
        )
    name = named[0]
    if name in _BYTES:
        return _bytes(name, value[name])
    said = {field: what for field, what in value.items() if field != name}
    return _made(name, value[name], said)


def _made(name: str, value: Any, said: dict[str, Any]) -> ReplyLike:
    step = _STEPS[name]
    signature, hints = inspect.signature(step), get_type_hints(step.__init__)
    several = any(kind.kind is kind.VAR_POSITIONAL for kind in signature.parameters.values())
    arguments = [] if value is True else value if several and isinstance(value, list) else [value]
    try:
        bound = signature.bind(*arguments, **said)
        for parameter, what in bound.arguments.items():
            if name in _HOLD_STEPS and parameter in {"what", "steps", "parts"}:
                meant = read_line(list(what) if isinstance(what, tuple) else what)
            else:
                meant = _checked(what, hints[parameter])
            bound.arguments[parameter] = meant
    except (TypeError, msgspec.ValidationError) as error:
        raise ValueError(f"{_shown({name: value, **said})}: {error}") from None
    made: ReplyLike = step(*bound.args, **bound.kwargs)
    return made


def _checked(value: Any, hint: Any) -> Any:
    """The value as it stands, if it is of the step's type; bytes are written as a text."""
    if hint is bytes and isinstance(value, str):
        return value.encode()
    msgspec.convert(value, hint)
    return value


def _bytes(name: str, text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"{_shown({name: text})}: must be a text")
    return text.encode() if name == "Bytes" else base64.b64decode(text, validate=True)


def _shown(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 200 else f"{text[:200]}…"
