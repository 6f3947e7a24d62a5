"""One question goes in, one answer goes out: as text, drawn, or as one JSON object."""

from __future__ import annotations

import json
import re
import sys
from typing import Any

import msgspec

from .. import ChatCompletion, FluenceError, StreamError
from ..types import MessageLike
from .asking import Settings, ask, open_session
from .render import view_of
from .terminal import note, quiet, summary

__all__ = ["answer_as_json", "answer_as_text", "opening", "question"]


def question(words: list[str]) -> str:
    """What is asked: the words of the command line, then what is piped in.

    Returns:
        "" where there is neither.
    """
    parts = [" ".join(words).encode("utf-8", "surrogateescape").decode("utf-8", "replace")]
    if sys.stdin is not None and not sys.stdin.isatty():
        parts.append(sys.stdin.buffer.read().decode("utf-8", "replace").strip("\n"))
    return "\n\n".join(part for part in parts if part.strip())


def opening(settings: Settings) -> list[MessageLike]:
    """The messages that a conversation begins with."""
    return [{"role": "system", "content": settings.system}] if settings.system else []


async def answer_as_text(asked: str, settings: Settings) -> None:
    """Answer on stdout as the answer comes; on a terminal, say on stderr what it cost.

    Raises:
        FluenceError: The call failed. What had arrived has been shown.
    """
    messages = [*opening(settings), {"role": "user", "content": asked}]
    async with open_session(settings.base_url) as fluence:
        with quiet(), view_of(sys.stdout) as view:
            completion = await ask(fluence, messages, settings, view.show)
    if not completion.text:
        note(f"an answer without text (finish_reason: {completion.finish_reason})")
    if sys.stdout.isatty():
        note(summary(completion))


async def answer_as_json(asked: str, settings: Settings) -> None:
    """Answer with one JSON object on stdout when the answer is whole, or has failed.

    Its keys: `text`, `model`, `finish_reason`, `usage`, `meta`; and `error` (`type`, `message`)
    if it failed, when `text` is what had arrived.

    Raises:
        FluenceError: The call failed; the object has been printed.
    """
    messages = [*opening(settings), {"role": "user", "content": asked}]
    try:
        async with open_session(settings.base_url) as fluence:
            completion = await ask(fluence, messages, settings, show=lambda _: None)
    except FluenceError as error:
        partial = error.partial if isinstance(error, StreamError) else None
        failed = {"error": {"type": type(error).__name__, "message": str(error)}}
        _print_json(_as_object(partial or ChatCompletion(model=settings.model), error) | failed)
        raise
    _print_json(_as_object(completion, completion))


def _as_object(completion: ChatCompletion, known: ChatCompletion | FluenceError) -> dict[str, Any]:
    return {
        "text": completion.text,
        "model": completion.model,
        "finish_reason": completion.finish_reason,
        "usage": msgspec.to_builtins(completion.usage),
        "meta": msgspec.to_builtins(known.meta),
    }


def _print_json(value: dict[str, Any]) -> None:
    """JSON leaves DEL, C1 and lone surrogates as they are; a terminal and UTF-8 cannot."""
    text = json.dumps(value, ensure_ascii=False)
    text = re.sub(r"[\x7f-\x9f\ud800-\udfff]", lambda match: f"\\u{ord(match[0]):04x}", text)
    print(text, flush=True)
