"""What a session's own calls cost of its limits: of a model's, of LLM tokens, of calls at once."""

from __future__ import annotations

import gc
import math
import secrets
from typing import Any

import anyio
import pytest

from fluence_async import (
    APIConnectionError,
    FluenceError,
    FluenceSession,
    Limiter,
    LimitWaitError,
    RetryPolicy,
    tool,
    usage,
)
from fluence_async.transports._base import BodyBroken, ConnectFailed
from tests.shell.limiting import virtual
from tests.shell.scripted import DONE, FINISH, STALL, USAGE, Answer, ScriptedTransport, event, text
from tests.shell.test_exchange import BODY, GOOD, answer
from tests.virtual import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio

HI: dict[str, Any] = {"model": "m", "messages": "a" * 384}  # 100 tokens, as they are estimated
STREAM = Answer(text("Once "), 0.01, text("upon"), FINISH, USAGE, DONE)
UNCOUNTED = BODY.replace(b"usage", b"other").replace(b"Hi", b"H" * 20)
BAD = answer(b'{"error": {"message": "no"}}', status=400)
DOWN = answer(b"", status=503)
LIMITS = ("1000/minute", "9000 tokens/minute", "2 concurrent", "3/minute for large")


def session(
    transport: ScriptedTransport, limiter: Limiter | None = None, **options: Any
) -> FluenceSession:
    return FluenceSession(
        **{
            "api_key": "k",
            "limiter": limiter or virtual(*LIMITS, unseen_s=1),
            "max_retries": 0,
            "transport": lambda: transport,
            **options,
        }
    )


def used(fluence: FluenceSession) -> dict[str, int]:
    """Units gone of each limit, by its text."""
    assert fluence.limiter is not None
    return {str(window.limit): window.used for window in fluence.limiter.snapshot().windows}


def tokens(fluence: FluenceSession) -> int:
    """Tokens gone, when nothing is under way any more."""
    found = used(fluence)
    assert found["2 concurrent"] == 0
    return found["9000 tokens/minute"]


async def asked(fluence: FluenceSession, **options: Any) -> None:
    await fluence.chat.completions.create(**{**HI, **options})


# ─── one model ────────────────────────────────────────────────────────────────────────────


async def test_a_call_of_a_model_counts_in_its_limit_and_in_everybodys() -> None:
    async with session(ScriptedTransport(GOOD)) as fluence:
        await asked(fluence)
        await asked(fluence, model="large")
        await asked(fluence, model="large", stream=False)
        found = used(fluence)
        assert (found["1000/minute"], found["3/minute for large"]) == (3, 2)
        await asked(fluence, model="large")
        with pytest.raises(LimitWaitError, match="3/minute for large"):
            await asked(fluence, model="large", timeout=5)
        await asked(fluence, timeout=5)


async def test_sessions_that_share_a_limiter_obey_each_others_limits_for_a_model() -> None:
    options: dict[str, Any] = {"limiter": "memory", "api_key": secrets.token_hex()}
    one = session(ScriptedTransport(GOOD), **options, limits=["9/hour", "3/hour for large"])
    other = session(
        ScriptedTransport(GOOD),
        **options,
        limits=["9/hour", "2/hour for large", "5/hour for small", "70 tokens/hour for large"],
    )
    async with one, other:
        assert one.limiter is other.limiter
        await asked(one, model="small")
        with pytest.raises(ValueError, match="70 tokens/hour for large"):
            await asked(one, model="large", max_tokens=1)
        assert used(one) == {
            "9/hour": 1,
            "2/hour for large": 0,
            "5/hour for small": 1,
            "70 tokens/hour for large": 0,
        }


# ─── tokens ───────────────────────────────────────────────────────────────────────────────


async def test_tokens_are_reserved_until_the_answer_says_what_they_were() -> None:
    async with session(ScriptedTransport(answer(0.5, BODY, wait=1))) as fluence:
        async with anyio.create_task_group() as group:
            group.start_soon(lambda: asked(fluence, max_tokens=23))
            for after in (0.5, 0.7):  # before the headers, and before the body's end
                await anyio.sleep(after)
                assert used(fluence)["9000 tokens/minute"] == 123
                assert used(fluence)["2 concurrent"] == 1
        assert tokens(fluence) == 2


async def test_what_no_server_counts_is_what_the_meter_estimates() -> None:
    async with session(ScriptedTransport(answer(UNCOUNTED))) as fluence:
        await asked(fluence)
        assert tokens(fluence) == fluence.usage.snapshot().total.total_tokens == 105


@pytest.mark.parametrize(
    "steps",
    [
        [text("Once"), FINISH, USAGE, DONE],
        [text("Once "), text("upon"), FINISH, DONE],
        [text("Once "), 0.1, BodyBroken("reset")],
        [text("Once "), 0.1, b"data: {\n\n"],
        [text("Once "), USAGE, 0.1, BodyBroken("reset")],
    ],
    ids=["whole", "uncounted", "cut", "bad chunk", "cut after its usage"],
)
async def test_a_stream_costs_what_the_meter_counts_however_it_ends(steps: list[Any]) -> None:
    async with session(ScriptedTransport(Answer(*steps))) as fluence:
        try:
            async with fluence.chat.completions.stream(**HI) as stream:
                await stream.get_final_text()
        except FluenceError:
            pass
        assert tokens(fluence) == fluence.usage.snapshot().total.total_tokens > 0


@pytest.mark.parametrize("how", ["left", "cancelled", "dropped"])
async def test_a_stream_that_is_not_read_to_its_end_costs_what_came(how: str) -> None:
    stalled = Answer(text("Once "), text("upon"), STALL)
    async with session(ScriptedTransport(stalled)) as fluence:
        with anyio.move_on_after(1):
            if how == "dropped":
                stream = await fluence.chat.completions.create(**HI, stream=True)
                assert used(fluence)["2 concurrent"] == 1
                with pytest.warns(ResourceWarning):
                    del stream
                    gc.collect()
            else:
                async with fluence.chat.completions.stream(**HI) as stream:
                    await stream.__anext__()
                    if how == "cancelled":
                        await stream.get_final_text()
        assert tokens(fluence) == fluence.usage.snapshot().total.total_tokens > 100


@pytest.mark.parametrize("stream", [False, True])
async def test_an_attempt_that_was_refused_costs_nothing_and_its_retry_what_it_came_to(
    *, stream: bool
) -> None:
    retry = RetryPolicy(max_retries=2, base_s=0.01)
    good = STREAM if stream else GOOD
    unreachable = answer(fails=ConnectFailed("refused"))
    transport = ScriptedTransport(DOWN, unreachable, good, BAD)
    async with session(transport, retry=retry, max_retries=None) as fluence:
        got = await fluence.chat.completions.create(**HI, stream=stream)
        if stream:
            await got.get_final_text()
        assert tokens(fluence) == (5 if stream else 2)
        assert used(fluence)["1000/minute"] == 2
        with pytest.raises(FluenceError):
            await asked(fluence, stream=stream)
        assert tokens(fluence) == (5 if stream else 2)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_was_answered_and_never_read_keeps_what_was_reserved(*, stream: bool) -> None:
    """It has cost something, and nobody knows how much."""
    broken = Answer(0.1, BodyBroken("reset")) if stream else answer(BODY[:20], BodyBroken("x"))
    for failing in (broken, Answer(STALL) if stream else answer(STALL)):
        async with session(ScriptedTransport(failing)) as fluence:
            with anyio.move_on_after(1):
                with pytest.raises(FluenceError):
                    await asked(fluence, stream=stream, max_tokens=23)
            assert tokens(fluence) == 123


async def test_what_was_sent_and_never_answered_stays_for_as_long_as_it_may_arrive() -> None:
    async with session(ScriptedTransport(answer(BODY, wait=math.inf))) as fluence:
        with anyio.move_on_after(1):
            await asked(fluence, max_tokens=23)
        assert (used(fluence)["9000 tokens/minute"], used(fluence)["2 concurrent"]) == (123, 1)
        await anyio.sleep(1.01)
        assert tokens(fluence) == 123
        await anyio.sleep(60.1)
        assert tokens(fluence) == 0


@pytest.mark.parametrize("policy", ["any", "any-strict"])
async def test_a_limiter_that_learns_counts_them_too(policy: Any) -> None:
    limiter = virtual(*LIMITS, policy=policy, unseen_s=0)
    transport = ScriptedTransport(GOOD, STREAM, DOWN, GOOD)
    async with session(transport, limiter) as fluence:
        await asked(fluence, model="large")
        await (await fluence.chat.completions.create(**HI, stream=True)).get_final_text()
        with pytest.raises(FluenceError):
            await asked(fluence)
        for _ in range(2):
            await asked(fluence, model="large")
        assert tokens(fluence) == 2 + 5 + 0 + 2 + 2
        with pytest.raises(LimitWaitError):
            await asked(fluence, model="large", timeout=5)
        await asked(fluence, timeout=5)


async def test_too_little_reserved_becomes_a_debt() -> None:
    greedy = answer(BODY.replace(b'"prompt_tokens": 1', b'"prompt_tokens": 8999'))
    limiter = virtual("100/minute", "300 tokens/minute")
    async with session(ScriptedTransport(greedy, GOOD), limiter) as fluence:
        await asked(fluence, max_tokens=1)
        window = limiter.snapshot().windows[1]
        assert (window.used, window.left) == (9000, 0)
        with pytest.raises(LimitWaitError, match="300 tokens/minute"):
            await asked(fluence, max_tokens=1, timeout=50)
        await asked(fluence, max_tokens=1)
        assert limiter.snapshot().windows[1].used == 2


@pytest.mark.parametrize("absurd", [b"-7", b"9" * 30])
async def test_no_count_of_a_servers_does_harm(absurd: bytes) -> None:
    body = BODY.replace(b'"completion_tokens": 1', b'"completion_tokens": ' + absurd)
    async with session(ScriptedTransport(answer(body))) as fluence:
        await asked(fluence)
        assert 0 < tokens(fluence) <= 2**40 + 1


async def test_a_call_that_can_never_fit_is_refused_before_anything_is_sent() -> None:
    transport = ScriptedTransport(GOOD)
    async with session(transport, budget="9M tokens") as fluence:
        for options in ({"stream": False}, {"stream": True}):
            with pytest.raises(ValueError, match=r"9000 tokens/minute.*max_tokens") as caught:
                await asked(fluence, max_tokens=9000, **options)
            assert "9100" in str(caught.value)
        with pytest.raises(
            ValueError, match="more than 8460 of a batch call"
        ):  # a reserve is for interactive calls
            await asked(fluence, max_tokens=8500, priority="batch")
        assert (tokens(fluence), used(fluence)["1000/minute"]) == (0, 0)
        assert fluence.usage.snapshot().budgets[0].reserved == 0
    assert transport.requests == []


async def test_every_turn_of_a_tool_run_and_a_typed_answer_costs_what_it_came_to() -> None:
    @tool
    async def get_weather(city: str) -> str:
        """Get the weather in a city."""
        assert used(fluence)["2 concurrent"] == 0  # no call is under way while a tool runs
        return f"{city}: fine"

    call = {
        "index": 0,
        "id": "1",
        "function": {"name": "get_weather", "arguments": '{"city": "A"}'},
    }
    delta = {"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": "tool_calls"}
    transport = ScriptedTransport(Answer(event(choices=[delta]), USAGE, DONE), STREAM, GOOD)
    async with session(transport) as fluence:
        await fluence.chat.completions.run_tools(**HI, tools=[get_weather])
        await fluence.chat.completions.parse(**HI, response_type=list[int])
        assert tokens(fluence) == fluence.usage.snapshot().total.total_tokens == 12
        async with fluence.chat.completions.parse(**HI, response_type=list[int]):
            pass
        assert tokens(fluence) == fluence.usage.snapshot().total.total_tokens


@pytest.fixture
def no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("nobody needs to know what a call may cost")

    monkeypatch.setattr(usage, "expected", refuse)


@pytest.mark.usefixtures("no_estimate")
@pytest.mark.parametrize("limits", [LIMITS[:1], (LIMITS[0], "9000 tokens/minute for large")])
async def test_nothing_is_estimated_where_no_limit_counts_the_models_tokens(
    limits: tuple[str, ...],
) -> None:
    async with session(ScriptedTransport(GOOD), virtual(*limits)) as fluence:
        await asked(fluence)


# ─── calls at once ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("stream", [False, True])
async def test_no_more_calls_are_under_way_than_may_be_at_once(*, stream: bool) -> None:
    body = [text("Once "), 0.5, text("upon"), 0.5, FINISH, DONE] if stream else [0.5, BODY, 0.5]
    kind = {} if stream else {"content-type": "application/json"}
    transport = ScriptedTransport(Answer(*body, headers=kind, wait=1))
    most = 0
    async with session(transport) as fluence:

        async def call() -> None:
            nonlocal most
            got = await fluence.chat.completions.create(**HI, stream=stream)
            if stream:
                async for _ in got:
                    most = max(most, len(transport.open))

        began = anyio.current_time()
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(call)
        assert anyio.current_time() - began == pytest.approx(6, abs=0.01)  # three by two
        assert most == (2 if stream else 0)
        assert used(fluence)["2 concurrent"] == 0


async def test_a_streams_place_is_taken_until_it_is_closed() -> None:
    async with session(ScriptedTransport(Answer(text("Once"), STALL))) as fluence:
        first = await fluence.chat.completions.create(**HI, stream=True)
        second = await fluence.chat.completions.create(**HI, stream=True)
        with pytest.raises(FluenceError, match="waiting for the limiter"):
            await asked(fluence, stream=True, timeout=5)
        await first.aclose()
        third = await fluence.chat.completions.create(**HI, stream=True)
        await second.aclose()
        await third.aclose()
        assert used(fluence)["2 concurrent"] == 0


async def test_a_session_that_is_closed_gives_back_what_its_streams_held() -> None:
    async with session(ScriptedTransport(Answer(text("Once"), STALL))) as fluence:
        stream = await fluence.chat.completions.create(**HI, stream=True, max_tokens=23)
        assert used(fluence)["2 concurrent"] == 1
    assert tokens(fluence) == 123
    assert (await anext(stream)).text == "Once"
    with pytest.raises(FluenceError):
        await anext(stream)
    assert tokens(fluence) == 123


# ─── answers that were there, or are shared ───────────────────────────────────────────────


async def test_cached_and_coalesced_answers_cost_nothing() -> None:
    transport = ScriptedTransport(answer(0.1, BODY, wait=1))
    async with session(transport, cache="memory") as fluence:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(asked, fluence)
        await asked(fluence)
        await (await fluence.chat.completions.create(**HI, stream=True)).get_final_text()
        assert (tokens(fluence), used(fluence)["1000/minute"]) == (2, 1)
    assert len(transport.requests) == 1


@pytest.mark.filterwarnings("ignore:.*dropped unclosed:ResourceWarning")
@pytest.mark.parametrize("how", ["closed", "dropped"])
async def test_a_shared_streams_place_is_taken_until_the_last_reader_has_it(how: str) -> None:
    transport = ScriptedTransport(Answer(text("a"), 1, text("b"), FINISH, USAGE, DONE))
    async with session(transport, cache="memory") as fluence:
        first = await fluence.chat.completions.create(**HI, stream=True)
        other = await fluence.chat.completions.create(**HI, stream=True)
        await anext(first)
        if how == "closed":
            await first.aclose()
        else:
            del first
            gc.collect()
        assert used(fluence)["2 concurrent"] == 1
        assert (await other.get_final_completion()).text == "ab"
        assert tokens(fluence) == 5
    assert len(transport.requests) == 1


async def test_a_shared_answer_that_breaks_leaves_nothing_under_way() -> None:
    transport = ScriptedTransport(answer(0.1, BODY[:9], BodyBroken("reset"), wait=1))
    async with session(transport, cache="memory") as fluence:

        async def call() -> None:
            with pytest.raises(APIConnectionError):
                await asked(fluence, max_tokens=23)

        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(call)
        assert tokens(fluence) == 123 * len(transport.requests)
