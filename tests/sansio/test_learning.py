"""What a limiter learns of its server: how deep a burst may be, whether it keeps a sliding
counter, what it says itself; and that no nonsense teaches anything."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async._sansio.bucket import Claim, RateLimit
from fluence_async._sansio.learning import LearningBucket
from fluence_async._sansio.learnt import Learnt
from fluence_async._sansio.rate_headers import rate_reports
from fluence_async.meta import RateLimitSnapshot

S = 1_000_000_000
ONE = {"requests": 1}


def bucket(*limits: str, **options: float) -> LearningBucket:
    return LearningBucket([RateLimit(limit) for limit in limits], **options)


def all_that_go(of: LearningBucket, now: int) -> list[Claim]:
    gone = []
    while of.take(claim := Claim(ONE), now) == 0:
        of.sent(claim)
        gone.append(claim)
    return gone


def answer(of: LearningBucket, claims: list[Claim], now: int, **said: object) -> None:
    for claim in claims:
        of.settle(claim, now, True, **said)  # type: ignore[arg-type]


def refuse(of: LearningBucket, claims: list[Claim], now: int) -> None:
    for claim in claims:
        of.settle(claim, now, False)
        of.refused(claim, now)


def learnt(of: LearningBucket, window: int = 0) -> Learnt:
    found = of.snapshot(0)[window].learnt
    assert found is not None
    return found


def remaining(count: int, **more: float) -> list[RateLimitSnapshot]:
    return [RateLimitSnapshot(limit=100, remaining=count, **more)]  # type: ignore[arg-type]


# ─── the burst ────────────────────────────────────────────────────────────────────────────


def test_it_begins_with_one_and_doubles_what_was_taken() -> None:
    of = bucket("100/minute")
    salvos, now = [], 0
    while sum(salvos) < 100:
        claims = all_that_go(of, now)
        salvos.append(len(claims))
        now += S // 10
        answer(of, claims, now)
    assert salvos[0] == 1
    assert all(later <= 2 * sum(salvos[: n + 1]) for n, later in enumerate(salvos[1:]))
    assert len(salvos) <= 12
    assert learnt(of).burst == 100


def test_what_is_not_refused_within_a_second_was_accepted() -> None:
    of = bucket("100/minute")
    assert len(all_that_go(of, 0)) == 1
    assert learnt(of).proven == 0
    assert len(all_that_go(of, S)) >= 1
    assert len(all_that_go(of, 2 * S)) >= 2
    assert learnt(of).proven > 0


def test_a_salvo_of_refusals_teaches_one_smaller_burst() -> None:
    of = bucket("100/minute")
    for now in (0, S // 10, S // 5):
        answer(of, all_that_go(of, now), now + S // 10)
    proven = learnt(of).proven
    claims = all_that_go(of, S)
    answer(of, claims[:1], S + 1)
    refuse(of, claims[1:], S + 2)
    after = learnt(of)
    assert after.ended
    assert proven <= after.burst < len(claims) + proven
    assert (after.withheld, after.counter) == (0, False)
    assert after.retry_burst_at > 60 * S


def test_a_refusal_as_deep_as_what_was_ever_taken_teaches_a_smaller_burst_and_no_lower_limit() -> (
    None
):
    of = bucket("100/minute")
    now = 0
    while learnt(of).proven < 4:
        answer(of, all_that_go(of, now), now)
        now += 10 * S
    before = learnt(of)
    depth = before.proven
    assert before.burst > depth
    claims = [Claim(ONE) for _ in range(depth)]
    for claim in claims:
        assert of.take(claim, now) == 0
        of.sent(claim)
    refuse(of, claims[-1:], now)
    assert learnt(of).withheld == 0
    assert learnt(of).burst < depth


def test_refused_from_the_first_request_on_it_learns_nothing_and_waits_longer_and_longer() -> None:
    of = bucket("100/minute")
    now, waits = 0, []
    for _ in range(4):
        claims = all_that_go(of, now)
        assert len(claims) == 1
        refuse(of, claims, now)
        waits.append(of.take(Claim(ONE), now) - now)
        now += waits[-1]
    assert waits == [S, 2 * S, 4 * S, 8 * S]
    assert learnt(of) == Learnt()


def test_an_unexplained_refusal_withholds_a_twentieth_and_gives_it_back() -> None:
    of = bucket("100/minute")
    answer(of, all_that_go(of, 0), 1, reports=remaining(99))
    claims = all_that_go(of, 2)
    answer(of, claims, 3)
    now = 70 * S
    claims = all_that_go(of, now)[:1]
    refuse(of, claims, now)
    assert learnt(of).withheld == 5
    of.take(Claim(ONE), learnt(of).restore_at)
    assert learnt(of).withheld == 0


# ─── what the server says ─────────────────────────────────────────────────────────────────


def test_one_report_of_a_whole_window_ends_the_slow_start() -> None:
    of = bucket("100/minute")
    answer(of, all_that_go(of, 0), 1, reports=remaining(99))
    assert len(all_that_go(of, 2)) == 99


def test_a_report_of_little_is_a_small_burst() -> None:
    of = bucket("100/minute")
    answer(of, all_that_go(of, 0), 1, reports=remaining(9))
    assert len(all_that_go(of, 2)) == 9
    assert learnt(of).reported


def test_what_somebody_else_used_is_left_to_them_until_the_reset() -> None:
    of = bucket("100/minute")
    answer(of, all_that_go(of, 0), 1, reports=remaining(99))
    (claim,) = all_that_go(of, 2)[:1]
    free = of.snapshot(2)[0].left
    of.settle(claim, 3, True, remaining(0, reset_s=5.0))
    assert of.snapshot(3)[0].left == free  # all are in flight: nothing says that others took any
    other = bucket("100/minute")
    answer(other, all_that_go(other, 0), 1, reports=remaining(99))
    claim = Claim(ONE)
    assert other.take(claim, 2) == 0
    other.settle(claim, 3, True, remaining(40, reset_s=5.0))
    assert other.snapshot(3)[0].left == 40
    assert other.snapshot(6 * S)[0].left == 98


@pytest.mark.parametrize("limit", [7, None])
def test_a_report_of_no_window_of_ours_says_nothing(limit: int | None) -> None:
    of = bucket("100/minute", "1000/hour")
    claims = all_that_go(of, 0)
    answer(of, claims, 1, reports=[RateLimitSnapshot(limit=limit, remaining=5)])
    assert not learnt(of).reported
    assert not learnt(of, 1).reported


# ─── more than the user's limits ───


def stating(limit: int, remaining: int, period_s: float | None = 60.0) -> list[RateLimitSnapshot]:
    return [RateLimitSnapshot(limit=limit, remaining=remaining, period_s=period_s)]


def generous() -> LearningBucket:
    of = bucket("100/minute", "1000/hour", generous=True, reserve=0)
    answer(of, all_that_go(of, 0), 1, reports=stating(300, 299))
    return of


def widths(of: LearningBucket) -> list[int]:
    return [window.limit.limit for window in of.snapshot(1)]


def test_a_larger_limit_that_the_server_states_is_used_if_the_user_allows_it() -> None:
    of = generous()
    assert widths(of) == [300, 1000]
    assert learnt(of).stated == 300
    assert of.snapshot(1)[0].left == 299
    for now in range(2, 20):
        answer(of, all_that_go(of, now), now)
    assert of.snapshot(20)[0].left < 200
    assert of.snapshot(20)[0].left >= 0


@pytest.mark.parametrize("period_s", [None, 1.0, 86400.0])
def test_a_limit_of_another_period_or_of_none_widens_nothing(period_s: float | None) -> None:
    for limits in (["100/minute", "1000/hour"], ["100/minute"]):
        of = bucket(*limits, generous=True)
        answer(of, all_that_go(of, 0), 1, reports=stating(300, 299, period_s))
        assert widths(of) == [100, 1000][: len(limits)]


def test_by_default_the_given_limits_hold_whatever_is_stated() -> None:
    of = bucket("100/minute", "1000/hour")
    answer(of, all_that_go(of, 0), 1, reports=stating(300, 299))
    assert widths(of) == [100, 1000]
    assert learnt(of).stated == 0
    assert len(all_that_go(of, 2)) <= 99


@pytest.mark.parametrize(("stated", "width"), [(200, 200), (100, 100), (60, 100), (1, 100)])
def test_it_is_as_narrow_again_as_the_server_states_and_no_narrower(
    stated: int, width: int
) -> None:
    of = generous()
    (claim, *others) = all_that_go(of, 2)
    answer(of, [claim], 3, reports=stating(stated, 0))
    assert widths(of) == [width, 1000]
    free = of.snapshot(3)[0].left
    assert free == max(0, width - 2 - len(others))
    answer(of, others, 4)
    assert of.snapshot(70 * S)[0].left == width


def test_who_refuses_is_not_believed_for_a_period_and_then_for_two() -> None:
    of = generous()
    watch, now = of.watches[0], 2
    for periods in (1, 2):
        claim = Claim(ONE)
        assert of.take(claim, now) == 0
        of.sent(claim)
        refuse(of, [claim], now)
        assert widths(of) == [100, 1000]
        assert learnt(of).stated == 0
        assert learnt(of).burst > 1, "that was the lesson, and no other"
        until = now + periods * watch.window.hold
        assert not watch.regard(300, until - 1)
        assert watch.regard(300, until)
        now = until + 1


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_whatever_is_stated_the_other_windows_hold_and_a_refusal_ends_it(
    limit: int, left: int
) -> None:
    of = bucket("100/minute", "1000/hour", generous=True, reserve=0)
    (first,) = all_that_go(of, 0)
    answer(of, [first], 1, reports=stating(limit, left))
    second, *others = all_that_go(of, 61 * S)
    sent = 2 + len(others)
    for now in range(62 * S, 120 * S, 3 * S):
        claims = all_that_go(of, now)
        answer(of, claims, now, reports=stating(limit, left))
        sent += len(claims)
    assert widths(of) == [max(100, limit), 1000]
    assert sent <= 1000
    refuse(of, [second], 120 * S)
    assert widths(of) == [100, 1000]


def test_a_session_with_smaller_limits_still_counts() -> None:
    of = generous()
    of.tighten([RateLimit("200/minute")], 2)
    assert of.watches[0].own == RateLimit("100/minute")
    of.tighten([RateLimit("50/minute")], 2)
    answer(of, all_that_go(of, 3 * S), 3 * S, reports=stating(30, 29))
    assert widths(of) == [50, 1000]
    answer(of, all_that_go(of, 70 * S)[:1], 70 * S, reports=stating(300, 299))
    assert widths(of) == [300, 1000]


# ─── the counter ──────────────────────────────────────────────────────────────────────────


def saturated(of: LearningBucket) -> int:
    """A server that took the whole limit at once; now its units come back."""
    answer(of, all_that_go(of, 0), 1, reports=remaining(99))
    answer(of, all_that_go(of, 2), 3, reports=remaining(0))
    return 61 * S


def test_the_counter_is_tried_by_one_request_and_learnt_for_good() -> None:
    of = bucket("100/minute")
    now = saturated(of)
    claims = all_that_go(of, now)
    assert len(claims) <= 3  # those that no alignment is against, and one trial
    answer(of, claims[:-1], now)
    refuse(of, claims[-1:], now)
    assert learnt(of).counter
    assert len(all_that_go(of, now + S // 10)) <= 1


def test_accepted_trials_refute_the_counter() -> None:
    of = bucket("100/minute")
    now = saturated(of)
    taken = 0
    while (claims := all_that_go(of, now)) and taken < 100:
        taken += len(claims)
        answer(of, claims, now + 1)
        now += S // 50
    assert taken == 100
    assert learnt(of).alignments.bit_count() < 8


def test_strictly_nothing_is_tried() -> None:
    of = bucket("100/minute", strict=True)
    now = saturated(of)
    claims = all_that_go(of, now)
    assert len(claims) <= 2
    answer(of, claims, now)
    assert not any(claim.note.over for claim in claims if not isinstance(claim.note, int))


# ─── plain data, forks, nonsense ──────────────────────────────────────────────────────────


def test_what_is_learnt_is_plain_data() -> None:
    of = bucket("100/minute")
    answer(of, all_that_go(of, 0), 1, reports=remaining(9))
    assert msgspec.json.decode(msgspec.json.encode(learnt(of)), type=Learnt) == learnt(of)


def test_an_heir_has_nothing_in_flight_and_knows_what_was_learnt() -> None:
    of = bucket("100/minute")
    answer(of, all_that_go(of, 0), 1, reports=remaining(9))
    flying = all_that_go(of, 2)
    heir = of.inherit(3)
    of.settle(flying[0], 4, True)
    of.release(flying[1], 4)
    assert heir.snapshot(4)[0].left == 99 - len(flying)
    assert learnt(heir).reported


texts = st.text(max_size=12) | st.sampled_from(
    ["-1", "nan", "1e9", "9" * 30, "0", "100", "5;w=60", '"a";r=200;t=1', "limit=0, remaining=5"]
)
names = st.sampled_from(
    [
        f"x-ratelimit-{what}{name}"
        for what in ("limit", "remaining", "reset")
        for name in ("", "-requests", "-minute", "-hour", "-tokens")
    ]
    + ["ratelimit", "ratelimit-policy", "ratelimit-remaining", "ratelimit-limit"]
)


@given(st.dictionaries(names, texts))
def test_no_header_says_what_cannot_be(headers: dict[str, str]) -> None:
    for report in rate_reports(headers, now=1.7e9):
        assert report.remaining is not None
        assert report.remaining >= 0
        assert report.limit is None or report.remaining <= report.limit
        assert report.reset_s is None or 0 <= report.reset_s < 1e10


@given(
    st.dictionaries(
        st.sampled_from(["x-ratelimit-remaining", "x-ratelimit-remaining-minute", "ratelimit"]),
        st.sampled_from(["", "-1", "many", "1.5", "9" * 400, "\u00b2", "nan", '"a";r=5;q=0']),
    )
)
def test_a_nonsense_header_changes_nothing(headers: dict[str, str]) -> None:
    plain, told = bucket("100/minute"), bucket("100/minute")
    answer(plain, all_that_go(plain, 0), 1)
    answer(told, all_that_go(told, 0), 1, reports=rate_reports(headers, now=1.7e9))
    assert told.snapshot(1) == plain.snapshot(1)
    assert len(all_that_go(told, 2)) == len(all_that_go(plain, 2))


# ─── arrived before it was answered ───────────────────────────────────────────────────────


def test_what_arrived_is_learnt_of_when_its_answer_is_there_and_once() -> None:
    early, late = bucket("100/minute"), bucket("100/minute")
    for of in (early, late):
        (claim,) = all_that_go(of, 0)
        if of is early:
            of.settle(claim, 1)
            assert learnt(of).proven == 0
            assert of.snapshot(1)[0].used == 1
        of.settle(claim, 5, True, remaining(99))
    before = early.watches[0].begun
    early.settle(claim, 9, True, remaining(10))
    early.settle(claim, 9, False)
    assert early.watches[0].begun == before
    assert learnt(early) == learnt(late)
    assert learnt(early).reported
    assert len(all_that_go(early, 10)) == len(all_that_go(late, 10)) == 99


@pytest.mark.parametrize("times", [1, 2])
def test_a_refusal_that_is_told_twice_is_one(times: int) -> None:
    of = bucket("100/minute")
    answer(of, all_that_go(of, 0), 1)
    claim, *_ = all_that_go(of, 2)
    before = of.watches[0].begun
    of.settle(claim, 3)
    for _ in range(times):
        of.settle(claim, 4, False)
    assert of.watches[0].begun == before - of.watches[0].gap


def test_a_unit_that_arrived_is_not_given_back_by_its_refusal() -> None:
    of = bucket("100/minute")
    answer(of, all_that_go(of, 0), 1)
    claims = all_that_go(of, 2)
    for claim in claims:
        of.settle(claim, 3)
    refuse(of, claims, 4)
    assert of.snapshot(5)[0].used >= 1 + len(claims)
    assert of.snapshot(3 + 61 * S)[0].used <= learnt(of).withheld


def test_what_arrived_and_was_not_refused_for_a_second_was_accepted() -> None:
    of = bucket("100/minute")
    (claim,) = all_that_go(of, 0)
    of.settle(claim, 1)
    assert not all_that_go(of, S // 2)
    assert all_that_go(of, S + 1)


def test_a_refusal_is_explained_by_what_it_teaches() -> None:
    """By a burst that was too deep; but not by somebody else's use of the key."""
    fresh = bucket("10/minute")
    answer(fresh, all_that_go(fresh, 0), 0)
    claims = all_that_go(fresh, 1)
    for claim in claims:
        fresh.settle(claim, 2, False)
    assert [fresh.refused(claim, 2) for claim in claims] == [False] * len(claims)
    of = bucket("100/minute")
    answer(of, all_that_go(of, 0), 1, reports=remaining(99))
    answer(of, all_that_go(of, 2), 3)
    first, second, *_ = all_that_go(of, 70 * S)
    for claim, explained in ((first, False), (second, True)):
        of.settle(claim, 70 * S, False)
        assert of.refused(claim, 70 * S) is not explained
