"""What a call costs of each limit, and what it came to."""

from __future__ import annotations

import pytest

from fluence_async._sansio.rate_limit import RateLimit, read_limits
from fluence_async._sansio.tariff import ONE_REQUEST, Tariff, came_to

LARGE = RateLimit("20/minute for large").counted_as
LARGE_TOKENS = RateLimit("9 tokens/minute for large").counted_as


def tariff(*limits: str) -> Tariff:
    return Tariff(read_limits(["100/minute", *limits]))


def test_where_only_requests_are_counted_a_call_is_one() -> None:
    plain = tariff("1000/hour")
    assert plain.simple
    assert plain.of(None, None) == ONE_REQUEST
    assert plain.of(None, "large") == ONE_REQUEST
    assert not plain.counts("tokens", "large")


@pytest.mark.parametrize("limit", ["9 tokens/minute", "8 concurrent", "20/minute for large"])
def test_where_more_is_counted_a_call_is_not_simple(limit: str) -> None:
    assert not tariff(limit).simple


def test_a_call_of_a_model_counts_in_both() -> None:
    both = tariff("20/minute for large")
    assert both.of(None, "large") == {"requests": 1, LARGE: 1}
    assert both.of(None, "small") == both.of(None, None) == {"requests": 1}
    assert both.of({"requests": 3}, "large") == {"requests": 3, LARGE: 3}


def test_every_call_is_one_at_once_wherever_that_is_counted() -> None:
    assert tariff("8 concurrent").of(None, None) == {"requests": 1, "concurrent": 1}
    assert tariff("8 concurrent for large").of(None, "small") == {"requests": 1}
    of_large = tariff("8 concurrent for large").of(None, "large")
    assert sorted(of_large.values()) == [1, 1]
    assert "concurrent" not in of_large


def test_tokens_cost_what_the_call_says() -> None:
    both = tariff("90 tokens/minute", "9 tokens/minute for large")
    assert both.of({"tokens": 7}, "large") == {"requests": 1, "tokens": 7, LARGE_TOKENS: 7}
    assert both.of({"tokens": 7}, "small") == {"requests": 1, "tokens": 7}
    assert both.of(None, "large") == {"requests": 1}
    assert both.counts("tokens", "small")


def test_tokens_that_only_another_model_counts_cost_nothing() -> None:
    large = tariff("9 tokens/minute for large")
    assert large.of({"tokens": 7}, "small") == {"requests": 1}
    assert not large.counts("tokens", "small")
    assert large.counts("tokens", "large")


def test_a_cost_that_nobody_counts_is_refused_with_what_is_counted() -> None:
    with pytest.raises(ValueError, match=r"'elephants'.*\['requests', 'tokens'\]"):
        tariff("9 tokens/minute for large").of({"elephants": 1}, None)


def test_more_limits_count_more() -> None:
    more = tariff().and_these([RateLimit("20/minute for large")])
    assert not more.simple
    assert more.of(None, "large") == {"requests": 1, LARGE: 1}


def test_what_a_call_came_to_holds_for_its_model_too() -> None:
    taken = {"requests": 1, "tokens": 7, LARGE_TOKENS: 7}
    assert came_to(taken, {"tokens": 9}) == {"tokens": 9, LARGE_TOKENS: 9}
    assert came_to(taken, {}) == {}
    assert came_to({"requests": 1}, {"tokens": 9}) == {"tokens": 9}
