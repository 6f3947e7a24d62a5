"""What a caller may set: a call's parameters and options, as plain data that checks itself.

Law: every parameter is typed once, here, and reaches `create` and `stream` by `Unpack`; what each
means is told in `ChatParams`, which has them all. None means "not sent" or "not bounded"; there is
no sentinel.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Required, TypeAlias, TypedDict

import msgspec

from .types import MessageLike, ResponseFormat, StreamOptions, Tool

__all__ = [
    "CallOptions",
    "ChatParams",
    "CompletionParams",
    "ParseParams",
    "Priority",
    "PromptParams",
    "RetryPolicy",
    "Timeout",
    "ToolRunParams",
]

Priority: TypeAlias = Literal["interactive", "batch"]
"""Whose call waits first for the limiter: batch calls give way to interactive ones, but for every
tenth that goes."""


class Timeout(msgspec.Struct, frozen=True, kw_only=True):
    """How long a call may take, in seconds, clock by clock; None for no bound.

    Attributes:
        total: The whole call, everything included: limiter, retries, the answer's last byte.
        connect: Resolving the name, TCP and TLS, for each attempt.
        first_byte: From an attempt's start to the whole of its response headers.
        idle: Without a byte of the body.
        progress: Without an event, whatever bytes (pings) come.
        queue: In the limiter, for each attempt.

    Example:
        ```python
        from fluence_async import Timeout

        patient = Timeout(total=None, first_byte=300)
        hurried = Timeout(total=20, queue=2)
        ```
    """

    total: float | None = None
    connect: float | None = 10.0
    first_byte: float | None = 120.0
    idle: float | None = 60.0
    progress: float | None = 120.0
    queue: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"Timeout({name}={value!r}): must be seconds as a number, or None")
            if not value > 0:
                raise ValueError(
                    f"Timeout({name}={value!r}): must be above 0 seconds; None means no bound"
                )

    @classmethod
    def of(cls, value: Timeout | float) -> Timeout:
        """A plain number is the total.

        Raises:
            TypeError: `value` is neither a `Timeout` nor a number.
            ValueError: It is not above 0.
        """
        return value if isinstance(value, Timeout) else cls(total=value)


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often and how long to try again.

    Attributes:
        max_retries: Attempts after the first.
        base_s: The first wait's upper bound, in seconds; doubled for each further one.
        cap_s: The upper bound of any wait that the server did not ask for, in seconds.
        max_retry_after_s: The longest Retry-After that is waited for, in seconds; a longer one
            raises the error at once.
        budget_s: No attempt starts later than this many seconds after the first; None for no
            bound but `Timeout.total`.
    """

    max_retries: int = 2
    base_s: float = 0.5
    cap_s: float = 8.0
    max_retry_after_s: float = 60.0
    budget_s: float | None = None

    def __post_init__(self) -> None:
        retries = self.max_retries
        if isinstance(retries, bool) or not isinstance(retries, int):
            raise TypeError(f"max_retries={retries!r}: must be a whole number, 0 (never) or more")
        if retries < 0:
            raise ValueError(f"max_retries={retries}: must be 0 (never) or more")
        for name in ("base_s", "cap_s", "max_retry_after_s", "budget_s"):
            value = getattr(self, name)
            if name == "budget_s" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"RetryPolicy({name}={value!r}): must be seconds as a number")
            if not 0 <= value < math.inf:
                raise ValueError(f"RetryPolicy({name}={value!r}): must be 0 or more seconds")


class CallOptions(TypedDict, total=False):
    """How a call is made, not what it asks; the session's own options where left out.

    Attributes:
        timeout: A `Timeout`, or the total in seconds.
        max_retries: Attempts after the first.
        priority: `interactive` (the default) or `batch`.
        tags: Names and values that come back in `meta.tags`, and that hooks are told.
        extra_headers: Headers beside the session's own.
        cache: Whether the session's cache may answer, and keep the answer; seconds say how long
            at most. True and seconds do so at any `temperature`: one sample then stands for all.
        keep_raw: Keep what the server sent, unknown fields too, in `.raw`.
    """

    timeout: Timeout | float | None
    max_retries: int | None
    priority: Priority | None
    tags: Mapping[str, str] | None
    extra_headers: Mapping[str, str] | None
    cache: bool | float | None
    keep_raw: bool | None


class PromptParams(TypedDict, total=False):
    """What every way of asking takes, as of `ChatParams`."""

    model: Required[str]
    messages: Required[str | Sequence[MessageLike]]
    temperature: float | None
    max_tokens: int | None
    audio: Mapping[str, Any] | None
    frequency_penalty: float | None
    function_call: str | Mapping[str, Any] | None
    functions: Sequence[Mapping[str, Any]] | None
    logit_bias: Mapping[str, float] | None
    logprobs: bool | None
    max_completion_tokens: int | None
    metadata: Mapping[str, str] | None
    modalities: Sequence[str] | None
    n: int | None
    parallel_tool_calls: bool | None
    prediction: Mapping[str, Any] | None
    presence_penalty: float | None
    reasoning_effort: str | None
    seed: int | None
    service_tier: str | None
    stop: str | Sequence[str] | None
    store: bool | None
    stream_options: StreamOptions | Mapping[str, Any] | None
    tool_choice: str | Mapping[str, Any] | None
    top_logprobs: int | None
    top_p: float | None
    user: str | None
    verbosity: str | None
    web_search_options: Mapping[str, Any] | None
    extra_body: Mapping[str, Any] | None


class CompletionParams(PromptParams, total=False):
    """What `POST /v1/chat/completions` takes, as of `ChatParams`."""

    response_format: ResponseFormat | Mapping[str, Any] | None
    tools: Sequence[Tool | Mapping[str, Any]] | None


class ChatParams(CompletionParams, CallOptions, total=False):
    """All that `create` and `stream` take: what is asked, and how the call is made.

    `model` and `messages` are required. None is as if it were left out: the parameter is not sent,
    the option is the session's. What is no key here is a `TypeError`.

    Attributes:
        model: str. The model's ID, such as `"fluence-chat"`.
        messages: str (one user message), or a list of at least one `Message` or mapping with the
            same keys.
        temperature: 0 to 2. How random the answer is; 0 is the least.
        max_tokens: int, 1 or more. The most tokens to generate; an answer that is cut by it has the
            finish reason `length`.
        extra_body: Mapping. Laid over the request's JSON, for what only your server knows.

        The rest of what is asked is the OpenAI wire's, for servers that know it:

        audio: Mapping. Voice and format of spoken output.
        frequency_penalty: -2 to 2. Above 0, tokens are the rarer the more often they came.
        function_call: `"none"`, `"auto"` or `{"name": ...}`. The older form of `tool_choice`.
        functions: List of mappings. The older form of `tools`.
        logit_bias: Mapping of token IDs, as str, to -100 to 100, added to their likelihood.
        logprobs: bool. Return each token's log probability, in the choice's `logprobs`.
        max_completion_tokens: int, 1 or more. As `max_tokens`, reasoning included.
        metadata: Mapping of str to str. Kept by the server with the answer.
        modalities: List of str. Of what kind the answer is to be: `"text"`, `"audio"`.
        n: int, 1 or more. How many choices to generate; `parse` takes 1 only.
        parallel_tool_calls: bool. Whether one answer may make several tool calls.
        prediction: Mapping. What most of the answer will be, to have it sooner.
        presence_penalty: -2 to 2. Above 0, tokens that came before are rarer.
        reasoning_effort: str, such as `"low"`, `"medium"`, `"high"`. How long to reason.
        response_format: `ResponseFormat` or mapping. The form of the answer: `{"type": "text"}`,
            `"json_object"` or `"json_schema"`; `parse` makes it from a type.
        seed: int. The same one gives the same answer, as far as the server can.
        service_tier: str. In which of the server's classes of service the call is made.
        stop: str, or a list of them. Texts before which the answer ends.
        store: bool. Whether the server is to keep the answer.
        stream_options: `StreamOptions` or mapping. Of a stream only; `{"include_usage": True}` is
            sent by default.
        tool_choice: `"none"`, `"auto"`, `"required"` or
            `{"type": "function", "function": {"name": ...}}`. Whether, or which, tool is called.
        tools: List of `Tool`s or mappings. What the model may call; `run_tools` takes functions
            made tools by `@tool`, and calls them.
        top_logprobs: int, 0 to 20. With `logprobs`: of how many likely tokens at each place.
        top_p: 0 to 1. Choose among the likeliest tokens that make up this share only.
        user: str. Your name for the end user, for the server's own watch on abuse.
        verbosity: str, such as `"low"`, `"medium"`, `"high"`. How long the answer is to be.
        web_search_options: Mapping. How the server is to search the web.

        How the call is made, as of `CallOptions`:

        timeout: `Timeout`, or seconds for the whole call.
        max_retries: int, 0 or more. Attempts after the first.
        priority: `"interactive"` or `"batch"`. Whose call waits first for the limiter.
        tags: Mapping of str to str. Come back in `meta.tags`; hooks, usage and budgets know them.
        extra_headers: Mapping of str to str. Headers beside the session's own.
        cache: bool, or seconds. Whether the session's cache may answer, and for how long.
        keep_raw: bool. Keep what the server sent in `.raw`.
    """


class ToolRunParams(PromptParams, CallOptions, total=False):
    """What `run_tools` takes beside its tools and its own options: as of `ChatParams`."""

    response_format: ResponseFormat | Mapping[str, Any] | None


class ParseParams(PromptParams, CallOptions, total=False):
    """What `parse` takes beside its `response_type`: as of `ChatParams`."""

    tools: Sequence[Tool | Mapping[str, Any]] | None
