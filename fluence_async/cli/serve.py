"""The local server in the foreground: it says how to point a client at it, and serves."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path

import msgspec

from ..server import DOCUMENTED_LIMITS, Chaos, LocalServer, Replay, Responder, Rules, Upstream
from .terminal import printable

__all__ = ["Serving", "serve_forever"]

_WELCOME = """\
The local Fluence server is at {url}
{source}

  export FLUENCE_BASE_URL={url}
  export FLUENCE_API_KEY={key}

  fluence chat "Hello, how are you?"

  curl "$FLUENCE_BASE_URL/chat/completions" \\
    -H "Authorization: Bearer $FLUENCE_API_KEY" \\
    -H "Content-Type: application/json" \\
    -d '{{"model": "fluence-chat", "messages": [{{"role": "user", "content": "Hello!"}}]}}'

  openai.OpenAI(base_url="{url}",
                api_key="{key}")
"""

_COMPUTED = (
    "It speaks the API and is no language model: its answers are computed from the questions."
)

_CONTROL = """\
It takes scripts, from any language:

  curl "{root}/_fluence/script" \\
    -H "Authorization: Bearer $FLUENCE_API_KEY" \\
    -H "Content-Type: application/json" \\
    -d '{{"lines": [{{"Status": 429, "retry_after": "1"}}, "Hello"]}}'

  curl "{root}/_fluence/requests" -H "Authorization: Bearer $FLUENCE_API_KEY"
"""


class Serving(msgspec.Struct, frozen=True, kw_only=True):
    """What to serve: the options of the command."""

    host: str
    port: int
    pace: float
    limited: bool
    control: bool = False
    upstream: str | None = None
    record: Path | None = None
    replay: Path | None = None
    chaos: bool = False
    chaos_rate: float = 0.3
    seed: int | None = None

    def responder(self) -> tuple[Responder, str]:
        """Who answers, and what is to be said of that.

        Raises:
            ValueError: Options that do not go together.
        """
        if self.upstream and self.replay:
            raise ValueError("--upstream and --replay: it can be one of them")
        if self.record and not self.upstream:
            raise ValueError("--record keeps what another server says: name it with --upstream")
        responder, said = self._source()
        if not self.chaos:
            return responder, said
        seed = secrets.randbelow(10_000) if self.seed is None else self.seed
        said += f"\nChaos spoils {self.chaos_rate:.0%} of them; the same again with --seed {seed}."
        return Chaos(responder, seed=seed, rate=self.chaos_rate, tell=_tell), said

    def _source(self) -> tuple[Responder, str]:
        if self.replay:
            try:
                replay = Replay(self.replay, repeat=True)
            except OSError as error:
                raise ValueError(f"--replay {self.replay}: {error.strerror}") from None
            return replay, f"Its answers are the {replay.left} that are recorded in {self.replay}."
        if self.upstream:
            key = os.environ.get("FLUENCE_API_KEY")
            kept = f" They are recorded in {self.record}, without keys." if self.record else ""
            upstream = Upstream(self.upstream, api_key=key, record=self.record)
            return upstream, f"Its answers are those of {self.upstream}.{kept}"
        return Rules(), _COMPUTED


def _tell(line: str) -> None:
    print(printable(line), flush=True)


async def serve_forever(serving: Serving) -> None:
    """Serve until cancelled.

    Raises:
        OSError: There is no listening on that address and port.
        ValueError: Options that do not go together.
    """
    limits = DOCUMENTED_LIMITS if serving.limited else None
    responder, said = serving.responder()
    async with LocalServer(
        host=serving.host,
        port=serving.port,
        pace=serving.pace,
        limits=limits,
        responder=responder,
        control=serving.control,
    ) as server:
        print(_WELCOME.format(url=server.base_url, key=server.api_key, source=said))
        if serving.control:
            print(_CONTROL.format(root=server.base_url.removesuffix("/v1")))
        shown = " and ".join(limits) if limits else "none"
        print(f"Limits: {shown}. Ctrl-C stops it.", flush=True)
        await asyncio.Event().wait()
