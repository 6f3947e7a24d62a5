"""The limiter's state machine: its table, what it takes, and what it gives back when."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async._sansio.bucket import (
    ARRIVED,
    DOCUMENTED_LIMITS,
    DONE,
    FRESH,
    HELD,
    NEVER,
    SENT,
    Bucket,
    Claim,
    RateLimit,
)

S = 1_000_000_000
MINUTE = 60 * S
HOLD = 60 * S + 50_000_000 + 30_000_000  # the period, 50 ms, and 5e-4 of the period
ONE = {"requests": 1}


def bucket(*limits: str, **options: float) -> Bucket:
    return Bucket([RateLimit(limit) for limit in limits], **options)  # type: ignore[arg-type]


def taken(of: Bucket, now: int = 0, costs: dict[str, int] = ONE, lane: int = 0) -> Claim:
    claim = Claim(costs)
    assert of.take(claim, now, lane) == 0
    return claim


def left(of: Bucket, now: int) -> list[int]:
    return [window.left for window in of.snapshot(now)]


# ─── the table ────────────────────────────────────────────────────────────────────────────

AT_ONCE, ONE_HOLD_LATER, GRACE_LATER = 0, HOLD, 10 * S + HOLD


def nothing(of: Bucket, claim: Claim) -> None:
    pass


def sent(of: Bucket, claim: Claim) -> None:
    of.sent(claim)


def settle(of: Bucket, claim: Claim) -> None:
    of.settle(claim, 0)


def settle_later(of: Bucket, claim: Claim) -> None:
    of.settle(claim, S, True)


def release(of: Bucket, claim: Claim) -> None:
    of.release(claim, 0)


@pytest.mark.parametrize(
    ("steps", "state", "back"),
    [
        ((nothing,), HELD, None),
        ((sent,), SENT, None),
        ((settle,), ARRIVED, ONE_HOLD_LATER),
        ((release,), DONE, AT_ONCE),
        ((sent, sent), SENT, None),
        ((sent, settle), ARRIVED, ONE_HOLD_LATER),
        ((sent, release), DONE, GRACE_LATER),
        ((settle, sent), ARRIVED, ONE_HOLD_LATER),
        ((settle, settle), ARRIVED, ONE_HOLD_LATER),
        ((settle, settle_later), ARRIVED, ONE_HOLD_LATER),
        ((settle, release), DONE, ONE_HOLD_LATER),
        ((sent, settle, release), DONE, ONE_HOLD_LATER),
        ((release, sent), DONE, AT_ONCE),
        ((release, settle), DONE, AT_ONCE),
        ((release, release), DONE, AT_ONCE),
        ((settle, release, settle), DONE, ONE_HOLD_LATER),
    ],
)
def test_a_claims_life(
    steps: tuple[Callable[[Bucket, Claim], None], ...], state: int, back: int | None
) -> None:
    of = bucket("1/minute")
    claim = taken(of)
    for step in steps:
        step(of, claim)
    assert claim.state == state
    if back is None:
        assert of.take(Claim(ONE), 0) == NEVER
    else:
        assert of.take(Claim(ONE), 0) == back  # the time itself; 0 is "taken"
        assert left(of, back) == [0 if back == 0 else 1]


@pytest.mark.parametrize("step", [sent, settle, release])
def test_a_claim_that_took_nothing_gives_nothing(step: Callable[[Bucket, Claim], None]) -> None:
    of = bucket("1/minute")
    claim = Claim(ONE)
    step(of, claim)
    assert (claim.state, left(of, 0)) == (FRESH, [1])


# ─── taking ───────────────────────────────────────────────────────────────────────────────


def test_the_documented_limits_let_a_hundred_through_at_once_and_a_thousand_in_an_hour() -> None:
    of, now, times = bucket(*DOCUMENTED_LIMITS), 0, []
    while len(times) < 1001:
        claim = Claim(ONE)
        wake = of.take(claim, now)
        if wake:
            now = wake
        else:
            times.append(now)
            of.settle(claim, now)
    assert [times.count(at) for at in sorted(set(times))] == [100] * 10 + [1]
    assert sorted(set(times))[:10] == [n * HOLD for n in range(10)]
    assert times[1000] == 3600 * S + 50_000_000 + 1_800_000_000


def test_all_windows_are_taken_or_none() -> None:
    of = bucket("3/minute", "2/hour")
    first, second = taken(of), taken(of)
    assert of.take(Claim(ONE), 0) == NEVER
    assert left(of, 0) == [1, 0]
    of.settle(first, 0)
    assert of.take(Claim(ONE), HOLD) > 3600 * S
    assert left(of, HOLD) == [2, 0]
    of.release(second, HOLD)
    assert left(of, HOLD) == [3, 1]


def test_the_wait_is_exact_and_the_longest_of_all_windows() -> None:
    of = bucket("1/minute", "1/second")
    of.settle(taken(of), 5)
    wake = of.take(Claim(ONE), 6)
    assert wake == 5 + HOLD
    assert of.take(Claim(ONE), wake - 1) == wake
    assert of.take(Claim(ONE), wake) == 0


def test_a_large_cost_waits_for_as_many_returns_as_it_needs() -> None:
    of = bucket("5/minute")
    for at in (10, 20, 30):
        of.settle(taken(of), at)
    assert of.take(Claim({"requests": 3}), 0) == 10 + HOLD
    assert of.take(Claim({"requests": 4}), 0) == 20 + HOLD
    assert of.take(Claim({"requests": 5}), 0) == 30 + HOLD
    taken(of)
    assert of.take(Claim({"requests": 5}), 0) == NEVER


def test_returns_out_of_order_come_back_in_order() -> None:
    of = bucket("4/minute")
    first, second, third, fourth = (taken(of) for _ in range(4))
    of.sent(first)
    of.release(first, 0)  # back ten seconds after the others
    of.settle(third, 7)
    of.settle(second, 5)
    of.settle(fourth, 6)
    for ub in (5, 6, 7, 10 * S):
        assert of.take(Claim(ONE), 0) == ub + HOLD
        taken(of, ub + HOLD)


def test_what_a_claim_does_not_cost_does_not_hold_it_up() -> None:
    of = bucket("2/minute", "10 tokens/minute")
    taken(of, 0, {"requests": 1, "tokens": 10})
    assert of.take(Claim({"requests": 1, "tokens": 1}), 0) == NEVER
    taken(of, 0, {"requests": 1, "tokens": 0})
    assert left(of, 0) == [0, 0]


# ─── lanes ────────────────────────────────────────────────────────────────────────────────


def test_only_lane_0_may_use_the_reserve() -> None:
    of = bucket(*DOCUMENTED_LIMITS)
    for _ in range(94):
        taken(of, lane=1)
    assert of.take(Claim(ONE), 0, lane=1) == NEVER
    for _ in range(6):
        taken(of, lane=0)
    assert of.take(Claim(ONE), 0, lane=0) == NEVER


def test_lane_1_waits_until_the_reserve_is_whole_again() -> None:
    of = bucket("10/minute", reserve=0.2)
    for ub in range(10):
        of.settle(taken(of), ub)
    assert of.take(Claim(ONE), 0, lane=0) == 0 + HOLD
    assert of.take(Claim(ONE), 0, lane=1) == 2 + HOLD


def test_a_reserve_is_rounded_down() -> None:
    of = bucket("16/minute")
    for _ in range(16):
        taken(of, lane=1)


# ─── settling ─────────────────────────────────────────────────────────────────────────────


BOTH = {"requests": 1, "tokens": 80}


def test_what_counts_until_the_end_is_in_flight_until_then() -> None:
    of = bucket("9/minute", "100 tokens/minute")
    claim = taken(of, 0, BOTH)
    of.settle(claim, 0)
    assert left(of, HOLD) == [9, 20]
    assert of.take(Claim(BOTH), HOLD) == NEVER
    of.release(claim, HOLD)
    assert left(of, HOLD) == [9, 20]
    assert left(of, 2 * HOLD) == [9, 100]


def test_what_was_never_answered_is_settled_as_a_whole() -> None:
    of = bucket("9/minute", "100 tokens/minute")
    claim = taken(of, 0, BOTH)
    of.sent(claim)
    of.release(claim, 0)
    assert left(of, GRACE_LATER - 1) == [8, 20]
    assert left(of, GRACE_LATER) == [9, 100]


def test_what_was_never_sent_is_free_as_a_whole() -> None:
    of = bucket("9/minute", "100 tokens/minute")
    of.release(taken(of, 0, BOTH), 0, {"tokens": 90})
    assert left(of, 0) == [9, 100]


def test_an_estimate_that_was_too_high_is_given_back_at_the_end() -> None:
    of = bucket("9/minute", "100 tokens/minute")
    claim = taken(of, 0, BOTH)
    of.settle(claim, 0)
    of.release(claim, 0, {"tokens": 30})
    assert left(of, 0) == [8, 70]
    assert left(of, HOLD) == [9, 100]


def test_an_estimate_that_was_too_low_becomes_a_debt() -> None:
    of = bucket("9/minute", "100 tokens/minute")
    claim = taken(of, 0, BOTH)
    of.settle(claim, 0)
    of.release(claim, 0, {"tokens": 130})
    (_, tokens) = of.snapshot(0)
    assert (tokens.used, tokens.left) == (130, 0)
    assert of.take(Claim({"requests": 1, "tokens": 1}), 0) == HOLD
    assert left(of, HOLD) == [9, 100]


@pytest.mark.parametrize("usage", [0, -5])
def test_what_came_to_nothing_leaves_nothing(usage: int) -> None:
    of = bucket("9/minute", "100 tokens/minute")
    claim = taken(of, 0, BOTH)
    of.settle(claim, 0)
    of.release(claim, 0, {"tokens": usage, "requests": 0})
    assert left(of, 0) == [8, 100]


# ─── blocking ─────────────────────────────────────────────────────────────────────────────


def test_a_block_holds_everybody_and_is_never_shortened() -> None:
    of = bucket("5/minute")
    of.block(3 * S)
    of.block(2 * S)
    until = 3 * S + 50_000_000
    assert of.take(Claim(ONE), 0) == until
    assert of.take(Claim(ONE), until - 1) == until
    assert of.take(Claim(ONE), until) == 0


def test_a_block_and_a_window_wait_for_the_later() -> None:
    of = bucket("1/minute")
    of.settle(taken(of), 0)
    of.block(S)
    assert of.take(Claim(ONE), 0) == HOLD
    of.block(90 * S)
    assert of.take(Claim(ONE), 0) == 90 * S + 50_000_000


# ─── what never fits ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("costs", "lane", "message"),
    [
        ({"requests": 11}, 0, r"costs\['requests'\]=11 never fit into 10/minute: at most 10"),
        ({"requests": 9}, 1, "at most 8 in lane 1"),
        ({"requests": 1, "tokens": 101}, 0, "never fit into 100 tokens/hour"),
        ({"requests": 1, "token": 1}, 0, r"'token', and limits count \['requests', 'tokens'"),
        ({"requests": 0}, 0, r"costs\['requests'\]=0"),
        ({"requests": 1, "tokens": -1}, 0, r"costs\['tokens'\]=-1"),
        ({"requests": True}, 0, "=True"),
        ({"requests": 1.0}, 0, "=1.0"),
    ],
)
def test_a_cost_that_can_never_be_taken_is_refused(
    costs: dict[str, int], lane: int, message: str
) -> None:
    of = bucket("10/minute", "100 tokens/hour", reserve=0.2)
    with pytest.raises(ValueError, match=message):
        of.check(costs, lane)


@pytest.mark.parametrize(
    ("costs", "lane"),
    [({"requests": 10}, 0), ({"requests": 8}, 1), ({"requests": 1, "tokens": 0}, 0), ({}, 1)],
)
def test_a_cost_that_fits_is_not(costs: dict[str, int], lane: int) -> None:
    bucket("10/minute", "100 tokens/hour", reserve=0.2).check(costs, lane)


# ─── what is known of a wait ──────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("ahead", "lane", "earliest"),
    [
        (0, 0, 1000),  # a unit is free
        (1, 0, 10 + HOLD),
        (2, 0, 20 + HOLD),
        (3, 0, 1000),  # in flight: a settle decides
        (4, 0, 1000 + HOLD),  # but the one after it comes a hold after the first
        (5, 0, 10 + 2 * HOLD),
        (6, 0, 20 + 2 * HOLD),
        (0, 1, 10 + HOLD),  # one more is the reserve
        (3, 1, 1000 + HOLD),
    ],
)
def test_the_kth_in_line_knows_before_when_it_need_not_try(
    ahead: int, lane: int, earliest: int
) -> None:
    of = bucket("4/minute", reserve=0.25)
    of.settle(taken(of), 10)
    of.settle(taken(of), 20)
    taken(of)
    assert of.earliest(Claim(ONE), 1000, lane, ahead) == earliest


def test_a_block_is_known_as_well_and_other_dimensions_do_not_queue() -> None:
    of = bucket("4/minute", "10 tokens/minute", "10 pages/minute")
    claim = Claim({"requests": 1, "tokens": 3})
    assert of.earliest(claim, 1000, 0, 3) == 1000
    of.block(S)
    assert of.earliest(claim, 1000, 0, 3) == S + 50_000_000


@given(st.integers(0, 2**32))
def test_nobody_is_served_earlier_than_the_known_wait(seed: int) -> None:
    chance = random.Random(seed)
    of = bucket("3/second", "5/3s", reserve=0.34)
    now = 0
    open_claims = []
    for _ in range(chance.randrange(12)):
        claim = Claim(ONE)
        if of.take(claim, now) == 0:
            if chance.random() < 0.5:
                of.settle(claim, now)
            else:
                open_claims.append(claim)
        now += chance.randrange(S)
    ahead, lane = chance.randrange(12), chance.randrange(2)
    known = of.earliest(Claim(ONE), now, lane, ahead)
    for claim in open_claims:  # the best that can happen
        of.settle(claim, now)
    for place in range(ahead + 1):
        claim = Claim(ONE)
        while wake := of.take(claim, now, lane if place == ahead else 0):
            now = wake
        of.settle(claim, now)
    assert known <= now


# ─── snapshots ────────────────────────────────────────────────────────────────────────────


def test_a_snapshot_says_what_is_used_left_and_when_more_comes() -> None:
    of = bucket("2/minute", "3/hour")
    assert [window.next_free_s for window in of.snapshot(0)] == [0, 0]
    of.settle(taken(of), 0)
    taken(of)
    minute, hour = of.snapshot(S)
    assert (minute.limit, minute.used, minute.left) == (RateLimit("2/minute"), 2, 0)
    assert minute.next_free_s == pytest.approx(59.08)
    assert (hour.used, hour.left, hour.next_free_s) == (2, 1, 0)
    taken(of, HOLD)
    assert of.snapshot(HOLD)[0].next_free_s is None
    assert str(of) == "2/minute, 3/hour"


# ─── stricter limits, while it runs ───────────────────────────────────────────────────────


def test_the_smaller_of_two_limits_for_a_period_counts() -> None:
    of = bucket("10/minute", "5/minute", "7/minute")
    assert [window.limit for window in of.snapshot(0)] == [RateLimit("5/minute")]
    for _ in range(4):
        of.settle(taken(of), 0)
    of.tighten([RateLimit("3/minute"), RateLimit("100/minute")], 0)
    (window,) = of.snapshot(0)
    assert (str(window.limit), window.used, window.left) == ("3/minute", 4, 0)
    assert of.take(Claim(ONE), 0) == HOLD
    assert left(of, HOLD) == [3]


def test_the_reserve_narrows_with_its_window() -> None:
    of = bucket("100/minute")
    of.tighten([RateLimit("50/minute")], 0)
    for _ in range(47):
        taken(of, lane=1)
    assert of.take(Claim(ONE), 0, lane=1) == NEVER


def test_a_new_window_knows_what_the_longest_one_remembers() -> None:
    of = bucket("9/minute", "20/hour")
    of.settle(taken(of), 0)
    of.settle(taken(of), 50 * S)
    flying = taken(of)
    now = 59 * S
    of.tighten([RateLimit("5/10s")], now)
    new = of.snapshot(now)[2]
    assert (new.used, new.left) == (2, 3)  # the one of 9 seconds ago, and the one in flight
    of.settle(flying, now)
    assert left(of, now + 11 * S) == [7, 17, 5]


def test_a_new_window_of_another_dimension_begins_whole() -> None:
    of = bucket("9/minute")
    claim = taken(of)
    of.tighten([RateLimit("50 tokens/minute")], 0)
    of.settle(claim, 0)
    assert left(of, 0) == [8, 50]


# ─── forks ────────────────────────────────────────────────────────────────────────────────


def test_an_heir_counts_what_is_in_flight_as_unanswered() -> None:
    of = bucket("3/minute")
    of.settle(taken(of), 0)
    flying = taken(of)
    of.block(S)
    heir = of.inherit(2 * S)
    assert heir.blocked_until == of.blocked_until
    of.settle(flying, 2 * S)
    of.release(flying, 2 * S)
    assert left(heir, 2 * S) == [1]
    assert left(heir, HOLD) == [2]
    assert left(heir, 12 * S + HOLD - 1) == [2]
    assert left(heir, 12 * S + HOLD) == [3]


def test_an_heir_heals_a_state_that_was_cut_off_in_the_middle() -> None:
    of = bucket("3/minute", "9/hour")
    of.windows[0].free -= 1  # of a take, only the first write happened
    heir = of.inherit(0)
    assert left(heir, 0) == [2, 9]
    assert left(heir, 10 * S + HOLD) == [3, 9]
