"""A value satisfies its schema, whatever the text; a sum is right, whatever the sum."""

from __future__ import annotations

import json
import math
import re
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async.server.refusal import Refusal
from fluence_async.server.responders import arithmetic, schema


@pytest.mark.parametrize(
    ("given_schema", "text", "expected"),
    [
        ({"type": "string"}, "nothing here", "unknown"),
        ({"type": "string", "minLength": 9}, "x", "unknown.."),
        ({"type": "string", "maxLength": 3}, "x", "unk"),
        ({"type": "string", "format": "date"}, "on 2024-05-06", "2024-05-06"),
        ({"type": "string", "format": "uuid"}, "x", "00000000-0000-0000-0000-000000000000"),
        ({"type": "string", "default": "d"}, "x", "d"),
        ({"enum": ["red", "blue"]}, "a blue one", "blue"),
        ({"enum": [1, 2]}, "x", 1),
        ({"const": None}, "x", None),
        ({"type": "integer", "minimum": 3}, "x", 3),
        ({"type": "integer", "exclusiveMinimum": 3}, "1", 4),
        ({"type": "integer", "multipleOf": 5}, "12", 10),
        ({"type": "integer", "minimum": 11, "multipleOf": 5}, "12", 15),
        ({"type": "number", "exclusiveMinimum": 0, "maximum": 1}, "7", 1),
        ({"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}, "7", 0.5),
        ({"type": ["null", "string"]}, "x", None),
        ({"type": "array", "items": {"type": "integer"}}, "1 and 2 and 3", [1, 2, 3]),
        ({"type": "array", "items": {"type": "string"}}, "we met Ada and Bob", ["Ada", "Bob"]),
        ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, "x", [False, False]),
        ({"type": "array", "maxItems": 0}, "1", []),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": "a"}]}, "", [1, "a"]),
        ({"properties": {"a": {"type": "boolean"}}}, "it is not a", {"a": False}),
        ({"required": ["x"], "type": "object"}, "", {"x": "unknown"}),
        ({"allOf": [{"properties": {"a": {"const": 1}}}, {"required": ["a"]}]}, "", {"a": 1}),
        ({"$ref": "#/$defs/n", "$defs": {"n": {"const": 7}}}, "", 7),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, "it is 4", 4),
        (True, "", "unknown"),
    ],
    ids=str,
)
def test_a_value_satisfies_its_schema(given_schema: Any, text: str, expected: Any) -> None:
    value = schema.fill(given_schema, text)
    assert value == expected
    assert type(value) is type(expected) or isinstance(value, int | float)


WIDE: dict[str, Any] = {
    f"d{i}": {
        "properties": {key: {"$ref": f"#/$defs/d{i + 1}"} for key in "abcdef"},
        "required": list("abcdef"),
    }
    for i in range(12)
} | {"d12": {"type": "null"}}


@pytest.mark.parametrize(
    "bad",
    [
        {"type": "string", "pattern": "^a+$"},
        {"type": "wizard"},
        {"enum": []},
        {"$ref": "#/nowhere"},
        {"$ref": "https://example.com/schema"},
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"properties": [1]},
        {"type": "integer", "minimum": 2, "maximum": 1},
        {"type": "number", "exclusiveMinimum": 1, "exclusiveMaximum": 1},
        {"type": "integer", "minimum": 1, "maximum": 4, "multipleOf": 5},
        {"type": "array", "minItems": 1_000_000},
        {"properties": {"a": False}, "required": ["a"]},
        {"$ref": "#/$defs/d0", "$defs": WIDE},
    ],
    ids=lambda bad: str(bad)[:40],
)
def test_a_schema_that_cannot_be_satisfied_is_refused(bad: Any) -> None:
    before = time.monotonic()
    with pytest.raises(Refusal) as refused:
        schema.fill(bad, "text")
    assert refused.value.status == 400
    assert time.monotonic() - before < 5


LEAVES = st.one_of(
    st.builds(
        lambda low, size: {"type": "integer", "minimum": low, "maximum": low + size},
        st.integers(-50, 50),
        st.integers(0, 9),
    ),
    st.builds(lambda n: {"type": "string", "maxLength": n}, st.integers(0, 9)),
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.just({"type": "number", "exclusiveMinimum": 2}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(
            lambda s, n: {"type": "array", "items": s, "minItems": n}, inner, st.integers(0, 3)
        ),
        st.builds(
            lambda p: {"type": "object", "properties": p, "required": list(p)},
            st.dictionaries(st.sampled_from(["name", "age", "city", "x"]), inner, max_size=3),
        ),
        st.builds(lambda a: {"anyOf": [a, {"type": "null"}]}, inner),
    ),
    max_leaves=8,
)


def satisfies(value: Any, by: Any) -> bool:
    """A second, naive reading of the keywords above."""
    if "anyOf" in by:
        return any(satisfies(value, option) for option in by["anyOf"])
    match by["type"]:
        case "integer":
            return isinstance(value, int) and by["minimum"] <= value <= by["maximum"]
        case "number":
            return isinstance(value, int | float) and value > by["exclusiveMinimum"]
        case "string":
            return isinstance(value, str) and len(value) <= by["maxLength"]
        case "boolean":
            return isinstance(value, bool)
        case "null":
            return value is None
        case "array":
            long_enough = isinstance(value, list) and len(value) >= by["minItems"]
            return long_enough and all(satisfies(v, by["items"]) for v in value)
    properties = by["properties"]
    same_keys = isinstance(value, dict) and value.keys() == properties.keys()
    return same_keys and all(satisfies(value[key], properties[key]) for key in properties)


@given(SCHEMAS, st.text("aAbB 19.-,'\"é\n:@", max_size=60))
def test_whatever_the_schema_and_the_text_the_value_satisfies_it(by: Any, text: str) -> None:
    assert satisfies(json.loads(json.dumps(schema.fill(by, text))), by)


def value_of(expression: str) -> float | None:
    solved = arithmetic.solve(expression)
    found = re.search(r"[=≈] (\S+)$", solved or "")
    return float(found[1]) if found else None


EXPRESSIONS = st.recursive(
    st.integers(0, 99).map(str),
    lambda inner: st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({''.join(t)})"),
    max_leaves=8,
)


@given(EXPRESSIONS)
def test_sums_come_out_as_pythons_own(expression: str) -> None:
    try:
        expected = eval(expression)
    except ZeroDivisionError:
        assert "divides by zero" in (arithmetic.solve(expression) or "")
        return
    value = value_of(expression)
    assert value is not None
    assert math.isclose(value, expected, rel_tol=1e-8, abs_tol=1e-12)


@given(st.text("0123456789+-*/^(). sqrt", max_size=30))
def test_no_text_makes_a_sum_fail(text: str) -> None:
    found = arithmetic.find(text)
    if found is not None:
        arithmetic.solve(found)
