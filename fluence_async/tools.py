"""A typed function goes in, a tool comes out: its JSON schema, and the way to call it.

Law: the function's own signature is the schema. msgspec makes the one and checks arguments by it,
so that what the model is told and what is let through cannot differ.

Rejected: schemas by hand (they drift from the function), and guessing a type where none is written.
"""

from __future__ import annotations

import enum
import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from types import SimpleNamespace
from typing import (
    Annotated,
    Any,
    Generic,
    ParamSpec,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

import msgspec

from ._sansio.arguments import check_seconds
from ._sansio.docstring import described
from ._sansio.schema import schema_of, strict_schema
from .types import FunctionDefinition, Tool

__all__ = ["FunctionTool", "tool"]

P = ParamSpec("P")
R = TypeVar("R")

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ATOMS = (bool, int, float, str, bytes, type(None), enum.Enum)


class FunctionTool(Generic[P, R]):
    """A function that a model may call; made by `@tool`. Called as a function, it is one.

    Attributes:
        name: What the model calls it by.
        description: What the model is told that it does.
        parameters: The JSON schema of its arguments.
        definition: All that as the API takes it: `create(tools=[get_weather.definition])`.
        timeout: Seconds that a call may take in `run_tools`; None for that run's own.
        in_thread: It is a plain function, and `run_tools` calls it in a worker thread.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        description: str | None = None,
        strict: bool | None = None,
        timeout: float | None = None,
        thread: bool = True,
    ) -> None:
        self._function: Callable[P, R] = function
        about, of_parameters = described(function.__doc__)
        self.name: str = _checked_name(name or str(getattr(function, "__name__", "")))
        self.description: str = about if description is None else description
        if timeout is not None:
            check_seconds("timeout", timeout, way_out="; None means no bound")
        self.timeout = timeout
        self.in_thread: bool = thread and not inspect.iscoroutinefunction(function)
        arguments = _arguments(function, self.name, of_parameters)
        self._decoder = msgspec.json.Decoder(arguments)
        self.parameters: dict[str, Any] = _parameters(arguments, strict=bool(strict))
        self.definition: Tool = Tool(
            function=FunctionDefinition(
                name=self.name,
                description=self.description or None,
                parameters=self.parameters,
                strict=strict,
            )
        )

    def decode(self, arguments: str) -> dict[str, Any]:
        """The keyword arguments in the JSON text that a model wrote, checked; defaults filled in.

        Raises:
            msgspec.ValidationError: They do not fit the signature; the message says where.
            msgspec.DecodeError: They are no JSON.

        Example:
            ```python
            from fluence_async import tool


            @tool
            def add(a: int, b: int = 1) -> int:
                return a + b


            assert add.decode('{"a": 2}') == {"a": 2, "b": 1}
            ```
        """
        if not arguments.strip():
            arguments = "{}"  # so do some servers write that there are none
        decoded = self._decoder.decode(arguments)
        return {name: getattr(decoded, name) for name in decoded.__struct_fields__}

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the function itself, as if it were no tool."""
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<FunctionTool {self.name}>"


@overload
def tool(function: Callable[P, R], /) -> FunctionTool[P, R]: ...


@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    strict: bool | None = None,
    timeout: float | None = None,
    thread: bool = True,
) -> Callable[[Callable[P, R]], FunctionTool[P, R]]: ...


def tool(function: Callable[P, R] | None = None, /, **options: Any) -> Any:  # noqa: D417
    """Make a typed function, plain or async, a tool that a model may call.

    Parameters may be of any type that msgspec can decode: Structs, dataclasses, TypedDict, Literal,
    lists and mappings of them, constraints with `Annotated[..., msgspec.Meta(...)]`. The docstring
    (Google style) tells the model what the function and its parameters are for.

    Args:
        function: The function; every parameter has an annotation and can be passed by name.
        name: What the model calls it by; by default its `__name__`.
        description: What the model is told; by default the docstring's part above its sections.
        strict: Ask the server to hold the model to the schema. All parameters are required then,
            those with a default too.
        timeout: Seconds that a call may take; None for the run's own `tool_timeout`.
        thread: Call a plain function in a worker thread, so that one that blocks stops nobody
            else. False calls it on the event loop: quicker, and for what returns at once.

    Raises:
        TypeError, ValueError: The function cannot be a tool; the message says why.

    Example:
        ```python
        from typing import Literal

        from fluence_async import tool


        @tool
        async def get_weather(city: str, unit: Literal["C", "F"] = "C") -> str:
            '''Get the weather in a city.'''
            return f"18 °{unit}"


        assert get_weather.parameters["properties"]["unit"] == {
            "enum": ["C", "F"],
            "default": "C",
        }
        ```
    """
    if function is None:
        return partial(FunctionTool, **options)
    return FunctionTool(function, **options)


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} cannot be a tool's name (letters, digits, _ and -, at most 64): give one "
            "with tool(name=...)"
        )
    return name


def _parameters(arguments: type[msgspec.Struct], *, strict: bool) -> dict[str, Any]:
    schema = schema_of(arguments)
    schema.pop("title")  # the function's name, which the definition has already
    if not strict:
        return schema
    strictly = strict_schema(schema)
    if strictly is None:
        raise TypeError(
            f"{arguments.__name__}: a strict schema cannot say a mapping with free keys, nor Any"
        )
    return strictly


def _arguments(
    function: Callable[..., Any], name: str, of_parameters: Mapping[str, str]
) -> type[msgspec.Struct]:
    """The function's parameters as a Struct, which msgspec can describe and decode."""
    fields: list[tuple[str, Any, Any]] = []
    hints = _hints(function, name)
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise TypeError(f"{name}: a model cannot call a function that takes {parameter}")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TypeError(f"{name}: {parameter.name!r} is positional-only; a model names it")
        if parameter.name not in hints:
            raise TypeError(
                f"{name}: {parameter.name!r} has no annotation, so its schema is not known"
                + ("; make a tool of the bound method" if parameter.name == "self" else "")
            )
        hint = _with_description(hints[parameter.name], of_parameters.get(parameter.name))
        default = parameter.default
        fields.append(
            (parameter.name, hint, ... if default is parameter.empty else _default(default))
        )
    struct = [field[:2] if field[2] is ... else field for field in fields]
    return msgspec.defstruct(name, struct, kw_only=True, forbid_unknown_fields=True)


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    inner = inspect.unwrap(function)
    inner = getattr(inner, "__func__", inner)
    if not inspect.isfunction(inner):
        raise TypeError(f"{function!r} cannot be a tool: it must be a function or a bound method")
    try:
        # the parameters' alone: what a function returns may be of any type
        own = {key: hint for key, hint in inner.__annotations__.items() if key != "return"}
        told = SimpleNamespace(__annotations__=own)
        return get_type_hints(told, inner.__globals__, include_extras=True)
    except NameError as error:
        raise TypeError(
            f"{name}: an annotation cannot be read ({error}): what it names must be defined in "
            "the module, at run time, before the function"
        ) from None


def _with_description(hint: Any, description: str | None) -> Any:
    """`hint` as the docstring describes it, unless it says itself what it is."""
    own = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    if not description or any(getattr(meta, "description", None) for meta in own):
        return hint
    return Annotated[hint, msgspec.Meta(description=description)]


def _default(value: Any) -> Any:
    """A default that the schema tells if it is plain data; any other is passed on untold."""
    if isinstance(value, _ATOMS):
        return value
    return msgspec.field(default_factory=lambda: value)
