"""The local server as a test wants it: open anywhere, seen through, and gone when closed."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import anyio
import pytest

from fluence_async.testing import (
    FluenceServer,
    Pause,
    Repeat,
    Reset,
    Stall,
    Stream,
)
from tests.programs.raw_http import HELLO, ask, connect, exchange, read_all, request
from tests.virtual import VirtualLoop

pytestmark = pytest.mark.anyio
VIRTUAL = pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("asyncio", {"loop_factory": VirtualLoop}), id="virtual")]
)


def changed(**changes: Any) -> dict[str, Any]:
    return {**HELLO, **changes}


async def test_it_is_gone_when_it_is_closed() -> None:
    async with FluenceServer() as server:
        pass
    with pytest.raises(OSError, match=r"\w"):
        await connect(server)


async def test_closing_waits_for_nobody() -> None:
    async with FluenceServer(pace=100) as server:
        server.script(Stall(), Stream("Hel", Stall()))
        streams = [await connect(server) for _ in range(4)]
        for stream in streams[:2]:
            await stream.send(request(server))
        await streams[2].send(request(server, changed(stream=True)))
        with anyio.fail_after(5):
            while server.answering < 3:
                await anyio.sleep(0.001)
        before = time.monotonic()
    assert time.monotonic() - before < 2
    for stream in streams:
        await read_all(stream)
        await stream.aclose()


async def test_closing_does_not_wait_for_a_client_that_does_not_read() -> None:
    async with FluenceServer() as server:
        server.script(Stream(Repeat(b"x" * 65536)))
        stream = await connect(server)
        await stream.send(request(server))
        with anyio.fail_after(5):
            while not server.answering:
                await anyio.sleep(0.001)
        await anyio.sleep(0.01)  # enough to fill every buffer on the way
        before = time.monotonic()
    assert time.monotonic() - before < 2
    await stream.aclose()


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_closing_leaves_no_connection_half_accepted() -> None:
    clients: list[socket.socket] = []

    async def knock(port: int) -> None:
        """Connect once in each turn of the loop, as long as somebody listens."""
        while len(clients) < 200:
            clients.append(socket.socket())
            clients[-1].setblocking(False)
            clients[-1].connect_ex(("127.0.0.1", port))
            await asyncio.sleep(0)

    async with FluenceServer() as server:
        knocking = asyncio.create_task(knock(urlsplit(server.base_url).port or 0))
        await asyncio.sleep(0.001)
    assert not knocking.done()
    knocking.cancel()
    for client in clients:
        client.close()
    gc.collect()  # a forgotten connection warns here


async def test_it_knows_what_is_left_open() -> None:
    async with FluenceServer() as server:
        server.script(Stall())
        async with await connect(server) as stream:
            await stream.send(request(server))
            while not server.answering:
                await anyio.sleep(0.001)
            with pytest.raises(AssertionError, match="1 requests in progress, 1 connections"):
                await server.wait_until_idle(0.05)
        await server.wait_until_idle()
        assert (server.answering, server.connections) == (0, 0)


async def test_idle_may_leave_pooled_connections() -> None:
    async with FluenceServer() as server, await connect(server) as stream:
        await stream.send(request(server, headers={"connection": None}))
        await stream.receive()
        await server.wait_until_idle(connections=1)


async def test_a_taken_port_is_an_error_where_the_server_is_opened() -> None:
    async with FluenceServer() as server:
        port = int(server.base_url.split(":")[2].removesuffix("/v1"))
        with pytest.raises(OSError, match=str(port)):
            async with FluenceServer(port=port):
                pass


def test_it_runs_without_a_loop_for_programs_that_have_none() -> None:
    with FluenceServer() as server:
        answer = anyio.run(ask, server)
        assert answer.status == 200
    with pytest.raises(RuntimeError, match="not entered"):
        server.__exit__(None, None, None)


async def test_its_reprs_hold_no_key() -> None:
    async with FluenceServer() as server:
        await ask(server)
        shown = f"{server!r} {server.requests!r} {server._local!r}"
    assert server.base_url in shown
    assert server.api_key not in shown
    assert "POST /v1/chat/completions" in shown


@VIRTUAL
async def test_virtual_time_rules_pauses_and_windows() -> None:
    async with FluenceServer() as server:
        server.script([Pause(3600), "Hello"])
        before, began = asyncio.get_running_loop().time(), time.monotonic()
        assert (await ask(server)).status == 200
        assert asyncio.get_running_loop().time() - before >= 3600
        assert time.monotonic() - began < 5


@pytest.mark.skipif(sys.platform != "linux", reason="uvloop is installed for Linux only")
def test_it_runs_on_uvloop() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def main() -> None:
        async with FluenceServer() as server:
            server.script(Reset(), "Hello")
            assert await exchange(server, request(server)) == b""
            assert (await ask(server)).status == 200

    anyio.run(main, backend_options={"loop_factory": uvloop.new_event_loop})


async def test_the_log_has_what_came() -> None:
    async with FluenceServer() as server:
        await ask(server)
        received = server.requests[0]
    assert (received.method, received.path) == ("POST", "/v1/chat/completions")
    assert received.headers["content-type"] == "application/json"
    assert received.json == HELLO
    assert json.loads(received.body) == HELLO
    assert (received.counted, received.refused, received.executed) == (True, False, True)
