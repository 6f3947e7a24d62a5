"""A name in, the one limiter of this process with that name out.

Law: sessions of one key and origin share one limiter, because the server counts them together.
What was used is remembered for as long as the server may remember it, also when every session is
gone meanwhile (one `asyncio.run` after another); a limiter that has nothing to remember lives as
long as somebody holds it.

If two sessions name different limits for the same key, both are obeyed: the windows of both, and
of two for the same period the smaller. A key of its own for each set of limits would let through
the sum of both, an error would make a session's opening depend on who came first. For larger
limits than another session's, hand the sessions a `Limiter` of your own.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterable
from pathlib import Path

from .._sansio.rate_limit import RateLimit
from ._state import state_path
from .limiter import Limiter, Policy

__all__ = ["shared_limiter"]


class _Registry:
    """Limiters by name: weakly all that anybody holds, strongly those that remember something."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._known: weakref.WeakValueDictionary[str, Limiter] = weakref.WeakValueDictionary()
        self._kept: dict[str, Limiter] = {}
        self._sweep_at = 64

    def get(
        self,
        name: str,
        limits: Iterable[str | RateLimit],
        policy: Policy,
        path: Path | None = None,
    ) -> Limiter:
        """The limiter of that name, which obeys these limits too."""
        limiter = self._known.get(name)
        if limiter is None:
            limiter = self._known[name] = Limiter(limits, policy=policy, path=path)
        else:
            limiter.tighten(limits)
        self._kept[name] = limiter
        if len(self._kept) > self._sweep_at:
            self._kept = {key: each for key, each in self._kept.items() if _remembers(each)}
            self._sweep_at = 2 * len(self._kept) + 64
        return limiter


def _remembers(limiter: Limiter) -> bool:
    now = limiter.snapshot()
    return bool(now.waiting or now.paused_s or any(window.used for window in now.windows))


_registry = _Registry()

if hasattr(os, "register_at_fork"):  # not on Windows

    def _in_fork() -> None:
        _registry.lock = threading.Lock()  # whose holder may not be here

    os.register_at_fork(after_in_child=_in_fork)


def shared_limiter(
    name: str,
    limits: Iterable[str | RateLimit],
    *,
    policy: Policy = "window",
    in_file: bool = False,
) -> Limiter:
    """The process's limiter for a name.

    Args:
        name: From `limiter_name(api_key, origin)`.
        limits: What this caller wants obeyed; they stay obeyed by all that share the limiter.
        policy: As of `Limiter`; the first caller's counts.
        in_file: Share it with this user's other processes, through a file.

    Raises:
        ValueError: A limit makes no sense.
    """
    with _registry.lock:
        if in_file:
            return _registry.get(f"{name} in a file", limits, policy, state_path(name))
        return _registry.get(name, limits, policy)
