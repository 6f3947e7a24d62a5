"""Equal calls of several processes: one asks, the others find its answer, and nobody waits in vain.

Two sessions over one store are two processes here: nothing but the store is common to them.
"""

from __future__ import annotations

from contextlib import AsyncExitStack, suppress
from typing import Any

import anyio
import pytest

from fluence_async import BadRequestError, FluenceError, FluenceSession
from fluence_async.cache import LeasingStore, MemoryCache
from fluence_async.cache._lease import LEASE_S
from tests.shell.scripted import DONE, FINISH, STALL, USAGE, Answer, ScriptedTransport, text
from tests.shell.test_exchange import BODY, answer
from tests.virtual import anyio_backend as anyio_backend

pytestmark = pytest.mark.anyio
HI: dict[str, Any] = {"model": "fluence-chat", "messages": "hi"}
SLOW = answer(BODY, wait=10.0)
STREAM = Answer(text("H"), 10.0, text("i"), FINISH, USAGE, DONE)


class SharedMemory(MemoryCache):
    """A store that processes share, by the running loop's clock."""

    def __init__(self) -> None:
        super().__init__(clock=anyio.current_time)
        self.leases: dict[str, tuple[bytes, float]] = {}

    async def lease(self, key: str, holder: bytes, for_s: float) -> bool:
        has, ends = self.leases.get(key, (holder, 0.0))
        if has != holder and ends > anyio.current_time():
            return False
        self.leases[key] = holder, anyio.current_time() + for_s
        return True

    async def release(self, key: str, holder: bytes) -> None:
        if self.leases.get(key, (b"", 0))[0] == holder:
            del self.leases[key]


class Processes:
    """Sessions with nothing in common but a store and a server."""

    def __init__(self, stack: AsyncExitStack, *answers: Answer) -> None:
        self.stack = stack
        self.store = SharedMemory()
        self.transport = ScriptedTransport(*answers)

    async def another(self, **options: Any) -> FluenceSession:
        options = {"max_retries": 0, "limiter": None, "cache": self.store, **options}
        return await self.stack.enter_async_context(
            FluenceSession(api_key="k", transport=lambda: self.transport, **options)
        )

    async def leader(self, **params: Any) -> None:
        """Ask as the first process does, whatever comes of it."""
        fluence = await self.another()
        with suppress(FluenceError):
            if params.pop("stream", False):
                async with fluence.chat.completions.stream(**HI) as stream:
                    async for _ in stream:
                        if params.get("leaves"):
                            return
            else:
                await fluence.chat.completions.create(**HI)


async def test_a_store_says_whether_it_leases() -> None:
    assert isinstance(SharedMemory(), LeasingStore)
    assert not isinstance(MemoryCache(), LeasingStore)


@pytest.mark.parametrize("stream", [False, True])
async def test_who_comes_second_waits_for_the_answer(stream: bool) -> None:
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        processes = Processes(stack, STREAM if stream else SLOW)
        tasks.start_soon(lambda: processes.leader(stream=stream))
        await anyio.sleep(1)
        began = anyio.current_time()
        got = await (await processes.another()).chat.completions.create(**HI)
        assert (got.text, got.meta.cached, got.meta.attempts) == ("Hi", True, 0)
        assert anyio.current_time() - began < 10
        assert len(processes.transport.requests) == 1
    assert processes.store.leases == {}


async def test_ten_processes_make_one_request() -> None:
    async with AsyncExitStack() as stack:
        processes = Processes(stack, SLOW)
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(processes.leader)
        assert len(processes.transport.requests) == 1
    assert processes.store.leases == {}


@pytest.mark.parametrize("failing", [answer(b"{}", status=400, wait=3.0), answer(b"", wait=3.0)])
async def test_a_leader_that_fails_lets_the_next_one_ask(failing: Answer) -> None:
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        processes = Processes(stack, failing, SLOW)
        tasks.start_soon(processes.leader)
        await anyio.sleep(1)
        began = anyio.current_time()
        got = await (await processes.another()).chat.completions.create(**HI)
        assert (got.text, got.meta.cached) == ("Hi", False)
        assert anyio.current_time() - began < 2 + 0.5 + 10
    assert processes.store.leases == {}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_leader_that_is_cancelled_lets_the_next_one_ask(stream: bool) -> None:
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        processes = Processes(stack, STREAM if stream else SLOW, SLOW)

        async def cancelled() -> None:
            with anyio.move_on_after(3):
                await processes.leader(stream=stream)

        tasks.start_soon(cancelled)
        await anyio.sleep(1)
        began = anyio.current_time()
        got = await (await processes.another()).chat.completions.create(**HI)
        assert (got.text, got.meta.cached) == ("Hi", False)
        assert anyio.current_time() - began < 2 + 0.5 + 10
    assert processes.store.leases == {}


async def test_a_stream_that_is_left_early_lets_the_next_one_ask() -> None:
    async with AsyncExitStack() as stack:
        processes = Processes(stack, STREAM)
        await processes.leader(stream=True, leaves=True)
        assert processes.store.leases == {}


async def test_an_answer_that_is_not_kept_lets_the_next_one_ask() -> None:
    short = answer(BODY.replace(b'"stop"', b'"length"'))
    async with AsyncExitStack() as stack:
        processes = Processes(stack, short)
        await processes.leader()
        assert processes.store.leases == {}


@pytest.mark.parametrize("broken", [Answer(text("H")), Answer(text("H"), STALL)])
async def test_a_lease_that_nobody_ends_holds_up_others_for_its_time_only(broken: Answer) -> None:
    async with AsyncExitStack() as stack:
        processes = Processes(stack, broken, SLOW)
        fluence = await processes.another()
        with pytest.raises(FluenceError):
            async with fluence.chat.completions.stream(**HI, timeout=30) as stream:
                await stream.get_final_text()
        began = anyio.current_time()
        got = await (await processes.another()).chat.completions.create(**HI)
        assert got.text == "Hi"
        assert anyio.current_time() - began < LEASE_S + 1 + 10


async def test_a_killed_leaders_lease_runs_out() -> None:
    async with AsyncExitStack() as stack:
        processes = Processes(stack, SLOW)
        key = (await processes.another())._cache
        assert key is not None
        processes.store.leases = _AllHeld(anyio.current_time() + LEASE_S)
        began = anyio.current_time()
        got = await (await processes.another()).chat.completions.create(**HI)
        assert (got.text, got.meta.cached) == ("Hi", False)
        assert LEASE_S / 2 < anyio.current_time() - began < LEASE_S + 1 + 10


class _AllHeld(dict[str, tuple[bytes, float]]):
    """Every lease is somebody's who is dead."""

    def __init__(self, ends: float) -> None:
        super().__init__()
        self.ends = ends

    def get(self, key: str, default: Any = None) -> Any:
        return super().get(key, (b"dead", self.ends))


async def test_nobody_waits_past_half_of_a_calls_time() -> None:
    async with AsyncExitStack() as stack:
        processes = Processes(stack, answer(BODY, wait=3.0))
        processes.store.leases = _AllHeld(anyio.current_time() + 3600)
        fluence = await processes.another()
        began = anyio.current_time()
        got = await fluence.chat.completions.create(**HI, timeout=8)
        assert got.text == "Hi"
        assert anyio.current_time() - began == pytest.approx(4 + 3, abs=0.5)


async def test_who_follows_one_that_waits_abroad_asks_in_time() -> None:
    async with AsyncExitStack() as stack, anyio.create_task_group() as tasks:
        processes = Processes(stack, answer(BODY, wait=2.0))
        processes.store.leases = _AllHeld(anyio.current_time() + 3600)
        fluence = await processes.another()
        tasks.start_soon(lambda: fluence.chat.completions.create(**HI))
        await anyio.sleep(0.1)
        began = anyio.current_time()
        got = await fluence.chat.completions.create(**HI, timeout=6)
        assert got.text == "Hi"
        assert anyio.current_time() - began == pytest.approx(3 + 2, abs=0.5)
        tasks.cancel_scope.cancel()


async def test_a_store_whose_leases_fail_delays_nobody() -> None:
    class Broken(SharedMemory):
        async def lease(self, key: str, holder: bytes, for_s: float) -> bool:
            raise OSError("no leases today")

        async def release(self, key: str, holder: bytes) -> None:
            raise OSError("no leases today")

    async with AsyncExitStack() as stack:
        processes = Processes(stack, answer(BODY))
        processes.store = Broken()
        for cached in (False, True):
            got = await (await processes.another()).chat.completions.create(**HI)
            assert (got.text, got.meta.cached) == ("Hi", cached)


async def test_an_error_is_each_processes_own() -> None:
    async with AsyncExitStack() as stack:
        processes = Processes(stack, answer(b"{}", status=400, wait=1.0))
        failed = []

        async def ask() -> None:
            with pytest.raises(BadRequestError):
                await (await processes.another()).chat.completions.create(**HI)
            failed.append(1)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
        assert len(failed) == len(processes.transport.requests) == 3


async def test_two_keys_and_two_origins_never_meet() -> None:
    async with AsyncExitStack() as stack:
        store = SharedMemory()
        seen: list[tuple[str, str]] = []

        async def ask(key: str, origin: str) -> None:
            who = f"{key} at {origin}"
            transport = ScriptedTransport(answer(BODY.replace(b"Hi", who.encode()), wait=5.0))
            fluence = await stack.enter_async_context(
                FluenceSession(
                    api_key=key,
                    base_url=f"https://{origin}.example/v1",
                    transport=lambda: transport,
                    limiter=None,
                    cache=store,
                )
            )
            first = await fluence.chat.completions.create(**HI)
            again = await fluence.chat.completions.create(**HI)
            seen.extend([(who, first.text), (who, again.text)])

        async with anyio.create_task_group() as tasks:
            for key in ("one", "two"):
                for origin in ("here", "there"):
                    for _ in range(3):
                        tasks.start_soon(ask, key, origin)
        assert len(seen) == 24
        assert [pair for pair in seen if pair[0] != pair[1]] == []
