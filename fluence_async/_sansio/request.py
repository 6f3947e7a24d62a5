"""Parameters in, a checked request body out.

Law: what the API would refuse is refused here, before a unit of any limit is spent, with an
error that names the value, the limit and the way out. What only a newer server could judge
(another parameter's range, a model's name) is left to it. None means "not sent".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..options import ChatParams, CompletionParams
from ..types import Message
from .arguments import check_count, meant

__all__ = ["RequestBody", "check_names", "encode_request"]

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class RequestBody(msgspec.Struct, frozen=True, kw_only=True):
    """A request, encoded: what the later rooms need to know of it, and its bytes."""

    data: bytes
    model: str
    choices: int


def encode_request(params: Mapping[str, Any], *, stream: bool) -> RequestBody:
    """Check the wire's parameters and encode them.

    Args:
        params: As of `CompletionParams`, without the call's options; `extra_body` is laid over
            the rest.
        stream: Whether the answer is to come as a stream; usage is then asked for too.

    Raises:
        ValueError: A parameter that the API would refuse.
        TypeError: A parameter of the wrong type, or one that is not known.
    """
    body = {name: value for name, value in params.items() if value is not None}
    if not params.keys() <= _KNOWN:
        check_names(params)
    extra = body.pop("extra_body", {})
    if not isinstance(extra, Mapping):
        raise TypeError(f"extra_body must be a mapping, not {type(extra).__name__}")
    _check_model(body.get("model"))
    body["messages"] = _messages(body.get("messages"))
    for name in _CHECKS.keys() & body.keys():
        _CHECKS[name](name, body[name])
    if stream:
        body["stream"] = True
        body.setdefault("stream_options", {"include_usage": True})
    body.update(extra)
    choices = body.get("n")  # as extra_body says, which may say anything
    return RequestBody(
        data=_encode(body),
        model=str(body["model"]),
        choices=choices if isinstance(choices, int) else 1,
    )


_KNOWN = CompletionParams.__annotations__.keys()
_NAMES = ChatParams.__annotations__.keys()
_ELSEWHERE = {
    "stream": "only create takes it; the others stream in 'async with'",
    "response_type": "only parse takes it: parse(response_type=...)",
    "max_turns": "only run_tools takes it",
}


def check_names(params: Mapping[str, Any]) -> None:
    """Refuse a parameter or an option that is not known.

    Raises:
        TypeError: It says which, and what was meant.
    """
    unknown = params.keys() - _NAMES
    for name in sorted(unknown & _ELSEWHERE.keys()):
        raise TypeError(f"unknown parameter {name!r}: {_ELSEWHERE[name]}")
    if unknown:
        raise TypeError(
            f"unknown parameter {meant(unknown, _NAMES)}; what only your server knows goes into "
            "extra_body={...}"
        )


def _check_model(model: Any) -> None:
    if model is None:
        raise TypeError('model is missing: name one, as in model="fluence-chat"')
    if not isinstance(model, str):
        raise TypeError(f"model must be a str, not {type(model).__name__}")
    if not model.strip():
        raise ValueError(f"model={model!r} is empty: name one, as in model='fluence-chat'")
    if not model.isprintable():
        raise ValueError(f"model={model!r} holds a control character")


def _messages(messages: Any) -> Sequence[Any]:
    if messages is None:
        raise TypeError("messages is missing: pass a str or a list of messages")
    if isinstance(messages, str) and messages:
        return [Message(role="user", content=messages)]
    if not isinstance(messages, Sequence):
        raise TypeError(
            f"messages must be a str or a list of messages, not {type(messages).__name__}"
        )
    if not messages:
        raise ValueError("messages is empty: the API needs at least one message")
    for position, message in enumerate(messages):
        _check_message(position, message)
    return messages


def _check_message(position: int, message: Any) -> None:
    role: Any
    if isinstance(message, Message):
        role = message.role
    elif isinstance(message, Mapping):
        role = message.get("role")
    else:
        raise TypeError(
            f"messages[{position}] must be a Message or a mapping, not {type(message).__name__}"
        )
    if role not in _ROLES:
        raise ValueError(
            f"messages[{position}] has the unknown role {role!r}: one of {', '.join(_ROLES)}"
        )


def _check_range(low: float, high: float) -> Callable[[str, Any], None]:
    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name}={value!r}: must be a number from {low} to {high}")
        if not low <= value <= high:
            raise ValueError(f"{name}={value!r}: must be from {low} to {high}")

    return check


def _check_count(name: str, value: Any) -> None:
    without = "one answer" if name == "n" else "no limit"
    check_count(name, value, least=1, way_out=f"; leave it out for {without}")


_CHECKS: Mapping[str, Callable[[str, Any], None]] = {
    "temperature": _check_range(0, 2),
    "top_p": _check_range(0, 1),
    "max_tokens": _check_count,
    "max_completion_tokens": _check_count,
    "n": _check_count,
}


def _encode(body: dict[str, Any]) -> bytes:
    try:
        return _ENCODER.encode(body)
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text has half a surrogate pair at position {error.start}, which no UTF-8 can "
            "carry: was it cut in the middle of a character?"
        ) from None
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise TypeError(_unsendable(body, error)) from None


def _unsendable(body: Mapping[str, Any], error: Exception) -> str:
    """Which parameter it is that is no JSON, and what would be."""
    for name, value in body.items():
        try:
            _ENCODER.encode(value)
        except (TypeError, ValueError, OverflowError, RecursionError) as its_own:
            return f"{name} cannot be sent as JSON: {its_own}{_way_out(name, value)}"
    return f"the request cannot be sent as JSON: {error}"


def _way_out(name: str, value: Any) -> str:
    if name == "response_format":
        type_ = getattr(value, "__name__", "Recipe") if isinstance(value, type) else "Recipe"
        return f"; for an answer of a type, parse(response_type={type_})"
    if name != "tools":
        return ""
    for tool in value if isinstance(value, list | tuple) else [value]:
        if hasattr(tool, "definition"):
            return f"; write tools=[{tool.name}.definition], or run_tools(tools=[{tool.name}])"
        if callable(tool):
            return "; decorate the function with @tool, and give it to run_tools(tools=[...])"
    return ""


def _as_builtin(value: Any) -> Any:
    # What is typed as a Mapping or Sequence may be any of them; msgspec knows dict, list, tuple.
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"of type {type(value).__name__}")


_ENCODER = msgspec.json.Encoder(enc_hook=_as_builtin)
