"""A JSON schema and a text → a value that satisfies the schema, filled from the text.

What the text does not say gets the schema's own `default` or first `example`, else the plainest
value that is allowed. Keywords whose satisfaction is not computed here (`pattern`, `not`, `if`)
are refused rather than violated.

Spec: https://json-schema.org/draft/2020-12/json-schema-validation
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ..refusal import Refusal
from .findings import Findings

__all__ = ["fill"]

_UNKNOWN = ("pattern", "patternProperties", "not", "if", "contains", "uniqueItems")
_PLAIN = {
    "email": "someone@example.com",
    "uri": "https://example.com",
    "url": "https://example.com",
    "date": "1970-01-01",
    "time": "00:00:00Z",
    "date-time": "1970-01-01T00:00:00Z",
    "duration": "PT0S",
    "uuid": "00000000-0000-0000-0000-000000000000",
    "ipv4": "127.0.0.1",
    "ipv6": "::1",
    "hostname": "localhost",
}
_NULL = {"type": "null"}
_SHALLOW = 5
_DEEPEST = 64
_MOST_ITEMS = 32
_MOST_VALUES = 500


def fill(schema: Mapping[str, Any], text: str) -> Any:
    """A value that satisfies `schema`, with what `text` says.

    Raises:
        Refusal: 400, for a schema that cannot be followed.
    """
    try:
        return _Filler(schema, Findings(text)).value(schema, "", 0)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise _refuse(f"it is no schema ({type(error).__name__}: {error})") from None


class _Filler:
    """Fills one schema, with a budget of values, since a small schema may ask for many."""

    def __init__(self, root: Mapping[str, Any], findings: Findings) -> None:
        self._root = root
        self._findings = findings
        self._budget = _MOST_VALUES

    def value(self, schema: Any, name: str, depth: int) -> Any:
        self._budget -= 1
        if depth > _DEEPEST or self._budget < 0:
            raise _refuse("it asks for too much, or without end")
        if schema is False:
            raise _refuse(f"{name!r} must not be there, and must be")
        schema = {} if schema is True else self._resolved(schema)
        unknown = next((word for word in _UNKNOWN if schema.get(word)), None)
        if unknown:
            raise _refuse(f"fluence-local does not follow {unknown!r}")
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._one_of(schema["enum"])
        options = schema.get("anyOf") or schema.get("oneOf")
        if options:
            return self._either(options, name, depth)
        return self._typed(schema, name, depth)

    def _typed(self, schema: Mapping[str, Any], name: str, depth: int) -> Any:
        match _kind(schema, depth):
            case "object":
                return self._object(schema, depth)
            case "array":
                return self._array(schema, name, depth)
            case "string":
                return self._string(schema, name)
            case "boolean":
                said = self._findings.boolean(name)
                return bool(_given(schema, otherwise=False)) if said is None else said
            case "null":
                return None
            case "number" | "integer" as kind:
                number = self._findings.number(name)
                number = _given(schema, otherwise=0) if number is None else number
                return _within(schema, number, whole=kind == "integer")
            case kind:
                raise _refuse(f"{kind!r} is no type")

    def _resolved(self, schema: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema with its `$ref` followed and its `allOf` merged."""
        for _ in range(_DEEPEST):
            if "$ref" in schema:
                schema = {**self._target(schema["$ref"]), **_without(schema, "$ref")}
            elif schema.get("allOf"):
                schema = _merged([_without(schema, "allOf"), *map(self._resolved, schema["allOf"])])
            else:
                return schema
        raise _refuse("its $ref leads in a circle")

    def _target(self, ref: str) -> Mapping[str, Any]:
        target: Any = self._root
        try:
            for step in ref.removeprefix("#").split("/")[1:]:
                target = target[step.replace("~1", "/").replace("~0", "~")]
        except (KeyError, TypeError):
            target = None
        if not isinstance(target, Mapping) or not ref.startswith("#"):
            raise _refuse(f"$ref {ref!r} leads nowhere")
        return target

    def _one_of(self, values: list[Any]) -> Any:
        if not values:
            raise _refuse("an enum is empty")
        said = self._findings.among([value for value in values if isinstance(value, str)])
        return values[0] if said is None else said

    def _either(self, options: list[Any], name: str, depth: int) -> Any:
        """The first option, or null if that is one and the text speaks of nothing else."""
        first = next((option for option in options if option != _NULL), _NULL)
        if _NULL in options:
            structured = _kind(self._resolved(first), depth) in {"object", "array"}
            if depth > _SHALLOW or (structured and self._findings.boolean(name) is None):
                return None
        return self.value(first, name, depth + 1)

    def _object(self, schema: Mapping[str, Any], depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = set(schema.get("required") or ())
        names = [key for key in properties if key in required or depth <= _SHALLOW]
        names += [key for key in schema.get("required") or () if key not in properties]
        extra = schema.get("additionalProperties", True)
        return {key: self.value(properties.get(key, extra), key, depth + 1) for key in names}

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        least = schema.get("minItems", 0)
        most = schema.get("maxItems", max(least, _MOST_ITEMS))
        if least > _MOST_ITEMS:
            raise _refuse(f"minItems is {least}, more than {_MOST_ITEMS}")
        fixed = schema.get("prefixItems") or []
        items = schema.get("items", True)
        kind = items.get("type") if isinstance(items, Mapping) and "enum" not in items else None
        wished = max(least, len(fixed), 1 if depth <= _SHALLOW else 0)
        count = min(most, max(wished, self._findings.count(str(kind))))
        shapes = [*fixed, *[items] * count][:count]
        return [self.value(shape, name.removesuffix("s"), depth + 1) for shape in shapes]

    def _string(self, schema: Mapping[str, Any], name: str) -> str:
        form = schema.get("format", "")
        value = self._findings.string(name, form)
        if value is None:
            value = str(_given(schema, otherwise=_PLAIN.get(form, "unknown")))
        if form in _PLAIN:
            return value
        return value[: schema.get("maxLength")].ljust(schema.get("minLength", 0), ".")


def _refuse(why: str) -> Refusal:
    return Refusal(400, f"This JSON schema cannot be satisfied: {why}", code="invalid_schema")


def _given(schema: Mapping[str, Any], *, otherwise: Any) -> Any:
    """The schema's own suggestion of a value."""
    return schema.get("default", next(iter(schema.get("examples") or ()), otherwise))


def _kind(schema: Mapping[str, Any], depth: int) -> str:
    """The type to fill in: the schema's own, or what its other keywords speak of."""
    kind = schema.get("type")
    if isinstance(kind, list):
        return "null" if depth > _SHALLOW and "null" in kind else str(kind[0])
    if kind is not None:
        return str(kind)
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _within(schema: Mapping[str, Any], value: float, *, whole: bool) -> float:
    """`value` if the schema allows it, else a number near it that it allows."""
    unit: float = schema.get("multipleOf") or (1 if whole else 0)
    above: float = schema.get("exclusiveMinimum", -math.inf)
    below: float = schema.get("exclusiveMaximum", math.inf)
    low: float = max(above, schema.get("minimum", above))
    high: float = min(below, schema.get("maximum", below))

    def allowed(number: float) -> bool:
        fits = low <= number <= high and above < number < below
        return fits and (not unit or math.isclose(number, round(number / unit) * unit))

    near = min(max(value, low), high)
    if unit:
        tries = [round(near / unit + by) * unit for by in (0, 1, -1)]
    else:
        tries = [near, (low + high) / 2 if high - low < math.inf else math.nan, near + 1, near - 1]
    for number in (value, *tries):
        if allowed(number):
            return round(number) if whole else number
    raise _refuse(f"no number is allowed between {low} and {high}")


def _without(schema: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key not in names}


def _merged(schemas: list[Mapping[str, Any]]) -> dict[str, Any]:
    """One schema for all of `allOf`: properties and requirements add up."""
    merged: dict[str, Any] = {}
    for schema in schemas:
        properties = {**merged.get("properties", {}), **schema.get("properties", {})}
        required = [*merged.get("required", []), *schema.get("required", [])]
        merged |= {**schema, "properties": properties, "required": required}
    return merged if merged.get("properties") else _without(merged, "properties", "required")
