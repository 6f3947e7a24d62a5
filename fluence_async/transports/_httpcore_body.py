"""An answer of httpcore2 in, the pieces of its body out, one at a time; a cancelled wait is none.

Law: httpcore2's generator never waits. A generator that is cancelled is finished, and closes the
connection; so it is stepped by hand, asks here for the bytes that it lacks (`Wire.by_hand`), and
stands still while they are waited for outside of it. Whoever is cancelled there leaves it as it
stands, and the next to come goes on. Rejected: a task that reads, which costs each read a change
of tasks; reading the body with h11, whose buffer holds its start and is httpcore2's own.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Coroutine, Generator
from contextlib import suppress
from types import coroutine
from typing import Any, TypeAlias

import httpcore2

from ._trio_network import Wire

__all__ = ["Body"]

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
        wire, step = self._wire, self._step
        awaited: Any = wire
        try:
            if step is None:
                if self._begun:
                    step = self._pieces.__anext__()
                    awaited = step.send(None)
                else:
                    self._begun = True
                    step, awaited = _begin(self._pieces)
            while awaited is wire:
                self._step = step
                data = await wire.receive(_MOST)
                self._step = None
                awaited = step.send(data)
        except StopIteration as end:
            piece: bytes = end.value
            return piece
        except StopAsyncIteration:
            return b""
        return await _rest(step, awaited)

    async def aclose(self) -> None:
        """Let go of the connection: for the next request if the body was read to its end. Never
        waits for the network."""
        step, self._step = self._step, None
        if step is not None:
            with suppress(httpcore2.ReadError):
                await _rest(step, step.throw(httpcore2.ReadError("closed")))
        self._wire.by_hand = False
        await self._pieces.aclose()
        await self._answer.aclose()


def _begin(pieces: AsyncGenerator[bytes]) -> tuple[_Step, Any]:
    """The first step, and what it awaits; the generators that begin in it are ours to close. Trio
    is not told of them: at its end it would try, in any order, and cannot where one stands still.
    """
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(firstiter=None, finalizer=None)
    try:
        step = pieces.__anext__()
        return step, step.send(None)
    finally:
        sys.set_asyncgen_hooks(*hooks)


@coroutine
def _rest(step: _Step, awaited: Any) -> Generator[Any, Any, bytes]:
    """What `step` comes to, which awaits something else than bytes: it closes the connection."""
    try:
        while True:
            try:
                sent = yield awaited
            except BaseException as error:  # noqa: BLE001 — it is the step's
                awaited = step.throw(error)
            else:
                awaited = step.send(sent)
    except StopIteration as end:
        piece: bytes = end.value
        return piece
