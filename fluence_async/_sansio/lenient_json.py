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

__all__ = [
    "HELD_TEXTS",
    "convert_leniently",
    "is_error",
    "loads",
    "with_joined_parts",
    "with_whole_text",
]

T = TypeVar("T")

HELD_TEXTS = frozenset({*TEXT_FIELDS, "arguments"})
"""The texts of a chunk that may end in half a character, whose other half the next chunk has."""
_FREE_FORM = frozenset({"logprobs", "annotations", "audio", "file"})
"""What is kept as the server sends it: a null in it is an answer."""


def loads(text: str) -> dict[str, Any]:
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


def with_joined_parts(raw: dict[str, Any]) -> dict[str, Any]:
    """Where a delta's content is a list of parts, as Mistral has it, put their texts, in place."""
    choices = raw.get("choices")
    for choice in choices if isinstance(choices, list) else ():
        delta = choice.get("delta") if isinstance(choice, dict) else None
        parts = delta.get("content") if isinstance(delta, dict) else None
        if isinstance(parts, list) and all(isinstance(part, dict) for part in parts):
            texts = [part.get("text") for part in parts if part.get("type") == "text"]
            if all(isinstance(text, str) for text in texts):
                delta["content"] = "".join(texts)
    return raw


def convert_leniently(raw: Mapping[str, Any], kind: type[T]) -> T:
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


def with_whole_text(value: Any, held: frozenset[str] = frozenset()) -> Any:
    """`value` without lone surrogates, but for the texts `held` back to be joined."""
    if isinstance(value, str):
        return value if value.isascii() else whole_text(value)
    if isinstance(value, dict):
        return {
            with_whole_text(name): item
            if name in held and isinstance(item, str)
            else with_whole_text(item, held)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [with_whole_text(item, held) for item in value]
    return value
