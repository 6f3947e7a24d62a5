"""Deadlines: the one that comes first wins, and keeps its clock's name."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async._sansio.clocks import Deadline, soonest


def test_a_deadline_is_so_many_seconds_after_its_start() -> None:
    assert Deadline.after(1000.0, 2.5, "idle") == Deadline(1002.5, "idle")


def test_no_bound_is_a_deadline_that_never_comes() -> None:
    assert Deadline.after(1000.0, None, "total") == Deadline(math.inf, "total")


@pytest.mark.parametrize(
    ("deadlines", "clock"),
    [
        ([(5, "idle")], "idle"),
        ([(5, "idle"), (3, "progress"), (9, "total")], "progress"),
        ([(5, "idle"), (5, "total")], "idle"),
        ([(math.inf, "idle"), (math.inf, "total")], "idle"),
        ([(math.inf, "idle"), (7, "total")], "total"),
    ],
)
def test_the_soonest_keeps_its_name_and_of_equal_ones_the_first_named_wins(
    deadlines: list[tuple[float, str]], clock: str
) -> None:
    assert soonest(*(Deadline(at, name) for at, name in deadlines)).clock == clock  # type: ignore[arg-type]


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=6))
def test_none_comes_before_the_soonest(times: list[float]) -> None:
    assert soonest(*(Deadline(at, "total") for at in times)).at == min(times)
