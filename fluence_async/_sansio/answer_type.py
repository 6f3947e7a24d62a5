"""A type goes in; what to ask for it, and how to read the answer as it, come out.

Law: msgspec says what the type's schema is, and msgspec decodes the answer by the type; nothing is
mended. The wire wants an object at the root, so that any other type (a list, a union, a number) is
sent as the only field of one, `value`, and taken out again.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import (
    Any,
    Final,
    Generic,
    NotRequired,
    Required,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

import msgspec

from ..errors import ParseError, ParseReason
from ..parsed import ParsedCompletion, ParsedField
from ..types import ChatCompletion, JSONSchema, ResponseFormat
from .partial_json import Member, MemberReader
from .schema import is_object, schema_of, strict_schema

__all__ = ["AnswerType", "FieldReader"]

T = TypeVar("T")

_SEQUENCES = (list, set, frozenset)
_QUALIFIERS = (Final, NotRequired, Required)


class AnswerType(Generic[T]):
    """A type that an answer is to have.

    Args:
        kind: Anything that msgspec has a schema for.

    Attributes:
        response_format: What to send.

    Raises:
        TypeError: msgspec has no schema for it.
    """

    def __init__(self, kind: Any) -> None:
        self._kind = kind
        self._name = getattr(kind, "__name__", str(kind))
        schema = schema_of(kind)
        self._wrapped = not is_object(schema)
        if self._wrapped:
            kind = msgspec.defstruct("Answer", [("value", kind)])
            schema = schema_of(kind)
        self._decoder = msgspec.json.Decoder(kind)
        strict = strict_schema(schema)
        self.response_format: ResponseFormat = ResponseFormat(
            type="json_schema",
            json_schema=JSONSchema(
                name=re.sub(r"[^a-zA-Z0-9_-]+", "_", self._name)[:64].strip("_") or "answer",
                schema=strict or schema,
                strict=strict is not None,
            ),
        )

    def parsed(self, completion: ChatCompletion) -> ParsedCompletion[T]:
        """Read an answer: the value, or why there is none."""
        error = self._unfit(completion)
        if error is not None:
            return ParsedCompletion(completion=completion, parse_error=error)
        try:
            value = self._decoder.decode(completion.text)
        except (ValueError, RecursionError) as reason:
            error = self._error("invalid", f"is no {self._name}: {reason}", completion)
            return ParsedCompletion(completion=completion, parse_error=error)
        value = value.value if self._wrapped else value
        return ParsedCompletion(completion=completion, parsed=value)

    def _unfit(self, completion: ChatCompletion) -> ParseError | None:
        """What forbids to read the answer as a value at all."""
        refusal = completion.message.refusal
        if refusal:
            return self._error("refusal", f"is a refusal: {refusal}", completion)
        if completion.finish_reason == "length":
            return self._error("length", "was cut at max_tokens: allow more", completion)
        if completion.finish_reason == "content_filter":
            return self._error("content_filter", "was cut by the content filter", completion)
        if completion.tool_calls:
            return self._error("tool_calls", "calls tools instead", completion)
        return None

    def _error(self, reason: ParseReason, says: str, completion: ChatCompletion) -> ParseError:
        return ParseError(
            f"the answer {says}", reason=reason, completion=completion, meta=completion.meta
        )

    def reader(self) -> FieldReader:
        """Reads an answer of this type while it comes in."""
        origin = get_origin(self._kind) or self._kind
        if not self._wrapped:
            return FieldReader(MemberReader(), _field_types(self._kind))
        if origin in _SEQUENCES:
            item = (*get_args(self._kind), Any)[0]
            return FieldReader(MemberReader('{"value":['), lambda _: (None, item))
        return FieldReader(MemberReader(), lambda name: (name, self._kind))

    def __repr__(self) -> str:
        return f"<AnswerType {self._name}>"


FieldTypes = Callable[[str], tuple[str | None, Any]]
"""A member's name on the wire → the field's own name (None for an item), and its type."""


class FieldReader:
    """Pieces of an answer's text in; its fields out, each once, when it is closed."""

    def __init__(self, members: MemberReader, types: FieldTypes) -> None:
        self._members = members
        self._types = types
        self._decoders: dict[str, tuple[str | None, msgspec.json.Decoder[Any]]] = {}
        self._items = 0
        self._failed = False

    def feed(self, text: str) -> Sequence[ParsedField]:
        """Take the next piece: the fields that it closes.

        After one that does not fit its type there are no more: the whole answer will say why.
        """
        members = self._members.feed(text)
        if not members or self._failed:
            return ()
        fields: list[ParsedField] = []
        try:
            for member in members:
                fields.append(self._field(member))  # noqa: PERF401 - those before a bad one count
        except (ValueError, RecursionError):
            self._failed = True
        return fields

    def _field(self, member: Member) -> ParsedField:
        written, text = member
        known = self._decoders.get(written)
        if known is None:
            name, kind = self._types(msgspec.json.decode(written) if written else "")
            known = self._decoders[written] = (name, msgspec.json.Decoder(kind))
        name, decoder = known
        value = decoder.decode(text)
        if name is not None:
            return ParsedField(name, value)
        self._items += 1
        return ParsedField(self._items - 1, value)

    def __repr__(self) -> str:
        return f"<FieldReader of {self._members!r}>"


def _field_types(kind: Any) -> FieldTypes:
    """The fields of an object type; one that it does not have is of any type."""
    origin = get_origin(kind) or kind
    fields: dict[str, tuple[str | None, Any]] = {}
    if isinstance(origin, type) and issubclass(origin, msgspec.Struct):
        fields = {
            field.encode_name: (field.name, field.type) for field in msgspec.structs.fields(kind)
        }
    elif is_typeddict(origin) or dataclasses.is_dataclass(origin):
        hints = get_type_hints(origin, include_extras=True)
        fields = {
            name: (name, get_args(hint)[0] if get_origin(hint) in _QUALIFIERS else hint)
            for name, hint in hints.items()
        }
    return lambda name: fields.get(name, (name, Any))
