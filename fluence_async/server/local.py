"""The server on a socket, on the running asyncio loop: starts, listens, and is gone when closed.

Closing waits for nobody: connections are cut and what hangs is cancelled, because a local
server that outlives its test or its command is worse than an answer cut short. aiohttp's own
runner waits for open handlers first, up to a minute.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from aiohttp import web

from .app import App, Received
from .control import Control
from .refusal import envelope
from .responders import Responder
from .responders.rules import Rules
from .responders.script import Script
from .windows import Windows

__all__ = ["DOCUMENTED_LIMITS", "LocalServer"]

DOCUMENTED_LIMITS = ("100/minute", "1000/hour")
_BACKLOG = 4096
_IDLE_S = 75.0
"""How long a connection may be without a whole head of a request: idle, or trickling one in."""


class LocalServer:
    """The Fluence Chat API on this machine, as an async context manager on asyncio.

    Args:
        host: The address to listen on; a literal one needs no resolver.
        port: The port; 0 for any that is free.
        api_keys: The keys that are good; by default one made up for this server.
        limits: The rate limits for each key; None for none.
        responder: Who answers; by default `Rules`, which says that it is no language model.
        pace: Seconds between two tokens of a streamed answer.
        time_scale: Seconds of the rate limits' clock per real second.
        clock: The clock in seconds; by default the running loop's.
        hosts: Names under which it may be addressed, beside `host` and the loopback's own.
        watch: Is told each request that comes.
        control: Take scripts over HTTP, at `/_fluence/script`; see `control`.

    Attributes:
        base_url: Where it is, ending in /v1. Known once it is entered.
        api_key: The first of `api_keys`.
    """

    base_url: str

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        api_keys: Sequence[str] | None = None,
        limits: Sequence[str] | None = DOCUMENTED_LIMITS,
        responder: Responder | None = None,
        pace: float = 0.02,
        time_scale: float = 1.0,
        clock: Callable[[], float] | None = None,
        hosts: Sequence[str] = (),
        watch: Callable[[Received], None] | None = None,
        control: bool = False,
    ) -> None:
        self._host = host
        self._port = port
        self._keys = list(api_keys or [f"local-{secrets.token_urlsafe(24)}"])
        self._windows = None if limits is None else Windows(limits)
        self._responder = responder or Rules()
        self._control: Control | None = None
        if control:
            if not isinstance(self._responder, Script):
                self._responder = Script(self._responder)
            self._control = Control(self._responder)
        self._pace = pace
        self._time_scale = time_scale
        self._clock = clock
        self._hosts = [host, *hosts]
        self._watch = watch
        self.api_key: str = self._keys[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({getattr(self, 'base_url', 'not started')!r})"

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._http.connections)

    @property
    def answering(self) -> int:
        """How many requests are being answered."""
        return self._app.answering

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        clock = self._clock or loop.time
        self._app = App(
            self._responder,
            keys=self._keys,
            windows=self._windows,
            clock=lambda: clock() * self._time_scale,
            time_scale=self._time_scale,
            pace=self._pace,
            hosts=self._hosts,
            watch=self._watched,
            control=self._control,
        )
        self._http = _Connections(self._app.answer, handler_cancellation=True)
        self._listener = await loop.create_server(
            self._http, self._host, self._port, backlog=_BACKLOG
        )
        port = self._listener.sockets[0].getsockname()[1]
        host = f"[{self._host}]" if ":" in self._host else self._host
        self.base_url = f"http://{host}:{port}/v1"
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stop_listening()
        while self._http.connections:
            for connection in self._http.connections:
                if connection.transport is not None:
                    connection.transport.abort()
            await asyncio.sleep(0)
        await self._listener.wait_closed()
        await self._app.aclose()

    def _watched(self, received: Received) -> None:
        if self._watch is not None:
            self._watch(received)
        if self._control is not None:
            self._control.watch(received)

    async def _stop_listening(self) -> None:
        """Close the listener once no connection is half accepted: asyncio would leave that one
        open for good (https://github.com/python/cpython/issues/109564)."""
        loop = asyncio.get_running_loop()
        for listening in self._listener.sockets:
            with suppress(NotImplementedError, RuntimeError):  # loops without readers
                loop.remove_reader(listening.fileno())
        for _ in range(3):  # accepted, made a transport, made a connection
            await asyncio.sleep(0)
        self._listener.close()


class _Connections(web.Server):
    """What asyncio asks for a protocol at each connection."""

    def __call__(self) -> web.RequestHandler:
        options: dict[str, Any] = {"keepalive_timeout": _IDLE_S, "access_log": None}
        return _Connection(self, loop=asyncio.get_running_loop(), **options)


class _Connection(web.RequestHandler):
    """A connection. aiohttp bounds a head: 8 KiB a line, 128 headers."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP. aiohttp would quote it, in the log too: it may hold a key."""
        if status != 400:
            return super().handle_error(request, status, exc, message)
        said = "This is no HTTP request, or one of its lines is too long, or they are too many"
        response = web.json_response(envelope(400, said), status=400)
        response.force_close()
        return response
