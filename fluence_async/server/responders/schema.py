"""A JSON schema and a text → a value that satisfies the schema, filled from the text.

What the text does not say gets the schema's own `default` or first `example`, else the plainest
value that is allowed. Keywords whose satisfaction is not computed here (`pattern`, `not`, `if`)
are refused rather than violated.

Spec: https://json-schema.org/draft/2020-12/json-schema-validation
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
_SHALLOW = 5
_DEEPEST = 64


def fill(schema: Mapping[str, Any], text: str) -> Any:
    """A value that satisfies `schema`, with what `text` says.

    Raises:
        Refusal: 400, for a schema that cannot be followed.
    """
    return _Filler(schema, Findings(text)).value(schema, "", 0)


class _Filler:
    def __init__(self, root: Mapping[str, Any], findings: Findings) -> None:
        self._root = root
        self._findings = findings

    def value(self, schema: Any, name: str, depth: int) -> Any:
        if depth > _DEEPEST:
            raise _refuse("it is nested without end")
        if schema is True:
            schema = {}
        if not isinstance(schema, Mapping):
            raise _refuse(f"{name or 'it'} has no schema that can be satisfied")
        schema = self._resolved(schema)
        unknown = next((word for word in _UNKNOWN if schema.get(word)), None)
        if unknown:
            raise _refuse(f"fluence-local does not follow {unknown!r}")
        if "const" in schema:
            return schema["const"]
        if "enum" in schema:
            return self._one_of(schema["enum"])
        for word in ("anyOf", "oneOf"):
            if schema.get(word):
                return self._either(schema[word], name, depth)
        kind = _kind(schema, depth)
        filler = getattr(self, f"_{kind}", None)
        if filler is None:
            raise _refuse(f"{kind!r} is no type")
        return filler(schema, name, depth)

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
        if depth > _SHALLOW and {"type": "null"} in options:
            return None
        return self.value(options[0], name, depth + 1)

    def _object(self, schema: Mapping[str, Any], name: str, depth: int) -> dict[str, Any]:
        properties = schema.get("properties") or {}
        required = set(schema.get("required") or ())
        names = [key for key in properties if key in required or depth <= _SHALLOW]
        names += [key for key in schema.get("required") or () if key not in properties]
        extra = schema.get("additionalProperties", True)
        return {key: self.value(properties.get(key, extra), key, depth + 1) for key in names}

    def _array(self, schema: Mapping[str, Any], name: str, depth: int) -> list[Any]:
        least = schema.get("minItems", 0)
        if least > _MOST_ITEMS:
            raise _refuse(f"minItems {least} is more than {_MOST_ITEMS}")
        most = schema.get("maxItems", max(least, 3))
        fixed = schema.get("prefixItems") or []
        items = schema.get("items", True)
        shape = self._resolved(items) if isinstance(items, Mapping) else {}
        if shape.get("type") == "string" and "enum" not in shape and not fixed:
            said: list[Any] = self._findings.names()[:most]
            if len(said) >= max(least, 1):
                return said
        if shape.get("type") in {"number", "integer"} and not fixed:
            return self._numbers(shape, name, depth, least, most)
        count = max(least, 1 if depth <= _SHALLOW else 0, len(fixed)) if most else 0
        shapes = [*fixed, *[items] * count][:count]
        return [self.value(item, name.removesuffix("s"), depth + 1) for item in shapes]

    def _numbers(
        self, shape: Mapping[str, Any], name: str, depth: int, least: int, most: int
    ) -> list[Any]:
        values = [self.value(shape, name, depth + 1) for _ in range(most)]
        return values[: max(least, min(most, len(Findings(self._findings.text).numbers())))]

    def _string(self, schema: Mapping[str, Any], name: str, depth: int) -> str:
        form = schema.get("format")
        found = self._findings.string(name, form)
        if found is None:
            found = str(_given(schema) or _PLAIN.get(form or "", "unknown"))
        if form is None:
            found = found[: schema.get("maxLength", len(found))].ljust(schema.get("minLength", 0), ".")
        return found

    def _number(self, schema: Mapping[str, Any], name: str, depth: int) -> float:
        found = self._findings.number(name)
        value = _given(schema) or 0 if found is None else found
        return _within(schema, value, step=schema.get("multipleOf") or 0)

    def _integer(self, schema: Mapping[str, Any], name: str, depth: int) -> int:
        found = self._findings.number(name)
        value = round(_given(schema) or 0 if found is None else found)
        return int(_within(schema, value, step=schema.get("multipleOf") or 1))

    def _boolean(self, schema: Mapping[str, Any], name: str, depth: int) -> bool:
        found = self._findings.boolean(name)
        return bool(_given(schema)) if found is None else found

    def _null(self, schema: Mapping[str, Any], name: str, depth: int) -> None:
        return None
