"""The two transports: the contract that both keep, and what the contract cannot see."""

from __future__ import annotations

import asyncio
import gc
import math
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpcore2
import pytest
import trio
from anyio import to_thread
from anyio.lowlevel import checkpoint
from anyio.streams.tls import TLSStream

from fluence_async._sansio.secret import RedactedHeader
from fluence_async.testing.transport_contract import CHECKS, REAL_TIME, Check
from fluence_async.testing.transport_contract._server import (
    Peer,
    _server_context,
    body_of,
    echo,
    post,
    saying,
    served,
    trusting,
)
from fluence_async.transports import open_transport
from fluence_async.transports._base import (
    BodyBroken,
    BodyTimeout,
    ConnectFailed,
    Response,
    TLSFailed,
    Transport,
    TransportError,
)
from fluence_async.transports._failures import authority, brief, connecting_failed
from fluence_async.transports._head import read_head, write_head
from fluence_async.transports._httpcore_progress import Progress
from fluence_async.transports._proxies import Proxies, credentials
from tests.virtual import _options

KEY = "sk-0123456789abcdef"
HEADERS = {"Authorization": RedactedHeader(f"Bearer {KEY}")}


@pytest.fixture(autouse=True)
def nothing_is_left(caplog: pytest.LogCaptureFixture) -> Any:
    """No warning from a finalizer (warnings are errors) and nothing in the log."""
    yield
    gc.collect()
    told = [*caplog.get_records("call"), *caplog.records]
    assert [record for record in told if record.levelname in ("WARNING", "ERROR")] == []


# ─── the contract ─────────────────────────────────────────────────────────────────────────


class TestContract:
    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=["aiohttp", "aiohttp in pure Python", "httpcore2"])
    def anyio_backend(
        self, request: pytest.FixtureRequest, check: Check, monkeypatch: pytest.MonkeyPatch
    ) -> tuple[str, Mapping[str, Any]]:
        if request.param == "aiohttp in pure Python":
            from aiohttp.http_parser import HttpResponseParserPy

            monkeypatch.setattr("aiohttp.client_proto.HttpResponseParser", HttpResponseParserPy)
            monkeypatch.setattr("aiohttp.http_parser.HttpResponseParser", HttpResponseParserPy)
        backend = "trio" if request.param == "httpcore2" else "asyncio"
        return backend, {} if check in REAL_TIME else _options(backend)

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test(self, check: Check) -> None:
        await check(open_transport)


# ─── a loop that is busy ──────────────────────────────────────────────────────────────────


def _be_busy(seconds: float) -> None:
    """What the loop's clock does when one step takes so long."""
    if (loop := asyncio._get_running_loop()) is not None:
        loop._virtual.now += seconds  # type: ignore[attr-defined]
    else:
        trio.lowlevel.current_clock().jump(seconds)  # type: ignore[attr-defined]


class TestABusyLoop:
    """What came before a deadline counts, though the loop looked at neither in time."""

    pytestmark = pytest.mark.anyio

    @pytest.fixture(params=["asyncio", "trio"])
    def anyio_backend(self, request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
        return request.param, _options(request.param)

    @pytest.mark.parametrize("rude", [False, True], ids=["more of the body", "a reset"])
    async def test_what_came_in_time_is_told(self, rude: bool) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
            transport = open_transport()
            accepted: list[socket.socket] = []

            async def accept() -> None:
                accepted.append((await to_thread.run_sync(listening.accept))[0])
                accepted[0].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + b"one")

            async def read() -> None:
                if rude:
                    with pytest.raises(BodyBroken):
                        await response.receive(began + 1)
                else:
                    assert await response.receive(began + 1) == b"two"
                    with pytest.raises(BodyTimeout):
                        await response.receive(began + 4)
                    assert transport.clock() >= began + 4

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(accept)
                response = await transport.send(post(url))
            assert await response.receive(math.inf) == b"one"
            began = transport.clock()
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(read)
                for _ in range(3):
                    await checkpoint()
                if rude:
                    linger = struct.pack("ii", 1, 0)
                    accepted[0].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    accepted[0].close()
                else:
                    accepted[0].sendall(b"two")
                _be_busy(2)
            accepted[0].close()
            await response.aclose()
            await transport.aclose()


@pytest.mark.parametrize("anyio_backend", [("trio", _options("trio"))], ids=["trio"])
@pytest.mark.anyio
async def test_a_request_whose_time_is_up_as_it_would_leave_is_not_told_as_sent() -> None:
    """On asyncio the library itself says when it begins to write."""
    sent: list[int] = []
    request = post("http://127.0.0.1:1/", connect_timeout=1, on_sent=lambda: sent.append(1))
    with trio.CancelScope() as scope:
        progress = Progress(request, scope, None)
        await progress("connection.connect_tcp.started", {})
        _be_busy(2)
        outgoing = httpcore2.Request("POST", request.url)
        await progress("http11.send_request_headers.started", {"request": outgoing})
        await checkpoint()
    assert scope.cancelled_caught
    assert not progress.sent
    assert not sent


# ─── the key ──────────────────────────────────────────────────────────────────────────────


async def _drop(peer: Peer) -> None:
    await peer.request()


async def _reset(peer: Peer) -> None:
    await peer.reset()


@pytest.mark.anyio
@pytest.mark.parametrize(
    "script",
    [_drop, _reset, saying(b"garbage\r\n\r\n"), saying(b"HTTP/1.1 101 Switch\r\n\r\n")],
)
async def test_the_key_is_in_no_traceback_even_with_local_variables(script: Any) -> None:
    async with served(open_transport, script) as (transport, server):
        with pytest.raises(TransportError) as caught:
            await transport.send(post(server.url, bytes(2**21), headers=HEADERS))
        with pytest.raises(ValueError, match=r"[Ff]orbid") as forbidden:
            bad = {"Authorization": RedactedHeader(f"Bearer {KEY}\n")}
            await transport.send(post(server.url, headers=bad))
    transport = open_transport()
    with pytest.raises(ConnectFailed) as refused:
        await transport.send(post(server.url, headers=HEADERS))
    await transport.aclose()
    for error in (caught.value, refused.value, forbidden.value):
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert KEY not in "".join(told.format())


# ─── which library ────────────────────────────────────────────────────────────────────────


def test_without_a_loop_there_is_no_transport() -> None:
    with pytest.raises(RuntimeError):
        open_transport()


def test_on_trio_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "fluence_async.transports.httpcore", raising=False)
    monkeypatch.setitem(sys.modules, "httpcore2", None)

    async def main() -> None:
        with pytest.raises(ImportError, match=r"pip install 'fluence-async\[trio\]'"):
            open_transport()

    anyio.run(main, backend="trio")


@pytest.mark.parametrize(("backend", "expected"), [("asyncio", "aiohttp"), ("trio", "httpcore2")])
def test_only_the_library_of_the_running_loop_is_imported(backend: str, expected: str) -> None:
    program = f"""
import sys, anyio
from fluence_async.transports import open_transport
loaded = lambda: sorted({{"aiohttp", "httpcore2", "trio"}} & sys.modules.keys())
assert loaded() == [], loaded()
async def main():
    transport = open_transport()
    await transport.aclose()
anyio.run(main, backend={backend!r})
print(*(name for name in loaded() if name != "trio"))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == expected


# ─── the end of a run ─────────────────────────────────────────────────────────────────────

BACKENDS = pytest.mark.parametrize("backend", ["asyncio", "trio"])


def _open_files() -> int:
    return len(list(Path("/dev/fd").iterdir()))


async def _used(*, cancelled: bool = False) -> tuple[Transport, Response]:
    """A transport that keeps an idle connection, and one under a response, of which perhaps a read
    was cancelled; both are left open."""
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/"

    def serve() -> None:
        for body in (b"o", b"ok"):
            peer, _ = listening.accept()
            peer.recv(2**16)
            peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n" + body)
            threading.Thread(target=lambda peer=peer: (peer.recv(1), peer.close())).start()
        listening.close()

    threading.Thread(target=serve).start()
    transport = open_transport()
    left = await transport.send(post(url))
    assert await left.receive(math.inf) == b"o"
    assert await body_of(await transport.send(post(url))) == b"ok"
    if cancelled:
        with anyio.move_on_after(0) as scope:
            await left.receive(math.inf)
        assert scope.cancelled_caught
    return transport, left


@BACKENDS
@pytest.mark.parametrize("cancelled", [False, True], ids=["", "after a cancelled read"])
def test_what_is_open_when_a_run_ends_is_closed_with_it(backend: str, *, cancelled: bool) -> None:
    most = math.inf
    for _ in range(3):
        transport, left = anyio.run(partial(_used, cancelled=cancelled), backend=backend)
        left.abort()
        transport.abandon()
        transport.abandon()
        del transport, left
        gc.collect()
        patience = 500
        while _open_files() > most and patience:  # the server's thread closes its side
            time.sleep(0.01)
            patience -= 1
        assert _open_files() <= most
        most = min(most, _open_files())


def test_a_loop_that_is_closed_without_its_last_rites_can_be_abandoned() -> None:
    loop = asyncio.new_event_loop()
    transport, left = loop.run_until_complete(_used())
    loop.close()
    left.abort()
    left.abort()
    transport.abandon()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # asyncio's, of its own transports
        del transport, left
        gc.collect()


def test_a_loop_that_rests_closes_what_is_abandoned_when_it_runs_again() -> None:
    loop = asyncio.new_event_loop()
    transport, left = loop.run_until_complete(_used())
    left.abort()
    transport.abandon()
    loop.run_until_complete(asyncio.sleep(0.01))
    with pytest.raises(RuntimeError, match="closed"):
        loop.run_until_complete(transport.send(post("http://127.0.0.1:1/")))
    loop.close()


def _as_a_child(only: list[Transport]) -> int:
    """What a forked child does; 0 if that went well."""
    complaints: list[Any] = []
    sys.unraisablehook = complaints.append
    try:
        gc.collect()
        before = _open_files()
        only[0].abandon()
        if _open_files() != before - 1:
            return 1
        only.clear()
        gc.collect()
    except BaseException:
        return 3
    for complaint in complaints:
        os.write(2, f"in the child: {complaint}\n".encode())
    return 2 if complaints else 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@BACKENDS
def test_a_forked_child_drops_its_copies_and_leaves_the_parent_alone(backend: str) -> None:
    async def main() -> None:
        async with served(open_transport, echo) as (_, server):
            only = [open_transport()]  # the one reference, so that the child can drop it
            await body_of(await only[0].send(post(server.url)))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of threads that may be about
                child = os.fork()
            if child == 0:
                os._exit(_as_a_child(only))
            _, status = os.waitpid(child, 0)  # noqa: ASYNC222 — it takes no time
            assert os.waitstatus_to_exitcode(status) == 0
            for _ in range(3):
                assert await body_of(await only[0].send(post(server.url, b"still"))) == b"still"
            assert server.accepted == 1
            await only[0].aclose()

    anyio.run(main, backend=backend)


def test_a_task_that_is_cancelled_twice_leaves_nothing() -> None:
    async def main() -> None:
        async with served(open_transport, echo, max_connections=1) as (transport, server):

            async def call() -> None:
                response = await transport.send(post(server.url))
                try:
                    await response.receive(math.inf)
                finally:
                    await response.aclose()

            for steps in range(40):
                task = asyncio.create_task(call())
                for _ in range(steps):
                    await checkpoint()
                task.cancel()
                await checkpoint()
                task.cancel()
                await asyncio.wait([task])
                assert await body_of(await transport.send(post(server.url, b"next"))) == b"next"

    asyncio.run(main())


# ─── proxies ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_a_proxy_of_the_environment_is_used_if_that_is_trusted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served(open_transport, echo) as (untrusting, server):
        monkeypatch.setenv("http_proxy", f"http://user:pass%21@{server.authority}")
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        trusting_env = open_transport(trust_env=True)
        response = await trusting_env.send(post("http://api.invalid/v1", b"through"))
        assert await body_of(response) == b"through"
        head = server.requests[0][0].lower()
        assert head.startswith("post http://api.invalid/v1 http/1.1")
        assert "proxy-authorization: basic dxnlcjpwyxnziq==" in head
        await body_of(await trusting_env.send(post(server.url)))  # as no_proxy says
        assert server.requests[1][0].startswith("POST /v1")
        with pytest.raises(ConnectFailed):
            await untrusting.send(post("http://api.invalid/v1"))
        await trusting_env.aclose()


@pytest.mark.anyio
async def test_https_goes_through_a_proxy_in_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []

    async def tunnel(peer: Peer) -> None:
        head, _ = await peer.request()
        assert head.startswith("CONNECT localhost:4430 ")
        assert KEY not in head
        assert not sent
        await peer.say(b"HTTP/1.1 200 Connected\r\n\r\n")
        peer._stream = await TLSStream.wrap(
            peer._stream, server_side=True, ssl_context=_server_context(), standard_compatible=False
        )
        await echo(peer)

    async with served(open_transport, tunnel) as (_, server):
        monkeypatch.setenv("https_proxy", f"http://{server.authority}")
        monkeypatch.delenv("no_proxy", raising=False)
        transport = open_transport(trust_env=True, ssl_context=trusting())
        for count in (1, 2):
            request = post(
                "https://localhost:4430/v1",
                b"hidden",
                headers=HEADERS,
                on_sent=lambda: sent.append(1),
            )
            assert await body_of(await transport.send(request)) == b"hidden"
            assert len(sent) == count
        assert server.accepted == 1
        await transport.aclose()


@pytest.mark.anyio
async def test_a_proxy_that_refuses_is_a_failure_to_connect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def refuse(peer: Peer) -> None:
        await peer.request()
        await peer.answer(b"no", status="403 Forbidden")

    async with served(open_transport, refuse) as (_, server):
        monkeypatch.setenv("https_proxy", f"http://{server.authority}")
        monkeypatch.delenv("no_proxy", raising=False)
        transport = open_transport(trust_env=True)
        with pytest.raises(ConnectFailed, match="localhost:4430"):
            await transport.send(post("https://localhost:4430/v1", headers=HEADERS))
        await transport.aclose()


def test_a_proxy_of_another_kind_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "socks5://user:secret@127.0.0.1:1080")
    with pytest.raises(ValueError, match="'socks5'") as error:
        Proxies(trust_env=True)
    assert "secret" not in str(error.value)
    assert Proxies(trust_env=False).for_url("https://api.invalid/") is None


def test_credentials_of_a_proxy() -> None:
    assert credentials("http://127.0.0.1:3128") is None
    assert credentials("http://me@127.0.0.1:3128") == ("me", "")
    assert credentials("http://me:a%40b@127.0.0.1:3128") == ("me", "a@b")


# ─── judging ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000/v1?q=1", "127.0.0.1:8000"),
        ("https://api.fluence.ai/v1", "api.fluence.ai:443"),
        ("http://localhost", "localhost:80"),
        ("http://user:pass@[::1]:80/", "[::1]:80"),
    ],
)
def test_a_url_is_named_by_host_and_port(url: str, expected: str) -> None:
    assert authority(url) == expected


def _certificate_error() -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = "certificate has expired"
    error.reason = "CERTIFICATE_VERIFY_FAILED"
    return error


def _no_tls_error() -> ssl.SSLError:
    error = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1016)")
    error.reason = "WRONG_VERSION_NUMBER"
    return error


def _wrapped(make: Callable[[], BaseException]) -> list[BaseException]:
    """An error in all the ways that a library may hand it over."""
    chained = RuntimeError("wrapped")
    chained.__cause__ = make()
    during = RuntimeError("wrapped")
    during.__context__ = make()
    return [make(), RuntimeError(make()), chained, during, ExceptionGroup("all", [make()])]  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("make", "kind", "words", "permanent"),
    [
        (_certificate_error, TLSFailed, "certificate has expired", None),
        (_no_tls_error, TLSFailed, "WRONG_VERSION_NUMBER: is it http://?", None),
        (lambda: ssl.SSLEOFError(8, "EOF"), ConnectFailed, "", False),
        (lambda: socket.gaierror(socket.EAI_NONAME, "no such name"), ConnectFailed, "name", True),
        (lambda: socket.gaierror(socket.EAI_AGAIN, "later"), ConnectFailed, "later", False),
        (lambda: ConnectionRefusedError(111, "x"), ConnectFailed, "Connection refused", False),
        (lambda: TimeoutError(110, "x"), ConnectFailed, "timed out", False),
        (lambda: RuntimeError("odd"), ConnectFailed, "", False),
    ],
)
def test_a_failure_to_connect_is_judged_by_its_cause(
    make: Callable[[], BaseException], kind: type, words: str, permanent: bool | None
) -> None:
    for error in _wrapped(make):
        failure = connecting_failed("https://api.invalid/v1", error)
        assert type(failure) is kind
        assert "api.invalid:443" in str(failure)
        assert words in str(failure)
        assert getattr(failure, "permanent", None) is permanent


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            ValueError("Got more than 8190 bytes when reading: b'secret'"),
            "Got more than 8190 bytes when reading",
        ),
        (ValueError("illegal status line: bytearray(b'secret')"), "illegal status line"),
        (ValueError("Bad status line 'secret'"), "Bad status line"),
        (ValueError("Bad status line:\n\n b'secret'"), "Bad status line"),
        (ValueError("Transfer-Encoding can't be present"), "Transfer-Encoding can't be present"),
        (ConnectionResetError(104, "x"), "Connection reset by peer"),
        (ValueError(), "ValueError"),
    ],
)
def test_an_error_is_told_without_the_bytes_it_quotes(error: Exception, expected: str) -> None:
    assert brief(error) == expected


def test_heads_are_read_and_written() -> None:
    raw = ((b"A", b"1"), (b"a", b"2"), (b"B", b"\xe9"))
    assert read_head("http://h/", 200, raw) == {"a": "1, 2", "b": "é"}
    request = post("http://u@h:1/p", b"body", headers={"host": "other", "X": "é"})
    assert write_head(request) == [
        (b"Content-Length", b"4"),
        (b"host", b"other"),
        (b"X", "é".encode()),
    ]
    assert write_head(post("http://u@h:1/p"))[0] == (b"Host", b"h:1")
    for bad in ("\n", "\x00", "\ud800"):
        with pytest.raises(ValueError, match="forbids"):
            write_head(post("http://h/", headers={"X": bad}))
