"""The local server as a test wants it: on any backend, with a script, and with a memory.

On asyncio it runs in the test's own loop, so that virtual time rules it too. Elsewhere (trio, or
a test without a loop) it runs in a thread with a loop of its own.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

import anyio
from anyio.to_thread import run_sync

from ..options import CompletionParams
from ..server import DOCUMENTED_LIMITS, LocalServer, Responder, Rules
from ..server.received import Match, Received, table
from ..server.responders.script import Line, Lines, Script

__all__ = ["FluenceServer"]

_POLL_S = 0.005
_FIELDS = {*CompletionParams.__annotations__, "stream"}


class FluenceServer:
    """The Fluence Chat API for a test: `async with` on asyncio and trio, or plain `with`.

    Args:
        api_keys: The keys that are good.
        limits: The rate limits for each key, the documented ones by default; None for none.
        responder: Who answers what the script does not; by default `Rules`.
        pace: Seconds between two tokens of a streamed answer.
        time_scale: Seconds of the rate limits' clock per real second: with 60, a minute's window
            lasts a second, and `Retry-After` is in the client's seconds.
        clock: The clock in seconds; by default that of the loop it runs in, so virtual time
            rules it on asyncio.
        port: The port; 0 for any that is free.
        control: Take scripts over HTTP, for programs in other languages; see
            `fluence_async.server.control`.

    Attributes:
        requests: All that came, in order.
    """

    def __init__(
        self,
        *,
        api_keys: Sequence[str] = ("fluence-test-key",),
        limits: Sequence[str] | None = DOCUMENTED_LIMITS,
        responder: Responder | None = None,
        pace: float = 0.0,
        time_scale: float = 1.0,
        clock: Callable[[], float] | None = None,
        port: int = 0,
        control: bool = False,
    ) -> None:
        self.requests: list[Received] = []
        self._script = Script(responder or Rules())
        self._local = LocalServer(
            port=port,
            api_keys=api_keys,
            limits=limits,
            responder=self._script,
            pace=pace,
            time_scale=time_scale,
            clock=clock,
            watch=self.requests.append,
            control=control,
        )
        self._thread: threading.Thread | None = None
        self._stop: Callable[[], object]

    def __repr__(self) -> str:
        return f"Fluence{repr(self._local).removeprefix('Local')}"

    @property
    def base_url(self) -> str:
        """Where it is: `http://127.0.0.1:port/v1`."""
        return self._local.base_url

    @property
    def api_key(self) -> str:
        """A key that is good."""
        return self._local.api_key

    def script(self, *lines: Line, repeat: bool = False) -> None:
        """Say what is answered from now on, in place of what was said before.

        Args:
            lines: A reply for each request, in order; after the last, the responder answers. A
                function is asked at every request from its turn on: it takes the `Turn` and
                returns a reply, or None to leave it to the responder.
            repeat: Begin again after the last line.

        Raises:
            TypeError, ValueError: A line that is no reply, or would never answer.
        """
        self._script.script(*lines, repeat=repeat)

    def when(
        self,
        *,
        text: str | re.Pattern[str] | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Lines:
        """Say what is answered to some requests only: `server.when(text="dragons").script(...)`.
        These lines come before those for all requests; of two that fit, the later.

        Args:
            text: In the last user message: a text that it contains, or a pattern found in it.
            headers: Headers and their values.
            extra_body: Fields that the API does not know, and their values.
            fields: Fields of the request's JSON and their values, such as `stream=True`.

        Raises:
            TypeError: A field that the API does not know.
        """
        return self._script.when(_match(fields, extra_body, text=text, headers=headers or {}))

    # ─── what it saw ──────────────────────────────────────────────────────────────────────

    @property
    def arrivals(self) -> list[float]:
        """When each request with a good key came, in seconds on the server's clock."""
        return [received.at for received in self.requests if received.counted]

    @property
    def refusals(self) -> int:
        """How many requests the rate limits refused."""
        return sum(received.refused for received in self.requests)

    @property
    def executions(self) -> int:
        """How many answers were executed; one brought back by its idempotency key is not."""
        return sum(received.executed for received in self.requests)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._local.connections

    @property
    def answering(self) -> int:
        """How many requests are being answered."""
        return self._local.answering

    def busiest(self, period: float) -> int:
        """The most arrivals in any half-open window of `period` seconds."""
        at = self.arrivals
        return max(
            (i + 1 - bisect_left(at, t - period + 1e-9) for i, t in enumerate(at)), default=0
        )

    def assert_requested(
        self,
        times: int | None = None,
        /,
        *,
        text: str | re.Pattern[str] | None = None,
        headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> list[Received]:
        """Assert that such requests came, and return them.

        Args:
            times: How many; without it, at least one.
            text: See `when`, as for the others.
            headers: Headers and their values.
            extra_body: Fields that the API does not know, and their values.
            fields: Fields of the request's JSON and their values.

        Raises:
            AssertionError: Others came; the message shows all.
            TypeError: A field that the API does not know.
        """
        match = _match(fields, extra_body, text=text, headers=headers or {})
        found = [each for each in self.requests if match.fits(each.headers, each.body)]
        if len(found) == times or (times is None and found):
            return found
        wanted = "at least 1" if times is None else f"exactly {times}"
        such = f" with {match}" if str(match) else ""
        raise AssertionError(
            f"requests{such}: expected {wanted}, and of {len(self.requests)} that came "
            f"{len(found)} fit:\n"
            f"{table(self.requests, match)}"
        )

    async def wait_until_idle(self, timeout: float = 1.0, *, connections: int = 0) -> None:
        """Wait until no request is being answered and at most `connections` are open.

        Raises:
            AssertionError: After `timeout` seconds of the server's loop.
        """

        def idle() -> bool:
            return not self.answering and self.connections <= connections

        # Asked once more at the end it might be busy again: with a connection that the client had
        # closed before the server came to accept it.
        found = False
        if self._thread is not None:
            found = await run_sync(_poll, idle, timeout)  # real time, whatever the caller's clock
        else:
            with anyio.move_on_after(timeout):
                while not (found := idle()):  # noqa: ASYNC110 - a connection's end sets no event
                    await anyio.sleep(_POLL_S)
        assert found, f"{self.answering} requests in progress, {self.connections} connections open"

    # ─── starting and stopping ────────────────────────────────────────────────────────────

    async def __aenter__(self) -> Self:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            await run_sync(self.__enter__)
        else:
            await self._local.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            if self._thread is not None:
                await run_sync(self.__exit__, exc_type, exc, traceback)
            else:
                await self._local.__aexit__(exc_type, exc, traceback)

    def __enter__(self) -> Self:
        started: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(started)), name="FluenceServer", daemon=True
        )
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self._thread.join()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._thread is None:
            raise RuntimeError("the server was not entered")
        self._stop()
        self._thread.join()
        self._thread = None

    async def _serve(self, started: Future[None]) -> None:
        """The thread's whole life."""
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._stop = lambda: loop.call_soon_threadsafe(stop.set)
        try:
            await self._local.__aenter__()
        except BaseException as error:  # noqa: BLE001 - it is raised where the server was opened
            started.set_exception(error)
            return
        started.set_result(None)
        try:
            await stop.wait()
        finally:
            await self._local.__aexit__(None, None, None)


def _match(fields: Mapping[str, Any], extra: Mapping[str, Any] | None, **of: Any) -> Match:
    if unknown := sorted(fields.keys() - _FIELDS):
        raise TypeError(
            f"{unknown[0]!r} is no field of a request: text, headers, or one of "
            f"{', '.join(sorted(_FIELDS))}; what only your server knows goes into "
            "extra_body={...}"
        )
    return Match(fields={**fields, **(extra or {})}, **of)


def _poll(idle: Callable[[], bool], timeout: float) -> bool:
    end = time.monotonic() + timeout
    while not (found := idle()) and time.monotonic() < end:
        time.sleep(_POLL_S)
    return found
