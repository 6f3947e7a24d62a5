"""The bytes of a request into a `ChatRequest` that is known to be valid, or a `Refusal`.

Types and ranges are stated once, in the Struct's annotations; what holds between fields is
checked below. Unknown fields are let through, as the servers of this wire do.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import Meta

from ..types import Message, ResponseFormat, Role, StreamOptions, Tool
from .refusal import Refusal

__all__ = ["ChatRequest", "parse"]

_Count = Annotated[int, Meta(ge=1)]
_Penalty = Annotated[float, Meta(ge=-2, le=2)]
_Stop = Annotated[str, Meta(min_length=1)]


class _NamedFunction(msgspec.Struct):
    name: str


class NamedTool(msgspec.Struct):
    """A `tool_choice` that names the function to call."""

    function: _NamedFunction
    type: Literal["function"] = "function"


class ChatRequest(msgspec.Struct, kw_only=True):
    """What a client asked for. The fields are the API's own; see its documentation."""

    model: str
    messages: Annotated[list[Message], Meta(min_length=1)]
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: _Count | None = None
    max_completion_tokens: _Count | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    stop: _Stop | Annotated[list[_Stop], Meta(max_length=16)] | None = None
    tools: Annotated[list[Tool], Meta(max_length=128)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    logit_bias: dict[str, float] | None = None
    seed: int | None = None
    user: str | None = None

    @property
    def text(self) -> str:
        """The last user message's text; "" where there is none."""
        return next((m.text for m in reversed(self.messages) if m.role == "user"), "")

    @property
    def choices(self) -> range:
        """The indexes of the choices asked for."""
        return range(self.n or 1)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with a chunk of usage."""
        return bool(self.stream_options and self.stream_options.include_usage)

    @property
    def token_limit(self) -> int | None:
        """The smaller of `max_tokens` and `max_completion_tokens`."""
        limits = [n for n in (self.max_tokens, self.max_completion_tokens) if n is not None]
        return min(limits, default=None)

    @property
    def stops(self) -> list[str]:
        """The texts before which an answer ends."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


def parse(body: bytes) -> ChatRequest:
    """Read and check a request's body.

    Raises:
        Refusal: 400, with the parameter at fault in `param`.
    """
    try:
        raw = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refusal(400, f"The request body is not valid JSON: {reason}") from None
    try:
        chat = msgspec.convert(raw, ChatRequest)
    except msgspec.ValidationError as error:
        raise Refusal(400, str(error), param=_param(str(error))) from None
    for check in _CHECKS:
        check(chat)
    return chat


def _param(message: str) -> str | None:
    """The parameter that a message of msgspec's is about."""
    path = re.search(r"at `\$\.(\w+)", message) or re.search(r"required field `(\w+)`", message)
    return path[1] if path else None


def _refuse(message: str, param: str) -> Refusal:
    return Refusal(400, message, param=param)


def _check_messages(chat: ChatRequest) -> None:
    called: set[str] = set()
    for i, message in enumerate(chat.messages):
        where = f"messages[{i}]"
        if message.role not in get_args(Role):
            known = ", ".join(get_args(Role))
            raise _refuse(f"{where}.role is {message.role!r}; it must be one of {known}", where)
        said = message.tool_calls or message.refusal if message.role == "assistant" else None
        if message.content is None and not said:
            raise _refuse(f"{where}.content is missing", where)
        called.update(call.id for call in message.tool_calls or [])
        if message.role == "tool" and message.tool_call_id not in called:
            raise _refuse(
                f"{where}.tool_call_id is {message.tool_call_id!r}, "
                "which no preceding assistant message called",
                where,
            )


def _check_tools(chat: ChatRequest) -> None:
    names = [tool.function.name for tool in chat.tools or []]
    for i, tool in enumerate(chat.tools or []):
        if tool.type != "function":
            raise _refuse(f"tools[{i}].type is {tool.type!r}; only 'function' is known", "tools")
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", tool.function.name):
            raise _refuse(
                f"tools[{i}].function.name is {tool.function.name!r}; "
                "it must be 1 to 64 letters, digits, '_' or '-'",
                "tools",
            )
    choice = chat.tool_choice
    if choice is not None and choice != "none" and not names:
        raise _refuse("tool_choice is given, and no tools are", "tool_choice")
    if isinstance(choice, NamedTool) and choice.function.name not in names:
        raise _refuse(f"tool_choice names {choice.function.name!r}, not in tools", "tool_choice")


def _check_response_format(chat: ChatRequest) -> None:
    form = chat.response_format
    if form is None:
        return
    if form.type not in {"text", "json_object", "json_schema"}:
        raise _refuse(
            f"response_format.type is {form.type!r}; it must be text, json_object or json_schema",
            "response_format",
        )
    if form.type == "json_schema" and (form.json_schema is None or form.json_schema.schema is None):
        raise _refuse("response_format.json_schema.schema is missing", "response_format")


def _check_stream_options(chat: ChatRequest) -> None:
    if chat.stream_options is not None and not chat.stream:
        raise _refuse("stream_options is allowed only with stream: true", "stream_options")


_CHECKS: list[Callable[[ChatRequest], Any]] = [
    _check_messages,
    _check_tools,
    _check_response_format,
    _check_stream_options,
]
