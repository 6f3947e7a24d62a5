"""What may be spent goes in, as text or numbers; whether one more call fits comes out.

Law: a pot lets no call in that, with what is spent and what is reserved for the calls under way,
would pass its limit. So what is spent passes it by no more than what those calls cost beyond
their reservations. A call counts in the window in which it was let in, whenever it ends. What was
sent and never answered may have been answered all the same: it counts as what was reserved for it,
each attempt by itself.

`Budget` says it is of `fluence_async`, and is looked for its annotations there: they are objects
here, not texts.
"""

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from ..errors import BudgetExceededError

__all__ = ["Budget", "Period", "Pot", "Pots", "Reservation", "read_budgets"]

Period: TypeAlias = Literal["minute", "hour", "day", "month"]
"""How long a budget lasts before it begins anew, on the full minute, hour, day or month of UTC."""

_SECONDS = {"minute": 60, "hour": 3600, "day": 86400}
_FORM = re.compile(
    r"(?:\$ ?([0-9][0-9,_]*(?:\.[0-9]+)?)|([0-9][0-9,_]*(?:\.[0-9]+)?) ?([kM]?) ?tokens?)"
    r"(?: ?/ ?(minute|hour|day|month))?"
)
_SCALE = {"": 1, "k": 1_000, "M": 1_000_000}
_FORMS = "'2M tokens/day', '500k tokens' or '$20/month' (minute, hour, day, month)"
_MANY_POTS = 10_000
_SAID_BY_TEXT: Any = ""


class Budget(msgspec.Struct, frozen=True):
    """What may be spent: `Budget("2M tokens/day")`, `Budget("$20/month", model="fluence-chat")`.

    What the server reports is spent, and of a stream that was cut what had come. A request that
    was sent and never answered (lost, timed out, cancelled) may have cost what was set aside for
    it, and so that is spent: for each attempt, also where the server should have recognised it. A
    retry for which there is no room is not made. An answer with an error costs nothing.

    Attributes:
        limit: How much: tokens, of prompts and completions together, or money.
        unit: `tokens`, or `money` in the currency of the session's `prices`; a text says it itself.
        per: How long until it begins anew, by UTC: `minute`, `hour`, `day`, `month`; None for as
            long as the session lives.
        model: Count only what this model is asked; None for every model.
        tag: Give each value of this tag a budget of its own; calls without the tag share one.
        soft: Let every call through, and tell the hooks when the limit is reached.

    Raises:
        ValueError: Out of range, or a text of another form.
    """

    __module__ = "fluence_async"

    limit: float
    unit: Literal["tokens", "money"] = _SAID_BY_TEXT
    per: Period | None = None
    model: str | None = None
    tag: str | None = None
    soft: bool = False

    if TYPE_CHECKING:

        def __init__(
            self,
            limit: str | float,
            unit: Literal["tokens", "money"] = ...,
            per: Period | None = ...,
            *,
            model: str | None = ...,
            tag: str | None = ...,
            soft: bool = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        if isinstance(self.limit, str):
            self._read(self.limit)
        if isinstance(self.limit, bool) or not isinstance(self.limit, int | float):
            raise TypeError(f"a budget of {self.limit!r}: a number, or a text like {_FORMS}")
        if not 0 < self.limit < math.inf:
            raise ValueError(f"a budget of {self.limit!r}: must be above 0")
        if self.unit == _SAID_BY_TEXT:
            raise ValueError(
                f"a budget of {self.limit!r}, of what? Write unit='tokens' or unit='money', or a "
                f"text like {_FORMS}"
            )
        if self.unit not in ("tokens", "money"):
            raise ValueError(f"a budget's unit {self.unit!r}: 'tokens' or 'money'")
        if self.per is not None and self.per not in (*_SECONDS, "month"):
            raise ValueError(f"a budget per {self.per!r}: minute, hour, day, month, or None")

    def _read(self, text: str) -> None:
        match = _FORM.fullmatch(text.strip())
        if match is None or self.per is not None:
            raise ValueError(f"budget {text!r}: must be like {_FORMS}")
        money, tokens, scale, per = match.groups()
        digits = (money or tokens).replace(",", "").replace("_", "")
        put = msgspec.structs.force_setattr
        put(self, "unit", "money" if money else "tokens")
        put(self, "limit", float(digits) if money else round(float(digits) * _SCALE[scale]))
        put(self, "per", per)

    def amount(self, tokens: int, money: float) -> float:
        """Of what a call costs, the part that this budget counts."""
        return tokens if self.unit == "tokens" else money

    def shown(self, amount: float) -> str:
        """An amount with its unit."""
        return f"{amount:,.0f} tokens" if self.unit == "tokens" else f"${amount:,.10g}"

    def __str__(self) -> str:
        per = f"/{self.per}" if self.per else ""
        return f"{self.shown(self.limit)}{per}"


def read_budgets(budget: str | Budget | Iterable[str | Budget] | None) -> tuple[Budget, ...]:
    """The budgets that a user wrote.

    Raises:
        ValueError, TypeError: One of them is none.
    """
    if budget is None:
        return ()
    if not isinstance(budget, Iterable | Budget):
        raise TypeError(
            f"budget={budget!r}: must be a text like {_FORMS}, a Budget, or several of these"
        )
    several = (budget,) if isinstance(budget, str | Budget) else budget
    return tuple(each if isinstance(each, Budget) else Budget(each) for each in several)


class Pot(msgspec.Struct):
    """What is spent of a budget in its present window.

    Attributes:
        budget: The budget.
        name: What it is called in messages: the budget, and whose it is.
        ends_at: When its window ends, in seconds since the epoch; `math.inf` for never.
        spent: By calls that have ended.
        reserved: For those under way.
        told: That the limit is reached.
    """

    budget: Budget
    name: str
    ends_at: float
    spent: float = 0
    reserved: float = 0
    told: bool = False

    def check(self, amount: float) -> None:
        """Refuse a call that may cost `amount`, if it does not fit.

        Raises:
            BudgetExceededError: It does not.
        """
        budget = self.budget
        if budget.soft or self.spent + self.reserved + amount <= budget.limit:
            return
        anew = ""
        if self.ends_at != math.inf:
            anew = f" wait until {datetime.fromtimestamp(self.ends_at, UTC):%Y-%m-%d %H:%M} UTC,"
        raise BudgetExceededError(
            f"the budget {self.name} has no room for this call, which may cost "
            f"{budget.shown(amount)}: {budget.shown(self.spent)} are spent and "
            f"{budget.shown(self.reserved)} reserved for calls under way;{anew} set a lower "
            "max_tokens, or raise the budget",
            budget=self.name,
            limit=budget.limit,
            spent=self.spent,
            reserved=self.reserved,
            amount=amount,
            retry_at=None if self.ends_at == math.inf else self.ends_at,
        )


class Reservation:
    """What is set aside for one call, of every budget that counts it.

    Args:
        held: The pots, and how much of each.

    Attributes:
        at_risk: The request was sent, and the server has not refused it.
    """

    def __init__(self, held: list[tuple[Pot, float]]) -> None:
        self._held = held
        self.at_risk: bool = False
        for pot, amount in held:
            pot.reserved += amount

    def sent(self) -> None:
        """The first byte may have left this machine."""
        self.at_risk = True

    def refused(self) -> None:
        """The server answered that it would not."""
        self.at_risk = False

    def lose(self) -> None:
        """Nobody will know what it cost: that may be all that was set aside."""
        held, self._held = self._held, []
        for pot, amount in held:
            pot.reserved = max(pot.reserved - amount, 0)
            pot.spent += amount

    def settle(self, tokens: int, money: float, *, answered: bool = True) -> list[Pot]:
        """Put what the call cost in its place, once; the soft budgets that it made full."""
        lost = self.at_risk and not answered
        held, self._held = self._held, []
        full = []
        for pot, amount in held:
            pot.reserved = max(pot.reserved - amount, 0)
            pot.spent += amount if lost else pot.budget.amount(tokens, money)
            if pot.budget.soft and not pot.told and pot.spent >= pot.budget.limit:
                pot.told = True
                full.append(pot)
        return full

    def __repr__(self) -> str:
        return (
            f"<Reservation: {', '.join(f'{amount:g} of {pot.name}' for pot, amount in self._held)}>"
        )


class Pots:
    """The pots of one budget: one, or one for each value of its tag.

    Args:
        budget: The budget.
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._pots: dict[str | None, Pot] = {}
        self._sweep_above = _MANY_POTS

    def of(self, model: str, tags: Mapping[str, str], now: float) -> Pot | None:
        """The pot that a call counts in; None if the budget does not count it."""
        budget = self.budget
        if budget.model is not None and budget.model != model:
            return None
        whose = None if budget.tag is None else tags.get(budget.tag)
        pot = self._pots.get(whose)
        if pot is None or now >= pot.ends_at:
            pot = self._pots[whose] = Pot(
                budget, self._name(whose), _end_of_window(budget.per, now)
            )
            if len(self._pots) > self._sweep_above:
                self._sweep(now)
        return pot

    def present(self, now: float) -> list[Pot]:
        """Those whose window has not ended."""
        return [pot for pot in self._pots.values() if now < pot.ends_at]

    def _sweep(self, now: float) -> None:
        self._pots = {whose: pot for whose, pot in self._pots.items() if now < pot.ends_at}
        self._sweep_above = max(2 * len(self._pots), _MANY_POTS)

    def _name(self, whose: str | None) -> str:
        budget = self.budget
        of = f" of {budget.model}" if budget.model else ""
        if budget.tag is None:
            return f"{budget}{of}"
        return f"{budget}{of} for " + (
            f"no {budget.tag}" if whose is None else f"{budget.tag} {whose!r}"
        )

    def __repr__(self) -> str:
        return f"<Pots of {self.budget}: {len(self._pots)}>"


def _end_of_window(per: Period | None, now: float) -> float:
    if per is None:
        return math.inf
    if per != "month":
        return (now // _SECONDS[per] + 1) * _SECONDS[per]
    day = datetime.fromtimestamp(now, UTC)
    return datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=UTC).timestamp()
