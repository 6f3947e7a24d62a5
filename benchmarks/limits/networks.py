"""The networks of the simulation: chance goes in, the times of one request's way come out.

Law: a request arrives after `up`, its answer's headers come `down` later, and a refusal's `back`
later: a server refuses at once, whatever an answer takes. Where answers are slow, the sender hears
`told` after its arrival that the server's kernel has it. Times are seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import NamedTuple

__all__ = ["NETWORKS", "Way"]


class Way(NamedTuple):
    """How long one request is under way."""

    up: float
    down: float
    back: float
    told: float | None = None


def constant(_: Random) -> Way:
    return Way(0.05, 0.15, 0.05)


def jittered(chance: Random) -> Way:
    return Way(chance.uniform(0.01, 0.4), chance.uniform(0.05, 0.6), chance.uniform(0.01, 0.2))


def bursty(chance: Random) -> Way:
    """Mostly quick, one in fifty stuck for seconds on the way."""
    stuck = chance.uniform(1, 8) if chance.random() < 0.02 else 0.0
    return Way(0.03 + stuck, chance.uniform(0.05, 0.3), 0.03)


def streams(chance: Random) -> Way:
    """Headers soon; what comes after them is no business of the limiter's."""
    return Way(0.05, chance.uniform(0.2, 0.9), 0.05)


def slow_headers(chance: Random) -> Way:
    """Plain answers: the headers come when all is written. A kernel is asked every 100 ms."""
    return Way(0.05, chance.uniform(1, 60), 0.05, 0.05 + chance.uniform(0, 0.1))


NETWORKS: dict[str, Callable[[Random], Way]] = {
    "constant": constant,
    "jittered": jittered,
    "bursty": bursty,
    "long streams": streams,
    "slow headers": slow_headers,
}
