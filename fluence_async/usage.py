"""A session's calls go in as they end, what they came to comes out: `session.usage`.

Law: every call is counted once, when it has ended, whichever way it did. A budget is asked before
a call is sent and settled when the call has ended, so that nothing stays reserved for what is no
more. The meter counts on one event loop and waits for nothing; the ledger's file is written behind
its back.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from ._sansio.arguments import check_path
from ._sansio.budget import Budget, Pot, Pots, Reservation, read_budgets
from ._sansio.metering import (
    Price,
    UsageTotals,
    bounded,
    expected,
    read_prices,
    summed,
)
from .errors import BudgetExceededError
from .meta import Meta
from .types import Usage

if TYPE_CHECKING:
    from .ledger import Ledger

__all__ = ["BudgetState", "UsageMeter", "UsageSnapshot", "open_ledger"]

_MANY_NAMES = 10_000
_OTHERS = "(others)"
"""Under which models and tags are counted when there are too many of them to tell apart."""


class BudgetState(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a budget is gone.

    Attributes:
        budget: What it is called, whose it is included.
        unit: `tokens` or `money`.
        limit: How much may be spent.
        spent: By calls that have ended; of those that were sent and never answered, what was set
            aside for them.
        reserved: Set aside for those under way.
        ends_at: When it begins anew, in seconds since the epoch; None for never.
    """

    budget: str
    unit: str
    limit: float
    spent: float
    reserved: float
    ends_at: float | None


class UsageSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a session's calls came to. `msgspec.json.encode(snapshot)` is its JSON.

    Attributes:
        since: When the counting began, in seconds since the epoch.
        until: When this was read, in seconds since the epoch.
        total: All calls.
        models: The same for each model, by the name that was asked for.
        tags: The same for each value of each tag: `tags["tenant"]["acme"]`. A call is counted in
            all of its tags.
        budgets: The budgets that were asked in their present window.
    """

    since: float
    until: float
    total: UsageTotals
    models: dict[str, UsageTotals]
    tags: dict[str, dict[str, UsageTotals]]
    budgets: list[BudgetState]


class UsageMeter:
    """Counts what a session's calls cost, and keeps them within its budgets.

    Made by the session: `session.usage`.

    Args:
        prices: What each model's tokens cost.
        budget: What may be spent.
        ledger: Where it is kept beyond the process.
        clock: Seconds since the epoch.

    Attributes:
        budgeted: There is a budget to be asked.

    Raises:
        ValueError, TypeError: A price or a budget that cannot work.

    Example:
        ```python
        used = fluence.usage.snapshot()
        print(used.total.total_tokens, used.total.cost)
        for tenant, totals in used.tags["tenant"].items():
            print(tenant, totals.requests, totals.prompt_tokens, totals.completion_tokens)
        ```
    """

    def __init__(
        self,
        prices: Mapping[str, Price] | None = None,
        budget: str | Budget | Iterable[str | Budget] | None = None,
        ledger: Ledger | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._prices = read_prices(prices)
        self._budgets = [Pots(each) for each in read_budgets(budget)]
        for pots in self._budgets:
            if pots.budget.unit == "money" and not self._prices:
                raise ValueError(
                    f"the budget {pots.budget} counts money, and no model has a price: "
                    "FluenceSession(prices={'fluence-chat': Price(prompt=..., completion=...)})"
                )
        self.budgeted: bool = bool(self._budgets)
        self._ledger = ledger
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._since = self._clock()
        self._models: dict[str, UsageTotals] = {}
        self._tags: dict[str, dict[str, UsageTotals]] = {}

    def snapshot(self) -> UsageSnapshot:
        """What the calls that have ended came to, since the session's beginning or `reset`."""
        now = self._clock()
        return UsageSnapshot(
            since=self._since,
            until=now,
            total=summed(self._models.values()),
            models=_copied(self._models),
            tags={name: _copied(values) for name, values in self._tags.items()},
            budgets=[_state(pot) for pots in self._budgets for pot in pots.present(now)],
        )

    def reset(self) -> UsageSnapshot:
        """Count from nothing again, and return what was counted until now. What is spent of the
        budgets stays spent."""
        snapshot = self.snapshot()
        self._begin()
        return snapshot

    # ─── told by the session ──────────────────────────────────────────────────────────────

    def expected(self, model: str, body: bytes, choices: int) -> Usage:
        """What a call may cost, before it is sent."""
        return expected(body, choices, self._models.get(model))

    def reserve(self, model: str, meta: Meta, usage: Usage) -> Reservation | None:
        """Set aside what a call may cost, before it is sent; None if no budget counts it.

        Raises:
            BudgetExceededError: A budget has no room for it; nothing is set aside.
            ValueError: A budget of money counts it, and its model has no price.
        """
        now = self._clock()
        found = (pots.of(model, meta.tags, now) for pots in self._budgets)
        pots = [pot for pot in found if pot is not None]
        tokens = usage.prompt_tokens + usage.completion_tokens
        held = [(pot, pot.budget.amount(tokens, self._cost(pot, model, usage))) for pot in pots]
        try:
            for pot, amount in held:
                pot.check(amount)
        except BudgetExceededError as error:
            error.meta = meta
            raise
        return Reservation(held) if held else None

    def _cost(self, pot: Pot, model: str, usage: Usage) -> float:
        price = self._prices.get(model)
        if price is not None:
            return price.of(usage)
        if pot.budget.unit == "money":
            raise ValueError(
                f"the budget {pot.name} counts money, and the model {model!r} has no price: "
                f"FluenceSession(prices={{{model!r}: Price(prompt=..., completion=...)}})"
            )
        return 0.0

    def count(
        self,
        model: str,
        meta: Meta,
        usage: Usage | None,
        estimated: bool = False,
        failed: bool = False,
        *,
        reservation: Reservation | None = None,
    ) -> Sequence[Pot]:
        """Count a call that has ended; `usage` is None where nothing was answered.

        Returns:
            The soft budgets that it made full.
        """
        tokens, cost = 0, 0.0
        if usage is not None:
            usage = bounded(usage)
            tokens = usage.prompt_tokens + usage.completion_tokens
            if self._prices and (price := self._prices.get(model)) is not None:
                cost = price.of(usage)
        totals = self._models.get(model) or _opened(self._models, model)
        totals.count(meta, usage, cost, estimated, failed)
        if meta.tags:
            for name, value in meta.tags.items():
                values = self._tags.setdefault(name, {})
                totals = values.get(value) or _opened(values, value)
                totals.count(meta, usage, cost, estimated, failed)
        if self._ledger is not None:
            self._ledger.count(
                self._clock(), model, meta, usage, cost, estimated=estimated, failed=failed
            )
        if reservation is None:
            return ()
        return reservation.settle(tokens, cost, answered=usage is not None)

    async def aclose(self) -> None:
        """Write what the ledger still has to be told."""
        if self._ledger is not None:
            await self._ledger.aclose()

    def __repr__(self) -> str:
        calls = sum(totals.calls for totals in self._models.values())
        return f"<UsageMeter: {calls} calls>"


def open_ledger(ledger: bool | str | os.PathLike[str] | None) -> Ledger | None:
    """The ledger that a session's `ledger=` names. SQLite is loaded by who uses it.

    Raises:
        ValueError, TypeError: It names none.
    """
    if ledger is None or ledger is False:
        return None
    if ledger is not True:
        check_path("ledger", ledger)
    from .ledger import Ledger

    return Ledger(None if ledger is True else ledger)


def _opened(totals: dict[str, UsageTotals], name: str) -> UsageTotals:
    if len(totals) >= _MANY_NAMES:
        name = _OTHERS
    return totals.setdefault(name, UsageTotals())


def _copied(totals: Mapping[str, UsageTotals]) -> dict[str, UsageTotals]:
    return {name: summed([each]) for name, each in totals.items()}


def _state(pot: Pot) -> BudgetState:
    return BudgetState(
        budget=pot.name,
        unit=pot.budget.unit,
        limit=pot.budget.limit,
        spent=pot.spent,
        reserved=pot.reserved,
        ends_at=None if pot.ends_at == math.inf else pot.ends_at,
    )
