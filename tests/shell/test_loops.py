"""One session over loops, threads and forks: the right answer, or one clear error."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
import trio

from fluence_async import FluenceSession, StreamInterruptedError
from fluence_async.testing import FluenceServer, Reset, Stall, Stream
from tests.shell import forked

MODEL = "fluence-chat"


def _uvloop(main: Callable[[], Any]) -> Any:
    uvloop = pytest.importorskip("uvloop")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())


RUNS: dict[str, Callable[[Callable[[], Any]], Any]] = {
    "asyncio": lambda main: asyncio.run(main()),
    "trio": trio.run,
    "uvloop": _uvloop,
}
runs = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS.keys())


@pytest.fixture
def server() -> Iterator[FluenceServer]:
    """In a thread of its own, whatever loops come and go here."""
    with FluenceServer(limits=None) as server:
        yield server


def session(server: FluenceServer) -> FluenceSession:
    return FluenceSession(api_key=server.api_key, base_url=server.base_url, limiter=None)


async def ask(fluence: FluenceSession) -> str:
    return (await fluence.chat.completions.create(model=MODEL, messages="2 + 2")).text


def idle(server: FluenceServer) -> None:
    gc.collect()  # what a loop left to its finalizers
    anyio.run(server.wait_until_idle, 5)


@runs
def test_one_session_in_run_after_run_of_the_same_loop(run: Any, server: FluenceServer) -> None:
    fluence = session(server)
    for _ in range(3):
        assert "4" in run(lambda: ask(fluence))
        idle(server)


def test_one_session_in_one_loop_after_another(server: FluenceServer) -> None:
    fluence = session(server)
    for run in (*RUNS.values(), *reversed(RUNS.values())):
        assert "4" in run(lambda: ask(fluence))
        idle(server)


@runs
def test_a_run_that_ends_amid_a_stream_leaves_nothing(run: Any, server: FluenceServer) -> None:
    fluence = session(server)
    server.script(Stream("Hel", Stall()), repeat=True)
    opened = []

    async def begin() -> None:
        opened.append(
            await fluence.chat.completions.create(model=MODEL, messages="hi", stream=True)
        )

    run(begin)
    with pytest.warns(ResourceWarning, match="dropped unclosed"):
        opened.clear()
        gc.collect()
    idle(server)
    server.script()
    assert "4" in run(lambda: ask(fluence))


@runs
def test_a_stream_dropped_in_a_cycle_is_closed_with_its_session(
    run: Any, server: FluenceServer
) -> None:
    async def main() -> None:
        async with session(server) as fluence:
            server.script(Stream("Hel", Stall()), repeat=True)
            stream: Any = await fluence.chat.completions.create(
                model=MODEL, messages="hi", stream=True
            )
            stream.itself = stream
        del stream
        with pytest.warns(ResourceWarning) as warned:
            gc.collect()
        assert ["dropped unclosed" in str(each.message) for each in warned] == [True]

    gc.disable()
    try:
        run(main)
    finally:
        gc.enable()
    idle(server)


@runs
def test_streams_dropped_in_a_cycle_are_closed_and_end_nothing_else(
    run: Any, server: FluenceServer
) -> None:
    async def main() -> None:
        async with session(server) as fluence:
            server.script(Stream("Hel", Stall()), repeat=True)
            for _ in range(5):
                stream: Any = await fluence.chat.completions.create(
                    model=MODEL, messages="hi", stream=True
                )
                cycle = [stream]
                cycle.append(cycle)
                del stream, cycle
                with pytest.warns(ResourceWarning, match="dropped unclosed"):
                    gc.collect()
                await anyio.sleep(0.005)
            server.script()
            assert "4" in await ask(fluence)

    run(main)
    idle(server)


@runs
def test_faults_end_and_cancellations_leave_nothing(run: Any, server: FluenceServer) -> None:
    async def main() -> None:
        async with session(server) as fluence:
            for delay in (0.0, 0.001, 0.003, 0.01):
                server.script(Stream("Hel", Stall()))
                with anyio.move_on_after(delay):
                    async with fluence.chat.completions.stream(model=MODEL, messages="hi") as s:
                        await s.get_final_text()
            server.script(Stream("Hel", Reset()), repeat=True)
            with pytest.raises(StreamInterruptedError):
                async with fluence.chat.completions.stream(model=MODEL, messages="hi") as stream:
                    await stream.get_final_text()
            server.script()
            assert "4" in await ask(fluence)

    run(main)
    idle(server)


@runs
def test_a_foreign_thread_is_told_what_is_wrong_and_disturbs_nobody(
    run: Any, server: FluenceServer
) -> None:
    refused: list[BaseException] = []

    async def main() -> None:
        async with session(server) as fluence:
            server.script(Stream("Hel", "lo"))
            async with fluence.chat.completions.stream(model=MODEL, messages="hi") as stream:
                first = await anext(stream)

                def elsewhere() -> None:
                    for foreign in (RUNS["asyncio"], RUNS["trio"]):
                        with pytest.raises(RuntimeError, match="one session for each") as caught:
                            foreign(lambda: ask(fluence))
                        refused.append(caught.value)

                thread = threading.Thread(target=elsewhere)
                thread.start()
                await anyio.to_thread.run_sync(thread.join)
                assert first.text + "".join([chunk.text async for chunk in stream]) == "Hello"
            assert "4" in await ask(fluence)

    run(main)
    assert len(refused) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_session_made_before_a_fork_serves_parent_and_children(server: FluenceServer) -> None:
    done = subprocess.run(
        [sys.executable, "-m", forked.__name__, server.base_url, server.api_key],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(server.requests) == 6 * (3 + 1 + 3 + 1 + 2 + 1 + 1) + 1
    idle(server)
