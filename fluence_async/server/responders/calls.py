"""The tools that a request offers → whether one is to be called, with what; and their results."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from ...types import FunctionDefinition, Message
from ..chat import ChatRequest, NamedTool
from ..replies import Call
from .findings import Findings
from .schema import fill

__all__ = ["choose", "results"]

_STOP = frozenset(
    re.findall(
        r"\w+",
        "a an and any are by can do for from get given in is it me my of on or please the this to "
        "use what with you your",
    )
)


def choose(chat: ChatRequest) -> list[Call]:
    """The calls that fit the last user message; none if no tool fits and none must be called.

    A tool fits if its name or description shares a word with the message. The best one is called:
    once, or once for each of several names if its only required parameter is a text.
    """
    functions = [tool.function for tool in chat.tools or []]
    choice = chat.tool_choice
    if not functions or choice == "none":
        return []
    if isinstance(choice, NamedTool):
        functions = [f for f in functions if f.name == choice.function.name]
    best = max(functions, key=lambda function: _fit(function, chat.text))
    if choice in (None, "auto") and not _fit(best, chat.text):
        return []
    schema = {"type": "object", **(best.parameters or {})}
    first = fill(schema, chat.text)
    calls = [first]
    only = _only_text(schema)
    if only and chat.parallel_tool_calls is not False:
        names = Findings(chat.text).names()
        if len(names) > 1 and first.get(only) == names[0]:
            calls += [{**first, only: name} for name in names[1:]]
    return [Call(best.name, arguments) for arguments in calls]


def results(messages: Sequence[Message]) -> str | None:
    """An answer made of the tool results that end the conversation; None if it ends otherwise."""
    called = {call.id: call.function for message in messages for call in message.tool_calls or []}
    said: list[str] = []
    for message in reversed(messages):
        if message.role != "tool":
            break
        function = called[message.tool_call_id or ""]
        what = function.name.replace("_", " ")
        given = _plain(function.arguments)
        said.insert(0, f"{what}{f' ({given})' if given else ''}: {_plain(message.text)}")
    if not said:
        return None
    return f"Here is what I found. {'; '.join(said).rstrip('.')}."


def _plain(text: str) -> str:
    """JSON as people write it: `city: Paris, temperature: 18`; other text as it is."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return text.strip()
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_shown(item)}" for key, item in value.items())
    return ", ".join(map(_shown, value)) if isinstance(value, list) else _shown(value)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _only_text(schema: dict[str, object]) -> str | None:
    """The name of the only required parameter, if it is a free text."""
    required, properties = schema.get("required"), schema.get("properties")
    if not isinstance(required, list) or len(required) != 1 or not isinstance(properties, dict):
        return None
    parameter = properties.get(required[0])
    if not isinstance(parameter, dict) or parameter.get("type") != "string" or "enum" in parameter:
        return None
    return str(required[0])


def _fit(function: FunctionDefinition, text: str) -> int:
    about = {*_words(function.name), *_words(function.description or "")} - _STOP
    return len(about & set(_words(text)))


def _words(text: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    return [word.lower().removesuffix("s") for word in re.findall(r"[^\W_]+", spaced)]
