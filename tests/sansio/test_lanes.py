"""The floor of the batch lane: its table, and the order that follows from it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async._sansio.lanes import EVERY, Before, before, passed_after, turns_owed


@pytest.mark.parametrize(
    ("passed", "owed"), [(0, 0), (8, 0), (9, 1), (10, 1), (17, 1), (18, 2), (900, 100)]
)
def test_for_each_nine_that_passed_it_by_batch_is_owed_a_turn(passed: int, owed: int) -> None:
    assert turns_owed(passed) == owed


@pytest.mark.parametrize(
    ("passed", "lane", "batch_waits", "after"),
    [
        (0, 0, False, 0),  # nobody is passed by
        (8, 0, False, 0),  # nor remembered, once batch waits no more
        (8, 1, False, 0),
        (0, 0, True, 1),
        (8, 0, True, 9),
        (9, 0, True, 10),  # who is owed a turn is asleep
        (9, 1, True, 0),
        (12, 1, True, 3),  # what is missed stays owed
        (3, 1, True, 0),  # a turn that was not owed is no credit of the others
        (0, 1, True, 0),
    ],
)
def test_what_a_grant_changes(passed: int, lane: int, batch_waits: bool, after: int) -> None:
    assert passed_after(passed, lane, batch_waits) == after


def played(interactive: int, batch: int, passed: int) -> list[tuple[int, bool]]:
    """Who is served one by one, and whether freely, if all of these wait and nobody comes."""
    order = []
    while interactive or batch:
        owed = turns_owed(passed) > 0 and batch > 0
        lane = 1 if owed or not interactive else 0
        order.append((lane, owed or lane == 0))
        passed = passed_after(passed, lane, batch > 0)
        interactive, batch = interactive - (not lane), batch - lane
    return order


def test_while_both_wait_exactly_every_tenth_is_batch() -> None:
    order = [lane for lane, _ in played(95, 10, 0)]
    assert order == ([0] * 9 + [1]) * 10 + [0] * 5
    assert EVERY == 10


@given(st.integers(0, 60), st.integers(0, 12), st.integers(0, 30), st.integers(0, 1))
def test_who_goes_before_is_whom_the_rule_lets_go(
    interactive: int, batch: int, passed: int, lane: int
) -> None:
    """The next one of a lane stands behind all of its lane."""
    if lane:
        order = played(interactive, batch + 1, passed)
    else:
        order = played(interactive + 1, batch, passed)
    count = batch + 1 if lane else interactive + 1
    places = [place for place, (its, _) in enumerate(order) if its == lane]
    up_to = order[: places[count - 1] + 1]
    freely = sum(free for _, free in up_to)
    assert before(interactive, batch, passed, lane) == Before(freely, len(up_to) - freely)
