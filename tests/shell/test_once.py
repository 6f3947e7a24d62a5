"""Nothing is executed twice: by the server's own log."""

from __future__ import annotations

from collections import Counter

import anyio
import pytest

from fluence_async import APIConnectionError, BudgetExceededError, FluenceSession
from fluence_async.testing import FluenceServer, Lost

CALLS = 500  # on each backend


@pytest.mark.anyio
async def test_answers_lost_with_their_reused_connections_are_executed_once() -> None:
    async with FluenceServer(limits=None) as server:
        server.script(Lost("Hello"), repeat=True)
        async with FluenceSession(
            api_key=server.api_key, base_url=server.base_url, limiter=None
        ) as fluence:

            async def work() -> None:
                for number in range(CALLS // 20):
                    answer = await fluence.chat.completions.create(
                        model="fluence-chat", messages="hi"
                    )
                    assert answer.text == "Hello"
                    assert answer.meta.attempts == 2
                    assert answer.meta.failures[0].free or number == 0

            async with anyio.create_task_group() as tasks:
                for _ in range(20):
                    tasks.start_soon(work)
    by_key = Counter(request.headers["idempotency-key"] for request in server.requests)
    executed = Counter(r.headers["idempotency-key"] for r in server.requests if r.executed)
    assert set(by_key.values()) == {2}
    assert len(executed) == len(by_key) == CALLS
    assert set(executed.values()) == {1}


@pytest.mark.anyio
@pytest.mark.parametrize("max_retries", [0, 2])
async def test_no_more_is_executed_than_a_budget_has_room_for_though_answers_are_lost(
    max_retries: int,
) -> None:
    async with FluenceServer(limits=None) as server:
        server.script(Lost("Hello"), repeat=True)
        async with FluenceSession(
            api_key=server.api_key,
            base_url=server.base_url,
            limiter=None,
            budget="100 tokens",
            max_retries=max_retries,
        ) as fluence:
            for _ in range(20):
                with pytest.raises((APIConnectionError, BudgetExceededError)):
                    await fluence.chat.completions.create(
                        model="fluence-chat", messages="hi", max_tokens=60
                    )
            (state,) = fluence.usage.snapshot().budgets
        assert server.executions == len(server.requests) == 1
        assert (state.spent, state.reserved) == (65, 0)
