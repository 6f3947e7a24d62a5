"""JSON as servers really send it in, JSON as it was meant out.

Law: *null means absent*, numbers in strings are numbers, and no text with half a character leaves
here, unless the other half may still come; a time is a whole second, and a text in parts is their
texts. What is not JSON at all is an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn, TypeVar

import msgspec

from .surrogates import TEXT_FIELDS, whole_text

__all__ = ["convert_answer", "convert_chunk", "is_bomb", "is_error", "loads"]

T = TypeVar("T")

_HELD_TEXTS = frozenset({*TEXT_FIELDS, "arguments"})
"""The texts of a chunk that may end in half a character, whose other half the next chunk has."""
_FREE_FORM = frozenset({"logprobs", "annotations", "audio", "file"})
"""What is kept as the server sends it: a null in it is an answer."""


def is_bomb(text: str | bytes, most: int) -> bool:
    """Whether JSON has more than `most` lists and objects, or ten times as many commas: each
    takes thirty times the room, and more time, once it is read. What is in strings counts, too."""
    if len(text) <= most:
        return False
    if isinstance(text, str):
        return text.count("{") + text.count("[") > most or text.count(",") > 10 * most
    return text.count(b"{") + text.count(b"[") > most or text.count(b",") > 10 * most


def loads(text: str, most: int) -> dict[str, Any]:
    """The JSON object in `text`.

    Raises:
        ValueError: It is no JSON, no object, or has more than `most` parts (see `is_bomb`).
        RecursionError: It is nested too deep.
    """
    if is_bomb(text, most):
        raise ValueError("it has more parts than are read")
    value = json.loads(text, parse_float=_finite, parse_constant=_no_constant)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object was expected, not {type(value).__name__}")
    return value


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def is_error(raw: Mapping[str, Any]) -> bool:
    """Whether an object is an error: it says so, or it has a message and no choices (vLLM)."""
    return bool(raw.get("error") or (raw.get("message") and not raw.get("choices")))


def convert_answer(raw: dict[str, Any], kind: type[T]) -> T:
    """What `raw` means as an answer; a ValueError if nothing."""
    return _convert(_with_whole_text(raw), kind)


def convert_chunk(raw: dict[str, Any], kind: type[T]) -> T:
    """What `raw` means as a chunk; a ValueError if nothing."""
    return _convert(_with_joined_parts(_with_whole_text(raw, _HELD_TEXTS)), kind)


def _with_joined_parts(raw: dict[str, Any]) -> dict[str, Any]:
    """Where a delta's content is a list of parts, as Mistral has it, put their texts, in place."""
    choices = raw.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        delta = choice.get("delta") if isinstance(choice, dict) else None
        if not isinstance(delta, dict):
            continue
        parts = delta.get("content")
        if isinstance(parts, list) and all(isinstance(part, dict) for part in parts):
            texts = [part.get("text") for part in parts if part.get("type") == "text"]
            if all(isinstance(text, str) for text in texts):
                delta["content"] = "".join(texts)
    return raw


def _convert(raw: Mapping[str, Any], kind: type[T]) -> T:
    fields = {name: value for name, value in raw.items() if name not in ("error", "message")}
    if isinstance(fields.get("created"), float):
        fields["created"] = int(fields["created"])
    return msgspec.convert(_without_nulls(fields), kind, strict=False)


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: item if name in _FREE_FORM else _without_nulls(item)
            for name, item in value.items()
            if item is not None
        }
    if isinstance(value, list):
        return [_without_nulls(item) for item in value if item is not None]
    return value


def _with_whole_text(value: Any, held: frozenset[str] = frozenset()) -> Any:
    """`value` without lone surrogates, but for the texts `held` back to be joined."""
    if isinstance(value, str):
        return value if value.isascii() else whole_text(value)
    if isinstance(value, dict):
        return {
            _with_whole_text(name): item
            if name in held and isinstance(item, str)
            else _with_whole_text(item, frozenset() if name in _FREE_FORM else held)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_with_whole_text(item, held) for item in value]
    return value
