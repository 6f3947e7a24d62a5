"""Answers that machines share: a Redis, by coredis, on asyncio and trio.

Law: Redis is a cache and nothing else. Whatever is wrong with it (down, slow, full, flushed, or
something else on its port) raises within `timeout_s`, and the session goes on without; after that
it is left alone for a while, so that not every call waits for what is not there.

A pool of coredis must be left by the task that entered it, so each event loop has a task that does
nothing else. Commands run there too: one that is cancelled half-way would cost the pool a place.
Scripts are of Redis 6.2. See https://redis.io/docs/latest/commands/.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar, cast

import anyio
from anyio.abc import TaskGroup
from anyio.lowlevel import RunVar
from coredis import Redis
from coredis.exceptions import ConnectionError as RedisConnectionError
from coredis.exceptions import RedisError, ResponseError
from coredis.retry import ConstantRetryPolicy

from ..._sansio.arguments import check_seconds
from ...cache._store import DAY_S, check_bounds
from ._address import check_address
from ._background import in_background
from ._connecting import bytes_client

__all__ = ["RedisCache"]

T = TypeVar("T")
Work = Callable[[Redis[bytes]], Awaitable[T]]

_logger = logging.getLogger("fluence_async")
_REST_S = 5.0
"""How long a Redis that did not answer is left alone."""
_CONNECTIONS = 16
_LEASE = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
"""


class RedisCache:
    """A cache in a Redis (6.2 or newer), for any number of sessions, processes and machines.

    Answers are in it as the server sent them: who may read the Redis may read them. Prompts and
    API keys are not. How much it holds in all is Redis's own setting: give it a `maxmemory` and
    `maxmemory-policy allkeys-lru`; with `noeviction` a full one keeps no new answers.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://`, as coredis has it, with the password.
        max_bytes: The largest answer that is kept, in bytes.
        ttl_s: How long an answer is kept where the call does not say, in seconds.
        prefix: What its keys begin with.
        timeout_s: How long to wait for Redis, to connect and to answer, in seconds.

    Raises:
        ValueError: A bound that cannot work, or an address that is none.

    Example:
        ```python
        fluence = FluenceSession(cache=RedisCache("redis://localhost:6379/0", ttl_s=7 * 86_400))
        ```
    """

    ttl_s: float

    def __init__(
        self,
        url: str = "redis://localhost:6379/0",
        *,
        max_bytes: int = 16 * 2**20,
        ttl_s: float = DAY_S,
        prefix: str = "fluence:",
        timeout_s: float = 1.0,
    ) -> None:
        check_bounds(max_bytes, ttl_s)
        check_seconds("timeout_s", timeout_s)
        self._place = check_address(url)
        self._url = url
        self.ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._link: RunVar[_Link | None] = RunVar(f"fluence_async.redis.{id(self)}")
        self._rests_until = 0.0

    async def get(self, key: str) -> bytes | None:
        """The value of `key`; None if there is none, or none any more."""
        return await self._do(lambda redis: redis.get(self._name(key)))

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep `value` for `ttl_s` seconds, if it is not too large."""
        if len(value) <= self._max_bytes:
            await self._do(lambda redis: redis.set(self._name(key), value, px=_ms(ttl_s)))

    async def delete(self, key: str) -> None:
        """Forget `key`."""
        await self._do(lambda redis: redis.delete([self._name(key)]))

    async def clear(self) -> None:
        """Forget everything under this prefix."""

        async def work(redis: Redis[bytes]) -> None:
            pattern = "".join(f"\\{c}" if c in "*?[]\\" else c for c in self._prefix) + "*"
            async for key in redis.scan_iter(match=pattern, count=1000):
                await redis.unlink([key])

        await self._do(work)

    async def lease(self, key: str, holder: bytes, for_s: float) -> bool:
        """Whether `holder` has the lease of `key` now; it ends in `for_s` seconds."""
        name = f"{self._name(key)}:lease"
        return await self._do(lambda redis: redis.eval(_LEASE, [name], [holder, _ms(for_s)])) == 1

    async def release(self, key: str, holder: bytes) -> None:
        """End `holder`'s lease of `key`."""
        name = f"{self._name(key)}:lease"
        await self._do(lambda redis: redis.eval(_RELEASE, [name], [holder]))

    async def aclose(self) -> None:
        """Close this loop's connections; the next use opens new ones."""
        link = self._link.get(None)
        if link is not None:
            self._link.set(None)
            await link.aclose()

    # ─── the loop's connections ───────────────────────────────────────────────────────────

    async def _do(self, work: Work[T]) -> T:
        """What `work` returns, or why it cannot.

        Raises:
            RedisError: Redis says no.
            ConnectionError: It does not answer, or did not a moment ago.
        """
        self._check_rested()
        link = self._link.get(None)
        if link is None or link.ended:
            link = _Link(self._connect)
            self._link.set(link)
        try:
            return await link.do(work, self._check_rested)
        except ResponseError:
            raise
        except (RedisError, OSError) as error:
            self._rests_until = time.monotonic() + _REST_S
            raise ConnectionError(f"Redis at {self._place} does not answer: {error}") from error

    def _check_rested(self) -> None:
        if time.monotonic() < self._rests_until:
            raise ConnectionError(f"Redis at {self._place} did not answer a moment ago")

    def _connect(self) -> Redis[bytes]:
        return bytes_client(
            self._url,
            ConstantRetryPolicy((RedisConnectionError,), retries=1, delay=0.01),
            connect_timeout=self._timeout_s,
            stream_timeout=self._timeout_s,
            max_connections=_CONNECTIONS,
        )

    def _name(self, key: str) -> str:
        return self._prefix + key

    def __repr__(self) -> str:
        return f"<RedisCache at {self._place}>"


class _Link:
    """One loop's connections, in a task of their own.

    Args:
        connect: Makes the pool.
    """

    def __init__(self, connect: Callable[[], Redis[bytes]]) -> None:
        self._connect = connect
        self._room = anyio.CapacityLimiter(_CONNECTIONS)
        self._opened = anyio.Event()
        self._closing = anyio.Event()
        self._closed = anyio.Event()
        self._redis: Redis[bytes] | None = None
        self._tasks: TaskGroup | None = None
        in_background(self._serve)

    @property
    def ended(self) -> bool:
        """Nothing can be done here any more."""
        return self._closing.is_set() or self._closed.is_set()

    async def do(self, work: Work[T], check: Callable[[], None]) -> T:
        """What `work` returns or raises; whoever is cancelled leaves it to its end."""
        await self._opened.wait()
        if self._tasks is None or self._redis is None or self.ended:
            raise ConnectionError("the connections were closed")
        done: _Done[T] = _Done()
        self._tasks.start_soon(self._work, self._redis, work, check, done)
        return await done.outcome()

    async def _work(
        self, redis: Redis[bytes], work: Work[T], check: Callable[[], None], done: _Done[T]
    ) -> None:
        try:
            async with self._room:
                check()  # those before it may have found that nobody answers
                done.value = await work(redis)
        except Exception as error:  # noqa: BLE001 - raised where it is waited for
            done.error = error
        finally:
            done.event.set()

    async def _serve(self) -> None:
        try:
            async with self._connect() as self._redis, anyio.create_task_group() as self._tasks:
                self._opened.set()
                await self._closing.wait()
        except Exception:
            _logger.debug("the connections to Redis were closed", exc_info=True)
        finally:
            self._redis = self._tasks = None
            self._opened.set()
            self._closed.set()

    async def aclose(self) -> None:
        """Close them, once what is under way is done."""
        self._closing.set()
        await self._closed.wait()


class _Done(Generic[T]):
    """What came of some work."""

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.value: T | None = None
        self.error: Exception | None = None

    async def outcome(self) -> T:
        await self.event.wait()
        if self.error is not None:
            raise self.error
        return cast("T", self.value)


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
