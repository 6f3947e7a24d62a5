"""What may be answered: a correct answer, a plain response, an error; and what all share.

A reply is anything that can be played on a wire. These are composable: where one is expected, a
`str` stands for `Answer(str)`, `bytes` for those very bytes, a mapping for a JSON response, and
a list for its members one after another. `faults` has the ones that are wrong on purpose.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec

from . import tokens
from .refusal import envelope
from .turn import Turn, event
from .wire import Wire

__all__ = [
    "Answer",
    "Call",
    "Reply",
    "ReplyLike",
    "Status",
    "Step",
    "answer_in",
    "checked_status",
    "executes",
    "play",
]


class Step(ABC):
    """A reply, or a step of one: anything that can be played on a wire."""

    @property
    def answer(self) -> Answer | None:
        """The whole answer in it, which an idempotency key brings back; None for none."""
        return None

    @property
    def executes(self) -> bool:
        """Whether a model would have run for it."""
        return False

    @property
    def silent(self) -> bool:
        """Whether it sends nothing and goes on."""
        return False

    @abstractmethod
    async def play(self, wire: Wire) -> None:
        """Do it."""

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({fields})"


ReplyLike: TypeAlias = Step | str | bytes | Mapping[str, Any] | list[Any]
"""A reply, or what stands for one."""


class Call(Step):
    """A tool call, as a part of an answer or of a stream.

    Args:
        name: The function.
        arguments: As a mapping, or as JSON text, right or wrong.
        id: By default made from the answer's own.
        index: Its place among the answer's calls. Beside other calls in a `Stream`, say it.
    """

    def __init__(
        self,
        name: str,
        arguments: Mapping[str, Any] | str | None = None,
        *,
        id: str | None = None,  # noqa: A002
        index: int = 0,
    ) -> None:
        self.name = name
        self.arguments: str = (
            arguments
            if isinstance(arguments, str)
            else msgspec.json.encode(arguments or {}).decode()
        )
        self.id = id
        self.index = index

    def whole(self, turn: Turn, index: int) -> dict[str, Any]:
        """The call as it stands in a whole message."""
        return {
            "id": self.id or f"call_{turn.id.removeprefix('chatcmpl-')}_{index}",
            "type": "function",
            "function": {"name": self.name, "arguments": self.arguments},
        }

    def deltas(self, turn: Turn, index: int) -> list[dict[str, Any]]:
        """The call in pieces: its name, then its arguments token by token."""
        whole = self.whole(turn, index)
        first = {"index": index, **whole, "function": {"name": self.name, "arguments": ""}}
        pieces = tokens.split(self.arguments)
        rest = [{"index": index, "function": {"arguments": piece}} for piece in pieces]
        return [{"tool_calls": [call]} for call in [first, *rest]]

    async def play(self, wire: Wire) -> None:
        """In a stream: send its deltas."""
        for delta in self.deltas(wire.turn, self.index):
            await wire.body(wire.turn.chunk(delta))


class Answer(Step):
    """A correct answer, streamed or whole as it was asked for.

    Args:
        parts: Texts, each a delta of its own in a stream, and `Call`s.
        finish_reason: By default `tool_calls` if there is a call, else `stop`.
        usage: By default counted (see `tokens`).
    """

    def __init__(
        self,
        *parts: str | Call,
        finish_reason: str | None = None,
        usage: Mapping[str, Any] | None = None,
    ) -> None:
        said: tuple[object, ...] = parts  # whatever their types say
        if wrong := [part for part in said if not isinstance(part, str | Call)]:
            raise TypeError(f"Answer({wrong[0]!r}): its parts are texts and Calls")
        self.texts: list[str] = [part for part in parts if isinstance(part, str)]
        self.calls: list[Call] = [part for part in parts if isinstance(part, Call)]
        self.finish_reason: str = finish_reason or ("tool_calls" if self.calls else "stop")
        self.usage = usage

    @property
    def answer(self) -> Answer:
        """Itself."""
        return self

    @property
    def executes(self) -> bool:
        """True."""
        return True

    async def play(self, wire: Wire) -> None:
        """Send it, in the form that the request asked for."""
        turn = wire.turn
        spoken = tokens.count(["".join(self.texts), *(c.name + c.arguments for c in self.calls)])
        usage = self.usage or turn.usage(spoken)
        if turn.chat.stream:
            await self._stream(wire, usage)
            return
        message: dict[str, Any] = {"role": "assistant", "content": "".join(self.texts)}
        if self.calls:
            message["content"] = message["content"] or None
            message["tool_calls"] = [call.whole(turn, i) for i, call in enumerate(self.calls)]
        await Reply(json=turn.completion(message, self.finish_reason, usage)).play(wire)

    async def _stream(self, wire: Wire, usage: Mapping[str, Any]) -> None:
        turn = wire.turn
        await wire.head(200, STREAM_HEADERS)
        for index in turn.chat.choices:
            await wire.body(turn.chunk({"role": "assistant", "content": ""}, index=index))
        deltas: list[dict[str, Any]] = [{"content": text} for text in self.texts]
        for i, call in enumerate(self.calls):
            deltas += call.deltas(turn, i)
        for delta in deltas:
            if wire.pace:
                await asyncio.sleep(wire.pace)
            for index in turn.chat.choices:
                await wire.body(turn.chunk(delta, index=index))
        for index in turn.chat.choices:
            await wire.body(turn.chunk({}, index=index, finish_reason=self.finish_reason))
        if turn.chat.wants_usage:
            await wire.body(turn.usage_chunk(usage))
        await wire.body(DONE)
        await wire.end()


class Reply(Step):
    """A plain HTTP response: `json`, `text` or `body`, whichever is given."""

    def __init__(
        self,
        status: int = 200,
        *,
        json: Any = None,
        text: str | None = None,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status: int = checked_status(self, status)
        self.headers: dict[str, str] = dict(headers or {})
        self.body: bytes = body
        if json is not None:
            self.body = msgspec.json.encode(json)
            self.headers.setdefault("content-type", "application/json")
        elif text is not None:
            self.body = text.encode()
            self.headers.setdefault("content-type", "text/plain; charset=utf-8")

    async def play(self, wire: Wire) -> None:
        """Send it."""
        await wire.respond(self.status, self.headers, self.body)


class Status(Step):
    """An error in the API's envelope; inside a `Stream`, an error event that ends it.

    Args:
        status: The HTTP status, 400 to 599.
        message: By default one that says it is scripted.
        code: By default the documented one for the status.
        param: The parameter at fault.
        retry_after: The `Retry-After` header, whatever it says.
        headers: Further headers.
    """

    def __init__(
        self,
        status: int,
        message: str | None = None,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: str | float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status: int = checked_status(self, status, 400, 599)
        self.headers: dict[str, str] = dict(headers or {})
        if retry_after is not None:
            self.headers["retry-after"] = str(retry_after)
        self.body: dict[str, Any] = envelope(
            status, message or f"scripted {status}", code=code, param=param
        )

    async def play(self, wire: Wire) -> None:
        """Send it."""
        if wire.framing:
            await wire.body(event(self.body))
        else:
            await Reply(self.status, json=self.body, headers=self.headers).play(wire)


STREAM_HEADERS = {"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
DONE = event("[DONE]")


def checked_status(step: Step, status: Any, low: int = 100, high: int = 999) -> int:
    """The HTTP status that `step` was given.

    Raises:
        TypeError, ValueError: It is none.
    """
    said = f"{type(step).__name__}: the status {status!r} must be"
    if isinstance(status, bool) or not isinstance(status, int):
        raise TypeError(f"{said} a whole number, such as {low}")
    if not low <= status <= high:
        raise ValueError(f"{said} from {low} to {high}")
    return status


async def play(what: ReplyLike, wire: Wire) -> None:
    """Play a reply or what stands for one. Within a body a `str` is a delta of text, a mapping an
    event, and `bytes` a piece of the body; outside, they are an answer, a response, raw bytes."""
    if isinstance(what, str):
        delta = wire.turn.chunk({"content": what})
        await (wire.body(delta) if wire.framing else Answer(what).play(wire))
    elif isinstance(what, bytes):
        await (wire.body(what) if wire.framing else wire.send(what))
    elif isinstance(what, Mapping):
        await (wire.body(event(what)) if wire.framing else Reply(json=what).play(wire))
    elif isinstance(what, list):
        for step in what:
            await play(step, wire)
    else:
        await what.play(wire)


def answer_in(what: ReplyLike) -> Answer | None:
    """The whole answer in a reply, None where there is none."""
    if isinstance(what, str):
        return Answer(what)
    if isinstance(what, bytes | Mapping):
        return None
    if isinstance(what, list):
        return next((found for step in what if (found := answer_in(step))), None)
    return what.answer


def executes(what: ReplyLike) -> bool:
    """Whether a model would have run for a reply."""
    if isinstance(what, list):
        return any(executes(step) for step in what)
    return isinstance(what, str) or (not isinstance(what, bytes | Mapping) and what.executes)
