"""Calls that have ended go in, sums come out; and where a server does not count, an estimate.

Law: a token is counted once. What the cache or an equal call answered costs nothing and is counted
apart; what was not answered at all is taken to cost nothing here, though not by budgets, which
must not be passed. What the server did not report of an answer is estimated from the texts (4 bytes
of UTF-8 to a token, as is about right in every language) and flagged. No count of a server's does
harm: one below 0 or beyond all reason is brought into range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import msgspec

from ..meta import Meta
from ..types import ChatCompletion, Usage

__all__ = ["Price", "UsageTotals", "bounded", "estimate", "expected", "read_prices", "summed"]

_MOST = 2**40
"""More tokens than any call costs."""
_BYTES = 4
"""Of UTF-8 to a token."""
_MESSAGE_TOKENS = 4
"""What a message costs beside its text."""
_PART_TOKENS = 1_000
"""What a part that is no text costs: an image, a sound."""
_COMPLETION_TOKENS = 1_024
"""What an answer is taken to cost before there were any."""


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a model's tokens cost, for a million of them, in a currency of your choice.

    Attributes:
        prompt: A million prompt tokens.
        completion: A million completion tokens.
        cached: A million prompt tokens that the server had in its cache; None for as much as
            any others.

    Raises:
        ValueError: One of them is below 0, or no number.

    Example:
        ```python
        prices = {"fluence-chat": Price(prompt=0.50, completion=1.50)}
        ```
    """

    __module__ = "fluence_async"

    prompt: float
    completion: float
    cached: float | None = None

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if value is None and name == "cached":
                continue
            if not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise ValueError(f"Price({name}={value!r}): must be a number, 0 or more")

    def of(self, usage: Usage) -> float:
        """What `usage` costs."""
        cached = 0 if self.cached is None else _cached(usage)
        prompt = (usage.prompt_tokens - cached) * self.prompt + cached * (self.cached or 0)
        return (prompt + usage.completion_tokens * self.completion) / 1_000_000


def read_prices(prices: Mapping[str, Price] | None) -> dict[str, Price]:
    """The prices that a user wrote.

    Raises:
        TypeError: One of them is none.
    """
    if prices is not None and not isinstance(prices, Mapping):
        raise TypeError(
            f"prices={prices!r}: must name a Price for each model, as "
            "prices={'fluence-chat': Price(prompt=0.5, completion=1.5)}"
        )
    for model, price in (prices or {}).items():
        if not isinstance(price, Price):
            raise TypeError(f"prices[{model!r}] must be a Price, not {type(price).__name__}")
    return dict(prices or {})


# ─── sums ─────────────────────────────────────────────────────────────────────────────────


class UsageTotals(msgspec.Struct, kw_only=True, gc=False):
    """What calls came to, together.

    Attributes:
        calls: Calls that have ended, however they did.
        failed: Of these, those that ended in an error or were cancelled: a stream too whose reader
            was cancelled, but not one that its reader closed early.
        cached: Of these, those that the cache answered: they cost nothing.
        coalesced: Of these, those that an equal call under way answered: they cost nothing.
        requests: Requests put on the wire.
        retries: Of these, those after a call's first.
        failed_attempts: Of these, those that failed.
        prompt_tokens: Tokens asked.
        completion_tokens: Tokens answered.
        cached_tokens: Of the prompt tokens, those that the server had in its cache.
        reasoning_tokens: Of the completion tokens, those of reasoning, where the server says so.
        estimated_tokens: Of all tokens, those that the server did not report (a stream that was
            cut or left, a server that does not count), estimated from the texts.
        saved_tokens: Beside them, the tokens of answers that the cache or an equal call gave.
        cost: Money, in the currency of the prices; 0 where a model has none.
    """

    __module__ = "fluence_async"

    calls: int = 0
    failed: int = 0
    cached: int = 0
    coalesced: int = 0
    requests: int = 0
    retries: int = 0
    failed_attempts: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    estimated_tokens: int = 0
    saved_tokens: int = 0
    cost: float = 0.0

    def count(
        self, meta: Meta, usage: Usage | None, cost: float, estimated: bool, failed: bool
    ) -> None:
        """Count a call that has ended; `usage` is bounded, and None where nothing was answered."""
        self.calls += 1
        if failed:
            self.failed += 1
        if meta.cached or meta.coalesced:
            self.cached += meta.cached
            self.coalesced += not meta.cached
            if usage is not None:
                self.saved_tokens += usage.prompt_tokens + usage.completion_tokens
            return
        self.requests += meta.attempts
        if meta.attempts > 1:
            self.retries += meta.attempts - 1
        if meta.failures:
            self.failed_attempts += len(meta.failures)
        if usage is None:
            return
        self.prompt_tokens += usage.prompt_tokens
        self.completion_tokens += usage.completion_tokens
        if cost:
            self.cost += cost
        if estimated:
            self.estimated_tokens += usage.prompt_tokens + usage.completion_tokens
        if usage.prompt_tokens_details is not None:
            self.cached_tokens += _cached(usage)
        if usage.completion_tokens_details is not None:
            self.reasoning_tokens += _reasoning(usage)

    def add(self, other: UsageTotals) -> None:
        """Count all that `other` counts."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def total_tokens(self) -> int:
        """Tokens asked and answered."""
        return self.prompt_tokens + self.completion_tokens


def summed(several: Iterable[UsageTotals]) -> UsageTotals:
    """All of them together."""
    total = UsageTotals()
    for each in several:
        total.add(each)
    return total


def bounded(usage: Usage) -> Usage:
    """The same usage, its counts brought into range where a server has lost all measure."""
    if 0 <= usage.prompt_tokens <= _MOST and 0 <= usage.completion_tokens <= _MOST:
        return usage
    return msgspec.structs.replace(
        usage,
        prompt_tokens=min(max(usage.prompt_tokens, 0), _MOST),
        completion_tokens=min(max(usage.completion_tokens, 0), _MOST),
    )


def _cached(usage: Usage) -> int:
    details = usage.prompt_tokens_details
    count = details.cached_tokens if details is not None else None
    return min(max(count or 0, 0), usage.prompt_tokens)


def _reasoning(usage: Usage) -> int:
    details = usage.completion_tokens_details
    count = details.reasoning_tokens if details is not None else None
    return min(max(count or 0, 0), usage.completion_tokens)


# ─── estimates ────────────────────────────────────────────────────────────────────────────


class _Part(msgspec.Struct):
    text: str | None = None


class _Message(msgspec.Struct):
    content: str | list[_Part] | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()


class _Request(msgspec.Struct):
    """What of a request says how much it may cost."""

    messages: list[_Message]
    tools: msgspec.Raw = msgspec.Raw()
    functions: msgspec.Raw = msgspec.Raw()
    response_format: msgspec.Raw = msgspec.Raw()
    max_tokens: int | None = None
    max_completion_tokens: int | None = None


_request = msgspec.json.Decoder(_Request)


def expected(body: bytes, choices: int, so_far: UsageTotals | None) -> Usage:
    """What a request may cost: its prompt as estimated, and an answer of `max_tokens`, or of the
    mean of the answers so far."""
    prompt, most = _asked(body)
    if most is None:
        # 1,024 counts as one answer more, so that the first few alone say little
        answers = 0 if so_far is None else so_far.requests - so_far.failed_attempts
        tokens = 0 if so_far is None else so_far.completion_tokens
        each = (_COMPLETION_TOKENS + tokens) // (1 + max(answers, 0))
    else:
        each = most
    return bounded(Usage(prompt_tokens=prompt, completion_tokens=each * max(choices, 1)))


def estimate(body: bytes, answer: ChatCompletion) -> Usage:
    """What a request and as much of an answer as came to it cost."""
    prompt, _ = _asked(body)
    size = 0
    for choice in answer.choices:
        message = choice.message
        thought = message.reasoning_content or message.reasoning or ""
        size += _size(message.text) + _size(message.refusal or "") + _size(thought)
        for call in message.tool_calls or ():
            size += _size(call.function.name) + _size(call.function.arguments)
    completion = math.ceil(size / _BYTES)
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def _asked(body: bytes) -> tuple[int, int | None]:
    """The tokens of a request's prompt, estimated, and the most that its answers may have."""
    try:
        request = _request.decode(body)
    except msgspec.DecodeError:  # as extra_body says, which may say anything
        return math.ceil(len(body) / _BYTES), None
    size = tokens = 0
    for message in request.messages:
        tokens += _MESSAGE_TOKENS
        size += len(bytes(message.tool_calls))
        if isinstance(message.content, str):
            size += _size(message.content)
        for part in message.content if isinstance(message.content, list) else ():
            size += _size(part.text or "")
            tokens += 0 if part.text is not None else _PART_TOKENS
    size += sum(len(bytes(raw)) for raw in (request.tools, request.functions))
    size += len(bytes(request.response_format))
    most = request.max_completion_tokens or request.max_tokens
    return tokens + math.ceil(size / _BYTES), most


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
