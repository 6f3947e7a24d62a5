"""Another server answers: the request is passed on to it, and its answer back as it comes.

Law: the key goes to that server's origin only, and the client's own key goes nowhere. A redirect is
not followed. What is wrong with the other server's answer is wrong with this one's, cuts included.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp

from ..._sansio.secret import ApiKey
from ..recording import Exchange, Piece, told_headers, write_exchange
from ..replies import Status, Step
from ..turn import Turn
from ..wire import Wire

__all__ = ["Upstream"]

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_CONNECT_S = 10.0
_BARE = frozenset({204, 304})


class Upstream:
    """Passes requests on to a server of the same wire, and may record what it answers.

    What the documented API refuses (a missing model, a temperature of 3) is refused here and not
    passed on. Any model's name is.

    Args:
        base_url: Its address, ending in its version: `https://api.example.com/v1`.
        api_key: Its key; None if it wants none.
        record: A file to which each exchange is appended, for `Replay`. No key is written to it,
            but all that is said is.
        secrets: Further texts to keep out of the recording.

    Raises:
        ValueError: An address that is neither https nor on the loopback, or a key that is none.
    """

    models: tuple[str, ...] | None = None

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        record: str | PathLike[str] | None = None,
        secrets: Sequence[str] = (),
    ) -> None:
        self._url = _checked(base_url)
        self._key = None if api_key is None else ApiKey(api_key)
        self._secrets = [ApiKey(secret) for secret in secrets]
        self._record = None if record is None else Path(record)

    def __repr__(self) -> str:
        return f"Upstream({self._url.removesuffix('/chat/completions')!r})"

    async def respond(self, turn: Turn) -> Step:
        """The other server's answer, asked for when it is played."""
        headers = {
            "content-type": "application/json",
            "accept": "text/event-stream" if turn.chat.stream else "application/json",
            "accept-encoding": "identity",
        }
        if "idempotency-key" in turn.headers:
            headers["idempotency-key"] = turn.headers["idempotency-key"]
        if self._key is not None:
            headers["authorization"] = self._key.authorization
        return _Passed(self._url, headers, self)

    def keep(self, turn: Turn, exchange: Exchange) -> None:
        """Record an exchange, if that was asked for. A line is written at once: the loop waits for
        the disk no longer than for a log."""
        if self._record is None:
            return
        keys = [*self._secrets, *([self._key] if self._key else [])]
        client_key = turn.headers.get("authorization", "").partition(" ")[2].strip()
        write_exchange(self._record, exchange, [*keys, ApiKey(client_key)])


class _Passed(Step):
    """The answer of another server."""

    def __init__(self, url: str, headers: dict[str, str], upstream: Upstream) -> None:
        self.url = url
        self.headers = headers
        self.upstream = upstream

    @property
    def executes(self) -> bool:
        """It does, elsewhere."""
        return True

    async def play(self, wire: Wire) -> None:
        """Ask, and pass on what comes."""
        exchange = Exchange(wire.received.json, 0, {}, [])
        try:
            await self._pass_on(wire, exchange)
        except (aiohttp.ClientError, TimeoutError) as error:
            if wire.framing is None:
                said = f"The upstream server cannot be asked: {type(error).__name__}: {error}"
                await Status(502, said).play(wire)
                return
            exchange.complete = False
            self.upstream.keep(wire.turn, exchange)
            wire.close()
        self.upstream.keep(wire.turn, exchange)
        if wire.framing is not None:
            await wire.end()

    async def _pass_on(self, wire: Wire, exchange: Exchange) -> None:
        bounds = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)
        async with (
            aiohttp.ClientSession(timeout=bounds, auto_decompress=False) as http,
            http.post(
                self.url, data=wire.turn.body, headers=self.headers, allow_redirects=False
            ) as answer,
        ):
            at = time.monotonic()
            exchange.status, exchange.headers = answer.status, told_headers(answer.headers)
            if exchange.status in _BARE:
                await wire.respond(exchange.status, exchange.headers, b"")
                return
            await wire.head(exchange.status, exchange.headers, length=answer.content_length)
            while not answer.content.at_eof():  # iter_chunks() would not end where there is no body
                data, _ = await answer.content.readchunk()
                if data:
                    now = time.monotonic()
                    exchange.body.append(Piece.of(now - at, data))
                    at = now
                    await wire.body(data)


def _checked(base_url: str) -> str:
    parts = urlsplit(base_url)
    if not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOOPBACK)):
        raise ValueError(f"upstream {base_url!r}: must be https, or http on the loopback")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError("an upstream's address must be scheme, host and path: no user, no query")
    return f"{base_url.rstrip('/')}/chat/completions"
