"""A transport that plays a script in memory: what a server does, second by second.

For what no real server can do: sit still for hours of virtual time, fail at an exact byte, and be
the same on both backends. It passes the transports' contract where that applies (deadlines,
closing, cancellation); sockets have their own tests.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from fluence_async.transports._base import (
    BodyBroken,
    BodyTimeout,
    Request,
    SendTimeout,
    TransportError,
)

Step = bytes | float | BaseException
"""Bytes that arrive, seconds that pass, or what then goes wrong. At the end of the steps the body
ends cleanly."""


class Answer:
    """One scripted answer: the seconds until its headers, or what they wait for, its head, and its
    body's steps."""

    def __init__(
        self,
        *steps: Step,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        wait: float | anyio.Event = 0.0,
        fails: TransportError | None = None,
    ) -> None:
        self.steps = list(steps)
        self.status = status
        self.headers = {"content-type": "text/event-stream", **(headers or {})}
        self.wait = wait
        self.fails = fails


class ScriptedResponse:
    def __init__(self, answer: Answer, transport: ScriptedTransport) -> None:
        self.status = answer.status
        self.headers = answer.headers
        self._steps = list(answer.steps)
        self._transport = transport
        self._closed = anyio.Event()
        self.clean = False
        transport.open.add(self)

    async def receive(self, deadline: float) -> bytes:
        while True:
            if self._closed.is_set():
                raise BodyBroken("closed")
            if not self._steps:
                self.clean = True
                return b""
            step = self._steps[0]
            if isinstance(step, bytes):
                self._steps.pop(0)
                return step
            if isinstance(step, BaseException):
                raise step
            began = anyio.current_time()
            try:
                with anyio.CancelScope(deadline=min(deadline, began + step)):
                    await self._closed.wait()
            finally:
                left = step - (anyio.current_time() - began)
                if left <= 1e-9:
                    self._steps.pop(0)
                else:
                    self._steps[0] = left
            if anyio.current_time() >= deadline:
                raise BodyTimeout("stalled")

    async def aclose(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._closed.set()
        self._transport.open.discard(self)


class ScriptedTransport:
    """Plays the answers one after another, the last for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []
        self.open: set[ScriptedResponse] = set()

    @property
    def clock(self) -> Callable[[], float]:
        return anyio.current_time

    async def send(self, request: Request) -> ScriptedResponse:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        await anyio.lowlevel.checkpoint()
        if answer.fails is not None:
            raise answer.fails
        request.on_sent()
        with anyio.CancelScope(deadline=request.deadline):
            if isinstance(answer.wait, anyio.Event):
                await answer.wait.wait()
            else:
                await anyio.sleep(answer.wait)
            return ScriptedResponse(answer, self)
        raise SendTimeout("no answer in time")

    async def aclose(self) -> None:
        for response in list(self.open):
            response.abort()

    def abandon(self) -> None:
        self.open.clear()

    def body(self, index: int = -1) -> dict[str, Any]:
        """The JSON of a request."""
        body: dict[str, Any] = json.loads(self.requests[index].body)
        return body


STALL = math.inf


def event(**chunk: Any) -> bytes:
    """One chunk as an event."""
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def text(content: str, *, index: int = 0, finish: str | None = None) -> bytes:
    """A chunk that adds text to a choice."""
    choice = {"index": index, "delta": {"content": content}, "finish_reason": finish}
    return event(id="c-1", object="chat.completion.chunk", created=1, model="m", choices=[choice])


FINISH = event(id="c-1", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
USAGE = event(
    id="c-1",
    choices=[],
    usage={"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
)
DONE = b"data: [DONE]\n\n"
