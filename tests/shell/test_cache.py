"""Sessions with a cache: who is answered by it, who reads along, and who never sees what."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fluence_async import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    FluenceError,
    FluenceSession,
    InternalServerError,
    Limiter,
    StreamInterruptedError,
    StreamTimeoutError,
    Timeout,
)
from fluence_async.cache import CacheStore, MemoryCache, SqliteCache
from fluence_async.hooks import CacheLooked, CallFailed, CallFinished, CallStarted, Fact
from fluence_async.testing import FluenceServer, Pause, Reset, Stream
from fluence_async.transports._base import BodyBroken, ConnectFailed
from tests.shell.scripted import DONE, FINISH, STALL, USAGE, Answer, ScriptedTransport, event, text
from tests.shell.test_cancellation import cancelled_at
from tests.shell.test_exchange import BODY, GOOD, answer
from tests.virtual import in_virtual_time

pytestmark = pytest.mark.anyio
KEY = "sk-sentinel-0123456789"
HI: dict[str, Any] = {"model": "fluence-chat", "messages": "hi"}
STREAM = Answer(text("H"), 0.001, text("i"), FINISH, USAGE, DONE, headers={"x-request-id": "req-s"})


def session(transport: ScriptedTransport, **options: Any) -> FluenceSession:
    return FluenceSession(
        **{
            "api_key": KEY,
            "limiter": None,
            "cache": "memory",
            "max_retries": 0,
            "transport": lambda: transport,
            **options,
        }
    )


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(5):
        while not condition():
            await checkpoint()


def waiting(fluence: FluenceSession) -> int:
    """How many hold the one flight."""
    flights = fluence._binding.get().flights
    return sum(flight._holders for flight in flights.values())


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], CacheStore]:
    if request.param == "memory":
        return MemoryCache
    return lambda: SqliteCache(tmp_path / "answers.sqlite3")


# ─── stored ───────────────────────────────────────────────────────────────────────────────


async def test_an_equal_call_is_answered_without_a_request_or_a_unit(
    store: Callable[[], CacheStore],
) -> None:
    transport = ScriptedTransport(GOOD)
    limiter = Limiter(["1/hour"])
    kept = store()
    async with session(transport, cache=kept, limiter=limiter) as fluence:
        first = await fluence.chat.completions.create(**HI)
        again = await fluence.chat.completions.create(
            messages="hi", model="fluence-chat", n=1, user=None
        )
    assert (first.meta.cached, again.meta.cached, again.meta.coalesced) == (False, True, False)
    assert first.text == again.text == "Hi"
    assert (again.meta.attempts, again.meta.request_id) == (0, "req-1")
    assert again.meta.total_s is not None
    assert len(transport.requests) == 1
    await kept.aclose()


async def test_a_name_opens_a_store_that_the_session_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    for cached in (False, True):
        async with session(ScriptedTransport(GOOD), cache="sqlite") as fluence:
            assert (await fluence.chat.completions.create(**HI)).meta.cached is cached
        assert [file.name for file in (tmp_path / "fluence").iterdir()] == ["answers.sqlite3"]


async def test_a_stream_is_replayed_as_its_chunks_and_serves_a_plain_call(
    store: Callable[[], CacheStore],
) -> None:
    transport = ScriptedTransport(STREAM)
    kept = store()
    async with session(transport, cache=kept) as fluence:
        seen = []
        for _ in range(2):
            async with fluence.chat.completions.stream(**HI) as stream:
                chunks = [chunk async for chunk in stream]
            seen.append((chunks, stream.completion, stream.usage, stream.meta.cached))
            assert stream.complete
        plain = await fluence.chat.completions.create(**HI)
    assert seen[0][:3] == seen[1][:3]
    assert [cached for *_, cached in seen] == [False, True]
    assert plain == seen[0][1]
    assert plain.meta.cached
    assert plain.meta.request_id == "req-s"
    assert len(transport.requests) == 1
    await kept.aclose()


async def test_a_plain_answer_serves_a_stream_as_one_chunk() -> None:
    transport = ScriptedTransport(GOOD)
    async with session(transport) as fluence:
        plain = await fluence.chat.completions.create(**HI)
        async with fluence.chat.completions.stream(**HI) as stream:
            chunks = [chunk.text async for chunk in stream]
    assert chunks == [plain.text]
    assert stream.completion.usage == plain.usage
    assert stream.meta.cached
    assert len(transport.requests) == 1


async def test_what_was_read_for_one_is_not_shared_as_an_object() -> None:
    async with session(ScriptedTransport(GOOD)) as fluence:
        first = await fluence.chat.completions.create(**HI)
        first.choices[0].message.content = "changed"
        assert (await fluence.chat.completions.create(**HI)).text == "Hi"


async def test_unknown_fields_are_kept_too() -> None:
    async with session(ScriptedTransport(GOOD)) as fluence:
        first = await fluence.chat.completions.create(**HI, keep_raw=True)
        assert (await fluence.chat.completions.create(**HI, keep_raw=True)).raw == first.raw


@pytest.mark.parametrize(
    ("params", "requests"),
    [
        ({}, 1),
        ({"temperature": 0}, 1),
        ({"temperature": 0.7}, 3),
        ({"temperature": 0.7, "cache": True}, 1),
        ({"temperature": 0.7, "cache": 60}, 1),
        ({"cache": False}, 3),
        ({"cache": 1e-9}, 3),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, 1),
    ],
)
async def test_what_is_kept_is_as_asked(params: dict[str, Any], requests: int) -> None:
    transport = ScriptedTransport(GOOD)
    async with session(transport) as fluence:
        for _ in range(3):
            await fluence.chat.completions.create(**HI, **params)
    assert len(transport.requests) == requests


async def test_options_say_it_for_many_calls() -> None:
    transport = ScriptedTransport(GOOD)
    async with session(transport) as fluence:
        fresh, sampled = fluence.with_options(cache=False), fluence.with_options(cache=60)
        await fresh.chat.completions.create(**HI)
        await fresh.chat.completions.create(**HI)
        for _ in range(2):
            await sampled.chat.completions.create(**HI, temperature=1)
    assert len(transport.requests) == 3


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
async def test_a_time_that_cannot_be_is_refused(value: float) -> None:
    async with session(ScriptedTransport(GOOD)) as fluence:
        with pytest.raises(ValueError, match="cache="):
            await fluence.chat.completions.create(**HI, cache=value)
        with pytest.raises(TypeError, match="cache='day'"):
            await fluence.chat.completions.create(**HI, cache="day")  # type: ignore[call-overload]


@pytest.mark.parametrize("cache", ["moon", "http://localhost", object(), MemoryCache])
async def test_what_is_no_cache_is_refused(cache: Any) -> None:
    with pytest.raises(ValueError, match="'memory', 'sqlite', 'redis://…', a CacheStore"):
        session(ScriptedTransport(GOOD), cache=cache)


def whole(finish: str) -> Answer:
    return answer(BODY.replace(b'"stop"', b'"%s"' % finish.encode()))


@pytest.mark.parametrize(
    ("stream", "first"),
    [
        (False, answer(b"{}", status=500)),
        (False, answer(b"{}", status=400)),
        (False, answer(b"<html>")),
        (False, whole("length")),
        (False, whole("content_filter")),
        (True, Answer(text("H"), FINISH.replace(b"stop", b"length"), DONE)),
        (True, Answer(text("H"), BodyBroken("reset"))),
        (True, Answer(text("H"))),
        (True, Answer(text("H"), event(error={"message": "no"}))),
    ],
)
async def test_errors_and_truncated_answers_are_never_kept(stream: bool, first: Answer) -> None:
    transport = ScriptedTransport(first, GOOD)
    async with session(transport) as fluence:
        try:
            got = await fluence.chat.completions.create(**HI, stream=stream)
            if stream:
                await got.get_final_completion()  # type: ignore[union-attr]
        except FluenceError:
            pass
        second = await fluence.chat.completions.create(**HI)
    assert (second.text, second.meta.cached) == ("Hi", False)
    assert len(transport.requests) == 2


async def test_a_stream_that_is_left_early_is_not_kept() -> None:
    transport = ScriptedTransport(Answer(text("H"), 0.001, text("i"), FINISH, DONE))
    async with session(transport) as fluence:
        for _ in range(2):
            async with fluence.chat.completions.stream(**HI) as stream:
                await anext(stream)
            assert not stream.meta.cached
        assert not transport.open
    assert len(transport.requests) == 2


# ─── who sees whose answer ────────────────────────────────────────────────────────────────


async def test_no_key_and_no_origin_ever_sees_anothers_answer(
    store: Callable[[], CacheStore],
) -> None:
    kept = store()
    async with FluenceServer(api_keys=("k1", "k2")) as one:
        async with FluenceServer(api_keys=("k1", "k2")) as two:
            for round_ in range(2):
                for server in (one, two):
                    for key in ("k1", "k2"):
                        async with FluenceSession(
                            api_key=key, base_url=server.base_url, cache=kept, limiter=None
                        ) as fluence:
                            got = await fluence.chat.completions.create(**HI)
                            assert got.meta.cached is bool(round_)
            assert len(one.requests) == len(two.requests) == 2
    await kept.aclose()


async def test_callers_with_headers_of_their_own_do_not_share_a_request() -> None:
    asked = anyio.Event()
    transport = ScriptedTransport(
        *(answer(BODY.replace(b"Hi", b"%d" % n), wait=asked) for n in range(3))
    )
    got: dict[str, set[str]] = {}
    async with session(transport) as fluence:

        async def ask(who: str) -> None:
            headers = {"X-User": who} if who else None
            found = await fluence.chat.completions.create(**HI, extra_headers=headers)
            got.setdefault(who, set()).add(found.text)

        async with anyio.create_task_group() as tasks:
            for who in ("a", "b", "") * 5:
                tasks.start_soon(ask, who)
            await anyio.wait_all_tasks_blocked()
            asked.set()
    assert len(transport.requests) == 3
    assert sorted(map(sorted, got.values())) == [["0"], ["1"], ["2"]]


# ─── at once ──────────────────────────────────────────────────────────────────────────────


async def test_ten_thousand_equal_calls_at_once_are_one_request(
    store: Callable[[], CacheStore],
) -> None:
    kept = store()
    found: list[tuple[str, bool]] = []
    async with FluenceServer() as server:
        async with FluenceSession(
            api_key=server.api_key, base_url=server.base_url, cache=kept
        ) as fluence:

            async def ask() -> None:
                got = await fluence.chat.completions.create(
                    model="fluence-chat", messages="What is 6 times 7?"
                )
                found.append((got.text, got.meta.coalesced))

            async with anyio.create_task_group() as tasks:
                for _ in range(10_000):
                    tasks.start_soon(ask)
        assert len(server.requests) == 1
    assert {text for text, _ in found} == {"6 * 7 = 42"}
    assert sum(coalesced for _, coalesced in found) == 9_999
    await kept.aclose()


async def test_a_late_reader_of_a_stream_has_it_from_the_start_and_then_live() -> None:
    transport = ScriptedTransport(
        Answer(text("a"), 0.002, text("b"), 0.002, text("c"), FINISH, DONE)
    )
    async with session(transport) as fluence:
        async with fluence.chat.completions.stream(**HI) as first:
            assert (await anext(first)).text == "a"
            assert (await anext(first)).text == "b"
            async with fluence.chat.completions.stream(**HI) as late:
                assert [(await anext(late)).text for _ in range(2)] == ["a", "b"]
                assert [chunk.text async for chunk in late] == ["c", ""]
                assert late.meta.coalesced
                assert late.completion.text == "abc"
            assert [chunk.text async for chunk in first] == ["c", ""]
        assert (await fluence.chat.completions.create(**HI)).meta.cached
        assert waiting(fluence) == 0
    assert len(transport.requests) == 1


async def test_many_read_one_stream_each_at_its_own_pace() -> None:
    letters = "abcdefghij"
    steps = [step for letter in letters for step in (text(letter), 0.001)]
    transport = ScriptedTransport(Answer(*steps, FINISH, DONE))
    texts: list[str] = []
    async with session(transport) as fluence:

        async def read(pause: float) -> None:
            async with fluence.chat.completions.stream(**HI) as stream:
                async for _ in stream:
                    await anyio.sleep(pause)
            texts.append(stream.completion.text)

        async def ask() -> None:
            texts.append((await fluence.chat.completions.create(**HI)).text)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, 0)
            await until(lambda: transport.requests)
            for n in range(19):
                tasks.start_soon(read, n % 4 * 0.0005)
            for _ in range(20):
                tasks.start_soon(ask)
        assert waiting(fluence) == 0
    assert texts == [letters] * 40
    assert len(transport.requests) == 1
    assert not transport.open


@pytest.mark.parametrize("stream", [False, True])
async def test_a_cancelled_leader_hands_over(stream: bool) -> None:
    slow = Answer(*GOOD.steps, headers=GOOD.headers, wait=60)
    transport = ScriptedTransport(slow, STREAM if stream else GOOD)
    found: list[Any] = []
    async with session(transport) as fluence:

        async def ask() -> None:
            got = await fluence.chat.completions.create(**HI, stream=stream)
            found.append(await got.get_final_completion() if stream else got)  # type: ignore[union-attr]

        async with anyio.create_task_group() as tasks:
            leader = anyio.CancelScope()

            async def lead() -> None:
                with leader:
                    await ask()

            tasks.start_soon(lead)
            await until(lambda: transport.requests)
            for _ in range(50):
                tasks.start_soon(ask)
            await until(lambda: waiting(fluence) == 51)
            leader.cancel()
        assert waiting(fluence) == 0
    assert [got.text for got in found] == ["Hi"] * 50
    assert sum(got.meta.coalesced for got in found) == 49
    assert len(transport.requests) == 2
    assert not transport.open


async def beside_a_cancelled_call(
    kept: CacheStore, suspension: int, *, stream: bool, leads: bool
) -> bool:
    """Two equal calls, one cancelled at a suspension; whether it came through before that."""
    transport = ScriptedTransport(STREAM if stream else answer(BODY, wait=0.001))
    texts: list[str] = []
    came_through: list[bool] = []
    async with session(transport, cache=kept) as fluence:

        async def ask() -> None:
            got: Any = await fluence.chat.completions.create(**HI, stream=stream)
            if stream:
                async with got:
                    await got.get_final_text()
                got = got.completion
            texts.append(got.text)

        async def victim() -> None:
            came_through.append(await cancelled_at(ask(), suspension))

        async with anyio.create_task_group() as tasks:
            for start in (victim, ask) if leads else (ask, victim):
                tasks.start_soon(start)
                await until(lambda: waiting(fluence) or texts)
        assert set(texts) == {"Hi"}
        assert waiting(fluence) == 0
        assert (await fluence.chat.completions.create(**HI)).text == "Hi"
    assert not transport.open
    assert len(transport.requests) <= 3
    return came_through[0]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("leads", [False, True])
async def test_cancelled_at_any_await_a_call_takes_nothing_from_its_equal(
    store: Callable[[], CacheStore], *, stream: bool, leads: bool
) -> None:
    kept = store()
    suspension = 1
    while not await beside_a_cancelled_call(kept, suspension, stream=stream, leads=leads):
        suspension += 1
        assert suspension < 60
        await kept.clear()
    await kept.aclose()


@pytest.mark.parametrize("how", ["cancelled", "closed", "dropped"])
@pytest.mark.filterwarnings("ignore:.*dropped unclosed:ResourceWarning")
async def test_who_leaves_a_stream_takes_nothing_from_the_others(how: str) -> None:
    transport = ScriptedTransport(Answer(text("a"), 0.005, text("b"), FINISH, DONE))
    async with session(transport) as fluence:
        first = await fluence.chat.completions.create(**HI, stream=True)
        other = await fluence.chat.completions.create(**HI, stream=True)
        await anext(first)
        if how == "cancelled":
            with anyio.move_on_after(0.001):
                await anext(first)
            await first.aclose()
        elif how == "closed":
            async with anyio.create_task_group() as tasks:

                async def read() -> None:
                    with pytest.raises(StreamInterruptedError, match="closed"):
                        await anext(first)

                tasks.start_soon(read)
                await until(lambda: first._reading)
                await first.aclose()
        else:
            del first
            gc.collect()
        assert transport.open
        assert (await other.get_final_completion()).text == "ab"
        assert waiting(fluence) == 0
    assert len(transport.requests) == 1
    assert not transport.open


async def test_the_clock_of_one_takes_nothing_from_the_others() -> None:
    async with FluenceServer() as server:
        server.script(Stream("a", Pause(0.15), "b"))
        async with FluenceSession(
            api_key=server.api_key, base_url=server.base_url, cache="memory"
        ) as fluence:
            async with fluence.chat.completions.stream(**HI) as patient:
                async with fluence.chat.completions.stream(
                    **HI, timeout=Timeout(idle=0.03)
                ) as hurried:
                    with pytest.raises(StreamTimeoutError, match="idle"):
                        await hurried.get_final_text()
                assert await patient.get_final_text() == "ab"
        assert len(server.requests) == 1
        await server.wait_until_idle()


async def test_the_last_to_leave_closes_the_connection() -> None:
    transport = ScriptedTransport(Answer(text("a"), STALL))
    async with session(transport) as fluence:
        first = await fluence.chat.completions.create(**HI, stream=True)
        second = await fluence.chat.completions.create(**HI, stream=True)
        await first.aclose()
        assert transport.open
        await second.aclose()
        assert not transport.open
        assert waiting(fluence) == 0


async def test_an_error_is_told_to_all_and_the_next_call_asks_again() -> None:
    asked = anyio.Event()
    failing = answer(b'{"error": {"message": "down"}}', status=500, wait=asked)
    transport = ScriptedTransport(failing, GOOD)
    errors: list[InternalServerError] = []
    async with session(transport) as fluence:

        async def ask(n: int) -> None:
            with pytest.raises(InternalServerError, match="down") as caught:
                await fluence.chat.completions.create(**HI, tags={"n": str(n)})
            errors.append(caught.value)

        async with anyio.create_task_group() as tasks:
            for n in range(20):
                tasks.start_soon(ask, n)
            await anyio.wait_all_tasks_blocked()
            asked.set()
        assert len(transport.requests) == 1
        assert (await fluence.chat.completions.create(**HI)).text == "Hi"
    assert len({id(error) for error in errors}) == 20
    assert {error.meta.tags["n"] for error in errors if error.meta} == {str(n) for n in range(20)}
    assert sum(error.meta.coalesced for error in errors if error.meta) == 19


async def test_an_error_of_streams_is_not_told_to_plain_calls() -> None:
    asked = anyio.Event()
    no_streams = answer(b'{"error": {"message": "no streams here"}}', status=400, wait=asked)
    transport = ScriptedTransport(no_streams, GOOD)
    async with session(transport) as fluence:

        async def read() -> None:
            with pytest.raises(BadRequestError):
                await fluence.chat.completions.create(**HI, stream=True)

        async def ask() -> None:
            assert (await fluence.chat.completions.create(**HI)).text == "Hi"

        async with anyio.create_task_group() as tasks:
            for call in (read, read, ask):
                tasks.start_soon(call)
                await anyio.wait_all_tasks_blocked()
            asked.set()
    assert len(transport.requests) == 2


async def test_a_broken_stream_breaks_for_its_readers_and_a_plain_call_asks_again() -> None:
    broken = Answer(text("a"), 0.003, BodyBroken("reset"))
    transport = ScriptedTransport(broken, GOOD)
    async with session(transport) as fluence:
        streams = [await fluence.chat.completions.create(**HI, stream=True) for _ in range(3)]
        plain: list[Any] = []

        async def ask() -> None:
            plain.append(await fluence.chat.completions.create(**HI))

        async def read(stream: Any) -> None:
            with pytest.raises(StreamInterruptedError, match="reset") as caught:
                await stream.get_final_text()
            assert caught.value.partial is not None
            assert caught.value.partial.text == "a"

        async with anyio.create_task_group() as tasks:
            for _ in range(5):
                tasks.start_soon(ask)
            for stream in streams:
                tasks.start_soon(read, stream)
        assert waiting(fluence) == 0
    assert [got.text for got in plain] == ["Hi"] * 5
    assert len(transport.requests) == 2


@pytest.mark.parametrize("end", [b"data: no chunk\n\n", b"", b"data: {", 30.0])
async def test_a_plain_call_asks_again_while_the_reader_of_a_bad_stream_sits_still(
    end: bytes | float,
) -> None:
    transport = ScriptedTransport(Answer(text("a"), end), GOOD)
    async with session(transport) as fluence:
        async with fluence.chat.completions.stream(**HI) as stream:
            await anext(stream)
            plain = await fluence.chat.completions.create(**HI, timeout=Timeout(idle=0.01))
            assert (plain.text, plain.meta.coalesced) == ("Hi", False)
    assert len(transport.requests) == 2


async def test_an_empty_stream_is_tried_again_before_anybody_reads_along() -> None:
    transport = ScriptedTransport(Answer(), STREAM)
    async with session(transport, max_retries=1) as fluence:
        async with fluence.chat.completions.stream(**HI) as stream:
            assert await stream.get_final_text() == "Hi"
        assert stream.meta.attempts == 2
        assert (await fluence.chat.completions.create(**HI)).meta.cached
        assert waiting(fluence) == 0


@in_virtual_time()
async def test_a_deadline_is_its_callers_own() -> None:
    transport = ScriptedTransport(answer(BODY, wait=30))
    late: list[APITimeoutError] = []
    patient: list[str] = []
    async with session(transport) as fluence:

        async def hurry() -> None:
            with pytest.raises(APITimeoutError, match="total") as caught:
                await fluence.chat.completions.create(**HI, timeout=5)
            late.append(caught.value)

        async def wait() -> None:
            patient.append((await fluence.chat.completions.create(**HI)).text)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(hurry)  # leads, and hands over
            await until(lambda: transport.requests)
            for call in (hurry, wait):
                tasks.start_soon(call)
        assert len(late) == 2
        assert all(error.meta is not None for error in late)
        assert patient == ["Hi"]
        assert waiting(fluence) == 0


# ─── and it is never in the way ───────────────────────────────────────────────────────────


class Broken(MemoryCache):
    """A store on which everything fails."""

    async def get(self, key: str) -> bytes | None:
        raise OSError("the disk is gone")

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        raise OSError("the disk is gone")


async def test_a_broken_store_is_a_warning_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    transport = ScriptedTransport(GOOD)
    async with session(transport, cache=Broken()) as fluence:
        for _ in range(3):
            assert (await fluence.chat.completions.create(**HI)).text == "Hi"
    assert len(transport.requests) == 3
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warned) == 1
    assert "the disk is gone" in warned[0].getMessage()


async def test_hooks_are_told_of_every_call_once() -> None:
    facts: list[Fact] = []
    transport = ScriptedTransport(STREAM, answer(b"{}", status=400))
    async with session(transport, hooks=[facts.append]) as fluence:
        for stream in (True, False, True):
            got = await fluence.chat.completions.create(**HI, stream=stream)
            if stream:
                await got.get_final_completion()  # type: ignore[union-attr]
        with pytest.raises(BadRequestError):
            await fluence.chat.completions.create(model="m", messages="other")
    assert [type(fact) for fact in facts if isinstance(fact, CallStarted)] == [CallStarted] * 4
    ended = [fact for fact in facts if isinstance(fact, CallFinished | CallFailed)]
    assert [fact.meta.cached for fact in ended] == [False, True, True, False]
    assert all(fact.usage for fact in ended[:3])


async def test_hooks_are_told_once_where_each_call_found_its_answer() -> None:
    facts: list[Fact] = []
    asked = [anyio.Event(), anyio.Event()]
    transport = ScriptedTransport(
        answer(BODY, wait=asked[0]), answer(b"{}", status=400, wait=asked[1])
    )
    failed = 0

    async def ask(fluence: FluenceSession, **options: Any) -> None:
        nonlocal failed
        try:
            await fluence.chat.completions.create(**{**HI, **options})
        except BadRequestError:
            failed += 1

    async with session(transport, hooks=[facts.append]) as fluence:
        refused = {"messages": "what the server refuses"}
        for event, options in zip(asked, ({}, refused), strict=True):
            async with anyio.create_task_group() as group:
                for _ in range(2):
                    group.start_soon(partial(ask, fluence, **options))
                await anyio.wait_all_tasks_blocked()
                event.set()
        await ask(fluence)
        await ask(fluence, cache=False)
    assert failed == 3
    begun = [fact.call_id for fact in facts if isinstance(fact, CallStarted)]
    looked = [fact for fact in facts if isinstance(fact, CacheLooked)]
    found = {fact.call_id: (fact.hit, fact.coalesced) for fact in looked}
    assert [found[call_id] for call_id in begun[:5]] == [
        (False, False),
        (False, True),
        (False, False),
        (False, True),
        (True, False),
    ]
    assert len(begun) == 6
    assert len(looked) == 5


async def test_what_no_attempt_reached_is_an_error_like_any_other() -> None:
    nowhere = Answer(fails=ConnectFailed("refused"))
    async with session(ScriptedTransport(nowhere)) as fluence:
        with pytest.raises(APIConnectionError, match="refused"):
            await fluence.chat.completions.create(**HI)
        assert waiting(fluence) == 0


async def test_a_cut_stream_over_the_network_is_not_kept() -> None:
    async with FluenceServer() as server:
        server.script(Stream("Once ", Reset()), "Once upon a time")
        async with FluenceSession(
            api_key=server.api_key, base_url=server.base_url, cache="memory"
        ) as fluence:
            stream = await fluence.chat.completions.create(**HI, stream=True)
            with pytest.raises(StreamInterruptedError):
                await stream.get_final_text()
            for _ in range(2):
                stream = await fluence.chat.completions.create(**HI, stream=True)
                assert await stream.get_final_text() == "Once upon a time"
            assert stream.meta.cached
        assert len(server.requests) == 2
        await server.wait_until_idle()
