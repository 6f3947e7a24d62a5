"""One valid request on its way to an answer, and the JSON that an answer is wrapped in.

The same turn is used again when an idempotency key brings the same request a second time, so
the answer keeps its id.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from .._sansio.sse_writing import encode_event
from . import tokens
from .chat import ChatRequest

__all__ = ["Turn", "event"]


def event(data: str | Mapping[str, Any], name: str | None = None) -> bytes:
    """One server-sent event; a mapping is sent as JSON."""
    text = data if isinstance(data, str) else msgspec.json.encode(data).decode()
    return encode_event(text, event=name)


class Turn:
    """A request that passed every check.

    Attributes:
        chat: What was asked.
        headers: With which headers, their names in lower case.
        body: The request's body, as it came.
        id: The name of the answer.
        created: Its second since the epoch.
    """

    def __init__(self, chat: ChatRequest, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.chat = chat
        self.headers = headers
        self.body = body
        self.id: str = f"chatcmpl-{secrets.token_hex(12)}"
        self.created: int = int(time.time())

    def __repr__(self) -> str:
        return f"Turn({self.id}, {self.chat.text!r})"

    @property
    def text(self) -> str:
        """The last user message's text."""
        return self.chat.text

    def usage(self, completion_tokens: int) -> dict[str, int]:
        """The usage of the whole turn, of which each choice cost `completion_tokens`."""
        prompt = tokens.prompt_tokens(self.chat)
        completion = completion_tokens * len(self.chat.choices)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }

    def chunk(
        self, delta: Mapping[str, Any], *, index: int = 0, finish_reason: str | None = None
    ) -> bytes:
        """The event of a chunk that adds `delta` to the choice `index`."""
        choice = {
            "index": index,
            "delta": delta,
            "logprobs": None,
            "finish_reason": finish_reason,
        }
        return event(self._envelope("chat.completion.chunk", [choice], None))

    def usage_chunk(self, usage: Mapping[str, Any]) -> bytes:
        """The event of the chunk that carries the usage."""
        return event(self._envelope("chat.completion.chunk", [], usage))

    def completion(
        self, message: Mapping[str, Any], finish_reason: str, usage: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The body of a whole answer; every choice says the same."""
        choices = [
            {"index": i, "message": message, "logprobs": None, "finish_reason": finish_reason}
            for i in self.chat.choices
        ]
        return self._envelope("chat.completion", choices, usage)

    def _envelope(
        self, kind: str, choices: list[dict[str, Any]], usage: Mapping[str, Any] | None
    ) -> dict[str, Any]:
        envelope: dict[str, Any] = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.chat.model,
            "choices": choices,
        }
        if usage is not None or (self.chat.stream and self.chat.wants_usage):
            envelope["usage"] = usage
        return envelope
