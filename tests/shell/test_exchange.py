"""Attempts: what is tried again, how often, after how long, and what is told of it."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import Any

import anyio
import pytest

from fluence_async import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BadRequestError,
    FluenceError,
    FluenceSession,
    InternalServerError,
    Limiter,
    LimitWaitError,
    NotFoundError,
    QuotaExceededError,
    RateLimitError,
    ResponseError,
    RetryPolicy,
    Timeout,
    TLSError,
)
from fluence_async.hooks import (
    AttemptFailed,
    CallFailed,
    CallFinished,
    CallStarted,
    Fact,
    LimiterWaited,
    LimiterWaits,
    ResponseStarted,
    RetryScheduled,
)
from fluence_async.transports._base import (
    BodyBroken,
    ConnectFailed,
    ConnectTimeout,
    Disconnected,
    ProtocolViolated,
    TLSFailed,
)
from tests.shell.scripted import DONE, FINISH, STALL, Answer, ScriptedTransport, text
from tests.virtual import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio

KEY = "sk-sentinel-0123456789"
BODY = (
    b'{"id": "c", "model": "m", "choices": [{"index": 0, "message": {"role": "assistant", '
    b'"content": "Hi"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, '
    b'"completion_tokens": 1, "total_tokens": 2}}'
)


def answer(*steps: Any, status: int = 200, **more: Any) -> Answer:
    headers = {"content-type": "application/json", **more.pop("headers", {})}
    return Answer(*steps, status=status, headers=headers, **more)


GOOD = answer(BODY, headers={"x-request-id": "req-1"})


def session(transport: ScriptedTransport, **options: Any) -> FluenceSession:
    # Each test has an origin of its own, because the process keeps one retry quota for each.
    session.port += 1  # type: ignore[attr-defined]
    return FluenceSession(
        api_key=KEY,
        base_url=f"http://127.0.0.1:{session.port}/v1",  # type: ignore[attr-defined]
        transport=lambda: transport,
        **{"limiter": None, **options},
    )


session.port = 1  # type: ignore[attr-defined]


async def ask(transport: ScriptedTransport, **options: Any) -> Any:
    async with session(transport, **options) as fluence:
        answer = await fluence.chat.completions.create(model="m", messages="hi")
    assert not transport.open
    return answer


async def refused(kind: type[FluenceError], *answers: Answer, **options: Any) -> Any:
    """A call that must fail of `kind`: the error and the transport."""
    transport = ScriptedTransport(*answers)
    with pytest.raises(kind) as caught:
        await ask(transport, **options)
    assert type(caught.value) is kind
    assert not transport.open
    assert KEY not in str(caught.value) + repr(caught.value)
    assert caught.value.meta is not None
    assert caught.value.meta.attempts == len(transport.requests)
    return caught.value, transport


async def test_a_good_answer_comes_at_once_with_its_meta() -> None:
    transport = ScriptedTransport(answer(1.5, BODY, wait=2.0, headers={"x-request-id": "req-1"}))
    completion = await ask(transport)
    assert completion.text == "Hi"
    assert completion.usage.total_tokens == 2
    meta = completion.meta
    assert (meta.request_id, meta.attempts, meta.failures) == ("req-1", 1, [])
    assert meta.headers_s == pytest.approx(2.0)
    assert meta.total_s == pytest.approx(3.5)


@pytest.mark.parametrize(
    "failure",
    [
        answer(fails=ConnectFailed("refused")),
        answer(fails=ConnectTimeout("slow")),
        answer(fails=Disconnected("closed")),
        answer(BODY[:20], BodyBroken("reset")),
        answer(b""),
        answer(status=204),
        answer(b"{}", status=500),
        answer(b"<html>bad gateway", status=502),
        answer(b"{}", status=429),
    ],
    ids=["refused", "connect", "closed", "cut", "empty", "204", "500", "502", "429"],
)
async def test_a_failed_attempt_is_tried_again_with_the_same_idempotency_key(
    failure: Answer,
) -> None:
    transport = ScriptedTransport(failure, failure, GOOD)
    completion = await ask(transport)
    assert completion.text == "Hi"
    assert completion.meta.attempts == 3
    assert len(completion.meta.failures) == 2
    keys = {request.headers["Idempotency-Key"] for request in transport.requests}
    assert len(keys) == 1


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (answer(b"{}", status=400), BadRequestError),
        (answer(b"{}", status=401), AuthenticationError),
        (answer(b'{"error": {"code": "insufficient_quota"}}', status=429), QuotaExceededError),
        (answer(fails=TLSFailed("bad certificate")), TLSError),
        (answer(fails=ConnectFailed("no such host", permanent=True)), APIConnectionError),
        (answer(fails=ProtocolViolated("no HTTP")), ResponseError),
        (answer(b"{}", status=307, headers={"location": "http://evil/"}), ResponseError),
        (answer(b"<html>", headers={"content-type": "text/html"}), ResponseError),
        (answer(b"hello"), ResponseError),
        (answer(BodyBroken("bad gzip", undecodable=True)), ResponseError),
        (answer(b"{}", status=429, headers={"retry-after": "999999"}), RateLimitError),
    ],
)
async def test_what_cannot_end_otherwise_is_not_tried_again(
    failure: Answer, kind: type[FluenceError]
) -> None:
    _, transport = await refused(kind, failure)
    assert len(transport.requests) == 1


async def test_the_last_failure_is_raised_and_all_are_told() -> None:
    error, transport = await refused(
        InternalServerError, answer(b"{}", status=429), answer(b"{}", status=500)
    )
    assert len(transport.requests) == 3
    names = [failure.error for failure in error.meta.failures]
    assert names == ["RateLimitError", "InternalServerError", "InternalServerError"]
    assert error.meta.failures[-1].wait_s is None


async def test_waits_double_within_their_cap() -> None:
    started = anyio.current_time()
    policy = RetryPolicy(max_retries=8, base_s=0.5, cap_s=4)
    _, transport = await refused(InternalServerError, answer(b"{}", status=500), retry=policy)
    assert len(transport.requests) == 9
    assert anyio.current_time() - started <= 0.5 + 1 + 2 + 4 * 5


async def test_the_servers_retry_after_is_a_lower_bound() -> None:
    started = anyio.current_time()
    transport = ScriptedTransport(answer(b"{}", status=429, headers={"retry-after": "20"}), GOOD)
    completion = await ask(transport)
    assert 20 <= anyio.current_time() - started <= 20.5
    assert completion.meta.failures[0].wait_s >= 20


async def test_an_absurd_retry_after_is_told_and_not_waited_for() -> None:
    started = anyio.current_time()
    error, _ = await refused(
        RateLimitError, answer(b"{}", status=429, headers={"retry-after": "999999"})
    )
    assert error.retry_after == 999999
    assert anyio.current_time() == started


async def test_a_stale_connection_is_replaced_once_for_free() -> None:
    started = anyio.current_time()
    stale = answer(fails=Disconnected("closed", reused=True))
    transport = ScriptedTransport(stale, GOOD)
    completion = await ask(transport, max_retries=0)
    assert completion.meta.failures[0].free
    assert anyio.current_time() == started
    _, transport = await refused(APIConnectionError, stale, max_retries=0)
    assert len(transport.requests) == 2


@pytest.mark.parametrize(
    ("timeout", "clock", "seconds"),
    [
        (Timeout(first_byte=5), "first_byte", 5),
        (Timeout(total=3, first_byte=5), "total", 3),
    ],
)
async def test_a_server_that_never_answers_ends_of_its_clock(
    timeout: Timeout, clock: str, seconds: float
) -> None:
    started = anyio.current_time()
    error, _ = await refused(APITimeoutError, answer(wait=math.inf), timeout=timeout, max_retries=0)
    assert error.clock == clock
    assert f"{seconds} s" in str(error)
    assert anyio.current_time() - started == pytest.approx(seconds)


async def test_the_total_clock_covers_all_attempts() -> None:
    started = anyio.current_time()
    _, transport = await refused(
        APITimeoutError,
        answer(wait=math.inf),
        timeout=Timeout(total=20, first_byte=8),
        max_retries=100,
    )
    assert anyio.current_time() - started <= 20
    assert len(transport.requests) in (2, 3)


async def test_a_body_that_stalls_ends_of_the_idle_clock() -> None:
    error, _ = await refused(
        APITimeoutError, answer(BODY[:9], STALL), timeout=Timeout(idle=4), max_retries=0
    )
    assert error.clock == "idle"


async def test_connecting_has_a_clock_of_its_own() -> None:
    error, _ = await refused(APITimeoutError, answer(fails=ConnectTimeout("x")), max_retries=0)
    assert error.clock == "connect"


async def test_a_dead_server_is_asked_at_most_a_fifth_more_than_there_are_calls() -> None:
    transport = ScriptedTransport(answer(fails=ConnectFailed("refused")))
    async with session(transport) as fluence:

        async def call() -> None:
            with pytest.raises(APIConnectionError):
                await fluence.chat.completions.create(model="m", messages="hi")

        async with anyio.create_task_group() as tasks:
            for _ in range(200):
                tasks.start_soon(call)
    assert 200 < len(transport.requests) <= 240


async def test_an_error_body_is_cut_and_scrubbed() -> None:
    body = b'{"error": {"message": "bad key ' + KEY.encode() + b'"}}' + b" " * 300_000
    error, _ = await refused(AuthenticationError, answer(body, status=401))
    assert "bad key ***" in str(error)
    assert len(error.body) <= 2048
    assert KEY not in error.body


async def test_hooks_are_told_the_facts_in_order() -> None:
    told: list[Fact] = []
    transport = ScriptedTransport(answer(b"{}", status=500), GOOD)
    await ask(transport, hooks=[told.append])
    kinds = [type(fact) for fact in told]
    assert kinds == [CallStarted, AttemptFailed, RetryScheduled, ResponseStarted, CallFinished]
    assert len({fact.call_id for fact in told}) == 1
    assert KEY not in repr(told)
    assert "hi" not in repr(told)


async def test_hooks_and_log_are_told_of_a_long_wait_as_it_begins_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[Fact] = []
    limiter = Limiter("2/5s", clock=lambda: round(anyio.current_time() * 1e9))
    for _ in range(2):
        limiter.acquire_nowait().settle()
    with caplog.at_level(logging.INFO, logger="fluence_async"):
        async with anyio.create_task_group() as group:
            group.start_soon(
                partial(ask, ScriptedTransport(GOOD), hooks=[told.append], limiter=limiter)
            )
            await anyio.sleep(0.01)
            assert [type(fact) for fact in told] == [CallStarted, LimiterWaits]
            assert caplog.messages[-1].endswith("waits for the limiter, for at least 5.1 s")
    assert [type(fact) for fact in told[1:3]] == [LimiterWaits, LimiterWaited]
    waits, waited = told[1:3]
    assert isinstance(waits, LimiterWaits)
    assert isinstance(waited, LimiterWaited)
    assert waits.call_id == waited.call_id
    assert waits.at_least_s == pytest.approx(waited.wait_s, abs=0.001) == pytest.approx(5.0525)
    assert any(text.endswith("waited 5.1 s for the limiter") for text in caplog.messages)


async def test_a_wait_of_less_than_a_second_is_not_told() -> None:
    told: list[Fact] = []
    limiter = Limiter("1/0.5s", clock=lambda: round(anyio.current_time() * 1e9))
    limiter.acquire_nowait().settle()
    await ask(ScriptedTransport(GOOD), hooks=[told.append], limiter=limiter)
    assert [type(fact) for fact in told] == [CallStarted, ResponseStarted, CallFinished]


async def test_hooks_are_told_of_a_stream_once_it_has_ended() -> None:
    told: list[Fact] = []
    transport = ScriptedTransport(Answer(text("Hi"), FINISH, DONE))
    async with session(transport, hooks=[told.append]) as fluence:
        async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
            async for _ in stream:
                pass
    kinds = [type(fact) for fact in told]
    assert kinds == [CallStarted, ResponseStarted, CallFinished]
    finished = told[-1]
    assert isinstance(finished, CallFinished)
    assert finished.complete
    assert finished.finish_reason == "stop"


@pytest.mark.parametrize(
    "failing",
    [answer(b"{}", status=400), Answer(text("Hi"), BodyBroken("reset"))],
    ids=["refused", "cut"],
)
async def test_hooks_are_told_of_a_failure_once(failing: Answer) -> None:
    told: list[Fact] = []
    async with session(ScriptedTransport(failing), hooks=[told.append]) as fluence:
        with pytest.raises(FluenceError):
            async with fluence.chat.completions.stream(model="m", messages="hi") as stream:
                async for _ in stream:
                    pass
    assert [type(fact) for fact in told].count(CallFailed) == 1
    assert isinstance(told[-1], CallFailed)


async def test_hooks_are_told_of_a_cancelled_call() -> None:
    told: list[Fact] = []
    with anyio.move_on_after(5):
        await ask(ScriptedTransport(answer(wait=math.inf)), hooks=[told.append])
    assert [type(fact) for fact in told] == [CallStarted, CallFailed]
    assert isinstance(told[-1], CallFailed)
    assert told[-1].error in ("CancelledError", "Cancelled")


async def test_a_hook_that_raises_disturbs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def bad(fact: Fact) -> None:
        raise LookupError("my own mistake")

    told: list[Fact] = []
    completion = await ask(ScriptedTransport(GOOD), hooks=[bad, told.append])
    assert completion.text == "Hi"
    assert told
    assert "my own mistake" in caplog.text


async def test_what_a_hook_raises_is_logged_once_for_each_hook_and_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        __hash__ = None  # type: ignore[assignment]

        def __call__(self, fact: Fact) -> None:
            raise LookupError("every time")

    def bad(fact: Fact) -> None:
        raise LookupError("every time")

    for sessions in (1, 2):
        async with session(ScriptedTransport(GOOD), hooks=[Broken(), bad]) as fluence:
            for each in (fluence, fluence, fluence.with_options(priority="batch")):
                await each.chat.completions.create(model="m", messages="hi")
        logged = [record.getMessage() for record in caplog.records if record.exc_info]
        assert len(logged) == 2 * sessions
        for name, message in zip(("Broken", "bad"), logged[-2:], strict=True):
            assert message.startswith("a hook raised on CallStarted: ")
            assert f"{name}; the call goes on" in message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"404 page not found", True),
        (b'{"detail": "Not Found"}', True),
        (b"", True),
        (b'{"error": {"message": "no such model", "code": "model_not_found"}}', False),
        (b'{"error": {"message": "nothing here", "param": "model"}}', False),
    ],
)
async def test_a_404_that_is_of_no_model_says_what_was_asked(body: bytes, said: bool) -> None:
    transport = ScriptedTransport(answer(body, status=404))
    async with session(transport) as fluence:
        with pytest.raises(NotFoundError) as caught:
            await fluence.chat.completions.create(model="m", messages="hi")
    url = f"{fluence.base_url}/chat/completions"
    assert (f"asked was POST {url}: " in str(caught.value)) is said
    assert ("base_url is wrong" in str(caught.value)) is said


async def test_the_address_in_a_404_is_shown_without_the_key() -> None:
    transport = ScriptedTransport(answer(b"gone", status=404))
    async with FluenceSession(
        api_key=KEY,
        base_url=f"http://127.0.0.1:9/{KEY}/v1",
        transport=lambda: transport,
        limiter=None,
    ) as fluence:
        with pytest.raises(NotFoundError, match=r"asked was POST http://127\.0\.0\.1:9/") as caught:
            await fluence.chat.completions.create(model="m", messages="hi")
    assert KEY not in str(caught.value)


async def test_a_wait_that_the_queue_clock_forbids_names_that_clock() -> None:
    limiter = Limiter("1/hour")
    permit = limiter.acquire_nowait()
    permit.sent()
    permit.settle()
    for clock, timeout in {"queue": Timeout(queue=0.5), "total": Timeout(total=0.5)}.items():
        with pytest.raises(
            LimitWaitError, match=rf"0\.5 s, of timeout=Timeout\({clock}="
        ) as caught:
            await ask(ScriptedTransport(GOOD), limiter=limiter, timeout=timeout)
        assert caught.value.wait_s > 3600
