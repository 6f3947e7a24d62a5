"""Which failure may be tried again, after how long, and how much an outage may cost."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime, formatdate

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fluence_async import errors
from fluence_async._sansio.retry import (
    RetryQuota,
    full_jitter,
    is_retryable,
    parse_retry_after,
    retry_wait,
)
from fluence_async.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    FluenceError,
    InternalServerError,
    RateLimitError,
    StreamServerError,
    StreamTimeoutError,
)
from fluence_async.options import RetryPolicy


def status_error(
    status: int, code: str | None = None, retry_after: float | None = None
) -> APIStatusError:
    kind = APIStatusError.for_status(status, code)
    return kind("no", status_code=status, code=code, retry_after=retry_after)


def no_jitter(bound: float) -> float:
    return bound


# ─── may it be tried again ────────────────────────────────────────────────────────────────

RETRYABLE_STATUSES = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}


@pytest.mark.parametrize("status", range(400, 600))
def test_a_status_is_retried_if_another_attempt_could_end_otherwise(status: int) -> None:
    assert is_retryable(status_error(status)) is (status in RETRYABLE_STATUSES)


@pytest.mark.parametrize("status", [*range(400, 600), None])
def test_an_error_as_first_event_is_retried_as_its_status_is(status: int | None) -> None:
    error = StreamServerError("no", status_code=status)
    assert is_retryable(error) is (status in RETRYABLE_STATUSES)


@pytest.mark.parametrize("status", sorted(RETRYABLE_STATUSES))
def test_a_spent_quota_is_never_retried(status: int) -> None:
    spent = "insufficient_quota"
    assert not is_retryable(StreamServerError("no", status_code=status, code=spent))
    assert not is_retryable(errors.QuotaExceededError("no", status_code=status, code=spent))


@pytest.mark.parametrize(
    ("clock", "retried"),
    [
        ("connect", True),
        ("first_byte", True),
        ("idle", True),
        ("progress", True),
        ("total", False),
        ("queue", False),
    ],
)
def test_a_clock_that_bounds_one_attempt_allows_another(clock: errors.Clock, retried: bool) -> None:
    assert is_retryable(APITimeoutError("late", clock=clock)) is retried
    assert is_retryable(StreamTimeoutError("late", clock=clock)) is retried


@pytest.mark.parametrize(
    ("error", "retried"),
    [
        (APIConnectionError("refused"), True),
        (APIConnectionError("no such host", permanent=True), False),
        (errors.TLSError("bad certificate"), False),
        (errors.StreamInterruptedError("empty"), True),
        (errors.BadChunkError("garbage"), False),
        (errors.StreamError("broke"), False),
        (errors.ResponseError("a login page"), False),
        (errors.LimitWaitError("an hour", wait_s=3600, retry_at=0), False),
        (errors.BudgetExceededError("spent"), False),
        (errors.ToolError("raised"), False),
        (FluenceError("something"), False),
    ],
    ids=repr,
)
def test_each_kind_of_failure(error: FluenceError, retried: bool) -> None:
    assert is_retryable(error) is retried


# ─── after how long ───────────────────────────────────────────────────────────────────────

POLICY = RetryPolicy(max_retries=3, base_s=0.5, cap_s=8, max_retry_after_s=60)
BROKEN = InternalServerError("no", status_code=500)


def wait_after(
    error: FluenceError, attempt: int = 1, policy: RetryPolicy = POLICY, elapsed_s: float = 0.0
) -> float | None:
    return retry_wait(policy, error, attempt=attempt, elapsed_s=elapsed_s, jitter=no_jitter)


def test_the_bound_doubles_up_to_the_cap() -> None:
    patient = RetryPolicy(max_retries=10_000, base_s=0.5, cap_s=8)
    assert [wait_after(BROKEN, attempt, patient) for attempt in range(1, 8)] == [
        0.5,
        1,
        2,
        4,
        8,
        8,
        8,
    ]
    assert wait_after(BROKEN, 10_000, patient) == 8


def test_without_a_base_or_with_a_cap_of_zero_nothing_is_waited_however_often() -> None:
    for hasty in (
        RetryPolicy(max_retries=10_000, base_s=0.0),
        RetryPolicy(max_retries=10_000, cap_s=0),
    ):
        assert {wait_after(BROKEN, attempt, hasty) for attempt in (1, 2, 1100, 10_000)} == {0}


@pytest.mark.parametrize(("max_retries", "waits"), [(0, 0), (1, 1), (2, 2), (5, 5)])
def test_there_are_as_many_retries_as_the_policy_says(max_retries: int, waits: int) -> None:
    policy = RetryPolicy(max_retries=max_retries)
    given_up = [wait_after(BROKEN, attempt, policy) is None for attempt in range(1, 9)]
    assert given_up.index(True) == waits
    assert all(given_up[waits:])


@pytest.mark.parametrize("name", ["base_s", "cap_s", "max_retry_after_s", "budget_s"])
@pytest.mark.parametrize("seconds", [-0.1, math.nan, math.inf])
def test_a_policy_of_no_sensible_time_is_refused(name: str, seconds: float) -> None:
    with pytest.raises(ValueError, match=rf"RetryPolicy\({name}=.*0 or more seconds"):
        RetryPolicy(**{name: seconds})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("max_retries", "kind"), [(-1, ValueError), (True, TypeError), (1.5, TypeError)]
)
def test_a_policy_of_no_sensible_number_is_refused(max_retries: int, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="max_retries"):
        RetryPolicy(max_retries=max_retries)


def test_what_is_not_retryable_is_given_up_at_once() -> None:
    assert wait_after(status_error(400)) is None
    assert wait_after(status_error(429, "insufficient_quota", retry_after=1)) is None


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [(None, 0.5), (0.2, 0.7), (1, 1.5), (60, 60.5), (60.1, None), (999_999, None)],
)
def test_what_the_server_asks_is_the_least_and_too_much_is_an_error_at_once(
    retry_after: float | None, wait: float | None
) -> None:
    assert wait_after(status_error(429, retry_after=retry_after)) == wait
    event = StreamServerError("no", status_code=429, retry_after=retry_after)
    assert wait_after(event) == wait


def test_a_server_that_asks_for_a_wait_gets_jitter_on_top_of_it() -> None:
    error = status_error(503, retry_after=10)
    waits = [
        retry_wait(POLICY, error, attempt=1, elapsed_s=0, jitter=full_jitter) for _ in range(200)
    ]
    assert all(wait is not None and 10 <= wait <= 10.5 for wait in waits)
    assert len(set(waits)) > 100


@pytest.mark.parametrize(
    ("budget_s", "elapsed_s", "wait"),
    [(None, 1e9, 0.5), (10, 0, 0.5), (10, 9.5, 0.5), (10, 9.6, None), (10, 11, None), (0, 0, None)],
)
def test_no_attempt_starts_after_the_budget(
    budget_s: float | None, elapsed_s: float, wait: float | None
) -> None:
    policy = RetryPolicy(budget_s=budget_s)
    assert wait_after(BROKEN, policy=policy, elapsed_s=elapsed_s) == wait


@given(
    attempt=st.integers(1, 2000),
    base_s=st.floats(0, 100),
    cap_s=st.floats(0, 1000),
    retry_after=st.none() | st.floats(0.001, 60),
)
def test_a_wait_is_between_what_was_asked_and_the_cap_on_top(
    attempt: int, base_s: float, cap_s: float, retry_after: float | None
) -> None:
    policy = RetryPolicy(max_retries=2000, base_s=base_s, cap_s=cap_s)
    error = status_error(429, retry_after=retry_after)
    wait = retry_wait(policy, error, attempt=attempt, elapsed_s=0, jitter=full_jitter)
    least = retry_after or 0.0
    assert wait is not None
    assert least <= wait <= least + cap_s


def test_full_jitter_is_spread_between_nothing_and_its_bound() -> None:
    waits = [full_jitter(8) for _ in range(500)]
    assert all(0 <= wait <= 8 for wait in waits)
    assert min(waits) < 2
    assert max(waits) > 6


# ─── Retry-After ──────────────────────────────────────────────────────────────────────────

NOON = datetime(2026, 10, 21, 12, 0, 0, tzinfo=UTC)
NOW = NOON.timestamp()


def http_date(at: datetime) -> str:
    return format_datetime(at, usegmt=True)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("1", 1),
        (" 1 ", 1),
        ("120", 120),
        ("0.2", 0.2),
        (".5", 0.5),
        ("2.", 2),
        ("999999", 999_999),
        (http_date(NOON + timedelta(seconds=90)), 90),
        ("Wednesday, 21-Oct-26 12:00:30 GMT", 30),
        ("Wed Oct 21 12:00:30 2026", 30),
        ("Wed, 21 Oct 2026 12:00:30", 30),
        ("Wed, 21 Oct 2026 12:00:30 -0000", 30),
        ("Wed, 21 Oct 2026 14:00:30 +0200", 30),
    ],
)
def test_retry_after_that_makes_sense(value: str, seconds: float) -> None:
    assert parse_retry_after({"retry-after": value}, now=NOW) == pytest.approx(seconds)


HOSTILE = [
    "",
    " ",
    "0",
    "0.0",
    "-0",
    "-1",
    "-0.5",
    "+5",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "Infinity",
    "1e400",
    "1e3",
    "9" * 400,
    "1_0",
    "1,5",
    "1, 2",
    "1, 1",
    "0x10",
    "1s",
    "soon",
    ".",
    "1.2.3",
    "٣",
    "１０",
    "²",
    "Wed, ２１ Oct 2026 12:00:30 GMT",
    "1\x00",
    http_date(NOON),
    http_date(NOON - timedelta(days=400)),
    "Fri, 31 Dec 99999 23:59:59 GMT",
    "Fri, 31 Dec 9999 23:59:59 -9999",
    "Wed, 32 Oct 2026 12:00:00 GMT",
    "Wed, 21 Oct " + "9" * 5000 + " 12:00:00 GMT",
    "Wed, 21 Oct 2026 12:00:30 GMT, Wed, 21 Oct 2026 12:00:30 GMT",
    "Mon, 01 Jan 0001 00:00:00 +2359",
]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda value: ascii(value[:40]))
def test_a_retry_after_that_makes_none_is_as_if_it_were_not_there(value: str) -> None:
    assert parse_retry_after({"retry-after": value}, now=NOW) is None


def test_without_the_header_nothing_is_asked() -> None:
    assert parse_retry_after({}, now=NOW) is None
    assert parse_retry_after({"date": http_date(NOON)}, now=NOW) is None


@pytest.mark.parametrize(
    ("milliseconds", "retry_after", "seconds"),
    [
        ("200", None, 0.2),
        ("1500.5", None, 1.5005),
        ("200", "7", 0.2),
        ("nan", "7", 7),
        ("-1", "7", 7),
        ("0", "7", 7),
        ("9" * 400, "7", 7),
        ("soon", None, None),
        (http_date(NOON + timedelta(seconds=9)), None, None),
    ],
)
def test_milliseconds_win_if_they_make_sense(
    milliseconds: str, retry_after: str | None, seconds: float | None
) -> None:
    headers = {"retry-after-ms": milliseconds}
    if retry_after is not None:
        headers["retry-after"] = retry_after
    assert parse_retry_after(headers, now=NOW) == pytest.approx(seconds)


def test_a_date_is_measured_against_the_servers_own_clock() -> None:
    headers = {
        "date": http_date(NOON - timedelta(hours=3)),
        "retry-after": http_date(NOON - timedelta(hours=3) + timedelta(seconds=20)),
    }
    assert parse_retry_after(headers, now=NOW) == 20


@pytest.mark.parametrize("date", ["", "yesterday", "9" * 5000, "Fri, 31 Dec 99999 23:59:59 GMT"])
def test_a_date_beside_a_broken_one_is_measured_against_ours(date: str) -> None:
    headers = {"date": date, "retry-after": http_date(NOON + timedelta(seconds=20))}
    assert parse_retry_after(headers, now=NOW) == 20


@pytest.fixture
def far_west(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine's local time is ten hours behind UTC."""
    monkeypatch.setenv("TZ", "HST10")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="no way to set the zone here")
@pytest.mark.usefixtures("far_west")
def test_a_date_without_a_zone_is_utc_wherever_this_machine_stands() -> None:
    headers = {"retry-after": "Wed, 21 Oct 2026 12:00:30 -0000"}
    assert parse_retry_after(headers, now=NOW) == 30


@given(
    value=st.text(max_size=40)
    | st.text("0123456789.-+eE_ ,infa", max_size=12)
    | st.lists(
        st.sampled_from(
            ["Wed,", "21", "Oct", "2026", "12:00:00", "GMT", "+9999", "-", "99999", ":"]
        ),
        max_size=8,
    ).map(" ".join),
    date=st.none() | st.text(max_size=40),
)
@example(value="9" * 8000 + "x", date=None)
@example(value="." + "9" * 8000 + "x", date=None)
def test_any_text_is_seconds_above_zero_or_nothing(value: str, date: str | None) -> None:
    headers = {"retry-after": value} | ({} if date is None else {"date": date})
    seconds = parse_retry_after(headers, now=NOW)
    assert seconds is None or 0 < seconds < math.inf


@given(st.integers(1, 10**9))
def test_a_date_says_what_its_seconds_say(seconds: int) -> None:
    headers = {
        "date": formatdate(NOW, usegmt=True),
        "retry-after": formatdate(NOW + seconds, usegmt=True),
    }
    assert parse_retry_after(headers, now=0.0) == seconds


# ─── the quota ────────────────────────────────────────────────────────────────────────────


def requests_of(calls: int, quota: RetryQuota, error: FluenceError, policy: RetryPolicy) -> int:
    """How many requests so many calls make of a server that answers each with `error`."""
    requests = 0
    for _ in range(calls):
        attempt = 1
        while True:
            requests += 1
            if wait_after(error, attempt, policy) is None or not quota.take(error):
                break
            attempt += 1
    return requests


@pytest.mark.parametrize(
    "error",
    [BROKEN, APIConnectionError("refused"), RateLimitError("no", status_code=429)],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("max_retries", [2, 10])
def test_an_outage_multiplies_the_traffic_by_little(error: FluenceError, max_retries: int) -> None:
    policy = RetryPolicy(max_retries=max_retries)
    assert 1000 < requests_of(1000, RetryQuota(), error, policy) <= 1200


def test_two_hundred_calls_against_a_dead_server_make_at_most_a_fifth_more() -> None:
    assert requests_of(200, RetryQuota(), BROKEN, RetryPolicy()) <= 240


def test_a_retry_costs_fourteen_and_one_after_a_throttle_five() -> None:
    quota = RetryQuota()
    assert quota.left == 500
    assert quota.take(BROKEN) == 14
    assert quota.take(RateLimitError("no", status_code=429)) == 5
    assert quota.left == 481


def test_what_is_not_left_is_not_taken() -> None:
    quota = RetryQuota()
    while quota.take(BROKEN):
        pass
    assert quota.left == 500 % 14
    assert quota.take(RateLimitError("no", status_code=429)) == 5
    assert quota.left == 500 % 14 - 5


def test_success_gives_back_what_its_last_retry_took_or_one_unit() -> None:
    quota = RetryQuota()
    quota.give_back(quota.take(BROKEN))
    assert quota.left == 500
    for _ in range(20):
        quota.take(BROKEN)
    left = quota.left
    quota.give_back(0)
    assert quota.left == left + 1


def test_the_quota_is_never_above_its_capacity() -> None:
    quota = RetryQuota()
    quota.give_back(0)
    quota.give_back(14)
    assert quota.left == 500


def test_after_an_outage_successes_pay_for_retries_again() -> None:
    quota = RetryQuota()
    requests_of(1000, quota, BROKEN, RetryPolicy())
    assert not quota.take(BROKEN)
    for _ in range(14):
        quota.give_back(0)
    assert quota.take(BROKEN)


def test_the_quota_says_how_much_is_left() -> None:
    assert repr(RetryQuota()) == "RetryQuota(500 of 500 left)"
