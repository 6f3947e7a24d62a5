"""A conversation goes to a model, and its answer comes back and is shown while it comes."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .. import ChatCompletion, FluenceSession
from ..types import MessageLike
from .terminal import note

__all__ = ["Settings", "ask", "open_session"]

_LOCAL = "local server, no language model · for the real API: export FLUENCE_API_KEY=…"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the options of `fluence chat` say."""

    model: str
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    stream: bool = True
    base_url: str | None = None


@asynccontextmanager
async def open_session(base_url: str | None) -> AsyncIterator[FluenceSession]:
    """A session with the API that the environment names; with the embedded local server where
    it names neither a key nor an address. Calls of the API keep to the limits together with this
    user's other processes: an hour is longer than a command runs.

    Raises:
        ValueError: There is an address and no key, or one of them cannot be used.
    """
    base_url = base_url or os.environ.get("FLUENCE_BASE_URL") or None
    api_key = os.environ.get("FLUENCE_API_KEY") or None
    if api_key is None and base_url is None:
        from ..server import LocalServer  # half a second that a call of the real API saves

        note(_LOCAL)
        async with (
            LocalServer() as server,
            FluenceSession(api_key=server.api_key, base_url=server.base_url) as fluence,
        ):
            yield fluence
        return
    if api_key is None:
        raise ValueError(
            f"no API key for {base_url}: set FLUENCE_API_KEY (to any word, if that server "
            "asks for none)"
        )
    limiter = os.environ.get("FLUENCE_LIMITER") or ("file" if sys.platform == "linux" else "memory")
    async with FluenceSession(api_key=api_key, base_url=base_url, limiter=limiter) as fluence:
        yield fluence


async def ask(
    fluence: FluenceSession,
    messages: Sequence[MessageLike],
    settings: Settings,
    show: Callable[[str], None],
) -> ChatCompletion:
    """Ask for the next message of a conversation; `show` is given its text while it comes.

    Raises:
        FluenceError: The call failed. What had arrived has been shown.
    """
    completions = fluence.chat.completions
    if not settings.stream:
        completion = await completions.create(
            model=settings.model,
            messages=messages,
            temperature=settings.temperature,
            max_tokens=settings.max_tokens,
        )
        show(completion.text)
        return completion
    async with completions.stream(
        model=settings.model,
        messages=messages,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
    ) as stream:
        async for text in stream.text_stream:
            show(text)
    return stream.completion
