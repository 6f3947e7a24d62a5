"""OpenTelemetry: one span for each call, whatever becomes of it, and nothing said in it."""

from __future__ import annotations

import gc
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, get_current_span

from fluence_async import (
    APIStatusError,
    BadRequestError,
    FluenceError,
    FluenceSession,
    RetryPolicy,
    StreamInterruptedError,
    tool,
)
from fluence_async.contrib.opentelemetry import OpenTelemetryHook
from tests.shell.limiting import virtual
from tests.shell.scripted import DONE, FINISH, STALL, USAGE, Answer, ScriptedTransport, event, text
from tests.shell.test_cancellation import cancelled_at
from tests.shell.test_exchange import GOOD, answer
from tests.virtual import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio
KEY = "sk-sentinel-0123456789"
HI: dict[str, Any] = {"model": "fluence-chat", "messages": "my secret question"}
STREAM = Answer(text("H"), 2.0, text("i"), FINISH, USAGE, DONE)


class Telemetry:
    """What has been exported."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.hook = OpenTelemetryHook(tracer_provider=self.tracers, meter_provider=self.meters)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self.exporter.get_finished_spans())

    @property
    def attributes(self) -> dict[str, Any]:
        """Of the last span."""
        return dict(self.spans[-1].attributes or {})

    @property
    def events(self) -> list[str]:
        """Of the last span."""
        return [event.name for event in self.spans[-1].events]

    def points(self, name: str) -> list[Any]:
        """The data points of a metric."""
        data = self.reader.get_metrics_data()
        scopes = [scope for r in data.resource_metrics for scope in r.scope_metrics] if data else []
        metrics = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
        return [point for metric in metrics for point in metric.data.data_points]

    @asynccontextmanager
    async def session(self, *answers: Answer, **options: Any) -> AsyncIterator[FluenceSession]:
        transport = ScriptedTransport(*answers)
        given = {"api_key": KEY, "base_url": "https://chat.example/v1", "limiter": None, **options}
        async with FluenceSession(
            hooks=[self.hook], transport=lambda: transport, **given
        ) as fluence:
            yield fluence
        assert self.hook._calls == {}, "nothing is left of a call that has ended"


@pytest.fixture
def telemetry(caplog: pytest.LogCaptureFixture) -> Iterator[Telemetry]:
    yield Telemetry()
    assert [r for r in caplog.records if "a hook raised" in r.getMessage()] == []


# ─── what a span says ─────────────────────────────────────────────────────────────────────


async def test_a_call_is_a_span_with_the_conventions_names(telemetry: Telemetry) -> None:
    async with telemetry.session(GOOD) as fluence:
        await fluence.chat.completions.create(**HI, tags={"tenant": "acme"})
    (span,) = telemetry.spans
    assert span.name == "chat fluence-chat"
    assert span.status.status_code is StatusCode.UNSET
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == "fluence_async"
    assert telemetry.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "fluence",
        "gen_ai.request.model": "fluence-chat",
        "gen_ai.request.stream": False,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.id": "c",
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": 1,
        "gen_ai.usage.output_tokens": 1,
        "server.address": "chat.example",
        "server.port": 443,
        "fluence.attempts": 1,
        "fluence.cached": False,
        "fluence.coalesced": False,
        "fluence.complete": True,
        "fluence.limiter.wait": 0.0,
        "fluence.request.id": "req-1",
        "fluence.tag.tenant": "acme",
    }


async def test_a_stream_says_when_its_first_token_came(telemetry: Telemetry) -> None:
    slow = Answer(1.5, *STREAM.steps)
    async with telemetry.session(slow) as fluence:
        async with fluence.chat.completions.stream(**HI) as stream:
            await stream.get_final_text()
    said = telemetry.attributes
    assert said["gen_ai.request.stream"] is True
    assert said["gen_ai.response.time_to_first_chunk"] == pytest.approx(1.5, abs=0.1)
    assert said["gen_ai.usage.output_tokens"] == 2
    assert said["fluence.tokens_per_second"] == pytest.approx(0.5, rel=0.1)
    (point,) = telemetry.points("gen_ai.client.operation.time_to_first_chunk")
    assert (point.count, point.sum) == (1, pytest.approx(1.5, abs=0.1))
    assert point.attributes["gen_ai.response.model"] == said["gen_ai.response.model"]


async def test_metrics_count_tokens_and_seconds(telemetry: Telemetry) -> None:
    async with telemetry.session(GOOD, GOOD, answer(b"{}", status=400)) as fluence:
        for _ in range(2):
            await fluence.chat.completions.create(**HI)
        with pytest.raises(BadRequestError):
            await fluence.chat.completions.create(**HI)
    tokens = {
        point.attributes["gen_ai.token.type"]: point.sum
        for point in telemetry.points("gen_ai.client.token.usage")
    }
    assert tokens == {"input": 2, "output": 2}
    durations = telemetry.points("gen_ai.client.operation.duration")
    counted = {point.attributes.get("error.type"): point.count for point in durations}
    assert counted == {None: 2, "BadRequestError": 1}


async def test_retries_are_events_of_one_span(telemetry: Telemetry) -> None:
    async with telemetry.session(
        answer(b"{}", status=500), GOOD, retry=RetryPolicy(max_retries=1)
    ) as fluence:
        await fluence.chat.completions.create(**HI)
    assert len(telemetry.spans) == 1
    assert telemetry.events == [
        "fluence.attempt.failed",
        "fluence.retry.scheduled",
        "fluence.response.started",
    ]
    assert telemetry.attributes["fluence.attempts"] == 2
    failed = dict(telemetry.spans[0].events[0].attributes or {})
    assert failed == {"fluence.attempt": 1, "error.type": "InternalServerError"}


async def test_a_wait_for_the_limiter_is_told(telemetry: Telemetry) -> None:
    async with telemetry.session(GOOD, limiter=virtual("1/minute")) as fluence:
        for _ in range(2):
            await fluence.chat.completions.create(**HI)
    assert telemetry.events == ["fluence.limiter.waited", "fluence.response.started"]
    assert telemetry.attributes["fluence.limiter.wait"] > 59


async def test_every_choice_has_its_finish_reason(telemetry: Telemetry) -> None:
    two = Answer(text("a", finish="stop"), text("b", index=1, finish="length"), DONE)
    async with telemetry.session(two) as fluence:
        async with fluence.chat.completions.stream(**HI, n=2) as stream:
            await stream.get_final_completion()
    assert telemetry.attributes["gen_ai.response.finish_reasons"] == ("stop", "length")


async def test_what_the_cache_answered_cost_no_tokens(telemetry: Telemetry) -> None:
    async with telemetry.session(STREAM, cache="memory") as fluence:

        async def ask() -> None:
            async with fluence.chat.completions.stream(**HI) as stream:
                await stream.get_final_text()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            tasks.start_soon(ask)
        await ask()
    how = [
        (said.get("fluence.cached"), said.get("fluence.coalesced"))
        for said in (dict(span.attributes or {}) for span in telemetry.spans)
    ]
    assert sorted(how) == [(False, False), (False, True), (True, False)]
    tokens = telemetry.points("gen_ai.client.token.usage")
    assert sorted(point.sum for point in tokens) == [2, 3], "of the one request"


async def test_the_port_is_the_one_that_is_spoken_to(telemetry: Telemetry) -> None:
    async with telemetry.session(GOOD, base_url="http://127.0.0.1:81/v1") as fluence:
        await fluence.chat.completions.create(**HI)
    assert telemetry.attributes["server.address"] == "127.0.0.1"
    assert telemetry.attributes["server.port"] == 81


# ─── whose child it is ────────────────────────────────────────────────────────────────────


async def test_a_span_is_below_its_callers(telemetry: Telemetry) -> None:
    tracer = telemetry.tracers.get_tracer("test")
    parents: dict[str, int] = {}
    async with telemetry.session(STREAM, cache="memory") as fluence:

        async def ask(name: str) -> None:
            with tracer.start_as_current_span(name) as parent:
                parents[name] = parent.get_span_context().span_id
                stream = await fluence.chat.completions.create(
                    model="m", messages=name[0], stream=True, tags={"name": name}
                )
                assert get_current_span() is parent, "the caller stays in its own span"
                await stream.get_final_text()

        async with anyio.create_task_group() as tasks:
            for name in ("a1", "a2", "b1", "b2"):
                tasks.start_soon(ask, name)
    calls = [span for span in telemetry.spans if span.name == "chat m"]
    assert len(calls) == 4
    for span in calls:
        assert span.parent is not None
        assert span.parent.span_id == parents[str((span.attributes or {})["fluence.tag.name"])]


async def test_a_tool_is_a_span_of_its_own_time(telemetry: Telemetry) -> None:
    @tool
    async def wait(seconds: float) -> str:
        """Wait."""
        await anyio.sleep(seconds)
        return "done"

    calls = [{"index": 0, "id": "t", "function": {"name": "wait", "arguments": '{"seconds": 5}'}}]
    choice = {"index": 0, "delta": {"tool_calls": calls}, "finish_reason": "tool_calls"}
    async with telemetry.session(Answer(event(choices=[choice]), DONE), STREAM) as fluence:
        with telemetry.tracers.get_tracer("test").start_as_current_span("run") as parent:
            await fluence.chat.completions.run_tools(**HI, tools=[wait])
    names = [span.name for span in telemetry.spans]
    assert names == ["chat fluence-chat", "execute_tool wait", "chat fluence-chat", "run"]
    span = telemetry.spans[1]
    assert span.parent is not None
    assert span.parent.span_id == parent.get_span_context().span_id
    assert span.start_time is not None
    assert span.end_time is not None
    assert span.end_time - span.start_time == pytest.approx(5e9, rel=0.01)


# ─── and it ends once ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("failing", "error"),
    [
        (answer(b'{"error": {"message": "my secret question"}}', status=400), "BadRequestError"),
        (Answer(text("H")), "StreamInterruptedError"),
        (Answer(text("H"), STALL), "StreamTimeoutError"),
    ],
)
async def test_an_error_ends_its_span(telemetry: Telemetry, failing: Answer, error: str) -> None:
    async with telemetry.session(failing) as fluence:
        with suppress(FluenceError):
            async with fluence.chat.completions.stream(**HI) as stream:
                await stream.get_final_text()
    (span,) = telemetry.spans
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, None)
    assert telemetry.attributes["error.type"] == error


async def test_a_stream_closed_early_ends_its_span(telemetry: Telemetry) -> None:
    async with telemetry.session(STREAM) as fluence:
        async with fluence.chat.completions.stream(**HI) as stream:
            await anext(stream)
    (span,) = telemetry.spans
    assert span.status.status_code is StatusCode.UNSET
    assert telemetry.attributes["fluence.complete"] is False


async def test_a_stream_dropped_unclosed_ends_its_span(telemetry: Telemetry) -> None:
    async with telemetry.session(STREAM) as fluence:
        stream = await fluence.chat.completions.create(**HI, stream=True)
        await anext(stream)
        with pytest.warns(ResourceWarning, match="dropped unclosed"):
            del stream
            gc.collect()
    assert len(telemetry.spans) == 1
    assert telemetry.attributes["fluence.complete"] is False


@pytest.mark.parametrize("cache", [None, "memory"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_call_cancelled_anywhere_ends_its_span_once(stream: bool, cache: str) -> None:
    for suspension in range(1, 60):
        telemetry = Telemetry()
        answers = [answer(b"{}", status=500), STREAM if stream else GOOD]
        async with telemetry.session(*answers, cache=cache) as fluence:

            async def call(fluence: FluenceSession = fluence) -> None:
                if stream:
                    async with fluence.chat.completions.stream(**HI) as got:
                        await got.get_final_text()
                else:
                    await fluence.chat.completions.create(**HI)

            done = await cancelled_at(call(), suspension)
        assert len(telemetry.spans) == 1, suspension
        cut = not telemetry.attributes.get("fluence.complete")
        assert cut or done or not stream, suspension
        if done:
            return
    pytest.fail("it never came through")


async def test_many_calls_at_once_have_a_span_each(telemetry: Telemetry) -> None:
    answers = [
        STREAM if n % 3 else Answer(text("H")) if n % 2 else answer(b"{}", status=400)
        for n in range(200)
    ]
    async with telemetry.session(*answers) as fluence:

        async def ask(n: int) -> None:
            with suppress(StreamInterruptedError, APIStatusError):
                async with fluence.chat.completions.stream(**HI) as stream:
                    async for _ in stream:
                        if n % 5 == 0:
                            break

        async with anyio.create_task_group() as tasks:
            for n in range(200):
                tasks.start_soon(ask, n)
    ids = {span.context.span_id for span in telemetry.spans if span.context}
    assert len(ids) == len(telemetry.spans) == 200


# ─── what was said ────────────────────────────────────────────────────────────────────────


TOOL_TURNS: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        ],
    },
    {
        "role": "assistant",
        "tool_calls": [{"id": "t1", "function": {"name": "look", "arguments": '{"at": 1}'}}],
    },
    {"role": "tool", "tool_call_id": "t1", "content": "a cat"},
]


def said(telemetry: Telemetry) -> str:
    """All that was exported, as text."""
    spans = "".join(span.to_json() for span in telemetry.spans)
    data = telemetry.reader.get_metrics_data()
    return spans + (data.to_json() if data else "")


@pytest.mark.parametrize(
    "failing", [None, answer(b'{"error": {"message": "my secret question"}}', status=400)]
)
async def test_nothing_that_was_said_is_shown(telemetry: Telemetry, failing: Answer | None) -> None:
    async with telemetry.session(failing or GOOD) as fluence:
        with suppress(BadRequestError):
            await fluence.chat.completions.create(**HI)
    assert "fluence-chat" in said(telemetry)
    assert "secret" not in said(telemetry)
    assert '"Hi"' not in said(telemetry)
    assert KEY not in said(telemetry)


async def test_what_was_said_is_shown_to_who_opts_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    telemetry = Telemetry()
    async with telemetry.session(GOOD) as fluence:
        await fluence.chat.completions.create(model="m", messages=TOOL_TURNS)
    asked = telemetry.attributes["gen_ai.input.messages"]
    for part in ("What is this?", "https://example.com/a.png", "look", "a cat", "t1"):
        assert part in asked
    assert '"Hi"' in telemetry.attributes["gen_ai.output.messages"]
    assert KEY not in said(telemetry)


async def test_an_answer_cut_short_is_shown_as_far_as_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "span_only")
    telemetry = Telemetry()
    async with telemetry.session(Answer(text("Once upon"))) as fluence:
        with pytest.raises(StreamInterruptedError):
            async with fluence.chat.completions.stream(**HI) as stream:
                await stream.get_final_text()
    assert "Once upon" in telemetry.attributes["gen_ai.output.messages"]
    assert "ended before its end" in (telemetry.spans[0].status.description or "")


async def test_the_sdk_has_nothing_to_complain_of(
    telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        for hook in (telemetry.hook, Telemetry().hook):
            async with telemetry.session(STREAM) as fluence:
                async with fluence.chat.completions.stream(**HI) as stream:
                    await stream.get_final_text()
            assert repr(hook) == "<OpenTelemetryHook of 'fluence': 0 calls under way>"
        telemetry.points("gen_ai.client.operation.duration")
    assert caplog.records == []
