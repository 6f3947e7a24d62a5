"""Cancelled at any of its await points, once or twice, a call leaves nothing behind.

Each sweep runs one call again and again and cancels it at its first suspension, at its second, and
so on, until it comes through uncancelled: every await is a place where it ends once.
"""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from fluence_async import ChatStream, FluenceSession, Limiter, RetryPolicy
from fluence_async.testing import Done, Finish, FluenceServer, Pause, Status, Stream, Trickle

pytestmark = pytest.mark.anyio

MODEL = "fluence-chat"


@types.coroutine
def _counted(
    call: Coroutine[Any, Any, None], at: Callable[[int], None]
) -> Generator[Any, Any, None]:
    """Drive `call`, telling `at` the number of each suspension while it is suspended."""
    count = 0
    step: Callable[[], Any] = lambda: call.send(None)  # noqa: E731
    while True:
        try:
            waits_for = step()
        except StopIteration:
            return
        count += 1
        at(count)
        try:
            sent = yield waits_for
        except BaseException as error:
            step = lambda error=error: call.throw(error)  # noqa: E731
        else:
            step = lambda sent=sent: call.send(sent)  # noqa: E731


async def cancelled_at(call: Coroutine[Any, Any, None], *suspensions: int) -> bool:
    """Run `call`, cancelling it at these suspensions; whether it came through uncancelled."""
    scopes = [anyio.CancelScope() for _ in suspensions]
    came_through = False

    def at(count: int) -> None:
        for scope, suspension in zip(scopes, suspensions, strict=True):
            if count == suspension:
                scope.cancel()

    with scopes[0], scopes[-1] if len(scopes) > 1 else anyio.CancelScope():
        await _counted(call, at)
        came_through = True
    return came_through and not any(scope.cancel_called for scope in scopes)


class World:
    """A server, a session and its limiter, and what must be true between two calls."""

    def __init__(self, server: FluenceServer, fluence: FluenceSession, limiter: Limiter) -> None:
        self.server = server
        self.fluence = fluence
        self.limiter = limiter

    async def plain(self) -> None:
        assert (await self.fluence.chat.completions.create(model=MODEL, messages="hi")).text

    async def stream(self) -> None:
        async with self.fluence.chat.completions.stream(model=MODEL, messages="hi") as stream:
            async for _ in stream:
                pass

    def left_nothing(self) -> None:
        """Nobody waits for the limiter, and nothing that counts until a call's end is held by a
        call that has ended: all its places are free, and no token is reserved for what was never
        sent, was refused, or has said what it came to."""
        snapshot = self.limiter.snapshot()
        assert snapshot.waiting == 0
        assert [window.used for window in snapshot.windows if not window.limit.period_s] == [0, 0]
        for window in self.limiter._line.store.windows:  # type: ignore[attr-defined]
            assert window.in_flight == 0

    async def check(self) -> None:
        """No request under way, no unit in flight, nothing reserved, and the next call works."""
        with anyio.fail_after(5):
            await self.server.wait_until_idle(4, connections=1)
        self.left_nothing()
        assert [state.reserved for state in self.fluence.usage.snapshot().budgets] in ([], [0])
        self.server.script()
        await self.plain()


@asynccontextmanager
async def opened(*, limits: str = "1000000/second", **options: Any) -> AsyncIterator[World]:
    """A limiter of all dimensions, the places as many as there may be calls at once."""
    lasting = ("1000000 tokens/hour", "20 concurrent", f"20 concurrent for {MODEL}")
    limiter = Limiter((limits, *lasting), margin_s=0.0, unseen_s=0.0)
    async with FluenceServer(limits=None) as server:
        async with FluenceSession(
            api_key=server.api_key,
            base_url=server.base_url,
            limiter=limiter,
            budget="1000M tokens",
            retry=RetryPolicy(max_retries=2, base_s=0.01),
            **options,
        ) as fluence:
            yield World(server, fluence, limiter)
        await server.wait_until_idle(4)


Sweep = Callable[[World], Awaitable[None]]


def streaming(world: World) -> Coroutine[Any, Any, None]:
    world.server.script(Stream("Hel", Pause(0.002), "lo"))
    return world.stream()


def retrying(world: World) -> Coroutine[Any, Any, None]:
    world.server.script(Status(500), Status(429), "Hello")
    return world.plain()


def left_early(world: World) -> Coroutine[Any, Any, None]:
    async def call() -> None:
        async with world.fluence.chat.completions.stream(model=MODEL, messages="hi") as stream:
            await anext(stream)

    world.server.script(Stream("Hel", Pause(0.002), "lo"))
    return call()


def draining(world: World) -> Coroutine[Any, Any, None]:
    world.server.script(Stream("Hello", Finish(), Done(), Pause(0.01), end=False))
    return world.stream()


CALLS: dict[str, Callable[[World], Coroutine[Any, Any, None]]] = {
    "a plain call": World.plain,
    "a stream": streaming,
    "a stream left early": left_early,
    "a retry": retrying,
    "a drain": draining,
}


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_a_call_cancelled_at_any_await_leaves_nothing(
    call: Callable[[World], Coroutine[Any, Any, None]], *, twice: bool, warm: bool
) -> None:
    suspension = 0
    came_through = False
    while not came_through:
        suspension += 1
        assert suspension < 200
        async with opened() as world:
            if warm:
                await world.plain()
            at = (suspension, suspension + 1) if twice else (suspension,)
            came_through = await cancelled_at(call(world), *at)
            await world.check()
    assert suspension >= 2


async def test_a_wait_for_the_limiter_cancelled_at_any_await_takes_no_unit() -> None:
    async with opened(limits="2/second") as world:
        for suspension in range(1, 4):
            while True:
                try:
                    world.limiter.acquire_nowait().release()
                except anyio.WouldBlock:
                    break
                await world.plain()
            before = world.limiter.snapshot().windows[0].used
            assert not await cancelled_at(world.plain(), 1)
            snapshot = world.limiter.snapshot()
            assert snapshot.waiting == 0
            assert snapshot.windows[0].used <= before
            assert suspension
    assert len(world.server.requests) == 2


async def test_random_cancels_of_many_workers_leave_nothing() -> None:
    async with opened() as world:

        async def work(number: int) -> None:
            for turn in range(12):
                call = world.stream() if (number + turn) % 2 else world.plain()
                await cancelled_at(call, 1 + (number * 7 + turn * 5) % 23)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(work, number)
        await world.server.wait_until_idle(4, connections=20)
        world.left_nothing()
        world.server.script()
        await world.plain()


class Reader:
    """Reads a stream, and keeps what it was given."""

    def __init__(self, stream: ChatStream) -> None:
        self.stream = stream
        self.text = ""
        self.ended = False

    async def read(self) -> None:
        chunk = await anext(self.stream, None)
        self.ended = chunk is None
        self.text += "" if chunk is None else chunk.text


PIECES = ("Who ", "is cancelled ", "has lost ", "nothing.")


@pytest.mark.parametrize("cache", [None, "memory"])
@pytest.mark.parametrize("cut", [False, True], ids=["between events", "within events"])
async def test_a_stream_goes_on_after_any_read_that_was_cancelled(*, cache: Any, cut: bool) -> None:
    suspension = 0
    cancelled = True
    while cancelled:
        suspension += 1
        assert suspension < 200
        cancelled = False
        async with opened(cache=cache) as world:
            steps = [step for piece in PIECES for step in (piece, Pause(0.001))]
            world.server.script(Trickle(Stream(*steps), size=40) if cut else Stream(*steps))
            async with world.fluence.chat.completions.stream(model=MODEL, messages="hi") as stream:
                reader = Reader(stream)
                while not reader.ended:
                    cancelled |= not await cancelled_at(reader.read(), suspension)
                    await reader.read()
                assert reader.text == stream.completion.text == "".join(PIECES)
            await world.check()
            assert len(world.server.requests) == (1 if cache else 2)
    assert suspension >= 2


@pytest.mark.parametrize("how", ["reads on", "closes"])
async def test_a_reader_that_is_cancelled_takes_nothing_from_who_reads_along(how: str) -> None:
    for suspension in range(1, 6):
        for turn in range(len(PIECES)):
            async with opened(cache="memory") as world:
                steps = [step for piece in PIECES for step in (piece, Pause(0.002))]
                world.server.script(Stream(*steps))
                create = world.fluence.chat.completions.create
                first = Reader(await create(model=MODEL, messages="hi", stream=True))
                other = await create(model=MODEL, messages="hi", stream=True)
                for _ in range(turn):
                    await first.read()
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(cancelled_at, first.read(), suspension)
                    await checkpoint()  # so that it is the first who reads for both
                    tasks.start_soon(other.get_final_completion)
                if how == "closes":
                    await first.stream.aclose()
                else:
                    while not first.ended:
                        await first.read()
                    assert first.text == "".join(PIECES)
                assert other.completion.text == "".join(PIECES)
                await world.check()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
async def test_with_a_cache_it_leaves_nothing_either(
    call: Callable[[World], Coroutine[Any, Any, None]],
) -> None:
    suspension = 0
    came_through = False
    while not came_through:
        suspension += 1
        assert suspension < 200
        async with opened(cache="memory") as world:
            came_through = await cancelled_at(call(world), suspension)
            await world.check()


async def test_equal_calls_that_are_cancelled_leave_the_limiter_nothing() -> None:
    """Who leads and who reads along, each at any await."""
    for suspension in range(1, 40):
        async with opened(cache="memory") as world:
            world.server.script(Stream("Hel", Pause(0.002), "lo"), repeat=True)

            async def other(world: World = world, at: int = 41 - suspension) -> None:
                await cancelled_at(world.stream(), at)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(other)
                await cancelled_at(world.stream(), suspension)
            with anyio.fail_after(5):
                await world.server.wait_until_idle(4, connections=2)
            world.left_nothing()


async def test_a_wait_for_a_place_cancelled_at_any_await_takes_none() -> None:
    async with opened(limits="1000000/second") as world:
        world.limiter.tighten(["1000000/second", "1 concurrent"])
        world.server.script(Stream("Hel", Pause(0.05), "lo"), repeat=True)
        async with world.fluence.chat.completions.stream(model=MODEL, messages="hi") as stream:
            for suspension in range(1, 4):
                with anyio.move_on_after(0.01):
                    await cancelled_at(world.plain(), suspension)
                places = world.limiter.snapshot().windows[2]
                assert (places.used, world.limiter.snapshot().waiting) == (1, 0)
            await stream.get_final_text()
        world.left_nothing()
