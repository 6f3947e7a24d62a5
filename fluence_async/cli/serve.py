"""The local server in the foreground: it says how to point a client at it, and serves."""

from __future__ import annotations

import asyncio

from ..server import DOCUMENTED_LIMITS, LocalServer

__all__ = ["serve_forever"]

_WELCOME = """\
The local Fluence server is at {url}
It speaks the API and is no language model: its answers are computed from the questions.

  export FLUENCE_BASE_URL={url}
  export FLUENCE_API_KEY={key}

  fluence chat "Hello, how are you?"

  curl "$FLUENCE_BASE_URL/chat/completions" \\
    -H "Authorization: Bearer $FLUENCE_API_KEY" \\
    -H "Content-Type: application/json" \\
    -d '{{"model": "fluence-chat", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

  openai.OpenAI(base_url="{url}",
                api_key="{key}")

Limits: {limits}. Ctrl-C stops it."""


async def serve_forever(*, host: str, port: int, pace: float, limited: bool) -> None:
    """Serve until cancelled.

    Raises:
        OSError: There is no listening on that address and port.
    """
    limits = DOCUMENTED_LIMITS if limited else None
    async with LocalServer(host=host, port=port, pace=pace, limits=limits) as server:
        shown = " and ".join(limits) if limits else "none"
        print(_WELCOME.format(url=server.base_url, key=server.api_key, limits=shown), flush=True)
        await asyncio.Event().wait()
