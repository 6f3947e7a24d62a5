"""What headers say of how long the server was at it; and that nonsense says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async._sansio.processing import processing_s

OPENAI, ENVOY = "openai-processing-ms", "x-envoy-upstream-service-time"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({OPENAI: "461"}, 0.461),
        ({OPENAI: "0"}, 0.0),
        ({OPENAI: "12.5"}, 0.0125),
        ({ENVOY: "2000"}, 2.0),
        ({OPENAI: "461", ENVOY: "464"}, 0.461),
        ({OPENAI: "999", ENVOY: "464"}, 0.464),
        ({OPENAI: "-1", ENVOY: "464"}, 0.464),
        *(
            ({OPENAI: nonsense}, None)
            for nonsense in ("", "-1", "1e3", "nan", "inf", "4, 4", "4 ms", "٤", "1" * 10, " 4")
        ),
        ({"server-timing": "total;dur=123.4"}, None),
    ],
)
def test_the_least_that_is_stated(headers: dict[str, str], seconds: float | None) -> None:
    assert processing_s(headers) == seconds


@given(st.dictionaries(st.sampled_from([OPENAI, ENVOY]), st.text()))
def test_whatever_it_says_is_none_or_a_time(headers: dict[str, str]) -> None:
    found = processing_s(headers)
    assert found is None or 0 <= found < 1e6
