"""An answer of httpcore2 in, the pieces of its body out, one at a time; a cancelled wait is none.

Law: httpcore2's generator never waits. A generator that is cancelled is finished, and closes the
connection; so it is stepped by hand, asks here for the bytes that it lacks (`Wire.by_hand`), and
stands still while they are waited for outside of it. Whoever is cancelled there leaves it as it
stands, and the next to come goes on. Rejected: a task that reads, which costs each read a change
of tasks; reading the body with h11, whose buffer holds its start and is httpcore2's own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from functools import partial
from types import coroutine
from typing import Any, TypeAlias, TypeVar

import httpcore2

from ._trio_network import Wire

__all__ = ["Body"]

T = TypeVar("T")

_Step: TypeAlias = Coroutine[Any, Any, bytes]
_MOST = 64 * 1024


class Body:
    """The pieces of a body.

    Args:
        answer: Whose; its head has been read.
    """

    def __init__(self, answer: httpcore2.Response) -> None:
        self._answer = answer
        self._wire: Wire = answer.extensions["network_stream"]
        self._pieces = answer.aiter_stream()
        self._step: _Step | None = None  # it has asked for bytes
        self._begun = False
        self._wire.by_hand = True

    async def next(self) -> bytes:
        """The next piece, b"" at the end. Cancelled, it has taken nothing."""
        step = self._step
        while True:
            if step is None:
                step, go = self._begin()
            else:
                go = partial(step.send, await self._wire.receive(_MOST))
            self._step = None
            try:
                piece = await _stepped(self._wire, go, step)
            except StopAsyncIteration:
                return b""
            if piece is not None:
                return piece
            self._step = step

    def _begin(self) -> tuple[_Step, Callable[[], Any]]:
        """A step of the generator, and how to take it."""
        if self._begun:
            step = self._pieces.__anext__()
            return step, partial(step.send, None)
        self._begun = True
        step = _unseen(self._pieces.__anext__)
        return step, partial(_unseen, partial(step.send, None))

    async def aclose(self) -> None:
        """Let go of the connection: for the next request if the body was read to its end. Never
        waits for the network."""
        step, self._step = self._step, None
        if step is not None:
            with suppress(httpcore2.ReadError):
                closed = httpcore2.ReadError("closed")
                await _stepped(self._wire, partial(step.throw, closed), step)
        self._wire.by_hand = False
        await self._pieces.aclose()
        await self._answer.aclose()


def _unseen(call: Callable[[], T]) -> T:
    """What `call` returns; the generators that begin in it are ours to close. Trio is not told of
    them: at the end of its run it would try, in any order, and cannot where one stands still."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=None, finalizer=None)
    try:
        return call()
    finally:
        sys.set_asyncgen_hooks(*hooks)


@coroutine
def _stepped(wire: Wire, go: Callable[[], Any], step: _Step) -> Generator[Any, Any, bytes | None]:
    """What `step` comes to; None once it asks `wire` for bytes. What else it awaits is awaited."""
    try:
        while (awaited := go()) is not wire:
            try:
                sent = yield awaited
            except BaseException as error:  # noqa: BLE001 — it is the step's
                go = partial(step.throw, error)
            else:
                go = partial(step.send, sent)
    except StopIteration as end:
        piece: bytes = end.value
        return piece
    return None
