"""The pool of connections on trio: which one is taken, how many there are, what one costs."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpcore2
import pytest
import trio
from anyio.lowlevel import checkpoint

from fluence_async.testing.transport_contract._server import (
    Peer,
    ScriptedServer,
    body_of,
    echo,
    post,
    saying,
    served,
)
from fluence_async.transports import open_transport
from fluence_async.transports._base import ConnectFailed, Transport, TransportError
from fluence_async.transports._httpcore_pool import Line, Pool, Way
from fluence_async.transports._lifetime import KEEPALIVE_S
from tests.virtual import _options

pytestmark = pytest.mark.anyio

WAY: Way = (b"http", b"127.0.0.1", 8000, None)
ELSEWHERE: Way = (b"http", b"127.0.0.1", 8001, None)


@pytest.fixture
def anyio_backend() -> tuple[str, Mapping[str, Any]]:
    """The pool is trio's; time is virtual."""
    return "trio", _options("trio")


class Connection(httpcore2.AsyncConnectionInterface):
    """As much of httpcore2's as the pool asks."""

    def __init__(self, asked: Counter[str]) -> None:
        self.asked = asked
        self.available = True
        self.hung_up = False

    def is_available(self) -> bool:
        self.asked["is_available"] += 1
        return self.available

    def has_expired(self) -> bool:
        self.asked["has_expired"] += 1
        return self.hung_up


class Scripted(Pool):
    """A pool whose connections are only played; what is asked of them is counted."""

    def __init__(self, most: int | None = None) -> None:
        super().__init__(most, None)
        self.asked: Counter[str] = Counter()
        self.made: list[Line] = []

    def _fresh(self, way: Way) -> Line:
        super()._fresh(way)
        line = Line(way, Connection(self.asked))
        line.socket = trio.socket.socket()
        self.made.append(line)
        return line

    @property
    def open(self) -> list[int]:
        """Which of those that were made are open."""
        return [n for n, line in enumerate(self.made) if line.is_open]

    async def used(self, way: Way = WAY) -> int:
        """Use one and give it back; which it was."""
        line = await self.acquire(way)
        self.release(line)
        return self.made.index(line)


@asynccontextmanager
async def pooled(most: int | None = None) -> AsyncIterator[Scripted]:
    pool = Scripted(most)
    try:
        yield pool
    finally:
        for line in pool.made:
            line.close()


# ─── which ────────────────────────────────────────────────────────────────────────────────


async def test_the_last_that_came_back_is_the_next_that_goes() -> None:
    async with pooled() as pool:
        lines = [await pool.acquire(WAY) for _ in range(3)]
        assert [line.reused for line in lines] == [False] * 3
        for line in (lines[1], lines[0], lines[2]):
            pool.release(line)
        again = [await pool.acquire(WAY) for _ in range(3)]
        assert again == [lines[2], lines[0], lines[1]]
        assert [line.reused for line in again] == [True] * 3


async def test_each_way_has_its_own() -> None:
    async with pooled() as pool:
        ways: list[Way] = [
            WAY,
            ELSEWHERE,
            (b"https", *WAY[1:]),
            (b"http", b"localhost", *WAY[2:]),
            (*WAY[:3], "http://127.0.0.1:3128"),
        ]
        for _ in range(2):
            assert [await pool.used(way) for way in ways] == [0, 1, 2, 3, 4]


async def test_one_that_cannot_serve_again_is_closed() -> None:
    async with pooled() as pool:
        line = await pool.acquire(WAY)
        line.connection.available = False  # type: ignore[attr-defined]
        pool.release(line)
        assert pool.open == []
        assert await pool.used() == 1


async def test_one_whose_socket_was_closed_is_not_kept() -> None:
    """A response that is closed in the moment of its last byte."""
    async with pooled() as pool:
        line = await pool.acquire(WAY)
        line.close()
        pool.release(line)
        assert await pool.used() == 1


async def test_one_that_the_server_closed_is_closed_and_passed_over() -> None:
    async with pooled() as pool:
        lines = [await pool.acquire(WAY) for _ in range(3)]
        for line in lines:
            pool.release(line)
        for line in lines[1:]:
            line.connection.hung_up = True  # type: ignore[attr-defined]
        assert await pool.used() == 0
        assert pool.open == [0]


# ─── how long ─────────────────────────────────────────────────────────────────────────────


async def test_one_that_was_idle_for_too_long_is_closed_as_the_next_request_comes() -> None:
    async with pooled() as pool:
        assert [await pool.used(), await pool.used(ELSEWHERE)] == [0, 1]
        await anyio.sleep(KEEPALIVE_S - 0.1)
        assert await pool.used() == 0
        await anyio.sleep(0.2)
        assert await pool.used() == 0
        assert pool.open == [0], "that of another way, too"
        await anyio.sleep(KEEPALIVE_S + 0.1)
        assert await pool.used() == 2
        assert pool.open == [2]


async def test_what_a_burst_left_is_closed_by_and_by() -> None:
    async with pooled() as pool:
        for line in [await pool.acquire(WAY) for _ in range(450)]:
            pool.release(line)
        await anyio.sleep(KEEPALIVE_S + 0.1)
        left = []
        for _ in range(5):
            await pool.used()
            left.append(len(pool.open))
        assert left == [351, 251, 151, 51, 1]


# ─── how many ─────────────────────────────────────────────────────────────────────────────


async def test_the_bound_holds_and_who_waits_is_served_in_turn() -> None:
    served: list[int] = []
    async with pooled(2) as pool:

        async def use(number: int) -> None:
            line = await pool.acquire(WAY)
            served.append(number)
            assert len(pool.open) <= 2
            await anyio.sleep(1)
            pool.release(line)

        async with anyio.create_task_group() as tasks:
            for number in range(9):
                tasks.start_soon(use, number)
                await anyio.sleep(0.01)
        assert served == list(range(9))
        assert len(pool.made) == 2


async def test_the_bound_counts_what_is_idle_on_another_way() -> None:
    async with pooled(2) as pool:
        assert [await pool.used(), await pool.used(ELSEWHERE)] == [0, 1]
        assert await pool.used((b"http", b"third", 80, None)) == 2
        assert pool.open == [1, 2], "the one that was idle for longest made room"


@pytest.mark.parametrize("first", ["cancelled", "released"])
async def test_who_is_cancelled_while_waiting_takes_no_slot(first: str) -> None:
    """Also in the very moment in which the slot comes free."""
    async with pooled(1) as pool:
        line = await pool.acquire(WAY)
        scopes = [anyio.CancelScope() for _ in range(3)]

        async def use(scope: anyio.CancelScope) -> None:
            with scope:
                await pool.used()

        async with anyio.create_task_group() as tasks:
            for scope in scopes:
                tasks.start_soon(use, scope)
            await checkpoint()
            if first == "released":
                pool.release(line)
            for scope in scopes:
                scope.cancel()
            if first == "cancelled":
                pool.release(line)
        with anyio.fail_after(1):
            assert await pool.used() == 0


# ─── the end ──────────────────────────────────────────────────────────────────────────────


async def test_closing_ends_who_waits_for_a_slot_or_a_connection() -> None:
    """With one slot: one reads, one waits for the slot; then one whose handshake hangs."""

    async def silent(peer: Peer) -> None:
        await peer.gone()

    async def closed_under(
        transport: Transport, server: ScriptedServer, url: str, connections: int
    ) -> None:
        ended: list[type[TransportError]] = []

        async def send() -> None:
            with pytest.raises(TransportError) as error:
                await body_of(await transport.send(post(url)))
            ended.append(type(error.value))

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(send)
            await anyio.sleep(0.1)
            await transport.aclose()
        assert ended.count(ConnectFailed) >= 2, ended
        await server.empty()
        assert server.accepted == connections

    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
    async with served(open_transport, saying(head), max_connections=1) as (transport, server):
        await closed_under(transport, server, server.url, 1)
    async with served(open_transport, silent) as (transport, server):
        await closed_under(transport, server, server.url.replace("http:", "https:"), 3)


async def test_a_connection_that_comes_after_the_end_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect = trio.open_tcp_stream

    async def slowly(*args: Any, **kwargs: Any) -> trio.SocketStream:
        stream = await connect(*args, **kwargs)
        await anyio.sleep(1)
        return stream

    monkeypatch.setattr(trio, "open_tcp_stream", slowly)
    async with served(open_transport, echo) as (transport, server):

        async def send() -> None:
            with pytest.raises(ConnectFailed, match="the transport is closed"):
                await transport.send(post(server.url))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(send)
            await anyio.sleep(0.5)
            await transport.aclose()
        await server.empty()
        assert server.requests == []


# ─── what it costs ────────────────────────────────────────────────────────────────────────


async def _questions(requests: int) -> Counter[str]:
    """What is asked of connections by so many requests at once, twice."""
    async with pooled() as pool:
        for _ in range(2):
            for line in [await pool.acquire(WAY) for _ in range(requests)]:
                pool.release(line)
        assert len(pool.made) == requests
        return pool.asked


async def test_n_requests_at_once_ask_n_questions() -> None:
    for requests in (10, 1000):
        assert await _questions(requests) == {
            "is_available": 2 * requests,
            "has_expired": requests,
        }


async def _calls(streams: int) -> int:
    """How many Python functions are called for so many streams at once."""
    calls = 0

    def count(_frame: object, event: str, _arg: object) -> None:
        nonlocal calls
        calls += event == "call"

    async with served(open_transport, echo) as (transport, server):
        sys.setprofile(count)
        try:
            for _ in range(2):  # over new connections, and over idle ones
                opened = [await transport.send(post(server.url)) for _ in range(streams)]
                for response in opened:
                    await body_of(response)
        finally:
            sys.setprofile(None)
    return calls


async def test_a_stream_costs_no_more_among_many() -> None:
    await _calls(2)  # what is done once
    few, many = await _calls(20), await _calls(200)
    assert many < 11 * few
