"""A process's units in, what a Redis that has forgotten must be told of them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from secrets import token_hex
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from ..._sansio.bucket import ARRIVED, DONE, Bucket, Claim
from ..._sansio.claim import counts_at_once, the_rest
from ..._sansio.rate_limit import RateLimit
from ..._sansio.tariff import ONE_REQUEST
from ...limiter.limiter import Policy

__all__ = [
    "KEYS",
    "Carrier",
    "News",
    "Reply",
    "Terms",
    "Unit",
    "Units",
    "costs_of",
    "in_words",
]

_US = 1_000

KEYS = ("units", "tickets", "seen", "state")
"""What of a limiter is in Redis, in the script's order."""

News: TypeAlias = tuple[str | int, ...]
"""What happened and to what, as `_step.lua` takes it; points in time in ns."""


class Reply(NamedTuple):
    """What the script said; times in ns."""

    verdict: str
    wait: int
    epoch: str
    now: int
    changed: str
    lessons: str
    flying: int
    granted: int
    used: list[int]
    depths: list[int]

    @classmethod
    def read(cls, words: Sequence[str]) -> Reply:
        """From its words."""
        verdict, wait, epoch, now, changed, lessons, *rest = words
        flying, granted, *numbers = map(int, rest)
        half = len(numbers) // 2
        used, depths = numbers[:half], numbers[half:]
        times = int(wait) * _US, int(now) * _US
        return cls(
            verdict, times[0], epoch, times[1], changed, lessons, flying, granted, used, depths
        )


class Carrier(Protocol):
    """Who carries a store's words to Redis."""

    def rouse(self) -> bool:
        """Let it look what there is to do; False if it never will."""
        ...


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a limiter was made with; times in ns. No `clients` means no share: wait."""

    url: str
    name: str
    reserve: float
    margin: int
    drift: float
    unseen: int
    clients: int
    policy: Policy

    def bucket(self, limits: Iterable[RateLimit]) -> Bucket:
        """The same in memory."""
        return Bucket(
            limits, reserve=self.reserve, margin=self.margin, drift=self.drift, unseen=self.unseen
        )

    def share(self, limits: Iterable[RateLimit]) -> Bucket:
        """One client's part of the limits, in memory."""
        return self.bucket(
            msgspec.structs.replace(rate, limit=max(1, rate.limit // self.clients))
            for rate in limits
        )

    def __repr__(self) -> str:  # the url may hold a password
        return f"<Terms of {self.name!r}>"


class Unit:
    """A unit of this process, until Redis need not hear of it any more.

    Attributes:
        number: Of the permit.
        costs: What it takes.
        arrived: By when its request had, in ns; 0 while it is in flight.
        share: What counts it beside Redis.
    """

    __slots__ = ("arrived", "costs", "number", "share")

    def __init__(self, number: str, costs: Mapping[str, int]) -> None:
        self.number = number
        self.costs = costs
        self.arrived = 0
        self.share: Bucket | None = None

    @property
    def name(self) -> str:
        """How Redis knows it; it ends with its costs, unless that is one request."""
        if self.costs == ONE_REQUEST:
            return self.number
        return self.number + "".join(f"|{name}={cost}" for name, cost in self.costs.items())


class Units:
    """The units of this process, in flight or used so lately that they still count.

    Attributes:
        me: The process's name.
    """

    def __init__(self) -> None:
        self.me = token_hex(6)
        self._numbers = count()
        self._kept: dict[str, Unit] = {}
        self._sweep_at = 64
        self._held: dict[int, Unit] = {}  # by the id of their claim

    def new(self, costs: Mapping[str, int]) -> Unit:
        """A unit with a name that no other has had."""
        return Unit(f"{self.me}.{next(self._numbers)}", costs)

    def keep(self, unit: Unit, since: int) -> None:
        """Remember a unit; and now and then, forget those that had arrived before `since`."""
        self._kept[unit.number] = unit
        if len(self._kept) > self._sweep_at:
            self.forget(since)
            self._sweep_at = 2 * len(self._kept) + 64

    def hold(self, claim: Claim, unit: Unit) -> None:
        """It is this claim's, of which nothing else is known."""
        claim.note = claim.accepted = None
        self._held[id(claim)] = unit

    def drop(self, unit: Unit) -> News:
        """It was never used."""
        self._kept.pop(unit.number, None)
        return ("drop", unit.name)

    def arrive(self, claim: Claim, ub: int) -> Iterable[News]:
        """The claim's request had, by `ub`; what counts until the end is a unit of its own then."""
        unit = self._held.pop(id(claim), None)
        if unit is None:  # of before a fork
            claim.state = DONE
            return
        if unit.share is not None:
            unit.share.settle(claim, ub)
        claim.state = ARRIVED
        unit.arrived, before = ub, unit.name
        if costs := the_rest(claim):
            rest = self._held[id(claim)] = self._keep(costs)
            rest.share = unit.share
            yield ("hold", rest.name)
            unit.costs = {name: cost for name, cost in unit.costs.items() if name not in rest.costs}
            yield ("move", before, unit.name, ub)
        else:
            yield ("put", unit.name, ub)

    def end(
        self, claim: Claim, now: int, costs: Mapping[str, int] | None, *, answered: bool
    ) -> Iterable[News]:
        """The claim is over, and came to `costs`; what was answered is under way no more."""
        used = the_rest(claim, costs) if claim.state == ARRIVED else {}
        if answered:
            used = {name: cost for name, cost in used.items() if not counts_at_once(name)}
        unit = self._held.pop(id(claim), None)
        if unit is not None:
            if unit.share is not None:
                unit.share.release(claim, now, costs)
            yield self.drop(unit)
            if any(used.values()):
                over = self._keep(used)
                over.arrived = now
                yield ("put", over.name, now)
        claim.state = DONE

    def _keep(self, costs: Mapping[str, int]) -> Unit:
        unit = self.new(costs)
        self._kept[unit.number] = unit
        return unit

    def forget(self, since: int) -> None:
        """Keep what is in flight, and what arrived since then."""
        self._kept = {
            number: unit
            for number, unit in self._kept.items()
            if not unit.arrived or unit.arrived > since
        }

    def share(self, terms: Terms, limits: Iterable[RateLimit], since: int) -> Bucket:
        """This process's part of the limits, less what it used before."""
        share = terms.share(limits)
        self.forget(since)
        for unit in self.kept:
            unit.share = share
            for window in share.windows:
                cost = unit.costs.get(window.dimension, 0)
                window.free -= cost
                if cost and unit.arrived:
                    window.put(unit.arrived + window.hold, cost)
        return share

    def orphan(self) -> None:
        """No claim has any, any more."""
        self._held = {}

    @property
    def in_flight(self) -> bool:
        """Whether there are leases to be renewed."""
        return bool(self._held)

    @property
    def kept(self) -> Iterable[Unit]:
        """All of them."""
        return self._kept.values()

    def leases(self) -> list[News]:
        """Those in flight, in the words of the script."""
        return [("hold", unit.name) for unit in self.kept if not unit.arrived]

    def all(self) -> list[News]:
        """All of them, in the words of the script."""
        arrived: list[News] = [
            ("put", unit.name, unit.arrived) for unit in self.kept if unit.arrived
        ]
        return arrived + self.leases()


def in_words(news: Iterable[News], now: int) -> Iterable[str]:
    """What the script is told: a unit's age, or how long a pause lasts, in µs."""
    for each in news:
        match each:
            case ["put", name, int(arrived)]:
                yield from ("put", str(name), str((now - arrived) // _US))
            case ["move", before, name, int(arrived)]:
                yield from ("move", str(before), str(name), str((now - arrived) // _US))
            case ["block", int(until)]:
                yield from ("block", str(max(0, until - now) // _US))
            case _:
                yield from map(str, each)


def costs_of(name: str) -> Mapping[str, int]:
    """What the unit of that name takes."""
    _, *costs = name.split("|")
    if not costs:
        return ONE_REQUEST
    return {dimension: int(cost) for dimension, _, cost in (each.partition("=") for each in costs)}
