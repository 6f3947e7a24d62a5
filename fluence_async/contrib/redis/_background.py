"""Work in, a task of the running loop out that nobody waits for.

Law: it ends with its loop, and inherits nothing of whoever happened to need it first.
"""

from __future__ import annotations

import contextvars
import sys
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

__all__ = ["in_background", "running_loop", "was_cancelled"]

_tasks: set[Any] = set()


def running_loop() -> Any:
    """The loop that is running here, in a task of it or not; None if none is."""
    trio = sys.modules.get("trio")
    if trio is not None and trio.lowlevel.in_trio_run():
        return trio.lowlevel.current_trio_token()
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        with suppress(RuntimeError):
            return asyncio.get_running_loop()
    return None


def in_background(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Begin `work` in the running loop.

    Raises:
        RuntimeError: None is running.
    """
    loop = running_loop()
    if loop is None:
        raise RuntimeError("no event loop is running")
    if hasattr(loop, "create_task"):
        task = loop.create_task(work(), context=contextvars.Context())
        _tasks.add(task)  # the loop alone would let it be collected
        task.add_done_callback(_tasks.discard)
    else:
        import trio

        trio.lowlevel.spawn_system_task(work, context=contextvars.Context())


def was_cancelled() -> bool:
    """Whether the running task was told to end. asyncio says so once, and a task group (coredis
    has one for each connection) forgets it over an error of its own; trio says so at every await.
    """
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    with suppress(RuntimeError):
        task = asyncio.current_task()
        return task is not None and task.cancelling() > 0
    return False
