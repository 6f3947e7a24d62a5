"""Text into tokens, by a rule that anyone can check by hand; tokens into usage.

A token is a word of up to 16 letters (with what follows an apostrophe), up to three digits, one
mark, or one white-space character; one white-space character before a word, digits or a mark
belongs to it. Nothing is lost: the tokens of a text, joined, are the text.

A prompt costs its texts' tokens and three for each message, and what the tools' JSON costs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from .chat import ChatRequest

__all__ = ["count", "prompt_tokens", "split"]

_TOKEN = re.compile(r"\s?(?:[^\W\d_]{1,16}(?:['’][^\W\d_]{1,16})?|\d{1,3}|[^\w\s]|_)|\s")
_PER_MESSAGE = 3


def split(text: str) -> list[str]:
    """The tokens of `text`, in order."""
    return _TOKEN.findall(text)


def count(texts: Iterable[str]) -> int:
    """How many tokens the texts have in all."""
    return sum(len(split(text)) for text in texts)


def prompt_tokens(chat: ChatRequest) -> int:
    """What the request's prompt costs."""
    texts = [message.text for message in chat.messages]
    for message in chat.messages:
        for call in message.tool_calls or []:
            texts += [call.function.name, call.function.arguments]
    texts += [msgspec.json.encode(tool).decode() for tool in chat.tools or []]
    return count(texts) + _PER_MESSAGE * len(chat.messages)
