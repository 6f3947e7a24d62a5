"""A type goes in, its JSON schema comes out, as msgspec makes it and as models want it.

Law: the root is the object itself and not a `$ref` to it, because many servers read `properties`
at the root only. A strict schema follows the rules of the wire's strict mode: every object lists
all its properties as required and allows no others; what such a schema cannot say (a free mapping,
a tuple, `Any`) is not strict.

Spec: https://json-schema.org/draft/2020-12/json-schema-core
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["is_object", "schema_of", "strict_schema"]

_UNTOLD = {"default", "discriminator", "title"}
_REF = "#/$defs/"


def schema_of(kind: Any) -> dict[str, Any]:
    """The schema of a type, its root inlined.

    Raises:
        TypeError: The type has none; the message says which part of it.
    """
    try:
        schema = msgspec.json.schema(kind)
    except TypeError as error:
        reason = str(error).replace("\n", " ")
        raise TypeError(f"{kind!r} has no JSON schema: {reason}") from None
    return _inlined(schema)


def is_object(schema: Mapping[str, Any]) -> bool:
    """Whether it is an object with named properties."""
    return schema.get("type") == "object" and "properties" in schema


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    ref = schema.get("$ref")
    if ref is None:
        return schema
    name = ref.removeprefix(_REF)
    definitions = schema["$defs"]
    root = definitions[name]
    if not _refers(definitions, ref):  # a type that holds itself stays among the definitions
        definitions = {key: value for key, value in definitions.items() if key != name}
    return {**root, "$defs": definitions} if definitions else dict(root)


def _refers(value: Any, ref: str) -> bool:
    if isinstance(value, dict):
        return value.get("$ref") == ref or any(_refers(item, ref) for item in value.values())
    return isinstance(value, list) and any(_refers(item, ref) for item in value)


def strict_schema(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same schema for the wire's strict mode; None where that cannot say it."""
    try:
        return _strict(schema, schema.get("$defs", {}))
    except _NotStrictError:
        return None


class _NotStrictError(Exception):
    """The schema says what a strict one cannot."""


def _strict(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> dict[str, Any]:
    told = {name: value for name, value in schema.items() if name not in _UNTOLD}
    ref = told.get("$ref")
    if ref is not None:
        if len(told) == 1:
            return told
        # beside a $ref nothing may stand, so what it means is written out
        del told["$ref"]
        return _strict({**definitions[ref.removeprefix(_REF)], **told}, definitions)
    needed = {"object": "properties", "array": "items"}.get(told.get("type", ""))
    if not told.keys() - {"description", "$defs"} or (needed and not told.get(needed)):
        raise _NotStrictError
    for name in ("properties", "$defs"):
        if name in told:
            told[name] = {key: _strict(item, definitions) for key, item in told[name].items()}
    if "anyOf" in told:
        told["anyOf"] = [_strict(item, definitions) for item in told["anyOf"]]
    if "items" in told:
        told["items"] = _strict(told["items"], definitions)
    if "properties" in told:
        told["required"] = list(told["properties"])
        told["additionalProperties"] = False
    return told
