"""`@tool`: what a function's signature tells a model, and what it lets through."""

from __future__ import annotations

import dataclasses
import enum
import functools
import json
from typing import Annotated, Any, Literal, TypedDict

import msgspec
import pytest

from fluence_async import FunctionTool, tool


class Place(msgspec.Struct):
    """A place on earth."""

    name: str
    latitude: Annotated[float, msgspec.Meta(ge=-90, le=90)] = 0.0


@dataclasses.dataclass
class Period:
    days: int


class Options(TypedDict, total=False):
    verbose: bool


class Unit(enum.Enum):
    C = "celsius"
    F = "fahrenheit"


@tool
async def forecast(
    place: Place,
    period: Period,
    options: Options | None = None,
    unit: Unit = Unit.C,
    kind: Literal["short", "long"] = "short",
    hours: Annotated[list[int], msgspec.Meta(max_length=3)] = [6, 12],  # noqa: B006
    extra: dict[str, Any] | None = None,
) -> Place:
    """Tell the weather that will be.

    Args:
        place: Where.
        period: For how long.
        kind: How much to say.
    """
    return place


def test_the_schema_is_the_signature() -> None:
    schema = forecast.parameters
    assert forecast.name == "forecast"
    assert forecast.description == "Tell the weather that will be."
    assert schema["type"] == "object"
    assert schema["required"] == ["place", "period"]
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert properties["place"] == {"description": "Where.", "$ref": "#/$defs/Place"}
    kind = dict(properties["kind"])
    assert sorted(kind.pop("enum")) == ["long", "short"]
    assert kind == {"description": "How much to say.", "default": "short"}
    assert properties["unit"] == {"$ref": "#/$defs/Unit", "default": "celsius"}
    assert properties["hours"]["maxItems"] == 3
    assert properties["options"]["default"] is None
    assert schema["$defs"]["Place"]["properties"]["latitude"]["maximum"] == 90
    assert set(schema["$defs"]) == {"Place", "Period", "Options", "Unit"}
    definition = msgspec.to_builtins(forecast.definition)
    assert definition["type"] == "function"
    assert definition["function"]["parameters"] == schema
    json.dumps(definition)


def test_arguments_are_decoded_by_their_types_and_defaults_filled_in() -> None:
    arguments = forecast.decode(
        '{"place":{"name":"Oslo","latitude":59.9},"period":{"days":2},"options":{"verbose":true}}'
    )
    assert arguments == {
        "place": Place("Oslo", 59.9),
        "period": Period(2),
        "options": {"verbose": True},
        "unit": Unit.C,
        "kind": "short",
        "hours": [6, 12],
        "extra": None,
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ('{"place":{"name":"Oslo"}}', "missing required field `period`"),
        ('{"place":{"name":7},"period":{"days":2}}', r"Expected `str`.*\$\.place\.name"),
        ('{"place":{"name":"O","latitude":91},"period":{"days":2}}', "<= 90"),
        ('{"place":{"name":"O"},"period":{"days":2},"kind":"odd"}', "Invalid enum value 'odd'"),
        ('{"place":{"name":"O"},"period":{"days":2},"colour":1}', "unknown field `colour`"),
        ('{"place":', "truncated"),
        ("[]", "Expected `object`"),
        ("", "missing required field"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_place(arguments: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forecast.decode(arguments)


@pytest.mark.parametrize("arguments", ["", "  \n", "{}"])
def test_no_text_at_all_means_no_arguments(arguments: str) -> None:
    @tool
    def now() -> str:
        return "noon"

    assert now.parameters["properties"] == {}
    assert now.decode(arguments) == {}


def test_a_description_of_its_own_wins_over_the_docstring() -> None:
    @tool(description="Adds.", name="plus")
    def add(a: Annotated[int, msgspec.Meta(description="mine", ge=0)], b: int) -> int:
        """Add.

        Args:
            a: theirs
            b: theirs
        """
        return a + b

    assert add.name == "plus"
    assert add.description == "Adds."
    assert add.parameters["properties"] == {
        "a": {"description": "mine", "type": "integer", "minimum": 0},
        "b": {"description": "theirs", "type": "integer"},
    }


def test_a_tool_is_still_its_function() -> None:
    @tool
    def add(a: int, b: int = 1) -> int:
        return a + b

    assert isinstance(add, FunctionTool)
    assert add(1, b=3) == 4
    assert repr(add) == "<FunctionTool add>"


def test_a_default_that_is_no_plain_data_is_passed_on_untold() -> None:
    nothing = Place("nowhere")

    @tool
    def go(to: Place = nothing, tags: list[str] = ["a"]) -> None: ...  # noqa: B006

    assert go.decode("{}") == {"to": nothing, "tags": ["a"]}
    assert go.decode("{}")["to"] is nothing
    assert "default" not in go.parameters["properties"]["to"]


def test_a_strict_tool_requires_every_parameter() -> None:
    @tool(strict=True)
    def add(a: int, b: int = 1) -> int:
        return a + b

    assert add.parameters["required"] == ["a", "b"]
    assert add.definition.function.strict is True
    with pytest.raises(TypeError, match="strict schema cannot say"):

        @tool(strict=True)
        def free(a: dict[str, int]) -> None: ...


def test_where_it_runs() -> None:
    def plain() -> None: ...

    async def coroutine() -> None: ...

    assert tool(plain).in_thread
    assert not tool(thread=False)(plain).in_thread
    assert not tool(coroutine).in_thread


def test_methods_and_wrapped_functions_can_be_tools() -> None:
    class Shop:
        def price(self, item: str) -> float:
            """Look a price up."""
            return 1.5

    def shout(function: Any) -> Any:
        @functools.wraps(function)
        def wrapper(**arguments: Any) -> Any:
            return function(**arguments).upper()

        return wrapper

    @tool
    @shout
    def greet(name: str) -> str:
        return f"hi {name}"

    price = tool(Shop().price)
    assert (price.name, price.description) == ("price", "Look a price up.")
    assert price(**price.decode('{"item":"tea"}')) == 1.5
    assert greet(**greet.decode('{"name":"ada"}')) == "HI ADA"


def bare(city) -> None: ...  # type: ignore[no-untyped-def]


def starred(*cities: str) -> None: ...


def doubly_starred(**cities: str) -> None: ...


def positional(city: str, /) -> None: ...


def unknown(city: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def without_schema(city: complex) -> None: ...


class Service:
    def look(self, city: str) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (bare, "'city' has no annotation"),
        (starred, r"\*cities"),
        (doubly_starred, r"\*\*cities"),
        (positional, "positional-only"),
        (unknown, "cannot be read.*Nowhere"),
        (without_schema, "has no JSON schema"),
        (Service.look, "bound method"),
        (len, "function or a bound method"),
    ],
)
def test_a_function_that_cannot_be_a_tool_says_why(function: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        tool(function)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"name": "a b"}, "'a b'"), ({"name": "x" * 65}, "at most 64"), ({"timeout": 0}, "above 0")],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tool(**options)(positional_free)


def positional_free(city: str) -> None: ...


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(ValueError, match=r"tool\(name=\.\.\.\)"):
        tool(lambda: 1)
    assert tool(name="one")(lambda: 1).name == "one"


def test_what_it_returns_need_not_be_known() -> None:
    @tool
    def look(city: str) -> Nowhere:  # type: ignore[name-defined]  # noqa: F821
        return city

    assert look.decode('{"city":"Rome"}') == {"city": "Rome"}
