"""An equal idempotency key brings the same answer, executed once."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from fluence_async.server.idempotency import Idempotency
from fluence_async.testing import (
    Answer,
    FluenceServer,
    Lost,
    Refusal,
    Reset,
    Status,
    Turn,
)
from tests.programs.raw_http import HELLO, ask, connect, exchange, parse, read_all, request

pytestmark = pytest.mark.anyio


def changed(**changes: Any) -> dict[str, Any]:
    return {**HELLO, **changes}


KEYED = {"headers": {"idempotency-key": "k1"}}


async def test_an_equal_key_brings_the_same_answer_and_executes_once() -> None:
    async with FluenceServer() as server:
        first, second = [(await ask(server, **KEYED)).json for _ in range(2)]
        assert first == second
        assert server.executions == 1
        streamed = changed(stream=True)
        one, two = [
            (await ask(server, streamed, headers={"idempotency-key": "k2"})).events
            for _ in range(2)
        ]
        assert one == two
        other = (await ask(server, headers={"idempotency-key": "k3"})).json
        assert other["id"] != first["id"]
        assert (server.executions, len(server.arrivals)) == (3, 5)


async def test_an_equal_key_with_another_body_is_refused() -> None:
    async with FluenceServer() as server:
        await ask(server, **KEYED)
        answer = await ask(server, changed(temperature=0.8), **KEYED)
    assert answer.status == 400
    assert answer.json["error"]["param"] == "Idempotency-Key"


async def test_keys_are_apart_for_each_api_key() -> None:
    async with FluenceServer(api_keys=["a", "b"]) as server:
        for key in "ab":
            headers = {"authorization": f"Bearer {key}", "idempotency-key": "same"}
            assert (await ask(server, headers=headers)).status == 200
        assert server.executions == 2


async def test_an_answer_lost_on_its_way_is_not_executed_again() -> None:
    async with FluenceServer() as server:
        server.script(Lost("Hello"), "a second execution")
        assert await exchange(server, request(server, **KEYED)) == b""
        answer = (await ask(server, **KEYED)).json
        assert answer["choices"][0]["message"]["content"] == "Hello"
        assert server.executions == 1


async def test_a_failure_is_not_kept() -> None:
    async with FluenceServer() as server:
        server.script(Status(500), Reset(), "Hello")
        assert (await ask(server, **KEYED)).status == 500
        assert await exchange(server, request(server, **KEYED)) == b""
        assert (await ask(server, **KEYED)).status == 200
        assert server.executions == 1


class Slow:
    """A responder that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.ended = 0
        self.go = False

    async def respond(self, turn: Turn) -> Answer:
        self.asked += 1
        try:
            while not self.go:
                await asyncio.sleep(0.001)
        finally:
            self.ended += 1
        return Answer("done")


async def test_a_second_request_waits_for_the_first_even_if_its_client_has_gone() -> None:
    slow = Slow()
    async with FluenceServer(responder=slow) as server:
        async with await connect(server) as stream:
            await stream.send(request(server, **KEYED))
            while not slow.asked:
                await anyio.sleep(0.001)
        await server.wait_until_idle()
        async with await connect(server) as stream:
            await stream.send(request(server, **KEYED))
            while len(server.requests) < 2:
                await anyio.sleep(0.001)
            slow.go = True
            answer = parse(await read_all(stream))
        assert answer.json["choices"][0]["message"]["content"] == "done"
        assert (slow.asked, server.executions) == (1, 1)


async def test_an_execution_that_hangs_ends_with_the_server() -> None:
    slow = Slow()
    async with FluenceServer(responder=slow) as server, await connect(server) as stream:
        await stream.send(request(server, **KEYED))
        while not slow.asked:
            await anyio.sleep(0.001)
    assert slow.ended == 1


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_result_is_kept_for_a_day_and_the_oldest_go_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fluence_async.server.idempotency._MOST", 3)
    now = 0.0
    kept = Idempotency[int](lambda: now, lambda result: True)
    executed = 0

    async def execute() -> int:
        nonlocal executed
        executed += 1
        return executed

    async def fresh(key: str) -> bool:
        return (await kept.once(key, b"", execute))[1]

    assert await fresh("a")
    now = 86_399.9
    assert not await fresh("a")
    now = 86_400.0
    assert await fresh("a")
    assert [await fresh(key) for key in "bcd"] == [True] * 3
    assert not await fresh("d")
    assert await fresh("a")
    with pytest.raises(Refusal):
        await kept.once("d", b"other", execute)
