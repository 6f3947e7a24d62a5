"""The facts of calls go in, OpenTelemetry's spans and metrics come out.

Law: it is a hook and nothing else. A call is one span, over all its retries, below the span that
its caller was in, and it is ended once, whatever becomes of the call. What was said in a call is
shown only where `OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT` asks for it; the messages of
errors count as said, because a server may quote in them.

Names are those of https://opentelemetry.io/docs/specs/semconv/gen-ai/, and `fluence.…` for what
has none there. What the cache or an equal call answered has cost no tokens, so none are reported.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import msgspec
from opentelemetry.metrics import Histogram, MeterProvider, get_meter
from opentelemetry.trace import StatusCode, TracerProvider, get_tracer
from opentelemetry.util.genai.handler import TelemetryHandler
from opentelemetry.util.genai.invocation import Error, InferenceInvocation
from opentelemetry.util.genai.types import (
    InputMessage,
    MessagePart,
    OutputMessage,
    TextPart,
    ToolCallRequestPart,
    ToolCallResponsePart,
)
from opentelemetry.util.genai.utils import image_from_url

from .. import __version__
from ..hooks import (
    AttemptFailed,
    CallContent,
    CallFailed,
    CallFinished,
    CallStarted,
    Fact,
    LimiterWaited,
    ResponseStarted,
    RetryScheduled,
    ToolCalled,
)
from ..meta import Meta
from ..types import Choice, Usage

__all__ = ["OpenTelemetryHook"]

_SCOPE = "fluence_async"


class OpenTelemetryHook:
    """A span and metrics for every call: `FluenceSession(hooks=[OpenTelemetryHook()])`.

    One may serve any number of sessions. A span is `chat <model>`, with the models, finish
    reasons, tokens, server, times and error; failed attempts, retries and waits for the limiter
    are its events; `fluence.cached`, `fluence.attempts`, `fluence.limiter.wait` and
    `fluence.tag.<name>` stand beside. A tool of `run_tools` is a span `execute_tool <name>`. The
    metrics are `gen_ai.client.operation.duration`, `gen_ai.client.token.usage` and
    `gen_ai.client.operation.time_to_first_chunk`.

    Args:
        provider: Who answers, where that is not the Fluence API: `gen_ai.provider.name`.
        tracer_provider: Where spans go; by default the process's.
        meter_provider: Where metrics go; by default the process's.

    Example:
        ```python
        async with FluenceSession(hooks=[OpenTelemetryHook()]) as fluence:
            await fluence.chat.completions.create(model="fluence-chat", messages="Hello!")
        ```
    """

    def __init__(
        self,
        *,
        provider: str = "fluence",
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._provider = provider
        self._genai = TelemetryHandler(
            tracer_provider,
            meter_provider,
            instrumentation_scope_name=_SCOPE,
            instrumentation_scope_version=__version__,
        )
        self.wants_content: bool = self._genai.should_capture_content()
        self._tracer = get_tracer(_SCOPE, __version__, tracer_provider)
        self._first_chunk = _first_chunk_histogram(meter_provider)
        self._calls: dict[str, InferenceInvocation] = {}

    def __call__(self, fact: Fact, /) -> None:
        """Take note of a fact."""
        if isinstance(fact, CallStarted):
            self._calls[fact.call_id] = self._begun(fact)
        elif isinstance(fact, CallFinished | CallFailed):
            call = self._calls.pop(fact.call_id, None)
            if call is not None:
                self._end(call, fact)
        elif isinstance(fact, ToolCalled):
            self._show_tool(fact)
        elif (call := self._calls.get(fact.call_id)) is not None:
            self._note(call, fact)

    def _begun(self, fact: CallStarted) -> InferenceInvocation:
        server = urlsplit(fact.origin)
        call = self._genai.inference(
            self._provider,
            request_model=fact.model,
            server_address=server.hostname,
            server_port=server.port or {"http": 80, "https": 443}.get(server.scheme),
        )
        call.suspend()  # what the caller does meanwhile is not part of the call
        call.request_stream = fact.stream
        call.attributes.update({f"fluence.tag.{name}": tag for name, tag in fact.tags.items()})
        return call

    def _note(self, call: InferenceInvocation, fact: Fact) -> None:
        event = call.span.add_event
        match fact:
            case LimiterWaited():
                event("fluence.limiter.waited", {"fluence.limiter.wait": fact.wait_s})
            case AttemptFailed():
                event(
                    "fluence.attempt.failed",
                    {"fluence.attempt": fact.attempt, "error.type": fact.error},
                )
            case RetryScheduled():
                event(
                    "fluence.retry.scheduled",
                    {"fluence.attempt": fact.attempt, "fluence.retry.wait": fact.wait_s},
                )
            case ResponseStarted():
                event("fluence.response.started", {"fluence.attempt": fact.attempt})
            case CallContent():
                call.input_messages = [*_asked(fact.request)]
                if fact.answer is not None:
                    call.output_messages = [*_answered(fact.answer.choices)]

    def _end(self, call: InferenceInvocation, fact: CallFinished | CallFailed) -> None:
        _note_meta(call, fact.meta)
        if not (fact.meta.cached or fact.meta.coalesced):
            _note_usage(call, fact.usage)
        if isinstance(fact, CallFinished):
            call.response_model_name = fact.model
            call.response_id = fact.response_id
            call.finish_reasons = fact.finish_reasons
            call.attributes["fluence.complete"] = fact.complete
        self._record_first_chunk(call, fact.meta)
        if isinstance(fact, CallFinished):
            call.stop()
        else:
            call.fail(Error(fact.message if self.wants_content else None, fact.error))

    def _show_tool(self, fact: ToolCalled) -> None:
        """A tool is told of when it is done, so its span begins in the past."""
        now = time.time_ns()
        span = self._tracer.start_span(
            f"execute_tool {fact.tool}",
            attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": fact.tool},
            start_time=now - round(fact.duration_s * 1e9),
        )
        if fact.error is not None:
            span.set_attribute("error.type", fact.error)
            span.set_status(StatusCode.ERROR)
        span.end(now)

    def _record_first_chunk(self, call: InferenceInvocation, meta: Meta) -> None:
        """The library measures this as chunks come; hooks are told of it at the end."""
        if not call.request_stream or meta.first_token_s is None:
            return
        call.ttfc_seconds = meta.first_token_s
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": call.provider,
            "gen_ai.request.model": call.request_model,
            "gen_ai.response.model": call.response_model_name,
            "server.address": call.server_address,
            "server.port": call.server_port,
            **call.metric_attributes,
        }
        known = {name: value for name, value in attributes.items() if value is not None}
        self._first_chunk.record(meta.first_token_s, known, call.context)

    def __repr__(self) -> str:
        return f"<OpenTelemetryHook of {self._provider!r}: {len(self._calls)} calls under way>"


def _note_meta(call: InferenceInvocation, meta: Meta) -> None:
    call.attributes["fluence.attempts"] = meta.attempts
    call.attributes["fluence.limiter.wait"] = meta.limiter_wait_s
    if meta.request_id is not None:
        call.attributes["fluence.request.id"] = meta.request_id
    if meta.tokens_per_s is not None:
        call.attributes["fluence.tokens_per_second"] = meta.tokens_per_s
    for name in ("cached", "coalesced"):
        answered: bool = getattr(meta, name)
        call.attributes[f"fluence.{name}"] = answered
        if answered:  # such durations are of another kind
            call.metric_attributes[f"fluence.{name}"] = True


def _note_usage(call: InferenceInvocation, usage: Usage | None) -> None:
    if usage is None:
        return
    call.input_tokens, call.output_tokens = usage.prompt_tokens, usage.completion_tokens
    if usage.prompt_tokens_details is not None:
        call.cache_read_input_tokens = usage.prompt_tokens_details.cached_tokens
    if usage.completion_tokens_details is not None:
        call.thinking_tokens = usage.completion_tokens_details.reasoning_tokens


# ─── what was said ────────────────────────────────────────────────────────────────────────


def _asked(request: bytes) -> Iterator[InputMessage]:
    for message in msgspec.json.decode(request)["messages"]:
        role = message["role"]
        if role == "tool":
            response = ToolCallResponsePart(message.get("content"), message.get("tool_call_id"))
            yield InputMessage(role, [response])
        else:
            yield InputMessage(role, [*_parts(message)], message.get("name"))


def _answered(choices: list[Choice]) -> Iterator[OutputMessage]:
    for choice in choices:
        message = msgspec.to_builtins(choice.message)
        yield OutputMessage("assistant", [*_parts(message)], choice.finish_reason)


def _parts(message: dict[str, Any]) -> Iterator[MessagePart]:
    """What a message holds, as far as the conventions have a word for it."""
    content = message.get("content") or []
    parts: list[dict[str, Any]] = [{"text": content}] if isinstance(content, str) else content
    for part in parts:
        if part.get("text") is not None:
            yield TextPart(part["text"])
        elif part.get("image_url") and (image := image_from_url(part["image_url"]["url"])):
            yield image
    for call in message.get("tool_calls") or []:
        function = call["function"]
        yield ToolCallRequestPart(function["arguments"], function["name"], call.get("id"))


# ─── where it goes ────────────────────────────────────────────────────────────────────────


def _first_chunk_histogram(meter_provider: MeterProvider | None) -> Histogram:
    return get_meter(_SCOPE, __version__, meter_provider).create_histogram(
        "gen_ai.client.operation.time_to_first_chunk",
        unit="s",
        description="Time from the beginning of a streamed call to its first chunk",
        explicit_bucket_boundaries_advisory=[0.01 * 2**n for n in range(14)],
    )
