"""Nobody can make the local server wait, remember or quote what it should not. Over raw sockets."""

from __future__ import annotations

import logging
from typing import Any

import anyio
import pytest

from fluence_async.testing import FluenceServer
from tests.programs.raw_http import HELLO, ask, connect, exchange, parse, read_all, request
from tests.virtual import VirtualLoop

pytestmark = pytest.mark.anyio
VIRTUAL = pytest.mark.parametrize(
    "anyio_backend", [pytest.param(("asyncio", {"loop_factory": VirtualLoop}), id="virtual")]
)


async def closed_after(server: FluenceServer, *sent: bytes, every: float = 1.0) -> float:
    """How long a client that sends these pieces, `every` seconds apart, is borne."""
    began = anyio.current_time()
    async with await connect(server) as stream:
        for piece in sent:
            try:
                await stream.send(piece)
                with anyio.move_on_after(every):
                    await read_all(stream)
                    break
            except anyio.BrokenResourceError:
                break
        else:
            await read_all(stream)
    return anyio.current_time() - began


# ─── slowness ─────────────────────────────────────────────────────────────────────────────


@VIRTUAL
async def test_a_client_that_says_nothing_is_hung_up_on() -> None:
    async with FluenceServer() as server:
        assert 60 <= await closed_after(server) <= 90
        await server.wait_until_idle()


@VIRTUAL
async def test_headers_that_trickle_are_not_waited_for() -> None:
    async with FluenceServer() as server:
        pieces = [request(server)[i : i + 1] for i in range(150)]
        assert 60 <= await closed_after(server, *pieces) <= 90
        assert server.requests == []


@VIRTUAL
async def test_headers_that_trickle_after_a_first_request_are_not_waited_for() -> None:
    async with FluenceServer() as server:
        whole = request(server, headers={"connection": None})
        pieces = [whole[i : i + 1] for i in range(150)]
        assert 60 <= await closed_after(server, whole, *pieces) <= 90
        assert len(server.requests) == 1


@VIRTUAL
async def test_a_body_that_trickles_is_refused() -> None:
    async with FluenceServer() as server:
        head, _, body = request(server).partition(b"\r\n\r\n")
        async with await connect(server) as stream:
            await stream.send(head + b"\r\n\r\n" + body[:10])
            began = anyio.current_time()
            with anyio.fail_after(60):
                received = await stream.receive()
            assert 25 <= anyio.current_time() - began <= 35
            await read_all(stream)
        answer = parse(received)
        assert answer.status == 408
        assert "took over 30 s" in answer.json["error"]["message"]
        await server.wait_until_idle()


# ─── size ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "head",
    [
        b"x-long: " + b"a" * 20_000 + b"\r\n",
        b"authorization: Bearer " + b"sk-secret-" * 2000 + b"\r\n",
        b"x-many: 1\r\n" * 1000,
        b"a" * 1_000_000,
        b"no colon\r\n",
    ],
    ids=["a long line", "a long key", "many lines", "no end", "no header"],
)
async def test_a_head_that_is_too_large_or_wrong_is_400_and_quoted_nowhere(
    head: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with FluenceServer() as server:
        with caplog.at_level(logging.DEBUG):
            answer = parse(
                await exchange(server, b"POST / HTTP/1.1\r\nhost: localhost\r\n" + head + b"\r\n")
            )
        assert (answer.status, answer.json["error"]["code"]) == (400, "invalid_request")
        shown = answer.body.decode() + caplog.text
        assert "sk-secret" not in shown
        assert "aaaa" not in shown
        assert (await ask(server)).status == 200


async def test_what_is_no_http_is_400() -> None:
    async with FluenceServer() as server:
        for sent in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"HELO\r\n\r\n"):
            assert parse(await exchange(server, sent)).status == 400


async def test_a_body_that_is_too_large_is_cut_off_and_not_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fluence_async.server.app.MAX_BODY", 100_000)
    async with FluenceServer() as server, await connect(server) as stream:
        head = request(server, b"", headers={"content-length": "1000000000000"})
        await stream.send(head)
        await stream.send(b"x" * 200_000)
        assert parse(await stream.receive()).status == 413
        assert server.requests[0].body == b""


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"messages":['], ids=str)
@pytest.mark.parametrize("depth", [1000, 100_000, 1_000_000])
async def test_deep_json_is_400(opening: bytes, depth: int) -> None:
    async with FluenceServer() as server:
        assert (await ask(server, opening * depth)).status == 400
        closing = b"]" if opening == b"[" else b"}" if opening == b'{"a":' else b"]}"
        whole = b'{"x":' + opening * depth + (b"1" if opening == b'{"a":' else b"")
        answer = await ask(server, whole + closing * depth + b"}")
        assert answer.status == 400
        assert answer.json["error"]["type"] == "invalid_request"


# ─── who may ask ──────────────────────────────────────────────────────────────────────────


async def test_every_key_is_compared_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[Any, Any]] = []

    def compare(given: Any, known: Any) -> bool:
        compared.append((given, known))
        return bool(given == known)

    monkeypatch.setattr("hmac.compare_digest", compare)
    async with FluenceServer(api_keys=["one", "two", "three"]) as server:
        for key, status in {"one": 200, "nothing": 401}.items():
            answer = await ask(server, headers={"authorization": f"Bearer {key}"})
            assert answer.status == status
            assert compared == [(key.encode(), k) for k in (b"one", b"two", b"three")]
            compared.clear()


async def test_it_listens_on_the_loopback_alone() -> None:
    async with FluenceServer() as server:
        assert server.base_url.startswith("http://127.0.0.1:")
        assert {s.getsockname()[0] for s in server._local._listener.sockets} == {"127.0.0.1"}


async def test_a_strange_page_gets_no_leave_from_the_browser() -> None:
    async with FluenceServer() as server:
        asked = {
            "origin": "https://evil.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization, content-type",
        }
        answer = await ask(server, b"", method="OPTIONS", headers=asked)
        assert answer.status == 403
        local = await ask(server, HELLO, headers={"origin": "http://localhost:3000"})
        for each in (answer, local):
            assert not [name for name in each.headers if name.startswith("access-control")]
