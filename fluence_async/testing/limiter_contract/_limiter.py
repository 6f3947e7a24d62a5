"""What the contract needs of a limiter, and what its checks do with one."""

from __future__ import annotations

import secrets
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

import anyio

__all__ = [
    "PATIENCE_S",
    "ContractLimiter",
    "ContractPermit",
    "Factory",
    "acquired",
    "busiest",
    "new_name",
    "used_up",
    "waits",
]

PATIENCE_S = 30.0


class ContractPermit(Protocol):
    """What `acquire` gives; see `fluence_async.Permit`."""

    def sent(self) -> None:
        """The first byte may have left this machine."""

    def delivered(self) -> None:
        """The server's kernel has all of it, and nobody has answered yet."""

    def settle(self) -> None:
        """The response's headers are here."""

    def release(self, costs: Mapping[str, int] | None = None) -> None:
        """The request is over, and came to `costs`."""


class ContractLimiter(Protocol):
    """What a session asks of a limiter; see `fluence_async.Limiter`."""

    async def acquire(
        self,
        *,
        lane: int = 0,
        front: bool = False,
        deadline: float | None = None,
        costs: Mapping[str, int] | None = None,
        model: str | None = None,
    ) -> ContractPermit:
        """Wait for the right to send one request."""
        ...

    def pause(self, seconds: float) -> None:
        """The server asked for a pause."""


Factory = Callable[[str, Sequence[str]], ContractLimiter]


def new_name() -> str:
    """The name of a limiter that nobody else has."""
    return secrets.token_hex(16)


async def acquired(limiter: ContractLimiter, **how: Any) -> ContractPermit:
    """A permit, in good time."""
    with anyio.fail_after(PATIENCE_S):
        return await limiter.acquire(**how)


async def used_up(limiter: ContractLimiter, count: int) -> list[ContractPermit]:
    """So many permits."""
    return [await acquired(limiter) for _ in range(count)]


async def waits(limiter: ContractLimiter, seconds: float = 0.05) -> bool:
    """Whether no unit is to be had within so many seconds; if one is, it is given back."""
    with anyio.move_on_after(seconds):
        permit = await limiter.acquire()
        permit.release()
        return False
    return True


def busiest(at: Iterable[float], period: float) -> int:
    """The most of them in any half-open window of `period` seconds."""
    times = sorted(at)
    return max((i + 1 - bisect_left(times, t - period + 1e-9) for i, t in enumerate(times)))
