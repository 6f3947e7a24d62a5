"""Every fault of a real server ends as it must, on both backends."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest

from fluence_async import (
    APIConnectionError,
    AuthenticationError,
    FluenceSession,
    RetryPolicy,
    StreamError,
    StreamInterruptedError,
    Timeout,
)
from fluence_async.testing import FAULTS, Close, Fault, FluenceServer, Pause, Stream

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(
    *, timeout: Timeout = Timeout(total=30), **options: object
) -> AsyncIterator[tuple[FluenceServer, FluenceSession]]:
    """A server and a session with it; nothing may be left open between the two."""
    async with FluenceServer(limits=None) as server:
        async with FluenceSession(
            api_key=server.api_key,
            base_url=server.base_url,
            timeout=timeout,
            limiter=None,
            retry=RetryPolicy(max_retries=1, base_s=0.001),
            **options,  # type: ignore[arg-type]
        ) as fluence:
            yield server, fluence
        await server.wait_until_idle(2)


async def ask(fluence: FluenceSession, *, stream: bool) -> str:
    create = fluence.chat.completions
    if not stream:
        return (await create.create(model="fluence-chat", messages="hi")).text
    async with create.stream(model="fluence-chat", messages="hi") as chunks:
        return "".join([chunk.text async for chunk in chunks])


class TestFaults:
    @pytest.fixture(params=["aiohttp", "aiohttp in pure Python", "httpcore2"])
    def anyio_backend(
        self, request: pytest.FixtureRequest, fault: Fault, monkeypatch: pytest.MonkeyPatch
    ) -> str:
        from aiohttp.http_parser import HttpResponseParser, HttpResponseParserPy

        pure = request.param.endswith("Python") or HttpResponseParser is HttpResponseParserPy
        if pure and request.param != "httpcore2":
            monkeypatch.setattr("aiohttp.client_proto.HttpResponseParser", HttpResponseParserPy)
            monkeypatch.setattr("aiohttp.http_parser.HttpResponseParser", HttpResponseParserPy)
        return "trio" if request.param == "httpcore2" else "asyncio"

    @pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name.replace(" ", "-"))
    async def test_every_fault_ends_as_it_must(self, fault: Fault) -> None:
        async with opened(timeout=fault.timeout) as (server, fluence):
            server.script(*fault.script, repeat=True)
            if fault.raises is None:
                assert await ask(fluence, stream=fault.stream) == fault.text
            else:
                with pytest.raises(fault.raises) as caught:
                    await ask(fluence, stream=fault.stream)
                error = caught.value
                assert type(error) is fault.raises
                assert getattr(error, "clock", None) == fault.clock
                partial = error.partial if isinstance(error, StreamError) else None
                assert (partial.text if partial is not None else "") == fault.text
                assert server.api_key not in str(error) + repr(error)
            assert len(server.requests) == fault.attempts
            assert server.executions <= 1 or fault.raises
            if fault.attempts > 1:
                keys = {request.headers["idempotency-key"] for request in server.requests}
                assert len(keys) == 1


async def test_no_server_is_named_with_host_and_port() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with FluenceSession(
            api_key="k-1234",
            base_url=f"http://127.0.0.1:{port}/v1",
            retry=RetryPolicy(max_retries=1, base_s=0.001),
        ) as fluence:
            with pytest.raises(APIConnectionError, match=f"127.0.0.1:{port}") as caught:
                await ask(fluence, stream=False)
    assert caught.value.meta is not None
    assert caught.value.meta.attempts == 2


async def test_a_host_that_does_not_exist_is_named() -> None:
    async with FluenceSession(
        api_key="k-1234",
        base_url="http://nowhere.invalid:80/v1",
        allow_insecure=True,
        max_retries=0,
        timeout=20,
    ) as fluence:
        with pytest.raises(APIConnectionError, match=r"nowhere\.invalid"):
            await ask(fluence, stream=False)


async def test_a_plain_server_behind_https_ends_of_the_connect_clock() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with FluenceSession(
            api_key="k-1234",
            base_url=f"https://127.0.0.1:{silent.getsockname()[1]}/v1",
            max_retries=0,
            timeout=Timeout(connect=0.05),
        ) as fluence:
            with pytest.raises(APIConnectionError, match=r"connect") as caught:
                await ask(fluence, stream=False)
    assert getattr(caught.value, "clock", None) == "connect"


async def test_a_wrong_key_is_one_request_and_not_in_the_text() -> None:
    async with FluenceServer() as server:
        async with FluenceSession(
            api_key="sk-wrong-0123456789", base_url=server.base_url
        ) as fluence:
            with pytest.raises(AuthenticationError) as caught:
                await ask(fluence, stream=True)
        assert len(server.requests) == 1
    assert "sk-wrong" not in str(caught.value) + repr(caught.value.body)


async def test_twenty_streams_one_after_another_use_one_connection() -> None:
    async with opened() as (server, fluence):
        for _ in range(20):
            await ask(fluence, stream=True)
        assert server.connections == 1


async def test_a_slow_reader_is_waited_for() -> None:
    async with opened(timeout=Timeout(idle=0.05, progress=0.05)) as (server, fluence):
        server.script(Stream(*["a" * 1000] * 2000))
        async with fluence.chat.completions.stream(model="fluence-chat", messages="hi") as stream:
            assert (await anext(stream)).text
            await anyio.sleep(0.15)
            assert await stream.get_final_text() == "a" * 2_000_000


async def test_breaking_out_leaves_nothing_open() -> None:
    async with opened() as (server, fluence):
        server.script(Stream("Hel", Pause(60), "lo"))
        async with fluence.chat.completions.stream(model="fluence-chat", messages="hi") as stream:
            async for _ in stream:
                break
        await server.wait_until_idle(2)


async def test_closing_from_another_task_wakes_the_reader_with_an_error() -> None:
    async with opened() as (server, fluence):
        server.script(Stream("Hel", Pause(60)))
        stream = await fluence.chat.completions.create(
            model="fluence-chat", messages="hi", stream=True
        )
        assert (await anext(stream)).text == "Hel"

        async def read_on() -> None:
            with pytest.raises(StreamInterruptedError, match="closed"):
                await anext(stream)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read_on)
            await anyio.wait_all_tasks_blocked()
            await stream.aclose()
        await server.wait_until_idle(2)


async def test_fifty_waiters_for_a_connection_are_cancelled_and_the_next_call_proceeds() -> None:
    async with opened(max_connections=1) as (server, fluence):
        server.script(Stream("Hel", Pause(60)))
        stream = await fluence.chat.completions.create(
            model="fluence-chat", messages="hi", stream=True
        )
        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(lambda: ask(fluence, stream=False))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        await stream.aclose()
        assert await ask(fluence, stream=False)


@pytest.mark.parametrize("stop", [0.0, 0.001, 0.005, 0.02, 0.05])
async def test_a_cancelled_call_leaves_nothing_and_the_next_one_works(stop: float) -> None:
    async with opened() as (server, fluence):
        server.script(Stream("Hel", Pause(60), "lo"))
        with anyio.move_on_after(stop) as scope:
            await ask(fluence, stream=True)
        assert scope.cancelled_caught
        await server.wait_until_idle(2)
        server.script()
        assert await ask(fluence, stream=True)


async def test_a_server_that_closes_idle_connections_costs_nobody_a_failure() -> None:
    async with opened() as (server, fluence):
        for _ in range(5):
            server.script(["Hello", Close()])
            assert await ask(fluence, stream=False) == "Hello"


async def test_a_stream_cut_at_every_byte_is_never_taken_for_complete() -> None:
    whole = b"".join(
        [
            b'data: {"choices":[{"index":0,"delta":{"content":"Hello"}}]}\n\n',
            b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
            b"data: [DONE]\n\n",
        ]
    )
    async with opened() as (server, fluence):
        for cut in range(len(whole)):
            server.script(Stream(whole[:cut], Close(), end=False), repeat=True)
            with pytest.raises(StreamInterruptedError):
                await ask(fluence, stream=True)
        server.script(Stream(whole, Close(), end=False))
        assert await ask(fluence, stream=True) == "Hello"
