"""Schemas as models want them: the object at the root, and strict where that can be said."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import pytest

from fluence_async._sansio.schema import is_object, schema_of, strict_schema


class Leaf(msgspec.Struct):
    """A leaf."""

    x: int
    note: str = "none"


class Tree(msgspec.Struct):
    leaf: Leaf
    children: list[Tree] = []


class Told(msgspec.Struct):
    leaf: Annotated[Leaf, msgspec.Meta(description="where")]
    either: int | None = None


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    age: int


LEAF = {
    "title": "Leaf",
    "description": "A leaf.",
    "type": "object",
    "properties": {"x": {"type": "integer"}, "note": {"type": "string", "default": "none"}},
    "required": ["x"],
}
STRICT_LEAF = {
    "description": "A leaf.",
    "type": "object",
    "properties": {"x": {"type": "integer"}, "note": {"type": "string"}},
    "required": ["x", "note"],
    "additionalProperties": False,
}


def test_the_root_is_the_object_itself() -> None:
    assert schema_of(Leaf) == LEAF
    assert schema_of(int) == {"type": "integer"}


def test_a_type_that_holds_itself_stays_among_the_definitions() -> None:
    schema = schema_of(Tree)
    assert schema["type"] == "object"
    assert set(schema["$defs"]) == {"Tree", "Leaf"}
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(Leaf, True), (Tree, True), (dict[str, int], False), (list[Leaf], False), (int | str, False)],
)
def test_what_is_an_object(kind: Any, expected: bool) -> None:
    assert is_object(schema_of(kind)) is expected


def test_a_type_without_a_schema_is_named() -> None:
    with pytest.raises(TypeError, match=r"complex.*has no JSON schema"):
        schema_of(complex)


def test_a_strict_schema_requires_all_and_allows_no_more() -> None:
    assert strict_schema(schema_of(Leaf)) == STRICT_LEAF
    tree = strict_schema(schema_of(Tree))
    assert tree is not None
    assert tree["required"] == ["leaf", "children"]
    assert tree["$defs"]["Leaf"] == STRICT_LEAF
    assert tree["$defs"]["Tree"]["additionalProperties"] is False


def test_beside_a_reference_nothing_stands() -> None:
    told = strict_schema(schema_of(Told))
    assert told is not None
    assert told["properties"]["leaf"] == {**STRICT_LEAF, "description": "where"}
    assert told["properties"]["either"] == {"anyOf": [{"type": "integer"}, {"type": "null"}]}


def test_lists_and_unions_are_strict_inside() -> None:
    schema = strict_schema(schema_of(msgspec.defstruct("A", [("a", list[Leaf])])))
    assert schema is not None
    assert schema["$defs"]["Leaf"] == STRICT_LEAF
    schema = strict_schema(schema_of(msgspec.defstruct("A", [("a", Cat | Dog)])))
    assert schema is not None
    assert set(schema["properties"]["a"]) == {"anyOf"}


@pytest.mark.parametrize("kind", [dict[str, int], Any, list[Any], list[dict], tuple[int, str]])
def test_what_strict_mode_cannot_say_is_not_strict(kind: Any) -> None:
    assert strict_schema(schema_of(msgspec.defstruct("A", [("a", kind)]))) is None


def test_a_property_may_have_a_keywords_name() -> None:
    kind = msgspec.defstruct("A", [("default", int), ("title", Leaf), ("properties", str)])
    schema = strict_schema(schema_of(kind))
    assert schema is not None
    assert list(schema["properties"]) == ["default", "title", "properties"]


def test_the_given_schema_is_not_changed() -> None:
    schema = schema_of(Told)
    before = msgspec.json.encode(schema)
    strict_schema(schema)
    assert msgspec.json.encode(schema) == before
