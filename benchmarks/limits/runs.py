"""A seed in, one run out; and what every run must keep to.

Law: a seed says all: the server and its phase, the network, the headers. `python -m
benchmarks.limits --seed N` shows the run of a seed that failed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from .networks import NETWORKS
from .ours import Ours
from .peers import Limits
from .servers import SERVERS, Server, SlidingLog
from .world import Outcome, World, ideal

__all__ = ["DOCUMENTED", "Scene", "broken", "long_run", "promised"]

DOCUMENTED: Limits = [(100, 60.0), (1000, 3600.0)]
SMALL: Limits = [(10, 60.0), (40, 3600.0)]
AS_PROMISED = ("fixed window", "opened window", "sliding log", "token bucket")
"""Servers that keep to the limits as they are written, however they count."""


@dataclass(frozen=True)
class Scene:
    """What a run is set in."""

    kind: str
    network: str
    seed: int = 1
    limits: tuple[tuple[int, float], ...] = tuple(DOCUMENTED)
    headers: bool = False
    retry_after: bool = False
    counts_refusals: bool = False

    @classmethod
    def of(cls, seed: int) -> Scene:
        """The small scene of a seed."""
        chance = Random(seed)
        return cls(
            kind=chance.choice(list(SERVERS)),
            network=chance.choice(list(NETWORKS)),
            seed=seed,
            limits=tuple(SMALL),
            headers=chance.random() < 0.4,
            retry_after=chance.random() < 0.5,
        )

    def server(self) -> Server:
        """A new server of this scene."""
        chance = Random(self.seed)
        return Server(
            [SERVERS[self.kind](limit, period, chance.random()) for limit, period in self.limits],
            counts_refusals=self.counts_refusals,
            headers=self.headers,
            retry_after=self.retry_after,
        )

    def run(self, sender: Callable[[Limits], Any] = Ours, calls: int = 3000) -> Outcome:
        """Let so many calls be made in it."""
        way = NETWORKS[self.network]
        return World(sender(list(self.limits)), self.server(), way, seed=self.seed).run(calls)


def promised(limits: Limits, calls: int) -> float:
    """The best that anybody can do who keeps to the limits in every stretch of time."""
    return ideal(Server([SlidingLog(limit, period) for limit, period in limits]), calls)


def long_run(outcome: Outcome, limits: Limits) -> float:
    """The rate of a run's second half, as a share of the best that limits allow for long: over
    whole periods of the limit that allows least."""
    limit, period = min(limits, key=lambda each: each[0] / each[1])
    last = len(outcome.accepted) - 1
    first = last - max(1, last // 2 // limit) * limit
    took = outcome.accepted[last] - outcome.accepted[first]
    return (last - first) / limit * period / took


def broken(seed: int, sender: Callable[[Limits], Any] = Ours, calls: int = 120) -> str:
    """What the run of a seed did wrong; "" if nothing."""
    scene = Scene.of(seed)
    outcome = scene.run(sender, calls)
    for limit, period in scene.limits:
        if (most := outcome.busiest(period)) > limit:
            return f"{scene}: {most} arrivals in {period} s"
    refused = len(outcome.refused)
    if scene.kind in AS_PROMISED and refused:
        return f"{scene}: {refused} refused by a server that keeps to its limits"
    if refused > 20:
        return f"{scene}: {refused} refused"
    return ""
