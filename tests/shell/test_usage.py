"""What sessions count, however calls end, and what their budgets let through."""

from __future__ import annotations

import gc
import logging
import math
import random
from contextlib import nullcontext, suppress
from typing import Any

import anyio
import msgspec
import pytest

from fluence_async import (
    APIConnectionError,
    APIStatusError,
    Budget,
    BudgetExceededError,
    ChatStream,
    FluenceError,
    FluenceSession,
    InternalServerError,
    Meta,
    Price,
    RetryPolicy,
    StreamInterruptedError,
    Timeout,
    UsageSnapshot,
    UsageTotals,
    tool,
)
from fluence_async.cache import MemoryCache
from fluence_async.hooks import (
    BudgetReached,
    CallFailed,
    CallFinished,
    CallStarted,
    Fact,
    RetryScheduled,
)
from fluence_async.transports._base import BodyBroken, ConnectFailed
from tests.shell.scripted import DONE, FINISH, STALL, USAGE, Answer, ScriptedTransport, event, text
from tests.shell.test_exchange import BODY, GOOD, answer
from tests.virtual import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio

HI: dict[str, Any] = {"model": "m", "messages": "a" * 384}  # 100 tokens, as they are estimated
PRICES = {"m": Price(prompt=1_000_000, completion=2_000_000)}
STREAM = Answer(text("Once "), 0.01, text("upon"), FINISH, USAGE, DONE)
UNCOUNTED = BODY.replace(b"usage", b"other").replace(b"Hi", b"H" * 20)
BAD = answer(b'{"error": {"message": "no"}}', status=400)
DOWN = answer(b"", status=503)


def session(transport: ScriptedTransport, **options: Any) -> FluenceSession:
    return FluenceSession(
        **{
            "api_key": "k",
            "limiter": None,
            "max_retries": 0,
            "transport": lambda: transport,
            **options,
        }
    )


def total(fluence: FluenceSession) -> dict[str, Any]:
    """What is counted, without the zeros."""
    counts = msgspec.structs.asdict(fluence.usage.snapshot().total)
    return {name: value for name, value in counts.items() if value}


def left(fluence: FluenceSession) -> list[tuple[float, float]]:
    """What is spent and reserved of each budget."""
    return [(state.spent, state.reserved) for state in fluence.usage.snapshot().budgets]


async def asked(fluence: FluenceSession, **options: Any) -> None:
    await fluence.chat.completions.create(**{**HI, **options})


async def tried(fluence: FluenceSession, **options: Any) -> bool:
    """Whether the budget let it through."""
    try:
        await asked(fluence, **{"max_tokens": 1, **options})
    except BudgetExceededError:
        return False
    return True


# ─── what is counted ──────────────────────────────────────────────────────────────────────


async def test_calls_are_counted_by_model_and_by_each_of_their_tags() -> None:
    async with session(ScriptedTransport(GOOD), prices=PRICES) as fluence:
        await asked(fluence, tags={"tenant": "a", "job": "x"})
        await asked(fluence, tags={"tenant": "b"})
        await asked(fluence.with_options(tags={"tenant": "a"}), model="other")
        used = fluence.usage.snapshot()
    priced = UsageTotals(calls=1, requests=1, prompt_tokens=1, completion_tokens=1, cost=3.0)
    free = UsageTotals(calls=1, requests=1, prompt_tokens=1, completion_tokens=1)
    assert used.models["other"] == free
    assert used.models["m"].calls == 2
    assert used.tags["job"] == {"x": priced}
    assert used.tags["tenant"]["b"] == priced
    assert (used.tags["tenant"]["a"].calls, used.tags["tenant"]["a"].cost) == (2, 3.0)
    assert (used.total.calls, used.total.total_tokens, used.total.cost) == (3, 6, 6.0)
    assert used.since <= used.until


async def test_a_snapshot_stays_as_it_is_and_comes_whole_out_of_json() -> None:
    async with session(ScriptedTransport(GOOD), budget="500 tokens") as fluence:
        await asked(fluence, max_tokens=1, tags={"t": "a"})
        used = fluence.usage.snapshot()
        await asked(fluence, max_tokens=1)
    assert used.total.calls == used.models["m"].calls == 1
    assert msgspec.json.decode(msgspec.json.encode(used), type=UsageSnapshot) == used


async def test_reset_counts_from_nothing_and_leaves_budgets_spent() -> None:
    async with session(ScriptedTransport(GOOD), budget="500 tokens") as fluence:
        await asked(fluence, max_tokens=1, tags={"t": "a"})
        until_now = fluence.usage.reset()
        assert (until_now.total.calls, until_now.tags["t"]["a"].calls) == (1, 1)
        fresh = fluence.usage.snapshot()
        assert (fresh.total, fresh.models, fresh.tags) == (UsageTotals(), {}, {})
        assert left(fluence) == [(2, 0)]


async def test_retries_and_failures_are_counted() -> None:
    transport = ScriptedTransport(DOWN, GOOD, BAD)
    retry = RetryPolicy(max_retries=1, base_s=0.01)
    async with session(transport, retry=retry, max_retries=None) as fluence:
        await asked(fluence)
        with pytest.raises(APIStatusError):
            await asked(fluence)
        assert total(fluence) == {
            "calls": 2,
            "failed": 1,
            "requests": 3,
            "retries": 1,
            "failed_attempts": 2,
            "prompt_tokens": 1,
            "completion_tokens": 1,
        }


async def test_what_a_server_does_not_count_is_estimated_and_flagged() -> None:
    async with session(ScriptedTransport(answer(UNCOUNTED))) as fluence:
        await asked(fluence)
        assert total(fluence) == {
            "calls": 1,
            "requests": 1,
            "prompt_tokens": 100,
            "completion_tokens": 5,
            "estimated_tokens": 105,
        }


@pytest.mark.parametrize(
    ("steps", "counted"),
    [
        ([text("Once"), FINISH, USAGE, DONE], (3, 2, 0, 0)),
        ([text("Once "), text("upon"), FINISH, DONE], (100, 3, 103, 0)),
        ([text("Once "), 0.1, BodyBroken("reset")], (100, 2, 102, 1)),
        ([text("Once "), 0.1, b"data: {\n\n"], (100, 2, 102, 1)),
        ([text("Once "), USAGE, 0.1, BodyBroken("reset")], (3, 2, 0, 1)),
    ],
    ids=["whole", "uncounted", "cut", "bad chunk", "cut after its usage"],
)
async def test_a_stream_is_counted_however_it_ends(
    steps: list[Any], counted: tuple[int, ...]
) -> None:
    async with session(ScriptedTransport(Answer(*steps))) as fluence:
        try:
            async with fluence.chat.completions.stream(**HI) as stream:
                await stream.get_final_text()
        except FluenceError:
            pass
        found = fluence.usage.snapshot().total
    assert (found.calls, found.requests) == (1, 1)
    assert counted == (
        found.prompt_tokens,
        found.completion_tokens,
        found.estimated_tokens,
        found.failed,
    )


@pytest.mark.parametrize("how", ["left", "cancelled", "dropped"])
async def test_a_stream_that_is_not_read_to_its_end_is_estimated(how: str) -> None:
    stalled = Answer(text("Once "), text("upon"), STALL)
    async with session(ScriptedTransport(stalled), budget="9k tokens") as fluence:
        with anyio.move_on_after(1):
            if how == "dropped":
                stream = await fluence.chat.completions.create(**HI, stream=True)
                with pytest.warns(ResourceWarning):
                    del stream
                    gc.collect()
            else:
                async with fluence.chat.completions.stream(**HI) as stream:
                    await stream.__anext__()
                    if how == "cancelled":
                        await stream.get_final_text()
        found = total(fluence)
        assert (found["calls"], found["estimated_tokens"]) == (
            1,
            103 if how == "cancelled" else 102,
        )
        assert left(fluence) == [(found["estimated_tokens"], 0)]


@pytest.mark.parametrize("how", ["in a read", "between reads", "then closed", "then dropped"])
async def test_a_stream_whose_reader_is_cancelled_has_failed(how: str) -> None:
    told: list[Fact] = []
    stalled = Answer(text("Once "), text("upon"), STALL)
    async with session(ScriptedTransport(stalled), hooks=[told.append]) as fluence:

        async def read() -> None:
            if how.startswith("then"):
                stream = await fluence.chat.completions.create(**HI, stream=True)
                try:
                    await stream.get_final_text()
                finally:
                    if how == "then closed":
                        await stream.aclose()
            async with fluence.chat.completions.stream(**HI) as stream:
                await anext(stream)
                if how == "between reads":
                    await anyio.sleep_forever()
                await stream.get_final_text()

        warned = pytest.warns(ResourceWarning) if how == "then dropped" else nullcontext()
        with warned:
            async with anyio.create_task_group() as group:
                group.start_soon(read)
                await anyio.sleep(1)
                group.cancel_scope.cancel()
            del group
            gc.collect()
        found = fluence.usage.snapshot().total
    assert (found.calls, found.failed) == (1, 1)
    assert found.estimated_tokens == (102 if how == "between reads" else 103)
    (ended,) = (fact for fact in told if isinstance(fact, CallFinished | CallFailed))
    assert isinstance(ended, CallFailed)
    assert ended.error in ("CancelledError", "Cancelled")


@pytest.mark.parametrize("how", ["closed", "its own error", "read on", "complete"])
async def test_a_stream_that_its_reader_leaves_has_not_failed(how: str) -> None:
    told: list[Fact] = []
    slow = Answer(text("Once "), 2, text("upon"), 2, FINISH, USAGE, DONE)
    async with session(ScriptedTransport(slow), hooks=[told.append]) as fluence:
        with suppress(ZeroDivisionError), anyio.CancelScope() as scope:
            async with fluence.chat.completions.stream(**HI) as stream:
                await anext(stream)
                if how == "its own error":
                    raise ZeroDivisionError
                if how == "read on":
                    with anyio.move_on_after(1):
                        await anext(stream)
                    await anext(stream)
                if how == "complete":
                    await stream.get_final_text()
                    scope.cancel()
                    await anyio.sleep(1)
        found = fluence.usage.snapshot().total
    assert (found.calls, found.failed) == (1, 0)
    (ended,) = (fact for fact in told if isinstance(fact, CallFinished | CallFailed))
    assert isinstance(ended, CallFinished)
    assert ended.complete is (how == "complete")


UNREACHABLE = answer(BODY)
UNREACHABLE.fails = ConnectFailed("nobody there")
NEVER_SENT, REFUSED = 0, 0
LOST = 160
"""What is set aside for 100 tokens of prompt and `max_tokens=60`."""


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("failing", "spent"),
    [
        (UNREACHABLE, NEVER_SENT),
        (BAD, REFUSED),
        (DOWN, REFUSED),
        (Answer(0.5, b"{}", STALL, status=500), REFUSED),
        (answer(BODY, wait=math.inf), LOST),
        (Answer(STALL), LOST),
        (Answer(0.5, BodyBroken("reset")), LOST),
        (answer(b"{"), LOST),
    ],
)
@pytest.mark.parametrize("cancelled", [False, True])
async def test_a_call_without_an_answer_costs_nothing_unless_it_may_have_been_answered(
    failing: Answer, spent: int, stream: bool, cancelled: bool
) -> None:
    timeout = None if cancelled else Timeout(first_byte=2, idle=2, progress=2, total=3)
    async with session(ScriptedTransport(failing), budget="9k tokens") as fluence:
        with anyio.move_on_after(1 if cancelled else 10):
            with pytest.raises(FluenceError):
                await asked(fluence, stream=stream, max_tokens=60, timeout=timeout)
        found = fluence.usage.snapshot().total
        assert (found.calls, found.failed, found.requests, found.total_tokens) == (1, 1, 1, 0)
        assert left(fluence) == [(spent, 0)]


async def test_answers_that_are_lost_fill_a_budget() -> None:
    transport = ScriptedTransport(Answer(0.1, BodyBroken("reset")))
    async with session(
        transport, budget=["500 tokens", Budget(170, "tokens", soft=True)]
    ) as fluence:
        for _ in range(20):
            with pytest.raises((APIConnectionError, BudgetExceededError)):
                await asked(fluence, max_tokens=60)
        assert len(transport.requests) == 3
        assert left(fluence) == [(480, 0), (480, 0)]


async def test_each_attempt_that_is_lost_is_spent_and_no_retry_passes_the_budget() -> None:
    lost = Answer(0.1, BodyBroken("reset"))
    retry = RetryPolicy(max_retries=5, base_s=0.1)
    transport = ScriptedTransport(lost, lost, GOOD, DOWN, lost)
    told: list[Fact] = []
    options: dict[str, Any] = {"retry": retry, "max_retries": None, "hooks": [told.append]}
    async with session(transport, budget="650 tokens", **options) as fluence:
        await asked(fluence, max_tokens=60)
        assert left(fluence) == [(2 * LOST + 2, 0)]
        with pytest.raises(APIConnectionError) as caught:
            await asked(fluence, max_tokens=60)
        assert left(fluence) == [(4 * LOST + 2, 0)]
    assert caught.value.meta is not None
    assert [each.error for each in caught.value.meta.failures] == [
        "InternalServerError",
        "APIConnectionError",
        "APIConnectionError",
    ]
    assert len(transport.requests) == 6
    assert sum(isinstance(fact, RetryScheduled) for fact in told) == 4


async def test_cached_and_coalesced_answers_are_counted_apart() -> None:
    transport = ScriptedTransport(answer(BODY, wait=1))
    async with session(transport, cache="memory", budget="2k tokens", prices=PRICES) as fluence:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(asked, fluence)
        await asked(fluence)
        await (await fluence.chat.completions.create(**HI, stream=True)).get_final_text()
        assert total(fluence) == {
            "calls": 52,
            "cached": 2,
            "coalesced": 49,
            "requests": 1,
            "prompt_tokens": 1,
            "completion_tokens": 1,
            "saved_tokens": 102,
            "cost": 3.0,
        }
        assert left(fluence) == [(2, 0)]


async def test_every_turn_of_a_tool_run_and_a_typed_answer_is_counted() -> None:
    @tool
    async def get_weather(city: str) -> str:
        """Get the weather in a city."""
        return f"{city}: fine"

    call = {
        "index": 0,
        "id": "1",
        "function": {"name": "get_weather", "arguments": '{"city": "A"}'},
    }
    delta = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    transport = ScriptedTransport(Answer(event(choices=[delta]), USAGE, DONE), STREAM, GOOD)
    async with session(transport) as fluence:
        run = await fluence.chat.completions.run_tools(**HI, tools=[get_weather])
        typed = await fluence.chat.completions.parse(**HI, response_type=list[int])
        found = fluence.usage.snapshot().total
    assert run.completion.text == "Once upon"
    assert typed.completion.usage is not None
    assert (found.calls, found.requests, found.total_tokens) == (3, 3, 12)


async def test_tags_beyond_all_counting_are_counted_together() -> None:
    async with session(ScriptedTransport(GOOD)) as fluence:
        for number in range(10_002):
            fluence.usage.count("m", Meta(tags={"user": str(number)}), None)
        values = fluence.usage.snapshot().tags["user"]
    assert len(values) == 10_001
    assert values["(others)"].calls == 2


async def test_a_tag_is_text() -> None:
    async with session(ScriptedTransport(GOOD)) as fluence:
        with pytest.raises(TypeError, match="tenant"):
            await asked(fluence, tags={"tenant": 7})
        with pytest.raises(ValueError, match="surrogate"):
            await asked(fluence, tags={"tenant": "\ud800"})


# ─── budgets ──────────────────────────────────────────────────────────────────────────────


async def test_a_call_that_no_longer_fits_is_refused_before_it_is_sent() -> None:
    told: list[Fact] = []
    transport = ScriptedTransport(GOOD)
    async with session(transport, budget="250 tokens/day", hooks=[told.append]) as fluence:
        with pytest.raises(
            BudgetExceededError, match=r"250 tokens/day.*lower max_tokens"
        ) as caught:
            await asked(fluence, max_tokens=151)
        assert transport.requests == []
        assert left(fluence) == [(0, 0)]
        await asked(fluence, max_tokens=150)
    error = caught.value
    assert (error.amount, error.limit, error.spent, error.reserved) == (251, 250, 0, 0)
    assert error.meta is not None
    assert error.meta.attempts == 0
    assert [type(fact) for fact in told[:2]] == [CallStarted, CallFailed]
    assert isinstance(told[1], CallFailed)
    assert told[1].error == "BudgetExceededError"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("budget", ["30k tokens", "$300"])
async def test_a_thousand_calls_at_once_never_pass_a_budget(budget: str, stream: bool) -> None:
    """Each reserves 130 tokens, and costs 5, 130 or nothing; some are cancelled, some fail."""
    dice = random.Random(7)
    costly = event(choices=[], usage={"prompt_tokens": 100, "completion_tokens": 30})
    kinds = [
        lambda: Answer(text("a"), dice.random(), FINISH, costly, DONE, wait=dice.random()),
        lambda: Answer(text("a"), dice.random(), FINISH, USAGE, DONE, wait=dice.random()),
        lambda: Answer(text("a"), dice.random(), BodyBroken("reset"), wait=dice.random()),
        lambda: answer(b"{}", status=500, wait=dice.random()),
    ]
    whole = answer(
        BODY.replace(b'"completion_tokens": 1', b'"completion_tokens": 30').replace(
            b'"prompt_tokens": 1', b'"prompt_tokens": 100'
        ),
        wait=0.5,
    )
    answers = [dice.choice(kinds)() if stream else whole for _ in range(1_000)]
    transport = ScriptedTransport(*answers)
    prices = {"m": Price(prompt=10_000, completion=10_000)}  # a cent a token
    refused, lost, most = 0, 0, 0.0

    async with session(transport, budget=budget, prices=prices) as fluence:

        async def one() -> None:
            nonlocal refused, lost, most
            got: Any = None
            await anyio.sleep(dice.random())
            with anyio.move_on_after(dice.choice([0.5, math.inf, math.inf])) as scope:
                try:
                    got = await fluence.chat.completions.create(**HI, max_tokens=30, stream=stream)
                    if stream:
                        await got.get_final_text()
                except BudgetExceededError:
                    refused += 1
                except FluenceError:
                    pass
                finally:
                    if isinstance(got, ChatStream):
                        await got.aclose()
            lost += scope.cancelled_caught and got is None
            ((spent, reserved),) = left(fluence)
            most = max(most, spent + reserved)

        async with anyio.create_task_group() as group:
            for _ in range(1_000):
                group.start_soon(one)
        (state,) = fluence.usage.snapshot().budgets
        assert refused > 0
        assert most <= state.limit + 1e-6
        assert state.reserved == pytest.approx(0, abs=1e-6)
        assert len(transport.requests) == 1_000 - refused
        found = fluence.usage.snapshot().total
        assert lost > 0
        assert state.spent == pytest.approx(
            found.total_tokens + lost * 130 if state.unit == "tokens" else found.cost + lost * 1.30
        )


async def test_calls_that_cost_more_than_they_reserved_pass_a_budget_by_no_more_than_that() -> None:
    transport = ScriptedTransport(
        answer(BODY.replace(b'"prompt_tokens": 1', b'"prompt_tokens": 150'), wait=1)
    )
    async with session(transport, budget="10k tokens") as fluence:
        async with anyio.create_task_group() as group:
            for _ in range(1_000):
                group.start_soon(tried, fluence)
        ((spent, reserved),) = left(fluence)
    sent = len(transport.requests)
    assert sent == 10_000 // 101
    assert (spent, reserved) == (sent * 151, 0)
    assert spent <= 10_000 + sent * (151 - 101)


async def test_each_tenant_and_each_model_has_its_own() -> None:
    budgets = [Budget("150 tokens", tag="tenant"), Budget("150 tokens", model="large")]
    transport = ScriptedTransport(
        answer(BODY.replace(b'"prompt_tokens": 1', b'"prompt_tokens": 99'))
    )
    async with session(transport, budget=budgets) as fluence:
        one = {**HI, "max_tokens": 1}
        await asked(fluence, **one, tags={"tenant": "a"})
        with pytest.raises(BudgetExceededError, match="for tenant 'a'"):
            await asked(fluence, **one, tags={"tenant": "a"})
        await asked(fluence, **one, tags={"tenant": "b"})
        await asked(fluence, **one)
        with pytest.raises(BudgetExceededError, match="for no tenant"):
            await asked(fluence, **one)
        await asked(fluence, **{**one, "model": "large"}, tags={"tenant": "c"})
        with pytest.raises(BudgetExceededError, match="of large"):
            await asked(fluence, **{**one, "model": "large"}, tags={"tenant": "d"})
        states = {state.budget: state for state in fluence.usage.snapshot().budgets}
    assert states["150 tokens for tenant 'd'"].spent == 0
    assert states["150 tokens for tenant 'd'"].reserved == 0
    assert states["150 tokens of large"].spent == 100


async def test_a_soft_budget_is_told_once_in_each_window(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    told: list[Fact] = []
    soft = Budget("5 tokens/minute", soft=True)
    async with session(ScriptedTransport(GOOD), budget=soft, hooks=[told.append]) as fluence:
        monkeypatch.setattr(fluence.usage, "_clock", lambda: now)
        for _ in range(6):
            await asked(fluence)
        now += 60
        for _ in range(2):
            await asked(fluence)
        assert sum(isinstance(fact, BudgetReached) for fact in told) == 1
        await asked(fluence)
    reached = [fact for fact in told if isinstance(fact, BudgetReached)]
    calls = [fact.call_id for fact in told if isinstance(fact, CallStarted)]
    assert [(fact.call_id, fact.spent, fact.limit) for fact in reached] == [
        (calls[2], 6, 5),
        (calls[8], 6, 5),
    ]
    assert reached[0].budget == "5 tokens/minute"


async def test_a_budget_begins_anew_with_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1_000_000.0
    async with session(ScriptedTransport(GOOD), budget="110 tokens/minute") as fluence:
        monkeypatch.setattr(fluence.usage, "_clock", lambda: now)
        for _ in range(3):
            for _ in range(5):
                await asked(fluence, max_tokens=1)
            with pytest.raises(BudgetExceededError) as caught:
                await asked(fluence, max_tokens=1)
            assert caught.value.retry_at is not None
            now = caught.value.retry_at


async def test_money_needs_a_price() -> None:
    transport = ScriptedTransport(GOOD)
    with pytest.raises(ValueError, match="no model has a price"):
        session(transport, budget="$5/day")
    prices = {"other": Price(prompt=1, completion=1)}
    async with session(transport, budget="$5/day", prices=prices) as fluence:
        with pytest.raises(ValueError, match=r"prices=\{'m': Price"):
            await asked(fluence)
        assert transport.requests == []


class SlowStore(MemoryCache):
    """So that equal calls gather behind the one that looks."""

    async def get(self, key: str) -> bytes | None:
        await anyio.sleep(1)
        return await super().get(key)


async def test_a_refusal_is_not_shared_with_equal_calls_of_another_tenant() -> None:
    budget = Budget("120 tokens", tag="tenant")
    through: dict[str, bool] = {}
    async with session(ScriptedTransport(GOOD), cache=SlowStore(), budget=budget) as fluence:
        fluence._cache._at_once = False  # type: ignore[union-attr]

        async def one(tenant: str) -> None:
            through[tenant] = await tried(fluence, tags={"tenant": tenant})

        for number in range(10):
            assert await tried(fluence, messages=str(number), tags={"tenant": "poor"})
        async with anyio.create_task_group() as group:
            group.start_soon(one, "poor")
            await anyio.sleep(0.1)
            group.start_soon(one, "rich")
            group.start_soon(one, "other")
        assert sorted(left(fluence)) == [(2, 0), (20, 0)]
    assert through == {"poor": False, "rich": True, "other": True}


async def test_what_waits_for_a_retry_keeps_its_reservation_and_gives_it_back() -> None:
    retry = RetryPolicy(max_retries=1, base_s=100, cap_s=100)
    transport = ScriptedTransport(DOWN, answer(BODY, status=500))
    async with session(transport, budget="200 tokens", retry=retry, max_retries=None) as fluence:

        async def failing() -> None:
            with pytest.raises(InternalServerError):
                await asked(fluence, max_tokens=50)

        async with anyio.create_task_group() as group:
            group.start_soon(failing)
            await anyio.sleep(0.001)
            assert left(fluence) == [(0, 150)]
            with pytest.raises(BudgetExceededError, match="150 tokens reserved"):
                await asked(fluence, max_tokens=50)
        assert left(fluence) == [(0, 0)]


# ─── beside the calls ─────────────────────────────────────────────────────────────────────


async def test_a_call_is_finished_once_for_hooks_and_meter_alike() -> None:
    told: list[Fact] = []
    async with session(ScriptedTransport(STREAM), hooks=[told.append]) as fluence:
        async with fluence.chat.completions.stream(**HI) as stream:
            await stream.get_final_text()
            await stream.aclose()
        assert fluence.usage.snapshot().total.calls == 1
    assert sum(isinstance(fact, CallFinished) for fact in told) == 1


async def test_a_cut_stream_is_counted_once() -> None:
    cut = Answer(text("Once "), 0.01, BodyBroken("reset"))
    async with session(ScriptedTransport(cut)) as fluence:
        stream = await fluence.chat.completions.create(**HI, stream=True)
        for _ in range(3):
            with pytest.raises(StreamInterruptedError):
                await stream.get_final_text()
        await stream.aclose()
        assert fluence.usage.snapshot().total.calls == 1


async def test_nothing_is_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        async with session(ScriptedTransport(GOOD), budget="1k tokens") as fluence:
            await asked(fluence, max_tokens=1)
    assert caplog.records == []
    assert repr(fluence.usage) == "<UsageMeter: 1 calls>"
