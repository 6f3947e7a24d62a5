"""A run of model and tools, against the local server, on both backends."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from fluence_async import (
    ChunkReceived,
    FluenceSession,
    InternalServerError,
    Message,
    StreamInterruptedError,
    ToolCallCompleted,
    ToolCallGrew,
    ToolCallStarted,
    ToolError,
    ToolFailed,
    ToolReturned,
    ToolRun,
    TurnFinished,
    TurnLimitError,
    tool,
)
from fluence_async.hooks import CallStarted, Fact, ToolCalled
from fluence_async.testing import Answer, Call, FluenceServer, Reset, Status, Stream

pytestmark = pytest.mark.anyio


@tool
async def get_weather(city: str) -> dict[str, Any]:
    """Get the weather in a city."""
    return {"city": city, "celsius": 18}


@tool
async def broken(city: str) -> str:
    """Look a city up."""
    raise KeyError(city)


@tool
async def endless() -> None:
    """Wait for ever."""
    await anyio.sleep_forever()


@asynccontextmanager
async def opened(
    *script: Any, **options: Any
) -> AsyncIterator[tuple[FluenceServer, FluenceSession]]:
    async with FluenceServer() as server:
        if script:
            server.script(*script)
        async with FluenceSession(
            api_key=server.api_key,
            base_url=server.base_url,
            limiter=None,
            max_retries=0,
            **options,
        ) as fluence:
            yield server, fluence
            await server.wait_until_idle(connections=8)


def start(fluence: FluenceSession, *tools: Any, **params: Any) -> ToolRun:
    return fluence.chat.completions.run_tools(
        **{"model": "fluence-chat", "messages": "hi", "tools": tools or [get_weather], **params}
    )


def sent(server: FluenceServer, index: int) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(server.requests[index].body)
    return body


def kinds(events: list[Any]) -> list[str]:
    return [type(event).__name__ for event in events]


# ─── the way through ──────────────────────────────────────────────────────────────────────


async def test_the_model_calls_tools_until_it_has_answered() -> None:
    async with opened() as (server, fluence):
        run = await start(fluence, messages="What is the weather in Paris and in Rome?")
        assert "Paris" in run.completion.text
        assert "18" in run.completion.text
        assert [turn.finish_reason for turn in run.turns] == ["tool_calls", "stop"]
        assert run.usage is not None
        used = [turn.usage.total_tokens for turn in run.turns if turn.usage is not None]
        assert len(used) == 2
        assert run.usage.total_tokens == sum(used)
        roles = [message.role for message in run.messages if isinstance(message, Message)]
        assert roles == ["user", "assistant", "tool", "tool", "assistant"]
        assert all(turn.meta.request_id for turn in run.turns)
        # what the second request sent is the conversation without its last answer
        assert [m["role"] for m in sent(server, 1)["messages"]] == roles[:-1]
        assert sent(server, 1)["tools"] == sent(server, 0)["tools"]
        assert sent(server, 0)["stream"] is True
        # and it can go on
        more = [*run.messages, Message(role="user", content="Thank you!")]
        assert (await start(fluence, messages=more)).completion.text


async def test_every_step_is_an_event_in_its_order() -> None:
    calls = (
        Call("get_weather", {"city": "A"}, index=0),
        Call("get_weather", {"city": "B"}, index=1),
    )
    async with opened(Answer("Let me see.", *calls), Answer("Fine ", "weather.")) as (_, fluence):
        async with start(fluence) as run:
            events = [event async for event in run]
        assert run.completion.text == "Fine weather."

    first = [event for event in events if event.turn == 1]
    texts = [event.text for event in first if isinstance(event, ChunkReceived)]
    assert "".join(texts) == "Let me see."
    told = [event for event in first if not isinstance(event, ChunkReceived)]
    starts = [event for event in told if isinstance(event, ToolCallStarted)]
    assert [(event.index, event.name) for event in starts] == [
        (0, "get_weather"),
        (1, "get_weather"),
    ]
    for index, city in enumerate("AB"):
        grown = [e.arguments for e in told if isinstance(e, ToolCallGrew) and e.index == index]
        assert len(grown) > 1
        assert json.loads("".join(grown)) == {"city": city}
    rest = told[-5:]
    assert kinds(rest) == ["ToolCallCompleted"] * 2 + ["ToolReturned"] * 2 + ["TurnFinished"]
    assert [event.index for event in rest if isinstance(event, ToolCallCompleted)] == [0, 1]
    returned = next(event for event in rest if isinstance(event, ToolReturned))
    assert returned.result == {"city": returned.result["city"], "celsius": 18}
    assert json.loads(returned.content) == returned.result
    second = [event for event in events if event.turn == 2]
    assert set(kinds(second)) == {"ChunkReceived", "TurnFinished"}
    assert isinstance(second[-1], TurnFinished)
    assert second[-1].completion.text == "Fine weather."


async def test_it_may_need_no_tool_at_all() -> None:
    async with opened("Hello!") as (server, fluence):
        run = await start(fluence)
        assert (run.completion.text, len(run.turns), len(server.requests)) == ("Hello!", 1, 1)


async def test_calls_run_side_by_side_within_the_bound_and_answer_in_order() -> None:
    running = most = 0

    @tool
    async def count(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(10 - number):  # the later, the sooner done
            await anyio.lowlevel.checkpoint()
        running -= 1
        return number

    calls = [Call("count", {"number": n}, index=n) for n in range(7)]
    for bound, expected in ((3, 3), (8, 7), (1, 1)):
        most = 0
        async with opened(Answer(*calls), "done") as (server, fluence):
            run = await start(fluence, count, max_parallel=bound)
            assert run.completion.text == "done"
            assert most == expected
            told = [m["content"] for m in sent(server, 1)["messages"] if m["role"] == "tool"]
            assert told == [str(n) for n in range(7)]


async def test_a_plain_function_runs_in_a_worker_thread_unless_told_otherwise() -> None:
    @tool
    def away() -> bool:
        return threading.current_thread() is here

    @tool(thread=False)
    def at_home() -> bool:
        return threading.current_thread() is here

    @tool
    def later() -> Any:
        return get_weather("Oslo")

    here = threading.current_thread()
    calls = [Call(name, {}, index=n) for n, name in enumerate(["away", "at_home", "later"])]
    async with opened(Answer(*calls), "done") as (server, fluence):
        await start(fluence, away, at_home, later)
        told = [m["content"] for m in sent(server, 1)["messages"] if m["role"] == "tool"]
        assert told == ["false", "true", '{"city":"Oslo","celsius":18}']


# ─── what the model does wrong ────────────────────────────────────────────────────────────


async def test_a_call_that_cannot_be_made_goes_back_to_the_model() -> None:
    wrong = Answer(
        Call("get_weather", {"town": "Rome"}, index=0),
        Call("get_whether", {}, index=1),
        Call("get_weather", {"city": "Rome"}, index=2),
    )
    right = Answer(Call("get_weather", {"city": "Rome"}))
    async with opened(wrong, right, "done") as (server, fluence):
        async with start(fluence) as run:
            failed = [event async for event in run if isinstance(event, ToolFailed)]
        assert run.completion.text == "done"
        told = [m["content"] for m in sent(server, 1)["messages"] if m["role"] == "tool"]
        assert "`town`" in told[0]
        assert "no tool 'get_whether'; there are: get_weather" in told[1]
        assert json.loads(told[2]) == {"city": "Rome", "celsius": 18}
        assert sorted(str(event.content) for event in failed) == sorted(told[:2])


@pytest.mark.parametrize(("allowed", "requests"), [(0, 1), (1, 2)])
async def test_the_model_is_told_only_so_often(allowed: int, requests: int) -> None:
    called = False

    @tool
    async def seen(city: str) -> None:
        nonlocal called
        called = True

    wrong = Answer(Call("seen", "{", index=0), Call("seen", {"city": "A"}, index=1))
    async with opened(Answer(Call("seen", "{")), wrong) as (server, fluence):
        if not allowed:
            server.script(wrong)
        with pytest.raises(ToolError, match="called 'seen' wrongly") as caught:
            await start(fluence, seen, max_corrections=allowed)
        assert isinstance(caught.value.__cause__, ValueError)
        assert len(server.requests) == requests
        assert not called  # in a turn that ends the run nothing is done


async def test_the_turn_limit_ends_a_run_that_would_not() -> None:
    async with opened() as (server, fluence):
        server.script(Answer(Call("get_weather", {"city": "Rome"})), repeat=True)
        async with start(fluence, max_turns=3) as run:
            with pytest.raises(TurnLimitError, match="max_turns=3") as caught:
                async for _ in run:
                    pass
            with pytest.raises(TurnLimitError):
                await run.__anext__()
        assert len(server.requests) == len(run.turns) == 3
        assert caught.value.messages == run.messages
        assert len(run.messages) == 5
        with pytest.raises(RuntimeError, match="not come to its end"):
            run.completion  # noqa: B018
        server.script("done")
        again = await start(fluence, messages=caught.value.messages)
        assert again.completion.text == "done"


async def test_a_cut_answer_ends_the_run_and_calls_nothing() -> None:
    cut = Answer(Call("broken", '{"city":'), finish_reason="length")
    async with opened(cut) as (_, fluence):
        run = await start(fluence, broken)
        assert run.completion.finish_reason == "length"
        assert len(run.messages) == 1


async def test_a_forced_call_is_forced_once() -> None:
    async with opened(Answer(Call("get_weather", {"city": "A"})), "done") as (server, fluence):
        await start(fluence, tool_choice="required")
        assert sent(server, 0)["tool_choice"] == "required"
        assert "tool_choice" not in sent(server, 1)


# ─── what tools do wrong ──────────────────────────────────────────────────────────────────


async def test_a_tool_that_raises_ends_the_run_and_its_neighbours() -> None:
    cancelled = False

    @tool
    async def slow() -> None:
        nonlocal cancelled
        try:
            await anyio.sleep_forever()
        except anyio.get_cancelled_exc_class():
            cancelled = True
            raise

    calls = Answer(Call("slow", {}, index=0), Call("broken", {"city": "Atlantis"}, index=1))
    async with opened(calls) as (server, fluence):
        async with start(fluence, slow, broken) as run:
            seen = []
            with pytest.raises(ToolError, match=r"'broken' raised KeyError: 'Atlantis'") as caught:
                async for event in run:
                    seen.append(event)  # noqa: PERF401 - what came before the error counts
        assert isinstance(caught.value.__cause__, KeyError)
        assert isinstance(seen[-1], ToolFailed)
        assert seen[-1].content is None
        assert cancelled
        assert len(server.requests) == 1
        assert len(run.messages) == 1


async def test_or_the_model_is_told_of_it() -> None:
    calls = Answer(
        Call("broken", {"city": "Atlantis"}, index=0), Call("get_weather", {"city": "A"}, index=1)
    )
    async with opened(calls, "done") as (server, fluence):
        run = await start(fluence, broken, get_weather, on_tool_error="tell")
        assert run.completion.text == "done"
        told = [m["content"] for m in sent(server, 1)["messages"] if m["role"] == "tool"]
        assert told == ["Error: KeyError: 'Atlantis'", '{"city":"A","celsius":18}']


@pytest.mark.parametrize("plain", [True, False])
async def test_a_tool_has_its_time(plain: bool) -> None:
    let_go = threading.Event()

    @tool(timeout=0.01)
    def stuck() -> None:
        let_go.wait(5)

    @tool(name="stuck", timeout=0.01)
    async def endlessly() -> None:
        await anyio.sleep_forever()

    slow = stuck if plain else endlessly
    async with opened(Answer(Call("stuck")), "done") as (_, fluence):
        try:
            async with start(fluence, slow, on_tool_error="tell") as run:
                failed = [event async for event in run if isinstance(event, ToolFailed)]
        finally:
            let_go.set()
        assert run.completion.text == "done"
        assert isinstance(failed[0].error, TimeoutError)
        assert failed[0].content == "Error: TimeoutError: the tool stuck took longer than 0.01 s"


async def test_the_runs_own_time_holds_where_a_tool_has_none() -> None:
    async with opened(Answer(Call("endless"))) as (_, fluence):
        with pytest.raises(ToolError, match=r"TimeoutError: the tool endless took longer"):
            await start(fluence, endless, tool_timeout=0.01)


async def test_a_result_that_is_no_json_is_the_tools_error() -> None:
    @tool
    async def thing() -> object:
        return object()

    async with opened(Answer(Call("thing"))) as (_, fluence):
        with pytest.raises(ToolError, match="result of object is no JSON"):
            await start(fluence, thing)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_tool_that_cancels_itself_has_failed() -> None:
    @tool
    async def gone() -> None:
        raise asyncio.CancelledError

    async with opened(Answer(Call("gone"))) as (_, fluence):
        with pytest.raises(ToolError, match="cancelled itself"):
            await start(fluence, gone)


# ─── what the wire does wrong ─────────────────────────────────────────────────────────────


async def test_a_stream_that_breaks_calls_nothing_and_keeps_whole_turns() -> None:
    called: list[str] = []

    @tool
    async def note(city: str) -> None:
        called.append(city)

    whole = Answer(Call("note", {"city": "A"}))
    cut = Stream(Call("note", {"city": "B"}), Reset())
    async with opened(whole, cut) as (_, fluence):
        async with start(fluence, note) as run:
            with pytest.raises(StreamInterruptedError) as caught:
                async for _ in run:
                    pass
        assert called == ["A"]
        assert len(run.messages) == 3
        assert caught.value.partial is not None
        assert caught.value.partial.tool_calls[0].function.name == "note"


async def test_a_refused_turn_raises_what_create_raises_and_keeps_doing_so() -> None:
    async with opened(Answer(Call("get_weather", {"city": "A"})), Status(500)) as (server, fluence):
        async with start(fluence) as run:
            for _ in range(2):
                with pytest.raises(InternalServerError):
                    while True:
                        await run.__anext__()
        assert len(server.requests) == 2


# ─── leaving early ────────────────────────────────────────────────────────────────────────


async def test_leaving_cancels_the_tools_and_closes_the_stream() -> None:
    ended: list[str] = []

    @tool
    async def wait() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ended.append("tool")

    async with opened(Answer(Call("wait")), Answer("a", "b")) as (server, fluence):
        async with start(fluence, wait) as run:
            async for event in run:
                if isinstance(event, ToolCallCompleted):
                    break
            with anyio.move_on_after(0.02):
                await run.__anext__()
        assert ended == ["tool"]
        await anyio.lowlevel.checkpoint()

        server.script(Answer("a", "b"))
        async with start(fluence) as run:
            await run.__anext__()
        await server.wait_until_idle(connections=1)


async def test_a_cancelled_wait_for_an_event_loses_nothing() -> None:
    gate = anyio.Event()

    @tool
    async def wait() -> str:
        await gate.wait()
        return "through"

    async with opened(Answer(Call("wait")), "done") as (_, fluence):
        async with start(fluence, wait) as run:
            async for event in run:
                if isinstance(event, ToolCallCompleted):
                    break
            for _ in range(3):
                with anyio.move_on_after(0.005) as scope:
                    await run.__anext__()
                assert scope.cancelled_caught
            gate.set()
            rest = [event async for event in run]
        assert kinds(rest)[:2] == ["ToolReturned", "TurnFinished"]
        assert run.completion.text == "done"


async def test_an_exception_of_the_caller_passes_through_as_it_is() -> None:
    async with opened(Answer(Call("endless"))) as (_, fluence):
        with pytest.raises(ZeroDivisionError):
            async with start(fluence, endless) as run:
                async for event in run:
                    if isinstance(event, ToolCallCompleted):
                        await anyio.sleep(0.005)
                        1 / 0  # noqa: B018


@pytest.mark.parametrize("after", [0.0, 0.001, 0.005, 0.02])
async def test_cancelled_anywhere_it_leaves_nothing_behind(after: float) -> None:
    async with opened(Answer(Call("get_weather", {"city": "A"}), Call("endless", index=1))) as (
        server,
        fluence,
    ):
        with anyio.move_on_after(after) as scope:
            await start(fluence, get_weather, endless)
        assert scope.cancelled_caught
        await anyio.sleep(0.001)  # the cancellation is over
        await server.wait_until_idle(connections=1)
        gc.collect()
        server.script("still here")
        assert (await start(fluence)).completion.text == "still here"


async def test_hooks_are_told_once_of_every_tool_that_ran() -> None:
    facts: list[Fact] = []
    calls = [
        Call("get_weather", {"city": "Paris"}, index=0),
        Call("get_weather", {"town": "Paris"}, index=1),
        Call("broken", {"city": "Paris"}, index=2),
        Call("endless", {}, index=3),
    ]
    async with opened(Answer(*calls), "done", Answer(calls[3]), hooks=[facts.append]) as (
        _,
        fluence,
    ):
        tools = get_weather, broken, endless
        await start(fluence, *tools, on_tool_error="tell", tool_timeout=0.01)
        with anyio.move_on_after(0.1):
            await start(fluence, *tools)
    told = [fact for fact in facts if isinstance(fact, ToolCalled)]
    assert sorted((fact.tool, fact.error) for fact in told[:3]) == [
        ("broken", "KeyError"),
        ("endless", "TimeoutError"),
        ("get_weather", None),
    ]
    assert [fact.tool for fact in told[3:]] == ["endless"]
    assert told[3].error in {"CancelledError", "Cancelled"}
    assert told[3].duration_s > 0
    asked = [fact.call_id for fact in facts if isinstance(fact, CallStarted)]
    assert [fact.call_id for fact in told] == [asked[0]] * 3 + [asked[2]]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_native_cancellation_is_never_swallowed() -> None:
    reached = False

    async def work(fluence: FluenceSession) -> None:
        nonlocal reached
        async with start(fluence, endless) as run:
            async for event in run:
                reached = reached or isinstance(event, ToolCallCompleted)

    async with opened(Answer(Call("endless"))) as (_, fluence):
        task = asyncio.create_task(work(fluence))
        while not reached:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()


# ─── misuse ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("params", "kind", "message"),
    [
        ({"tools": []}, ValueError, "tools is empty"),
        ({"tools": [len]}, TypeError, "decorate the function with @tool"),
        ({"tools": [get_weather, get_weather]}, ValueError, "two tools are called 'get_weather'"),
        ({"max_turns": 0}, ValueError, "max_turns=0: must be 1 or more"),
        ({"max_turns": True}, TypeError, "max_turns=True"),
        ({"max_parallel": 0}, ValueError, "max_parallel=0"),
        ({"max_corrections": -1}, ValueError, "max_corrections=-1"),
        ({"tool_timeout": 0}, ValueError, "tool_timeout=0"),
        ({"on_tool_error": "ignore"}, ValueError, "'raise' or 'tell'"),
        ({"n": 2}, ValueError, "n must be 1"),
    ],
)
async def test_misuse_is_refused_at_once(
    params: dict[str, Any], kind: type[Exception], message: str
) -> None:
    async with opened() as (server, fluence):
        with pytest.raises(kind, match=message):
            start(fluence, **params)
        with pytest.raises(TypeError, match="messages is missing"):
            fluence.chat.completions.run_tools(model="m", tools=[get_weather])  # type: ignore[call-arg]
        with pytest.raises(ValueError, match="messages is empty"):
            await start(fluence, messages="")
        assert not server.requests


async def test_a_run_is_entered_once_and_read_while_it_is_open() -> None:
    async with opened("done") as (_, fluence):
        run = start(fluence)
        assert repr(run) == "<ToolRun: not open, 0 turns>"
        with pytest.raises(RuntimeError, match="not open"):
            await run.__anext__()
        with pytest.raises(RuntimeError, match="not come to its end"):
            run.completion  # noqa: B018
        await run
        assert repr(run) == "<ToolRun: complete, 1 turns>"
        with pytest.raises(RuntimeError, match="entered before"):
            await run
