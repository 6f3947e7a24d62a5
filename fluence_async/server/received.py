"""What the server was sent, kept for whoever asks afterwards; and which of it is meant.

The same words say which requests a script answers, which a test expects, and which a recording
holds: a `Match`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

__all__ = ["Match", "Received", "table"]

_SHOWN = 60


class Received(msgspec.Struct, kw_only=True):
    """A request as the server received it.

    Attributes:
        at: When, in seconds on the server's clock.
        method: `POST`, usually.
        path: Without the query.
        headers: Their names in lower case.
        connection: The client's port: requests with the same one came on one connection.
        body: As far as it was read; b"" if the request was refused before.
        counted: It came with a good key, and so before the rate limits.
        refused: They refused it.
        executed: A model would have run for it.
        status: What it was answered with; None before, and where no answer came.
    """

    at: float
    method: str
    path: str
    headers: dict[str, str]
    connection: int
    body: bytes = b""
    counted: bool = False
    refused: bool = False
    executed: bool = False
    status: int | None = None

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    @property
    def text(self) -> str:
        """The last user message's text; "" where there is none."""
        return _text(_decoded(self.body))

    def __repr__(self) -> str:
        return f"Received({self.method} {self.path} at {self.at:.3f})"


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """Which requests are meant: those that fit in everything it says.

    Attributes:
        text: In the last user message: a text that it contains, or a pattern that is found in it.
        headers: Headers and their values, exactly.
        fields: Fields of the body and their values, as JSON: `{"temperature": 0.7}`.
    """

    text: str | re.Pattern[str] | None = None
    headers: Mapping[str, str] = {}
    fields: Mapping[str, Any] = {}

    def fits(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether a request with these headers (names in lower case) and this body is meant."""
        if any(headers.get(name.lower()) != value for name, value in self.headers.items()):
            return False
        if self.text is None and not self.fields:
            return True
        said = _decoded(body)
        if not isinstance(said, dict):
            return False
        if any(said.get(name) != value for name, value in self.fields.items()):
            return False
        text = _text(said)
        return (
            self.text in text
            if isinstance(self.text, str)
            else self.text is None or self.text.search(text) is not None
        )

    def __str__(self) -> str:
        text = self.text.pattern if isinstance(self.text, re.Pattern) else self.text
        said = [] if text is None else [f"text={text!r}"]
        said += [f"{name}={value!r}" for name, value in self.fields.items()]
        said += [f"{name}: {value}" for name, value in self.headers.items()]
        return ", ".join(said)


def table(requests: Iterable[Received], match: Match | None = None) -> str:
    """The requests for a person: a line each, a mark at those that `match` means, and the fields
    that it asks for."""
    match = match or Match()
    lines: list[str] = []
    began: float | None = None
    for number, request in enumerate(requests, 1):
        began = request.at if began is None else began
        mark = "*" if match != Match() and match.fits(request.headers, request.body) else " "
        status = request.status or "---"
        lines.append(
            f"{mark}{number:4}. {request.at - began:+9.3f} s  {status}  {_said(request, match)}"
        )
    return "\n".join(lines) or "  (none came)"


def _said(request: Received, match: Match) -> str:
    body = _decoded(request.body)
    if not isinstance(body, dict):
        return f"{request.method} {request.path}, {len(request.body)} bytes"
    text = _text(body)
    shown = [repr(text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…")]
    shown += [f"{name}={body.get(name)!r}" for name in {"model": "", **match.fields}]
    shown += ["stream"] if body.get("stream") and "stream" not in match.fields else []
    shown += [f"{name}: {request.headers.get(name.lower())}" for name in match.headers]
    return "  ".join(shown)


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _text(body: Any) -> str:
    """The last user message's text in a body that may be anything."""
    messages = body.get("messages") if isinstance(body, dict) else None
    for message in reversed(messages) if isinstance(messages, list) else []:
        if isinstance(message, dict) and message.get("role") == "user":
            content = message.get("content")
            parts = content if isinstance(content, list) else [{"text": content}]
            texts = [part.get("text") for part in parts if isinstance(part, dict)]
            return "".join(text for text in texts if isinstance(text, str))
    return ""
