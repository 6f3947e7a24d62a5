"""A slow answer's request is told when the peer's kernel has it; what the contract cannot ask of
every transport. In real time, because kernels take theirs, with looks every few milliseconds."""

from __future__ import annotations

import gc
import sys
from contextlib import suppress
from typing import Any

import anyio
import pytest

from fluence_async.testing.transport_contract._server import (
    Peer,
    body_of,
    post,
    served,
    trusting,
)
from fluence_async.transports import _delivery, _httpcore_progress, aiohttp, open_transport
from fluence_async.transports._aiohttp_connections import Line, Outgoing
from fluence_async.transports._base import TransportError

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.platform != "linux", reason="no other kernel tells"),
]


def look_every(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (aiohttp, _httpcore_progress):
        monkeypatch.setattr(module, "EVERY_S", seconds)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    look_every(0.005, monkeypatch)


class Slow:
    """A server that answers once the client was told that it has the request."""

    def __init__(self) -> None:
        self.told = anyio.Event()
        self.count = 0

    def tell(self) -> None:
        self.count += 1
        self.told.set()

    async def play(self, peer: Peer) -> None:
        while True:
            await peer.request()
            await self.told.wait()
            await peer.answer()


async def never(peer: Peer) -> None:
    await peer.request()
    await peer.gone()


@pytest.mark.parametrize("size", [2, 2**18])
@pytest.mark.parametrize("tls", [False, True])
async def test_it_is_told_on_a_new_connection_and_on_one_that_was_used(
    tls: bool, size: int
) -> None:
    slow = Slow()
    context = trusting() if tls else None
    async with served(open_transport, slow.play, tls=tls, ssl_context=context) as (it, server):
        for count in (1, 2, 3):
            slow.told = anyio.Event()
            request = post(server.url, bytes(size), on_delivered=slow.tell)
            await body_of(await it.send(request))
            assert slow.count == count
        assert server.accepted == 1


async def test_all_that_wait_are_told_each_of_its_own() -> None:
    slow, told = Slow(), list[int]()

    async def send(number: int) -> None:
        def tell() -> None:
            told.append(number)
            if len(told) == 20:
                slow.told.set()

        await body_of(await it.send(post(server.url, on_delivered=tell)))

    async with served(open_transport, slow.play) as (it, server):
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(send, number)
        assert sorted(told) == list(range(20))


async def test_a_request_that_is_cancelled_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    look_every(60, monkeypatch)
    async with served(open_transport, never) as (it, server):
        deliveries: _delivery.Deliveries = it._deliveries  # type: ignore[attr-defined]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(it.send, post(server.url, on_delivered=lambda: None))
            while not deliveries._waiting:
                await anyio.sleep(0)
            tasks.cancel_scope.cancel()
        assert not deliveries._waiting


@pytest.mark.parametrize("kind", ["http", "elsewhere"])
async def test_nothing_is_told_of_a_proxys_kernel_nor_of_another_system(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def slowly(peer: Peer) -> None:
        await peer.request()
        await anyio.sleep(0.05)
        await peer.answer()

    slow = Slow()
    async with served(open_transport, slowly) as (it, server):
        if kind == "http":
            monkeypatch.setenv("http_proxy", f"http://{server.authority}")
            monkeypatch.delenv("no_proxy", raising=False)
            it = open_transport(trust_env=True)
            url = "http://api.invalid/v1"
        else:
            monkeypatch.setattr(_delivery.sys, "platform", "darwin")
            url = server.url
        await body_of(await it.send(post(url, on_delivered=slow.tell)))
        await it.aclose()
    assert slow.count == 0


async def test_a_transport_that_is_closed_looks_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    look_every(60, monkeypatch)

    async def send() -> None:
        with suppress(TransportError, RuntimeError):
            await it.send(post(server.url, on_delivered=lambda: None))

    async with served(open_transport, never) as (it, server):
        deliveries: _delivery.Deliveries = it._deliveries  # type: ignore[attr-defined]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            while deliveries._timer is None:
                await anyio.sleep(0)
            await it.aclose()
            assert deliveries._timer is None
            tasks.cancel_scope.cancel()
        assert not deliveries._waiting


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_run_that_ends_is_not_held_up_by_a_look(backend: str) -> None:
    """Nor is anything of it left."""

    async def main() -> None:
        async with served(open_transport, never) as (it, server):
            with anyio.move_on_after(0.01):
                await it.send(post(server.url, on_delivered=lambda: None))

    anyio.run(main, backend=backend)
    gc.collect()


class FakeTransport:
    """As much of a connection as is asked; `left` of what was written is with asyncio still."""

    def __init__(self, left: list[int]) -> None:
        self.left = left

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.left.pop(0)

    def get_extra_info(self, name: str) -> Any:
        return self


@pytest.mark.parametrize(
    ("size", "left", "delivered"),
    [
        (2**14, [9, 0], [False, True]),
        (2**14 + 1, [0, 9, 0, 0], [False, False, False, True]),
    ],
)
async def test_of_a_large_body_an_empty_queue_must_be_seen_twice(
    size: int, left: list[int], delivered: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its TLS asyncio may have some of it still, which it writes as soon as it runs."""
    connections = sys.modules[Outgoing.__module__]
    monkeypatch.setattr(connections, "unacknowledged", lambda _: 0)
    body = Outgoing(post("http://127.0.0.1", bytes(size)), None)
    body.line = Line(FakeTransport([*left]), None)  # type: ignore[arg-type]
    assert [body.is_delivered() for _ in delivered] == delivered
