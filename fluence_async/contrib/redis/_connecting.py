"""A Redis's address in, a client of coredis out, in whose midst a loop may end at any time.

Law: no task waits for one that will never run. coredis begins a connection with anyio's
`TaskGroup.start`; who is cancelled there waits, shielded, until the connection's task has ended.
Where `asyncio.run` ends just then, it cancels that task before its first step, which anyio (4.16)
never notices: the program would hang at its end. Here the same is done with an event, and nothing
is shielded. And what a connection has opened that could not be made is closed, as coredis forgets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
from anyio.abc import TaskGroup, TaskStatus
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from coredis import ConnectionPool, Redis
from coredis.connection import BaseConnection
from coredis.exceptions import ConnectionError as RedisConnectionError
from coredis.retry import RetryPolicy

__all__ = ["Starting", "bytes_client", "text_client"]


class Starting:
    """A task group whose `start` leaves nobody waiting."""

    def __init__(self, tasks: TaskGroup) -> None:
        self._tasks = tasks

    async def start(self, work: Callable[..., Awaitable[Any]], *args: object) -> Any:
        """Begin some work, and wait until it says that it has begun: with what."""
        begun = _Begun()

        async def run() -> None:
            try:
                await work(*args, task_status=begun)
            finally:
                begun.event.set()
                for each in args:
                    _close_streams(each)

        self._tasks.start_soon(run, name=getattr(work, "__qualname__", None))
        await begun.event.wait()
        return begun.value


def _close_streams(connection: object) -> None:
    if isinstance(connection, BaseConnection):
        for each in vars(connection).values():
            if isinstance(each, MemoryObjectSendStream | MemoryObjectReceiveStream):
                each.close()


class _Begun(TaskStatus[Any]):
    def __init__(self) -> None:
        self.event = anyio.Event()
        self.value: Any = RedisConnectionError("it ended before it had begun")

    def started(self, value: Any = None) -> None:
        self.value = value
        self.event.set()


class _Pool(ConnectionPool[Any]):
    @property
    def task_group(self) -> Any:
        return Starting(super().task_group)


def text_client(url: str, retry_policy: RetryPolicy, **settings: Any) -> Redis[str]:
    """A client for text; settings as of `coredis.ConnectionPool`."""
    pool = _Pool.from_url(url, decode_responses=True, **settings)
    return Redis(connection_pool=pool, decode_responses=True, retry_policy=retry_policy)


def bytes_client(url: str, retry_policy: RetryPolicy, **settings: Any) -> Redis[bytes]:
    """A client for bytes; settings as of `coredis.ConnectionPool`."""
    pool = _Pool.from_url(url, **settings)
    return Redis(connection_pool=pool, verify_version=False, retry_policy=retry_policy)
