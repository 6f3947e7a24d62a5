"""A bad day that can be had again: some answers spoilt by chance, and each of them told."""

from __future__ import annotations

import json
import re
from typing import Any

import anyio
import pytest

from fluence_async import FluenceError, FluenceSession, RetryPolicy, Timeout
from fluence_async.server.chat import parse
from fluence_async.server.responders.chaos import _ANY, _STREAMED
from fluence_async.testing import Chaos, FluenceServer, Rules, Turn
from tests.programs.raw_http import HELLO

pytestmark = pytest.mark.anyio


def turn(stream: bool) -> Turn:
    return Turn(parse(json.dumps({**HELLO, "stream": stream}).encode()), {})


async def day(seed: int, rate: float, count: int = 300, stream: bool = True) -> list[str]:
    told: list[str] = []
    chaos = Chaos(Rules(), seed=seed, rate=rate, tell=told.append)
    for _ in range(count):
        await chaos.respond(turn(stream))
    return [re.split(r"  +", line.strip())[1] for line in told]


async def test_a_bad_day_can_be_had_again() -> None:
    first, again, other = [await day(seed, 0.3) for seed in (7, 7, 8)]
    assert first == again != other
    spoilt = sum(fate != "as it should be" for fate in first)
    assert 60 <= spoilt <= 120


async def test_the_rate_may_be_none_or_all() -> None:
    assert set(await day(1, 0.0)) == {"as it should be"}
    assert "as it should be" not in await day(1, 1.0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        Chaos(Rules(), rate=30)


async def test_every_fault_comes_and_those_of_streams_to_streams_only() -> None:
    anywhere = {name for name, _ in _ANY}
    assert set(await day(1, 1.0)) == anywhere | {name for name, _ in _STREAMED}
    assert set(await day(1, 1.0, stream=False)) == anywhere


async def test_a_request_is_told_in_a_line() -> None:
    told: list[str] = []
    await Chaos(Rules(), rate=0, tell=told.append).respond(turn(stream=False))
    assert told == ["    1  as it should be                 'Hello, how are you?'"]


@pytest.mark.parametrize("stream", [True, False])
async def test_a_program_meets_answers_and_the_errors_it_knows_and_nothing_else(
    stream: bool,
) -> None:
    outcomes: dict[str, int] = {}
    bounds = Timeout(total=5, first_byte=0.5, idle=0.2, progress=0.4)
    async with (
        FluenceServer(responder=Chaos(Rules(), seed=3, rate=0.8), limits=None) as server,
        FluenceSession(
            api_key=server.api_key,
            base_url=server.base_url,
            limiter=None,
            timeout=bounds,
            retry=RetryPolicy(max_retries=1, base_s=0.001, max_retry_after_s=0),
        ) as fluence,
    ):

        async def call() -> None:
            ask: dict[str, Any] = {"model": "fluence-chat", "messages": "Hello, how are you?"}
            try:
                if stream:
                    async with fluence.chat.completions.stream(**ask) as answer:
                        text = await answer.get_final_text()
                else:
                    text = (await fluence.chat.completions.create(**ask)).text
            except FluenceError as error:
                outcome = type(error).__name__
            else:
                assert text  # a bit of it may be another: nothing on this wire would tell
                outcome = "answered"
            outcomes[outcome] = outcomes.get(outcome, 0) + 1

        async with anyio.create_task_group() as tasks:
            for _ in range(80):
                tasks.start_soon(call)
        await server.wait_until_idle(5, connections=80)
    assert sum(outcomes.values()) == 80
    assert len(outcomes) >= 3
    assert outcomes["answered"] >= 5
