"""What one request takes out of all windows, and how far it has come: plain data.

    FRESH    it has taken nothing yet
    HELD     its units are gone from the windows; nothing left this machine
    SENT     its first byte may have
    ARRIVED  the server has counted it by a time that is known: what counts on arrival (requests)
             has a time of return; what counts until a call's end (all else) is still in flight
    DONE     it is over

A server knows what a request costs of requests when it arrives, and of all else at its end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .rate_limit import RateLimit

__all__ = [
    "ARRIVED",
    "DONE",
    "FRESH",
    "HELD",
    "SENT",
    "Claim",
    "NeverFitsError",
    "counts_at_once",
    "counts_on_arrival",
    "is_of_one_model",
    "the_rest",
]

FRESH, HELD, SENT, ARRIVED, DONE = range(5)


def counts_on_arrival(dimension: str) -> bool:
    """Whether a server knows what a request costs of it when that arrives, and not at its end."""
    return dimension == "requests" or dimension.startswith("requests:")  # or one model's


def counts_at_once(dimension: str) -> bool:
    """Whether what a request costs of it is back, with no period, when it is over."""
    return dimension == "concurrent" or dimension.startswith("concurrent:")


def is_of_one_model(dimension: str) -> bool:
    """Whether only what one model is asked costs any of it."""
    return ":" in dimension


class NeverFitsError(ValueError):
    """A claim that a limit would never have room for: of which, and for how much it has."""

    def __init__(self, message: str, rate: RateLimit, most: int) -> None:
        super().__init__(message)
        self.rate = rate
        self.most = most


class Claim:
    """Units of each dimension; always some requests."""

    __slots__ = ("accepted", "arrived", "came", "costs", "note", "place", "state")

    # of whoever watches how the server takes it: since its take, its arrival, its answer
    note: Any
    arrived: int
    accepted: bool | None

    def __init__(self, costs: Mapping[str, int]) -> None:
        self.costs: Mapping[str, int] = costs
        self.state: int = FRESH
        self.came: int = 0  # when it came to wait; 0 if it does not
        self.place: Any = None  # where a shared store has written it down


def the_rest(claim: Claim, costs: Mapping[str, int] | None = None) -> dict[str, int]:
    """What of it counts until the end; with `costs`, what that came to."""
    named = claim.costs if costs is None else {**claim.costs, **costs}
    return {name: max(0, cost) for name, cost in named.items() if not counts_on_arrival(name)}
