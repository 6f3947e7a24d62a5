"""What happened, as frozen facts, and the protocol of whoever wants to be told.

Law: a fact carries no prompt, no answer and no key; `CallContent` alone carries what was said, and
only who asks for it is told. A hook is told and cannot change anything; what it raises is logged,
once for each hook and session and by its name, and the call goes on. Rejected: a middleware chain,
which would give every observer the power to break the call.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import msgspec

from .meta import Meta
from .types import ChatCompletion, Usage

__all__ = [
    "AttemptFailed",
    "BudgetReached",
    "CacheLooked",
    "CallContent",
    "CallFailed",
    "CallFinished",
    "CallStarted",
    "Fact",
    "Hook",
    "LimiterWaited",
    "LimiterWaits",
    "ResponseStarted",
    "RetryScheduled",
    "ToolCalled",
]


class CallStarted(msgspec.Struct, frozen=True, kw_only=True):
    """A call began. `call_id` is the same in all facts of one call."""

    call_id: str
    model: str
    stream: bool
    origin: str
    tags: dict[str, str]


class CacheLooked(msgspec.Struct, frozen=True, kw_only=True):
    """A call with a cache has found where its answer comes from.

    Attributes:
        call_id: The call.
        hit: From the cache.
        coalesced: From an equal call that was under way. If neither, from a request of its own.
    """

    call_id: str
    hit: bool
    coalesced: bool


class LimiterWaits(msgspec.Struct, frozen=True, kw_only=True):
    """A call begins to wait for the limiter, and it is known already that this takes longer than a
    second: `at_least_s`. Where it hangs on answers of other calls, `LimiterWaited` alone tells."""

    call_id: str
    at_least_s: float


class LimiterWaited(msgspec.Struct, frozen=True, kw_only=True):
    """A call waited longer than a second for the limiter."""

    call_id: str
    wait_s: float


class AttemptFailed(msgspec.Struct, frozen=True, kw_only=True):
    """One request failed. `error` is its class's name; `attempt` counts from 1."""

    call_id: str
    attempt: int
    error: str
    message: str


class RetryScheduled(msgspec.Struct, frozen=True, kw_only=True):
    """Another attempt follows in `wait_s` seconds."""

    call_id: str
    attempt: int
    wait_s: float


class ResponseStarted(msgspec.Struct, frozen=True, kw_only=True):
    """The headers of a good response came, `headers_s` seconds after the call began."""

    call_id: str
    attempt: int
    request_id: str | None
    headers_s: float


class CallFinished(msgspec.Struct, frozen=True, kw_only=True):
    """A call ended well, or its reader closed it early, of its own will (`complete` is False).

    `response_id` is the server's name for the answer, `finish_reasons` holds every choice's.
    """

    call_id: str
    model: str
    response_id: str
    complete: bool
    finish_reason: str | None
    finish_reasons: tuple[str, ...]
    usage: Usage | None
    meta: Meta


class CallFailed(msgspec.Struct, frozen=True, kw_only=True):
    """A call ended in an error, or was cancelled. `error` is the exception's class name.

    A stream was cancelled if its reader was, in a read or in `async with`, and nobody read on.
    """

    call_id: str
    model: str
    error: str
    message: str
    usage: Usage | None
    meta: Meta


class BudgetReached(msgspec.Struct, frozen=True, kw_only=True):
    """A call made a soft budget full: told once in each of its windows.

    Attributes:
        call_id: The call.
        budget: What the budget is called, whose it is included.
        limit: How much of it there is: tokens or money.
        spent: How much is spent.
    """

    call_id: str
    budget: str
    limit: float
    spent: float


class CallContent(msgspec.Struct, frozen=True, kw_only=True):
    """What a call asked, in JSON as it was sent, and what of the answer had come when it ended.

    Told right before the call's last fact, to those hooks alone whose `wants_content` is True.
    """

    call_id: str
    request: bytes
    answer: ChatCompletion | None


class ToolCalled(msgspec.Struct, frozen=True, kw_only=True):
    """A tool of `run_tools` ran, and is done.

    Attributes:
        call_id: The call whose answer called it.
        tool: The tool's name.
        duration_s: Seconds that it ran, without the wait for room among `max_parallel`.
        error: The class of what it raised, or of what cancelled it; None if it returned.
    """

    call_id: str
    tool: str
    duration_s: float
    error: str | None


Fact: TypeAlias = (
    CallStarted
    | CacheLooked
    | LimiterWaits
    | LimiterWaited
    | AttemptFailed
    | RetryScheduled
    | ResponseStarted
    | CallFinished
    | CallFailed
    | BudgetReached
    | CallContent
    | ToolCalled
)
"""Any of the facts."""


class Hook(Protocol):
    """Whoever wants to be told: `FluenceSession(hooks=[my_hook])`.

    A plain function (or an object that is called as one), not an `async def`: it is called on the
    event loop, in order, and never awaited, so it must return at once. What has to wait goes into a
    queue (`put_nowait`) that a task of yours reads.
    """

    def __call__(self, fact: Fact, /) -> None:
        """Take note of `fact`."""
