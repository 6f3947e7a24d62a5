"""Rate-limit headers say what they say, and nothing where they make no sense."""

from __future__ import annotations

import pytest

from fluence_async._sansio.rate_headers import rate_limit_of, rate_reports


def headers(limit: str, remaining: str, reset: str) -> dict[str, str]:
    return {
        "x-ratelimit-limit-requests": limit,
        "x-ratelimit-remaining-requests": remaining,
        "x-ratelimit-reset-requests": reset,
    }


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("1", 1.0), ("0.5", 0.5), ("1s", 1.0), ("6m0s", 360.0), ("12ms", 0.012),
        ("1h2m3.5s", 3723.5), ("", None), ("-1", None), ("nan", None), ("inf", None),
        ("soon", None), ("1e400", None), ("9" * 400, None), ("1 s", None),
    ],
)  # fmt: skip
def test_a_reset_is_seconds_or_a_duration(reset: str, seconds: float | None) -> None:
    said = rate_limit_of(headers("100", "99", reset))
    assert said is not None
    assert said.reset_s == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize("bad", ["", "-1", "1.5", "many", "9" * 400, "\u00b2"])
def test_a_count_that_is_none_says_nothing(bad: str) -> None:
    said = rate_limit_of(headers(bad, bad, "1s"))
    assert said is not None
    assert (said.limit, said.remaining, said.reset_s) == (None, None, 1.0)


def test_counts_are_read_and_without_headers_nothing_is_said() -> None:
    said = rate_limit_of(headers("100", "7", "1s"))
    assert said is not None
    assert (said.limit, said.remaining) == (100, 7)
    assert rate_limit_of({}) is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"x-ratelimit-limit-requests": "100", "x-ratelimit-remaining-requests": "7"},
         (100, 7, None, None)),
        ({"x-ratelimit-limit-hour": "1000", "x-ratelimit-remaining-hour": "7",
          "x-ratelimit-reset-hour": "6m0s"}, (1000, 7, 360.0, 3600.0)),
        ({"x-ratelimit-remaining": "3", "x-ratelimit-reset": "1700000030"},
         (None, 3, 30.0, None)),
        ({"ratelimit": '"default";r=50;t=30', "ratelimit-policy": '"default";q=100;w=60'},
         (100, 50, 30, 60.0)),
        ({"ratelimit": "limit=100, remaining=50, reset=30"}, (100, 50, 30, None)),
        ({"ratelimit-limit": "10", "ratelimit-remaining": "9", "ratelimit-reset": "1"},
         (10, 9, 1.0, None)),
    ],
)  # fmt: skip
def test_what_remains_is_read_in_every_spelling(
    said: dict[str, str], expected: tuple[object, ...]
) -> None:
    (report,) = rate_reports(said, now=1.7e9)
    assert (report.limit, report.remaining, report.reset_s, report.period_s) == expected


def test_of_tokens_nothing_is_said() -> None:
    assert rate_reports({"x-ratelimit-remaining-tokens": "7"}, now=0) == []
