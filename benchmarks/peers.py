"""The clients that are compared: each opens on the server's address and does the same two jobs.

A peer is written as its plainest good user would write it, with the library's own defaults.
`stream` reads one streamed answer and touches every chunk's text, `answer` reads one plain
answer; both return how much they saw, so that no peer can win by leaving something out.
Each runs in a process of its own and therefore imports its library inside its function, so
that none is slowed down by another's objects when garbage is collected.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import msgspec

__all__ = ["PEERS", "Client"]

HEADERS = {"Authorization": "Bearer k", "Content-Type": "application/json"}


class Client(NamedTuple):
    """An open client. Both take the model's name and return the characters (or bytes) seen."""

    stream: Callable[[str], Awaitable[int]]
    answer: Callable[[str], Awaitable[int]]


def body(model: str, *, stream: bool) -> dict[str, Any]:
    """What every peer sends."""
    return {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}


@asynccontextmanager
async def aiohttp_bytes(base_url: str) -> AsyncIterator[Client]:
    """Bare aiohttp: reads the bytes and does nothing with them."""
    import aiohttp

    url = base_url + "/chat/completions"
    encode = msgspec.json.encode
    async with aiohttp.ClientSession(headers=HEADERS) as session:

        async def stream(model: str) -> int:
            seen = 0
            async with session.post(url, data=encode(body(model, stream=True))) as response:
                async for data in response.content.iter_any():
                    seen += len(data)
            return seen

        async def answer(model: str) -> int:
            async with session.post(url, data=encode(body(model, stream=False))) as response:
                return len(await response.read())

        yield Client(stream, answer)


class Text(msgspec.Struct):
    content: str | None = None


class Choice(msgspec.Struct):
    delta: Text | None = None
    message: Text | None = None


class Reply(msgspec.Struct):
    choices: list[Choice]


@asynccontextmanager
async def aiohttp_msgspec(base_url: str) -> AsyncIterator[Client]:
    """What one writes by hand: aiohttp, and msgspec into a few small Structs."""
    import aiohttp

    url = base_url + "/chat/completions"
    encode = msgspec.json.encode
    decode = msgspec.json.Decoder(Reply).decode
    async with aiohttp.ClientSession(headers=HEADERS) as session:

        async def stream(model: str) -> int:
            seen, pending = 0, b""
            async with session.post(url, data=encode(body(model, stream=True))) as response:
                async for data in response.content.iter_any():
                    *events, pending = (pending + data).split(b"\n\n")
                    for event in events:
                        if event == b"data: [DONE]":
                            continue
                        for choice in decode(event[6:]).choices:
                            if choice.delta is not None:
                                seen += len(choice.delta.content or "")
            return seen

        async def answer(model: str) -> int:
            async with session.post(url, data=encode(body(model, stream=False))) as response:
                reply = decode(await response.read())
            message = reply.choices[0].message
            return len(message.content or "") if message is not None else 0

        yield Client(stream, answer)


@asynccontextmanager
async def fluence(base_url: str) -> AsyncIterator[Client]:
    """This package, with limits that count every request and never make one wait."""
    from fluence_async import FluenceSession

    limits = ("1000000/minute",)
    async with FluenceSession(api_key="k", base_url=base_url, limits=limits) as session:
        completions = session.chat.completions

        async def stream(model: str) -> int:
            seen = 0
            async with completions.stream(model=model, messages="hi") as chunks:
                async for chunk in chunks:
                    seen += len(chunk.text)
            return seen

        async def answer(model: str) -> int:
            return len((await completions.create(model=model, messages="hi")).text)

        yield Client(stream, answer)


def openai_httpx(base_url: str) -> AbstractAsyncContextManager[Client]:
    """The OpenAI SDK as it comes."""
    return openai(base_url, over_aiohttp=False)


def openai_aiohttp(base_url: str) -> AbstractAsyncContextManager[Client]:
    """The OpenAI SDK with its extra `aiohttp`."""
    return openai(base_url, over_aiohttp=True)


@asynccontextmanager
async def openai(base_url: str, *, over_aiohttp: bool) -> AsyncIterator[Client]:
    from openai import AsyncOpenAI, DefaultAioHttpClient

    http_client = DefaultAioHttpClient() if over_aiohttp else None
    async with AsyncOpenAI(api_key="k", base_url=base_url, http_client=http_client) as session:
        completions = session.chat.completions

        async def stream(model: str) -> int:
            seen = 0
            chunks = await completions.create(
                model=model, messages=[{"role": "user", "content": "hi"}], stream=True
            )
            async for chunk in chunks:
                if chunk.choices:
                    seen += len(chunk.choices[0].delta.content or "")
            return seen

        async def answer(model: str) -> int:
            reply = await completions.create(
                model=model, messages=[{"role": "user", "content": "hi"}]
            )
            return len(reply.choices[0].message.content or "")

        yield Client(stream, answer)


PEERS: dict[str, Callable[[str], AbstractAsyncContextManager[Client]]] = {
    "aiohttp_bytes": aiohttp_bytes,
    "fluence": fluence,
    "aiohttp_msgspec": aiohttp_msgspec,
    "openai_aiohttp": openai_aiohttp,
    "openai_httpx": openai_httpx,
}
