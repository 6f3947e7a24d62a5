"""What users write as a limit, and the name that a key's limiter goes by."""

from __future__ import annotations

import math
import pickle
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async._sansio.rate_limit import (
    DOCUMENTED_LIMITS,
    RateLimit,
    limiter_name,
    read_limits,
)


@pytest.mark.parametrize(
    ("text", "limit", "period_s", "dimension"),
    [
        ("100/minute", 100, 60, "requests"),
        ("1000/hour", 1000, 3600, "requests"),
        ("5/second", 5, 1, "requests"),
        ("7/day", 7, 86400, "requests"),
        ("5/30s", 5, 30, "requests"),
        ("5/0.25s", 5, 0.25, "requests"),
        ("5/15m", 5, 900, "requests"),
        ("5/6h", 5, 21600, "requests"),
        ("5/2d", 5, 172800, "requests"),
        ("  5 / minute ", 5, 60, "requests"),
        ("90000 tokens/minute", 90000, 60, "tokens"),
        ("90000 tokens_in / 30s", 90000, 30, "tokens_in"),
        ("8 concurrent", 8, 0, "concurrent"),
        (" 8 concurrent\n", 8, 0, "concurrent"),
    ],
)
def test_a_text_is_read(text: str, limit: int, period_s: float, dimension: str) -> None:
    rate = RateLimit(text)
    assert rate == RateLimit(limit, period_s, dimension)
    assert (rate.limit, rate.period_s, rate.dimension) == (limit, period_s, dimension)
    assert isinstance(rate.limit, int)
    assert isinstance(rate.period_s, float)


@pytest.mark.parametrize(
    "text",
    ["", "100", "100/", "/minute", "100/fortnight", "100/min ute", "-1/minute", "1.5/minute",
     "100/minute/hour", "100 /", "9" * 16 + "/minute", "١/minute", "100/-1s", "100/1e3s",
     "100 Tokens/minute", "100\n/minute", "nan/minute", "8concurrent", "8 concurrent/", "8 at once",
     "5/minute for", "5/minute for ", "5/minute  for x", "5/minutefor x", "5 for x"],
)  # fmt: skip
def test_another_text_is_refused_with_its_name_and_the_accepted_forms(text: str) -> None:
    with pytest.raises(ValueError, match="must be like '100/minute'") as caught:
        RateLimit(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 60.0), "0"),
        (("0/minute",), "0"),
        ((-1, 60.0), "-1"),
        ((True, 60.0), "True"),
        ((1.5, 60.0), "1.5"),
        ((50,), "write '50/minute'"),
        ((50, 0.0, "tokens"), "write '50 tokens/minute'"),
        ((1, 0.0001), "0.0001 s"),
        ((1, -1.0), "-1.0 s"),
        ((1, math.nan), "nan s"),
        ((1, math.inf), "inf s"),
        (("1/367d",), "31708800.0 s"),
        ((1, 60.0, "Tokens"), "'Tokens'"),
        ((1, 60.0, ""), "''"),
        ((8, 60.0, "concurrent"), "'8 concurrent'"),
        (("8 concurrent/minute",), "'8 concurrent'"),
        (("8 concurrent", 60.0), "'8 concurrent'"),
        ((1, 60.0, "requests", ""), "''"),
        ((1, 60.0, "requests", " a"), "' a'"),
        (("1/minute for a ",), "'a '"),
        (("1/minute for a", 0.0, "requests", "b"), "'b'"),
        (("1/minute", 60.0), "'1/minute'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_value(arguments: tuple, named: str) -> None:
    with pytest.raises(ValueError, match="rate limit") as caught:
        RateLimit(*arguments)
    assert named in str(caught.value)


_models = st.none() | st.text(min_size=1).filter(lambda name: name == name.strip())


@given(
    st.integers(1, 10**15 - 1),
    st.floats(0.001, 366 * 86400) | st.sampled_from([1, 60, 3600, 86400, 30, 7200]),
    st.sampled_from(["requests", "tokens", "tokens_in", "concurrent"]),
    _models | st.sampled_from(["a for b", "8 concurrent", "5/minute for x", "a\nb"]),
)
def test_text_and_repr_say_all_of_it(
    limit: int, period_s: float, dimension: str, model: str | None
) -> None:
    if dimension == "concurrent":
        period_s = 0
    rate = RateLimit(limit, period_s, dimension, model)
    assert RateLimit(str(rate)) == rate
    assert eval(repr(rate)) == rate
    assert rate.period_s == pytest.approx(period_s, abs=1e-9)


def test_a_limit_for_one_model_says_which() -> None:
    rate = RateLimit("20/minute", model="fluence-large")
    assert str(rate) == "20/minute for fluence-large"
    assert rate == RateLimit("20/minute for fluence-large")
    assert rate != RateLimit("20/minute")
    assert str(RateLimit("2 concurrent for a b")) == "2 concurrent for a b"
    assert RateLimit("9 tokens/minute for x").model == "x"


def test_stores_count_a_model_under_a_short_and_simple_name() -> None:
    assert RateLimit("9 tokens/minute").counted_as == "tokens"
    names = {
        RateLimit(9, 60, dimension, model).counted_as
        for dimension in ("requests", "tokens")
        for model in ("a", "b", "|tokens=9", "a" * 10_000, "\udc80", "%d+")
    }
    assert len(names) == 12
    assert all(re.fullmatch("(requests|tokens):[0-9a-f]{16}", name) for name in names)
    # in files and servers that other versions share
    assert RateLimit("9/minute for fluence-large").counted_as == "requests:f5c464126087e38d"


def test_the_text_is_as_short_as_it_is_written() -> None:
    assert [str(RateLimit(text)) for text in DOCUMENTED_LIMITS] == list(DOCUMENTED_LIMITS)
    assert str(RateLimit("1/60s")) == "1/minute"
    assert str(RateLimit("1/2h")) == "1/7200s"
    assert repr(RateLimit("9 tokens/minute")) == "RateLimit('9 tokens/minute')"


def test_a_text_may_have_its_dimension_beside_it() -> None:
    assert RateLimit("9/minute", dimension="tokens") == RateLimit("9 tokens/minute")


def test_it_is_a_value() -> None:
    rate = RateLimit("100/minute")
    assert len({rate, RateLimit(100, 60)}) == 1
    assert pickle.loads(pickle.dumps(rate)) == rate
    assert msgspec.json.decode(msgspec.json.encode(rate), type=RateLimit) == rate
    with pytest.raises(AttributeError):
        rate.limit = 5  # type: ignore[misc]


def test_limits_are_one_or_several_texts_or_values() -> None:
    minute, hour = RateLimit("100/minute"), RateLimit("1000/hour")
    assert read_limits(DOCUMENTED_LIMITS) == (minute, hour)
    assert read_limits("100/minute") == (minute,)
    assert read_limits(minute) == (minute,)
    assert read_limits(iter([minute, "1000/hour"])) == (minute, hour)


@pytest.mark.parametrize(
    "limits", [(), ("90000 tokens/minute",), ("8 concurrent",), ("5/minute for a",)]
)
def test_limits_that_count_no_requests_are_refused(limits: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="must count requests"):
        read_limits(limits)


def test_a_name_differs_with_key_and_origin_and_shows_neither() -> None:
    names = {
        limiter_name(key, origin)
        for key in ("sk-a", "sk-b", "", "\udc80", "x" * 500)
        for origin in ("https://a:443", "https://b:443")
    }
    assert len(names) == 10
    assert all(len(name) == 32 and name.isalnum() and "sk" not in name for name in names)


def test_a_name_is_the_same_in_every_process() -> None:
    code = "from fluence_async._sansio.rate_limit import limiter_name as n; print(n('k', 'o'))"
    for seed in ("1", "2"):
        other = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        assert other.stdout.strip() == limiter_name("k", "o")


def test_a_name_stays_the_same_in_every_version() -> None:
    assert limiter_name("sk-1", "https://api.example.com:443") == "83c86db9250bfe708533830deb844152"
