"""Sums of usage, prices, and estimates where a server does not count."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluence_async import (
    ChatCompletion,
    Choice,
    FunctionCall,
    Message,
    Meta,
    Price,
    ToolCall,
    Usage,
    UsageTotals,
)
from fluence_async._sansio.metering import bounded, estimate, expected, read_prices, summed
from fluence_async.meta import Attempt
from fluence_async.types import CompletionTokensDetails, PromptTokensDetails

FAILURE = Attempt(error="E", message="m")
USAGE = Usage(
    prompt_tokens=100,
    completion_tokens=50,
    total_tokens=150,
    prompt_tokens_details=PromptTokensDetails(cached_tokens=40),
    completion_tokens_details=CompletionTokensDetails(reasoning_tokens=30),
)


def counted(
    meta: Meta, usage: Usage | None, *, estimated: bool = False, failed: bool = False
) -> dict[str, Any]:
    totals = UsageTotals()
    totals.count(meta, usage, 0.25, estimated=estimated, failed=failed)
    built = msgspec.structs.asdict(totals)
    return {name: value for name, value in built.items() if value}


# ─── sums ─────────────────────────────────────────────────────────────────────────────────


def test_a_call_is_counted_with_all_that_the_server_says() -> None:
    assert counted(Meta(attempts=1), USAGE) == {
        "calls": 1,
        "requests": 1,
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "cached_tokens": 40,
        "reasoning_tokens": 30,
        "cost": 0.25,
    }


def test_retries_and_failed_attempts_are_counted_apart() -> None:
    meta = Meta(attempts=3, failures=[FAILURE] * 2)
    found = counted(meta, Usage(prompt_tokens=1, completion_tokens=1))
    assert (found["requests"], found["retries"], found["failed_attempts"]) == (3, 2, 2)
    assert counted(meta, None, failed=True) == {
        "calls": 1,
        "failed": 1,
        "requests": 3,
        "retries": 2,
        "failed_attempts": 2,
    }


@pytest.mark.parametrize("how", ["cached", "coalesced"])
def test_an_answer_that_was_there_costs_nothing_and_is_counted_apart(how: str) -> None:
    meta = Meta(attempts=3, failures=[FAILURE], **{how: True})
    assert counted(meta, USAGE) == {"calls": 1, how: 1, "saved_tokens": 150}


def test_what_is_estimated_is_flagged() -> None:
    found = counted(Meta(attempts=1), USAGE, estimated=True, failed=True)
    assert (found["failed"], found["estimated_tokens"]) == (1, 150)


def test_totals_add_up_and_are_copied() -> None:
    one = UsageTotals(calls=1, prompt_tokens=2, cost=0.5)
    both = summed([one, UsageTotals(calls=2, completion_tokens=3)])
    assert both == UsageTotals(calls=3, prompt_tokens=2, completion_tokens=3, cost=0.5)
    assert both.total_tokens == 5
    assert summed([one]) is not one
    assert msgspec.json.decode(msgspec.json.encode(both), type=UsageTotals) == both


NUMBERS = st.one_of(st.integers(), st.integers(min_value=2**62))


@given(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
def test_no_count_of_a_servers_does_harm(a: int, b: int, c: int, d: int) -> None:
    usage = bounded(
        Usage(
            prompt_tokens=a,
            completion_tokens=b,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=c),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=d),
        )
    )
    found = UsageTotals()
    cost = Price(prompt=1, completion=1, cached=0).of(usage)
    found.count(Meta(attempts=1), usage, cost, estimated=False, failed=False)
    assert 0 <= found.cached_tokens <= found.prompt_tokens < 2**41
    assert 0 <= found.reasoning_tokens <= found.completion_tokens < 2**41
    assert 0 <= found.cost < 1e9


def test_an_ordinary_usage_is_taken_as_it_is() -> None:
    assert bounded(USAGE) is USAGE


# ─── prices ───────────────────────────────────────────────────────────────────────────────


def test_a_price_is_for_a_million_tokens_and_cached_ones_may_have_their_own() -> None:
    assert Price(prompt=2, completion=10).of(USAGE) == pytest.approx(700e-6)
    assert Price(prompt=2, completion=10, cached=1).of(USAGE) == pytest.approx(660e-6)
    assert Price(prompt=2, completion=10, cached=0).of(USAGE) == pytest.approx(620e-6)


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "1", None])
def test_a_price_is_a_number(value: Any) -> None:
    with pytest.raises(ValueError, match="prompt="):
        Price(prompt=value, completion=1)


def test_prices_are_by_model() -> None:
    price = Price(prompt=1, completion=1)
    assert read_prices({"m": price}) == {"m": price}
    assert read_prices(None) == {}
    with pytest.raises(TypeError, match=r"prices\['m'\]"):
        read_prices({"m": (1, 2)})  # type: ignore[dict-item]


# ─── estimates ────────────────────────────────────────────────────────────────────────────


def body(**request: Any) -> bytes:
    return msgspec.json.encode(
        {"model": "m", "messages": [{"role": "user", "content": ""}]} | request
    )


def asked(*messages: Any, **request: Any) -> int:
    sent = [{"role": "user", "content": content} for content in messages]
    return expected(body(messages=sent, **request), 1, None).prompt_tokens


def test_a_prompt_is_estimated_from_its_texts() -> None:
    assert asked("a" * 400) == 104
    assert asked("a" * 400, "b" * 400) == 208
    assert asked("語" * 400) == 304
    assert asked([{"type": "text", "text": "a" * 400}]) == 104
    assert asked(None) == 4


def test_an_image_counts_as_a_part_and_not_by_its_bytes() -> None:
    url = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10**6}}
    assert asked([{"type": "text", "text": "a" * 400}, url]) == 1_104


def test_tools_and_schemas_are_part_of_the_prompt() -> None:
    assert asked("", tools=["x" * 398]) == asked("", functions=["x" * 398]) > 100
    assert asked("", response_format={"x": "x" * 400}) > 100


@pytest.mark.parametrize("odd", [{"max_tokens": "many"}, {"messages": 7}, {"messages": [7]}])
def test_a_request_that_only_its_server_understands_is_estimated_by_its_bytes(odd: Any) -> None:
    usage = expected(body(**odd), 1, None)
    assert usage.prompt_tokens == math.ceil(len(body(**odd)) / 4)
    assert usage.completion_tokens == 1024


@pytest.mark.parametrize(
    ("request_", "choices", "so_far", "tokens"),
    [
        ({"max_tokens": 7}, 1, None, 7),
        ({"max_completion_tokens": 9}, 1, None, 9),
        ({"max_tokens": 7}, 3, None, 21),
        ({}, 1, None, 1024),
        ({}, 1, UsageTotals(), 1024),
        ({}, 1, UsageTotals(requests=9, completion_tokens=8976), 1000),
        ({}, 1, UsageTotals(requests=99, failed_attempts=90, completion_tokens=8976), 1000),
        ({}, 1, UsageTotals(requests=3, failed_attempts=9), 1024),
        ({}, -5, None, 1024),
    ],
)
def test_an_answer_is_expected_to_be_as_long_as_allowed_or_as_those_before(
    request_: Any, choices: int, so_far: UsageTotals | None, tokens: int
) -> None:
    assert expected(body(**request_), choices, so_far).completion_tokens == tokens


def test_an_answer_is_estimated_from_all_that_it_says() -> None:
    call = ToolCall(function=FunctionCall(name="n" * 8, arguments="a" * 12))
    message = Message(content="c" * 40, reasoning="r" * 20, refusal="f" * 4, tool_calls=[call])
    answer = ChatCompletion(choices=[Choice(message=message), Choice(message=message)])
    usage = estimate(body(), answer)
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 42, 46)
    assert estimate(body(), ChatCompletion()).completion_tokens == 0
