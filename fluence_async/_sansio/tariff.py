"""What one call costs of each limit: its model and what is known of it in, units out.

    dimension    every call      a call of a model that has a limit of its own
    requests     1               1 of `requests`, 1 of `requests:…`
    concurrent   1               1 of `concurrent`, 1 of `concurrent:…`
    tokens       as it says      the same of `tokens` and of `tokens:…`
    any other    as it says      the same

Law: what no limit counts costs nothing and is not even named, so that stores never hear of it. A
model's limits are dimensions of their own, which only its calls cost: a store knows of no models.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from .claim import is_of_one_model
from .rate_limit import RateLimit

__all__ = ["ONE_REQUEST", "Tariff", "came_to", "own", "shared"]

ONE_REQUEST: Final[Mapping[str, int]] = {"requests": 1}


class Tariff:
    """What calls cost under some limits.

    Args:
        limits: All that are obeyed.

    Attributes:
        simple: A call that says nothing of its costs costs one request, whatever its model.
    """

    def __init__(self, limits: Iterable[RateLimit]) -> None:
        self._limits = tuple(limits)
        self._names: dict[tuple[str | None, str], str] = {
            (each.model, each.dimension): each.counted_as for each in self._limits
        }
        counted = {dimension for _, dimension in self._names}
        self._each: dict[str, int] = {**ONE_REQUEST}
        if "concurrent" in counted:
            self._each["concurrent"] = 1
        self._counted = counted
        self.simple: bool = counted <= {"requests"} and all(not each.model for each in self._limits)

    def and_these(self, limits: Iterable[RateLimit]) -> Tariff:
        """What they cost under more limits."""
        return Tariff({*self._limits, *limits})

    def counts(self, dimension: str, model: str | None) -> bool:
        """Whether a call of this model costs any of it."""
        names = self._names
        return (None, dimension) in names or (model, dimension) in names

    def of(self, costs: Mapping[str, int] | None, model: str | None) -> dict[str, int]:
        """Units of everything that a store counts.

        Args:
            costs: What the call says that it costs, in dimensions.
            model: Whom it asks; None for nobody that has limits of its own.

        Raises:
            ValueError: No limit counts such a cost, of whatever model.
        """
        said = self._each if costs is None else {**self._each, **costs}
        units: dict[str, int] = {}
        for dimension, cost in said.items():
            if dimension not in self._counted:
                raise ValueError(
                    f"costs name {dimension!r}, and limits count {sorted(self._counted)}"
                )
            for whose in (None,) if model is None else (None, model):
                name = self._names.get((whose, dimension))
                if name is not None:
                    units[name] = cost
        return units

    def __repr__(self) -> str:
        return f"<Tariff: {', '.join(map(str, self._limits))}>"


def came_to(units: Mapping[str, int], costs: Mapping[str, int]) -> dict[str, int]:
    """What the units that were taken came to, by costs in dimensions; what these do not name came
    to what was taken."""
    named = {name: name.partition(":")[0] for name in units}
    return {**costs, **{name: costs[of] for name, of in named.items() if of in costs}}


def own(units: Mapping[str, int]) -> str:
    """Whose limits of its own a call has to keep: what their names end with; `""` for nobody's."""
    if len(units) > 1:
        for name in units:
            if is_of_one_model(name):
                return name.partition(":")[2]
    return ""


def shared(units: Mapping[str, int]) -> dict[str, int]:
    """What of it counts for everybody."""
    return {name: cost for name, cost in units.items() if not is_of_one_model(name)}
