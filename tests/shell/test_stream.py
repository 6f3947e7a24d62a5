"""A stream is complete or raises, within its clocks, with the partial answer."""

from __future__ import annotations

import asyncio
import gc
import pickle
from typing import Any

import anyio
import pytest

from fluence_async import (
    BadChunkError,
    ChatStream,
    FluenceSession,
    InternalServerError,
    RateLimitError,
    ResponseError,
    StreamError,
    StreamInterruptedError,
    StreamServerError,
    StreamTimeoutError,
    Timeout,
)
from fluence_async.transports._base import BodyBroken
from tests.shell.scripted import DONE, FINISH, STALL, USAGE, Answer, ScriptedTransport, event, text
from tests.virtual import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio

PING = b": ping\n\n"


def session(transport: ScriptedTransport, **options: Any) -> FluenceSession:
    return FluenceSession(
        api_key="k-123456",
        limiter=None,
        transport=lambda: transport,
        **{"max_retries": 0, **options},
    )


async def read(stream: ChatStream) -> str:
    return "".join([chunk.text async for chunk in stream])


async def broken(answer: Answer, kind: type[StreamError], **options: Any) -> StreamError:
    """Read a stream that must break of `kind`; nothing may be left open."""
    transport = ScriptedTransport(answer)
    async with session(transport, **options) as fluence:
        with pytest.raises(kind) as caught:
            async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
                await read(stream)
        assert not transport.open
        assert len(transport.requests) == 1
    assert type(caught.value) is kind
    assert pickle.loads(pickle.dumps(caught.value)).message == caught.value.message
    return caught.value


async def test_a_stream_yields_its_chunks_and_then_the_whole() -> None:
    transport = ScriptedTransport(Answer(text("Hel"), text("lo"), FINISH, USAGE, DONE))
    async with session(transport) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            assert await read(stream) == "Hello"
        assert stream.complete
        assert stream.done_seen
        assert stream.completion.text == "Hello"
        assert stream.completion.finish_reason == "stop"
        assert stream.usage is not None
        assert stream.usage.total_tokens == 5
        assert stream.completion.meta is stream.meta
        assert stream.meta.attempts == 1
    assert not transport.open
    assert transport.body()["stream_options"] == {"include_usage": True}


async def test_create_with_stream_returns_the_stream_once_it_has_begun() -> None:
    transport = ScriptedTransport(Answer(5.0, text("Hi"), FINISH, DONE))
    async with session(transport) as fluence:
        stream = await fluence.chat.completions.create(model="m", messages="hi", stream=True)
        assert stream.meta.first_token_s == pytest.approx(5.0)
        assert [piece async for piece in stream.text_stream] == ["Hi"]
        assert (await stream.get_final_completion()).text == "Hi"
        assert await stream.get_final_text() == "Hi"
    assert not transport.open


async def test_the_end_of_the_body_after_every_finish_reason_is_an_end() -> None:
    transport = ScriptedTransport(Answer(text("Hi"), FINISH))
    async with session(transport) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            await read(stream)
        assert stream.complete
        assert not stream.done_seen


async def test_an_absurd_usage_does_no_harm() -> None:
    absurd = event(id="c-1", choices=[], usage={"completion_tokens": 10**400})
    transport = ScriptedTransport(Answer(text("Hi"), 1.0, FINISH, absurd, DONE))
    async with session(transport) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            assert await read(stream) == "Hi"
        assert stream.complete
        assert stream.meta.tokens_per_s is None


async def test_one_choice_finished_of_two_is_no_end() -> None:
    transport = ScriptedTransport(Answer(text("a", finish="stop")))
    async with session(transport) as fluence:
        with pytest.raises(StreamInterruptedError):
            async with fluence.chat.completions.stream(model="m", messages="hi", n=2) as stream:
                await read(stream)


@pytest.mark.parametrize(
    ("answer", "kind", "partial"),
    [
        (Answer(text("Hel"), BodyBroken("reset")), StreamInterruptedError, "Hel"),
        (Answer(text("Hel")), StreamInterruptedError, "Hel"),
        (Answer(text("Hel"), text("lo")[:-9]), StreamInterruptedError, "Hel"),
        (Answer(text("Hel"), FINISH, DONE[:-3]), StreamInterruptedError, "Hel"),
        (Answer(), StreamInterruptedError, None),
        (Answer(status=204), StreamInterruptedError, None),
        (Answer(text("Hel"), STALL), StreamTimeoutError, "Hel"),
        (Answer(text("Hel"), b"data: {oops\n\n"), BadChunkError, "Hel"),
        (Answer(text("Hel"), b"data: 123\n\n"), BadChunkError, "Hel"),
        (Answer(text("Hel"), b"data: null\n\n"), BadChunkError, "Hel"),
        (Answer(text("Hel"), b"data: []\n\n"), BadChunkError, "Hel"),
        (Answer(text("Hel"), b"data: [DONE] or so\n\n"), BadChunkError, "Hel"),
        (Answer(text("Hel"), b"data: " + b"[" * 100_000 + b"\n\n"), BadChunkError, "Hel"),
        (Answer(text("Hel"), event(error={"message": "down"})), StreamServerError, "Hel"),
        (Answer(text("Hel"), b"event: error\ndata: down\n\n"), StreamServerError, "Hel"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
async def test_every_other_end_raises_with_the_partial_answer(
    answer: Answer, kind: type[StreamError], partial: str | None
) -> None:
    error = await broken(answer, kind)
    assert (error.partial.text if error.partial else None) == partial
    assert error.meta is not None
    assert error.meta.attempts == 1


async def test_a_stream_cut_at_any_byte_is_complete_only_if_its_end_was_seen() -> None:
    whole = text("Hel") + text("lo") + FINISH + USAGE + DONE
    ends = {len(whole) - len(DONE) - len(USAGE), len(whole) - len(DONE), len(whole)}
    ends |= {len(whole) - 1, len(whole) - 2}  # [DONE] without its blank line, as some servers end
    complete = set()
    for cut in range(len(whole) + 1):
        transport = ScriptedTransport(Answer(whole[:cut]) if cut else Answer())
        async with session(transport) as fluence:
            try:
                async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
                    await read(stream)
            except StreamInterruptedError:
                continue
            complete.add(cut)
    assert complete == ends


async def test_silence_ends_of_the_idle_clock() -> None:
    started = anyio.current_time()
    error = await broken(
        Answer(text("Hel"), STALL), StreamTimeoutError, timeout=Timeout(idle=7, progress=None)
    )
    assert isinstance(error, StreamTimeoutError)
    assert error.clock == "idle"
    assert anyio.current_time() - started == pytest.approx(7)


async def test_a_progress_clock_shorter_than_the_idle_one_ends_silence_first() -> None:
    error = await broken(
        Answer(text("Hel"), STALL), StreamTimeoutError, timeout=Timeout(idle=20, progress=5)
    )
    assert isinstance(error, StreamTimeoutError)
    assert error.clock == "progress"
    assert "5 s" in str(error)


async def test_pings_for_ever_end_of_the_progress_clock() -> None:
    started = anyio.current_time()
    pings = [step for _ in range(100) for step in (PING, 1.0)]
    error = await broken(
        Answer(text("Hel"), *pings), StreamTimeoutError, timeout=Timeout(idle=5, progress=20)
    )
    assert isinstance(error, StreamTimeoutError)
    assert error.clock == "progress"
    assert anyio.current_time() - started == pytest.approx(20)


async def test_a_steady_trickle_ends_of_the_total_clock() -> None:
    started = anyio.current_time()
    trickle = [step for _ in range(1000) for step in (text("a"), 1.0)]
    error = await broken(Answer(*trickle), StreamTimeoutError, timeout=Timeout(total=30))
    assert isinstance(error, StreamTimeoutError)
    assert error.clock == "total"
    assert anyio.current_time() - started == pytest.approx(30)
    assert error.partial is not None
    assert error.partial.text == "a" * 30


async def test_no_clock_but_total_runs_while_nobody_reads() -> None:
    transport = ScriptedTransport(Answer(text("Hel"), 1.0, text("lo"), FINISH, DONE))
    async with session(transport, timeout=Timeout(idle=2, progress=2)) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            assert (await anext(stream)).text == "Hel"
            await anyio.sleep(3600)
            assert await read(stream) == "lo"


async def test_a_stall_after_the_end_marker_costs_a_tenth_of_a_second() -> None:
    transport = ScriptedTransport(Answer(text("Hi"), FINISH, DONE, STALL))
    started = anyio.current_time()
    async with session(transport) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            assert await read(stream) == "Hi"
        assert stream.complete
    assert anyio.current_time() - started <= 0.11
    assert not transport.open


async def test_nothing_comes_after_the_end_marker() -> None:
    transport = ScriptedTransport(Answer(text("Hi"), FINISH, DONE, DONE, text("more")))
    async with session(transport) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            assert await read(stream) == "Hi"
        assert stream.completion.text == "Hi"


async def test_breaking_out_after_the_finish_reason_still_takes_the_usage() -> None:
    transport = ScriptedTransport(Answer(text("Hi"), FINISH, 0.01, USAGE, DONE))
    async with session(transport) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].finish_reason:
                    break
        assert stream.complete
        assert stream.usage is not None


async def test_breaking_out_early_closes_at_once_and_is_not_complete() -> None:
    transport = ScriptedTransport(Answer(text("Hel"), text("lo"), STALL))
    async with session(transport) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            async for _ in stream:
                break
        assert not transport.open
        assert not stream.complete
        assert stream.partial.text == "Hel"
        with pytest.raises(RuntimeError, match="partial"):
            _ = stream.completion
        with pytest.raises(StreamInterruptedError, match="closed"):
            await read(stream)


async def test_closing_from_another_task_wakes_the_reader_with_an_error() -> None:
    transport = ScriptedTransport(Answer(text("Hel"), STALL))
    async with session(transport, timeout=Timeout(idle=None, progress=None)) as fluence:
        stream = await fluence.chat.completions.create(model="m", messages="hi", stream=True)

        async def close_soon() -> None:
            await anyio.sleep(5)
            await stream.aclose()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(close_soon)
            with pytest.raises(StreamInterruptedError, match="closed"):
                await read(stream)
        assert not transport.open


async def test_a_cancelled_read_loses_nothing() -> None:
    transport = ScriptedTransport(Answer(text("Hel"), 10.0, text("lo"), FINISH, DONE))
    async with session(transport) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            seen = (await anext(stream)).text
            with anyio.move_on_after(4) as scope:
                await anext(stream)
            assert scope.cancelled_caught
            assert seen + await read(stream) == "Hello"


def test_a_task_that_is_cancelled_in_the_drain_leaves_no_connection() -> None:
    """asyncio's own cancellation passes anyio's shields."""

    async def main() -> None:
        transport = ScriptedTransport(Answer(text("Hel"), FINISH, DONE, STALL))
        async with session(transport) as fluence:
            stream = await fluence.chat.completions.create(model="m", messages="hi", stream=True)
            reading = asyncio.create_task(read(stream))
            while not stream._closed:
                await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert not transport.open
            assert stream.complete

    asyncio.run(main())


async def test_two_readers_of_one_stream_are_told_apart() -> None:
    transport = ScriptedTransport(Answer(text("Hel"), 10.0, text("lo"), FINISH, DONE))
    async with session(transport) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            await anext(stream)
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read, stream)
                await anyio.sleep(1)
                with pytest.raises(RuntimeError, match="two tasks"):
                    await anext(stream)


async def test_a_stream_dropped_unclosed_is_closed_and_warned_of() -> None:
    transport = ScriptedTransport(Answer(text("Hel"), STALL))
    async with session(transport) as fluence:
        stream = await fluence.chat.completions.create(model="m", messages="hi", stream=True)
        with pytest.warns(ResourceWarning, match="dropped unclosed"):
            del stream
            gc.collect()
        assert not transport.open


def _plain(status: int, body: bytes, kind: str = "application/json", **headers: str) -> Answer:
    return Answer(body, status=status, headers={"content-type": kind, **headers})


GOOD = Answer(text("Hi"), FINISH, DONE)


@pytest.mark.parametrize(
    "first",
    [
        Answer(),
        Answer(status=204),
        Answer(BodyBroken("reset")),
        Answer(event(error={"message": "busy", "code": "server_error"})),
        _plain(500, b"{}"),
        _plain(429, b"{}"),
    ],
    ids=["empty", "204", "reset", "error event", "500", "429"],
)
async def test_until_the_first_chunk_an_attempt_may_fail_and_be_tried_again(first: Answer) -> None:
    transport = ScriptedTransport(first, GOOD)
    async with session(transport, max_retries=1) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            assert await read(stream) == "Hi"
        assert stream.meta.attempts == 2
        assert len(stream.meta.failures) == 1
    keys = {request.headers["Idempotency-Key"] for request in transport.requests}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (_plain(200, b"<html>Log in", "text/html"), ResponseError, "text/html"),
        (
            _plain(200, b'{"error": {"message": "no", "code": "server_error"}}'),
            InternalServerError,
            "no",
        ),
        (_plain(429, b'{"error": {"message": "slow"}}'), RateLimitError, "slow"),
    ],
)
async def test_an_answer_that_is_no_stream_is_a_clear_error(
    answer: Answer, kind: type[Exception], message: str
) -> None:
    async with session(ScriptedTransport(answer)) as fluence:
        with pytest.raises(kind, match=message):
            await fluence.chat.completions.create(model="m", messages="hi", stream=True)


async def test_a_whole_completion_in_place_of_a_stream_is_one_chunk() -> None:
    body = (
        b'{"id": "c", "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"},'
        b' "finish_reason": "stop"}], "usage": {"total_tokens": 5}}'
    )
    transport = ScriptedTransport(_plain(200, body))
    async with session(transport) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            assert await read(stream) == "Hi"
        assert stream.completion.finish_reason == "stop"
        assert stream.usage is not None


async def test_a_context_is_entered_once() -> None:
    async with session(ScriptedTransport(GOOD)) as fluence:
        context = fluence.chat.completions.stream(model="m", messages="hi")
        async with context as stream:
            await read(stream)
        with pytest.raises(RuntimeError, match="entered before"):
            await context.__aenter__()


async def test_reprs_tell_the_state_and_no_key() -> None:
    async with session(ScriptedTransport(GOOD)) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            assert "open" in repr(stream)
            await read(stream)
            assert "complete" in repr(stream)
        for thing in (fluence, fluence.chat, fluence.chat.completions, stream, stream.text_stream):
            assert "k-123456" not in repr(thing)
