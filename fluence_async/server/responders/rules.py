"""The default responder: answers that are computed from the request, and honest about that.

Law: deterministic. The same request gets the same text, whatever the temperature, and each of
`n` choices is the same. `max_tokens` and `stop` cut it as a model's answer would be cut. Of each
message the first 20,000 characters are read, so that no text can keep the server busy.
"""

from __future__ import annotations

import msgspec

from .. import tokens
from ..chat import ChatRequest
from ..replies import Answer
from ..turn import Turn
from . import arithmetic, calls, prose, schema, small_talk

__all__ = ["Rules"]

_READ = 20_000


class Rules:
    """`fluence-local`: rules in the order of how sure they are to be meant."""

    async def respond(self, turn: Turn) -> Answer:
        """The answer, token by token."""
        chat = _shortened(turn.chat)
        found = calls.results(chat.messages)
        if found is None and (called := calls.choose(chat)):
            return Answer(*called)
        return _cut(_formatted(chat, found), chat)


def _shortened(chat: ChatRequest) -> ChatRequest:
    """The request as far as it is read: each message as its text, and no more than its start."""
    replace = msgspec.structs.replace
    messages = [replace(message, content=message.text[:_READ]) for message in chat.messages]
    return replace(chat, messages=messages)


def _formatted(chat: ChatRequest, found: str | None) -> str:
    """The answer in the form that was asked for."""
    form = chat.response_format
    if form is None or form.type == "text":
        return found or _say(chat)
    if form.json_schema is not None:
        value = schema.fill(
            form.json_schema.schema or {}, " ".join(filter(None, [found, chat.text]))
        )
    else:
        value = {"answer": found or _say(chat)}
    return msgspec.json.encode(value).decode()


def _say(chat: ChatRequest) -> str:
    """The first rule that fits."""
    text = chat.text.strip()
    said = [message.text for message in chat.messages if message.role == "user"]
    earlier = [m.text for m in chat.messages[:-1] if m.role in {"user", "assistant"}]
    return (
        prose.summary(text, earlier)
        or _sum(text)
        or prose.story(text)
        or prose.items(text)
        or small_talk.reply(text, said)
        or small_talk.fallback(text)
    )


def _sum(text: str) -> str | None:
    expression = arithmetic.find(text)
    return arithmetic.solve(expression) if expression else None


def _cut(text: str, chat: ChatRequest) -> Answer:
    """The answer as far as `stop` and `max_tokens` let it go."""
    ends = [at for stop in chat.stops if (at := text.find(stop)) >= 0]
    pieces = tokens.split(text[: min(ends, default=len(text))])
    limit = chat.token_limit
    if limit is not None and len(pieces) > limit:
        return Answer(*pieces[:limit], finish_reason="length")
    return Answer(*pieces)
