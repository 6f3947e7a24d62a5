"""A typed answer as data: the value that was asked for, or why there is none."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, cast

import msgspec

from .errors import ParseError
from .types import ChatCompletion

__all__ = ["ParsedCompletion", "ParsedField"]

T = TypeVar("T")


class ParsedCompletion(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """What `chat.completions.parse` brings.

    Attributes:
        completion: The answer as it came.
        parsed: The value; None where the answer is not of the type.
        parse_error: Why not; None where it is.
    """

    completion: ChatCompletion
    parsed: T | None = None
    parse_error: ParseError | None = None

    @property
    def value(self) -> T:
        """The value.

        Raises:
            ParseError: The answer is not of the type that was asked for.
        """
        if self.parse_error is not None:
            raise self.parse_error
        return cast("T", self.parsed)


class ParsedField(msgspec.Struct, frozen=True):
    """One part of a typed answer that is whole while the rest is still to come.

    Attributes:
        name: The field's name; where a list was asked for, the item's place in it.
        value: Its value, of the field's own type.
    """

    name: str | int
    value: Any
