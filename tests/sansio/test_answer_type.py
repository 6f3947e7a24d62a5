"""What is asked for a type, and how an answer is read as it."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any, Generic, NotRequired, TypedDict, TypeVar

import msgspec
import pytest

from fluence_async import ParsedField, ParseError
from fluence_async._sansio.answer_type import AnswerType
from fluence_async.types import ChatCompletion, Choice, Message, ToolCall

T = TypeVar("T")


class Step(msgspec.Struct):
    text: str
    minutes: int = 1


class Recipe(msgspec.Struct, rename="camel"):
    full_title: str
    steps: list[Step] = []


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Settings(TypedDict):
    depth: int
    name: NotRequired[str]


class Box(msgspec.Struct, Generic[T]):
    inside: T


class Cat(msgspec.Struct, tag=True):
    name: str


class Dog(msgspec.Struct, tag=True):
    age: int


def answer(text: str | None = None, *, finish: str = "stop", **message: Any) -> ChatCompletion:
    said = Message(role="assistant", content=text, **message)
    return ChatCompletion(choices=[Choice(message=said, finish_reason=finish)])


# ─── asking ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "name", "strict", "properties"),
    [
        (Recipe, "Recipe", True, ["fullTitle", "steps"]),
        (Point, "Point", True, ["x", "y"]),
        (Settings, "Settings", True, ["depth", "name"]),
        (Box[int], "Box_int", True, ["inside"]),
        (Box[dict[str, int]], "Box_dict_str_int", False, ["inside"]),
        (list[Step], "list", True, ["value"]),
        (int | None, "int_None", True, ["value"]),
        (Cat | Dog, None, True, ["value"]),
        (dict[str, int], "dict", False, ["value"]),
    ],
)
def test_the_format_that_is_asked_for(
    kind: Any, name: str | None, strict: bool, properties: list[str]
) -> None:
    asked = AnswerType(kind).response_format
    assert asked.type == "json_schema"
    assert asked.json_schema is not None
    assert asked.json_schema.schema is not None
    assert asked.json_schema.strict is strict
    assert asked.json_schema.schema["type"] == "object"
    assert sorted(asked.json_schema.schema["properties"]) == properties
    if name is not None:
        assert asked.json_schema.name.startswith(name.split("_", maxsplit=1)[0])
    assert 0 < len(asked.json_schema.name) <= 64


def test_a_type_without_a_schema_is_refused() -> None:
    with pytest.raises(TypeError, match="has no JSON schema"):
        AnswerType(complex)


# ─── reading ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Recipe, '{"fullTitle":"Soup","new":1}', Recipe("Soup")),
        (Point, '{"x":1}', Point(1)),
        (Settings, '{"depth":1}', {"depth": 1}),
        (Box[int], '{"inside":1}', Box(1)),
        (list[Step], '{"value":[{"text":"a"}]}', [Step("a")]),
        (Cat | Dog, '{"value":{"type":"Dog","age":3}}', Dog(3)),
        (int | None, '{"value":null}', None),
        (dict[str, int], '{"value":{"a":1}}', {"a": 1}),
    ],
)
def test_an_answer_of_the_type_is_its_value(kind: Any, text: str, value: Any) -> None:
    result = AnswerType[Any](kind).parsed(answer(text))
    assert (result.parsed, result.parse_error) == (value, None)
    assert result.value == value


CALL = [ToolCall(id="c")]
WHOLE = '{"fullTitle":"Soup"}'


@pytest.mark.parametrize(
    ("completion", "reason", "message"),
    [
        (answer(refusal="I will not."), "refusal", "I will not."),
        (answer(WHOLE, refusal="No.", finish="length"), "refusal", "No."),
        (answer(WHOLE, finish="length"), "length", "max_tokens"),
        (answer('{"fullT', finish="length"), "length", "max_tokens"),
        (answer(WHOLE, finish="content_filter"), "content_filter", "content filter"),
        (answer(tool_calls=CALL, finish="tool_calls"), "tool_calls", "calls tools"),
        (answer("Here you are: {}"), "invalid", "is no Recipe"),
        (answer('{"fullTitle":1}'), "invalid", r"\$\.fullTitle"),
        (answer(""), "invalid", "is no Recipe"),
        (answer(None), "invalid", "is no Recipe"),
        (answer('{"fullTitle":' + "[" * 100_000), "invalid", "is no Recipe"),
        (ChatCompletion(), "invalid", "is no Recipe"),
    ],
)
def test_any_other_answer_is_a_result_that_says_why(
    completion: ChatCompletion, reason: str, message: str
) -> None:
    result = AnswerType[Recipe](Recipe).parsed(completion)
    assert result.parsed is None
    assert result.completion is completion
    assert result.parse_error is not None
    assert result.parse_error.reason == reason
    with pytest.raises(ParseError, match=message) as caught:
        result.value  # noqa: B018
    assert caught.value.completion is completion
    assert pickle.loads(pickle.dumps(result)).parse_error.reason == reason


# ─── while it comes ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "text", "fields"),
    [
        (
            Recipe,
            '{"fullTitle":"Soup","steps":[{"text":"a"}],"new":[1]}',
            [("full_title", "Soup"), ("steps", [Step("a")]), ("new", [1])],
        ),
        (Point, '{"x":1,"y":2}', [("x", 1), ("y", 2)]),
        (Settings, '{"depth":1,"name":"n"}', [("depth", 1), ("name", "n")]),
        (Box[Point], '{"inside":{"x":1}}', [("inside", Point(1))]),
        (list[Step], '{"value":[{"text":"a"},{"text":"b"}]}', [(0, Step("a")), (1, Step("b"))]),
        (list, '{"value":[1,"a"]}', [(0, 1), (1, "a")]),
        (frozenset[int], '{"value":[1,2]}', [(0, 1), (1, 2)]),
        (Cat | Dog, '{"value":{"type":"Dog","age":3}}', [("value", Dog(3))]),
        # after a field that does not fit there are no more
        (Recipe, '{"fullTitle":1,"steps":[]}', []),
        (Point, '{"x":1,"y":"2","z":3}', [("x", 1)]),
        (Recipe, "I will not.", []),
    ],
)
def test_fields_come_once_by_their_own_names_and_types(
    kind: Any, text: str, fields: list[tuple[str | int, Any]]
) -> None:
    expected = [ParsedField(name, value) for name, value in fields]
    whole, cut = AnswerType[Any](kind).reader(), AnswerType[Any](kind).reader()
    assert [*whole.feed(text)] == expected
    assert [field for character in text for field in cut.feed(character)] == expected
