"""Budgets: what may be written, when they begin anew, and that no pot is ever overdrawn."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async import Budget, BudgetExceededError
from fluence_async._sansio.budget import Pot, Pots, Reservation, read_budgets

NOON = datetime(2026, 1, 31, 12, 34, 56, tzinfo=UTC).timestamp()


def pot(limit: float = 100, **options: Any) -> Pot:
    found = Pots(Budget(limit, **{"unit": "tokens", **options})).of("m", {}, NOON)
    assert found is not None
    return found


# ─── what may be written ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "limit", "unit", "per", "shown"),
    [
        ("2M tokens/day", 2_000_000, "tokens", "day", "2,000,000 tokens/day"),
        ("500k tokens", 500_000, "tokens", None, "500,000 tokens"),
        ("1.5k tokens / hour", 1_500, "tokens", "hour", "1,500 tokens/hour"),
        ("1,000 tokens/minute", 1_000, "tokens", "minute", "1,000 tokens/minute"),
        ("1 token", 1, "tokens", None, "1 tokens"),
        ("$20/month", 20.0, "money", "month", "$20/month"),
        ("$0.05/day", 0.05, "money", "day", "$0.05/day"),
        ("$1_000", 1000.0, "money", None, "$1,000"),
    ],
)
def test_a_text_is_a_budget(
    text: str, limit: float, unit: str, per: str | None, shown: str
) -> None:
    budget = Budget(text)
    assert (budget.limit, budget.unit, budget.per, str(budget)) == (limit, unit, per, shown)
    assert Budget(budget.limit, budget.unit, budget.per) == budget
    assert Budget(shown) == budget


@pytest.mark.parametrize(
    "text",
    ["", "2M", "tokens/day", "2M tokens/week", "2G tokens", "20$/day", "-5 tokens", "2e6 tokens"],
)
def test_another_text_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(ValueError, match=r"2M tokens/day.*\$20/month"):
        Budget(text)


@pytest.mark.parametrize(
    ("arguments", "options", "kind"),
    [
        ((0,), {}, ValueError),
        ((-1,), {}, ValueError),
        ((math.nan,), {}, ValueError),
        ((math.inf,), {}, ValueError),
        ((True,), {}, TypeError),
        ((None,), {}, TypeError),
        ((5,), {}, ValueError),
        ((5, "dollars"), {}, ValueError),
        ((5, "tokens", "week"), {}, ValueError),
        (("5 tokens/day",), {"per": "hour"}, ValueError),
        (("0 tokens",), {}, ValueError),
    ],
)
def test_what_cannot_work_is_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        Budget(*arguments, **options)


def test_a_session_takes_one_or_several() -> None:
    one = Budget("$5/day")
    assert read_budgets(None) == ()
    assert read_budgets("$5/day") == read_budgets(one) == (one,)
    assert read_budgets(["$5/day", Budget("9 tokens", tag="t")]) == (
        one,
        Budget("9 tokens", tag="t"),
    )


# ─── when it begins anew ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("per", "ends"),
    [
        ("minute", "2026-01-31T12:35:00+00:00"),
        ("hour", "2026-01-31T13:00:00+00:00"),
        ("day", "2026-02-01T00:00:00+00:00"),
        ("month", "2026-02-01T00:00:00+00:00"),
    ],
)
def test_a_window_ends_on_the_full_period_of_utc(per: Any, ends: str) -> None:
    assert pot(per=per).ends_at == datetime.fromisoformat(ends).timestamp()


def test_a_month_may_end_the_year() -> None:
    december = datetime(2026, 12, 31, 23, 59, tzinfo=UTC).timestamp()
    found = Pots(Budget(1, "tokens", per="month")).of("m", {}, december)
    assert found is not None
    assert datetime.fromtimestamp(found.ends_at, UTC).isoformat() == "2027-01-01T00:00:00+00:00"


@given(st.sampled_from(["minute", "hour", "day", "month"]), st.floats(min_value=0, max_value=4e9))
def test_a_window_ends_after_it_is_asked_for_and_within_its_period(per: Any, now: float) -> None:
    found = Pots(Budget(1, "tokens", per=per)).of("m", {}, now)
    assert found is not None
    longest = {"minute": 60, "hour": 3600, "day": 86400, "month": 31 * 86400}[per]
    assert now < found.ends_at <= now + longest


def test_a_new_window_is_a_new_pot_and_the_old_one_keeps_what_it_let_in() -> None:
    pots = Pots(Budget("100 tokens/minute"))
    old = pots.of("m", {}, NOON)
    assert old is not None
    under_way = Reservation([(old, 90)])
    new = pots.of("m", {}, old.ends_at)
    assert new is not None
    new.check(100)
    under_way.settle(95, 0)
    assert (old.spent, old.reserved, new.spent, new.reserved) == (95, 0, 0, 0)


def test_a_clock_that_is_set_back_gives_nothing_anew() -> None:
    pots = Pots(Budget("100 tokens/minute"))
    assert pots.of("m", {}, NOON) is pots.of("m", {}, NOON - 86400)


# ─── whose it is ──────────────────────────────────────────────────────────────────────────


def test_a_budget_counts_what_it_is_for() -> None:
    pots = Pots(Budget("100 tokens", model="large"))
    assert pots.of("small", {}, NOON) is None
    large = pots.of("large", {"tenant": "a"}, NOON)
    assert large is pots.of("large", {}, NOON)
    assert large is not None
    assert large.name == "100 tokens of large"


def test_each_value_of_a_tag_has_a_pot_and_calls_without_it_share_one() -> None:
    pots = Pots(Budget("100 tokens/day", tag="tenant"))
    a, b, none = (pots.of("m", tags, NOON) for tags in ({"tenant": "a"}, {"tenant": "b"}, {}))
    assert a is not None
    assert none is not None
    assert a is pots.of("other", {"tenant": "a", "job": "x"}, NOON)
    assert len({id(pot) for pot in (a, b, none)}) == 3
    assert a.name == "100 tokens/day for tenant 'a'"
    assert none.name == "100 tokens/day for no tenant"
    assert {pot.name for pot in pots.present(NOON)} == {p.name for p in (a, b, none) if p}
    assert pots.present(NOON + 86400) == []


def test_pots_whose_window_has_ended_are_dropped() -> None:
    pots = Pots(Budget("100 tokens/minute", tag="user"))
    for user in range(30_000):
        pots.of("m", {"user": str(user)}, NOON + user // 10_000 * 60)
    assert len(pots.present(NOON + 120)) == 10_000
    assert len(pots._pots) == 10_000


# ─── the law ──────────────────────────────────────────────────────────────────────────────


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 90), st.integers(0, 40)), max_size=60))
def test_what_is_spent_passes_the_limit_by_no_more_than_calls_cost_beyond_their_reservations(
    calls: list[tuple[int, int, int]],
) -> None:
    """Calls of (reserved, cost), each ending after so many more have been asked for."""
    held = pot(100)
    ends: dict[int, list[tuple[Reservation, int]]] = {}
    beyond = 0
    for at, (amount, cost, lasts) in enumerate(calls):
        for reservation, spent in ends.pop(at, []):
            reservation.settle(spent, 0.0)
        try:
            held.check(amount)
        except BudgetExceededError:
            assert held.spent + held.reserved + amount > 100
            continue
        ends.setdefault(at + 1 + lasts, []).append((Reservation([(held, amount)]), cost))
        beyond += max(cost - amount, 0)
    for ending in ends.values():
        for reservation, spent in ending:
            reservation.settle(spent, 0.0)
    assert held.reserved == 0
    assert held.spent <= 100 + beyond


def test_a_refusal_names_the_budget_the_amounts_and_the_way_out() -> None:
    held = pot(100, per="day", model="m")
    Reservation([(held, 30)])
    Reservation([(held, 0)]).settle(60, 0.0)
    with pytest.raises(BudgetExceededError) as caught:
        held.check(20)
    error = caught.value
    assert str(error) == (
        "the budget 100 tokens/day of m has no room for this call, which may cost 20 tokens: "
        "60 tokens are spent and 30 tokens reserved for calls under way; wait until "
        "2026-02-01 00:00 UTC, set a lower max_tokens, or raise the budget"
    )
    assert (error.budget, error.limit, error.spent) == ("100 tokens/day of m", 100, 60)
    assert (error.reserved, error.amount, error.retry_at) == (30, 20, held.ends_at)


def test_a_budget_that_never_begins_anew_has_no_time_to_wait_for() -> None:
    with pytest.raises(BudgetExceededError, match="under way; set a lower max_tokens") as caught:
        pot(0.25, unit="money").check(0.5)
    assert caught.value.retry_at is None


def test_a_reservation_is_settled_once() -> None:
    held = pot(100)
    reservation = Reservation([(held, 30)])
    assert (held.spent, held.reserved) == (0, 30)
    for _ in range(2):
        reservation.settle(20, 0.0)
    assert (held.spent, held.reserved) == (20, 0)


def test_money_and_tokens_are_set_aside_side_by_side() -> None:
    tokens, money = pot(100), pot(1, unit="money")
    reservation = Reservation([(tokens, 30), (money, 0.3)])
    reservation.settle(20, 0.2)
    assert (tokens.spent, money.spent, tokens.reserved, money.reserved) == (20, 0.2, 0, 0)


def test_a_soft_budget_lets_everything_in_and_says_once_that_it_is_full() -> None:
    held = pot(100, soft=True)
    held.check(1_000)
    full = [Reservation([(held, 0)]).settle(60, 0.0) for _ in range(4)]
    assert full == [[], [held], [], []]


@pytest.mark.parametrize(
    ("happened", "spent"),
    [
        ([], 0),
        ([Reservation.sent], 90),
        ([Reservation.sent, Reservation.refused], 0),
        ([Reservation.sent, Reservation.refused, Reservation.sent], 90),
        ([Reservation.sent, Reservation.lose], 90),
    ],
)
def test_what_was_sent_and_never_answered_costs_what_was_reserved(
    happened: list[Callable[[Reservation], None]], spent: int
) -> None:
    held = pot()
    reservation = Reservation([(held, 90)])
    for what in happened:
        what(reservation)
    reservation.settle(0, 0.0, answered=False)
    assert (held.spent, held.reserved) == (spent, 0)
    answered = Reservation([(held, 5)])
    answered.sent()
    answered.settle(3, 0.0)
    assert (held.spent, held.reserved) == (spent + 3, 0)
