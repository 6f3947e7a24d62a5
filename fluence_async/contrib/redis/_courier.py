"""A task that carries a store's words to Redis and back.

Law: it lives in the loop that first needed it, ends when there has been nothing to do for a while
or with its loop, and nobody waits for it: whatever goes wrong is told to the store and the log.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import anyio
from coredis.commands import Script
from coredis.exceptions import RedisError
from coredis.retry import NoRetryPolicy

from ...limiter._park import Home, LoopClosed, home_in
from ._background import in_background, running_loop, was_cancelled
from ._connecting import text_client
from ._store import RedisStore
from ._units import KEYS

__all__ = ["Courier"]

logger = logging.getLogger("fluence_async")

_TIMEOUT_S = 2.0
_RETRIED_S = 1.0
_S = 1_000_000_000
_IDLE = 10 * _S
_STEP = (Path(__file__).parent / "_step.lua").read_text()


class Courier:
    """A task of the loop that first needed one: it asks, waits as long as it is told, and ends
    when there has been nothing to do for a while, or with its loop."""

    def __init__(self, store: RedisStore, home: Home) -> None:
        self._store = store
        self._line = store.line
        self._home = home
        self._ticket: Any = home.ticket()
        self._asleep = False

    @classmethod
    def start(cls, store: RedisStore) -> Courier | None:
        """One in the running loop; None if none is running."""
        loop = running_loop()
        if loop is None:
            return None
        courier = cls(store, home_in(loop, _silent))
        in_background(courier.run)
        return courier

    def rouse(self) -> bool:
        """Let it look what there is to do; whether it lives."""
        if not self._asleep:
            return True
        self._asleep = False
        try:
            self._home.post(self._home.wake, self._ticket)
        except LoopClosed:
            return False
        return True

    async def run(self) -> None:
        """Work until there is nothing to do."""
        try:
            while not await self._serve():
                if self._store.down_since:  # or else somebody came while the connection closed
                    await anyio.sleep(_RETRIED_S)
        except Exception:  # a boundary: nobody waits for this task
            logger.exception("the limiter's courier to Redis broke down")
        finally:
            with self._line.lock:
                self._store.gone(self)

    async def _serve(self) -> bool:
        """Work on one connection, until it breaks or there is nothing to do; whether that is so."""
        failure: BaseExceptionGroup[Any] | None = None
        url = self._store.terms.url
        keys = [f"fluence:{{{self._store.terms.name}}}:{part}" for part in KEYS]
        try:
            client = text_client(
                url, NoRetryPolicy(), connect_timeout=_TIMEOUT_S, stream_timeout=_TIMEOUT_S
            )
            async with client:
                step = client.register_script(_STEP)
                with self._line.lock:
                    self._store.begin(self._line.clock())
                while await self._step(step, keys):
                    pass
        except* (RedisError, OSError, TimeoutError) as errors:
            failure = errors
        if was_cancelled():
            return True
        if failure is not None:
            self._fail(failure)
        with self._line.lock:
            return self._store.let_go(self)

    async def _step(self, step: Script[str], keys: list[str]) -> bool:
        line, store = self._line, self._store
        with line.lock:
            line.catch_up()
            store.unclaimed()
            question = store.question(line.clock()) if store.busy else None
        if question is not None:
            arguments, ask, unit = question
            with anyio.fail_after(_TIMEOUT_S):
                reply: Any = await step(keys=keys, args=arguments)
            now = line.clock()
            with line.lock:
                store.answered([str(word) for word in reply], ask, unit, now)
                line.pump(now, self._home.loop)
        return await self._sleep()

    async def _sleep(self) -> bool:
        line, store = self._line, self._store
        with line.lock:
            line.catch_up()
            store.unclaimed()
            patience = store.patience(line.clock(), _IDLE)
            if not patience:
                return True
            self._ticket, self._asleep = self._home.ticket(), True
        with anyio.move_on_after(patience / _S):
            await self._home.park(self._ticket)
        with line.lock:
            self._asleep = False
            store.renew(line.clock())
            return store.busy or store.in_flight

    def _fail(self, errors: BaseExceptionGroup[Any]) -> None:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        line, store = self._line, self._store
        now = line.clock()
        with line.lock:
            line.catch_up()
            first = not store.down_since
            store.failed(now)
            line.pump(now, self._home.loop)
        if first:
            logger.warning(
                "the limiter's Redis cannot be reached (%s: %s); %s",
                type(error).__name__,
                error,
                f"this process keeps to 1/{store.terms.clients} of the limits (RedisLimiter's "
                "clients=) until it is back"
                if store.terms.clients
                else "nothing is sent until it is back",
            )


def _silent(_home: Home) -> None:
    """A courier's home has no timer."""
