"""A session: its settings, its options, its loops."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio

from fluence_async import FluenceSession, Limiter, Message, Timeout
from tests.shell.scripted import DONE, FINISH, STALL, Answer, ScriptedTransport, text
from tests.shell.test_exchange import GOOD

KEY = "sk-sentinel-0123456789"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FLUENCE_API_KEY", "FLUENCE_BASE_URL", "FLUENCE_LOG"):
        monkeypatch.delenv(name, raising=False)


def session(played: ScriptedTransport | None = None, **options: Any) -> FluenceSession:
    played = played or ScriptedTransport(GOOD)
    return FluenceSession(
        **{"api_key": KEY, "limiter": None, "transport": lambda: played, **options}
    )


class Opened:
    """Opens scripted transports, and keeps them."""

    def __init__(self) -> None:
        self.transports: list[ScriptedTransport] = []

    def open(self) -> ScriptedTransport:
        self.transports.append(ScriptedTransport(GOOD))
        return self.transports[-1]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"temperature": 2.1}, "temperature=2.1.* 0 to 2"),
        ({"temperature": -0.1}, "temperature"),
        ({"messages": []}, "messages is empty"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "'robot'.*user"),
        ({"max_tokens": 0}, "max_tokens=0.*1 or more"),
        ({"model": "a\nb"}, "control character"),
        ({"priority": "urgent"}, "'urgent'.*interactive"),
        ({"timeout": 0}, "total=0.*above 0"),
        ({"max_retries": -1}, "max_retries=-1"),
        ({"extra_headers": {"X-A": "b\r\nX-B: c"}}, "X-A"),
    ],
)
async def test_what_the_api_would_refuse_is_refused_before_anything_is_spent(
    params: dict[str, Any], message: str
) -> None:
    transport = ScriptedTransport(GOOD)
    limiter = Limiter()
    async with session(transport, limiter=limiter) as fluence:
        for stream in (False, True):
            with pytest.raises(ValueError, match=message):
                await fluence.chat.completions.create(
                    **{"model": "m", "messages": "hi", **params}, stream=stream
                )
    assert not transport.requests
    limiter.acquire_nowait()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api_key": ""}, "api_key is empty"),
        ({"api_key": "sk-abc\n"}, "line break"),
        ({"base_url": "http://example.com/v1"}, "allow_insecure"),
        ({"base_url": "ftp://example.com"}, "must be like"),
        ({"limiter": "moon"}, "'moon'"),
        ({"limits": ["100/fortnight"]}, "fortnight"),
        ({"timeout": -1}, "above 0"),
        ({"max_retries": -1}, "0 \\(never\\) or more"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_at_once(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        session(**{"limiter": "memory", **options})


def test_a_key_is_needed_and_never_shown_when_it_is_bad() -> None:
    with pytest.raises(ValueError, match="FLUENCE_API_KEY"):
        FluenceSession()
    with pytest.raises(ValueError, match=f"position {len(KEY)}") as caught:
        FluenceSession(api_key=KEY + "\u00e9")
    with pytest.raises(TypeError, match="not bytes") as mistyped:
        FluenceSession(api_key=KEY.encode())  # type: ignore[arg-type]
    for error in (caught.value, mistyped.value):
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        assert KEY not in "".join(told.format())


@pytest.mark.anyio
async def test_the_environment_fills_in_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUENCE_API_KEY", KEY)
    monkeypatch.setenv("FLUENCE_BASE_URL", "http://127.0.0.1:9/v1/")
    transport = ScriptedTransport(GOOD)
    async with FluenceSession(transport=lambda: transport, limiter=None) as fluence:
        assert fluence.base_url == "http://127.0.0.1:9/v1"
        await fluence.chat.completions.create(model="m", messages="hi")
    request = transport.requests[0]
    assert request.url == "http://127.0.0.1:9/v1/chat/completions"
    assert str.__str__(request.headers["Authorization"]) == f"Bearer {KEY}"
    assert KEY not in repr(request)


def test_the_log_level_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("fluence_async")
    monkeypatch.setattr(logger, "level", logger.level)
    monkeypatch.setattr(logger, "handlers", [logging.NullHandler()])
    monkeypatch.setenv("FLUENCE_LOG", "debug")
    session()
    assert logger.level == logging.DEBUG
    monkeypatch.setenv("FLUENCE_LOG", "loud")
    with pytest.raises(ValueError, match=r"'loud'.*debug"):
        session()


@pytest.mark.anyio
async def test_messages_are_a_str_or_mappings_or_structs_or_an_answers_own() -> None:
    transport = ScriptedTransport(GOOD)
    async with session(transport) as fluence:
        create = fluence.chat.completions.create
        first = await create(model="m", messages="hi")
        asked = [{"role": "user", "content": "hi"}]
        assert transport.body()["messages"] == asked
        await create(
            model="m",
            messages=[*asked, first.message, Message(role="user", content="and now?")],
            temperature=None,
            extra_body={"top_k": 3},
        )
    body = transport.body()
    assert [message["role"] for message in body["messages"]] == ["user", "assistant", "user"]
    assert body["top_k"] == 3
    assert "temperature" not in body
    assert "stream" not in body


@pytest.mark.anyio
async def test_with_options_is_a_variant_over_the_same_connections() -> None:
    opened = Opened()
    async with session(transport=opened.open, default_headers={"X-A": "1"}) as fluence:
        variant = fluence.with_options(
            tags={"tenant": "t"}, extra_headers={"X-B": "2"}, timeout=5, keep_raw=True
        )
        plain = await fluence.chat.completions.create(model="m", messages="hi")
        other = await variant.chat.completions.create(model="m", messages="hi", tags={"job": "j"})
    assert len(opened.transports) == 1
    assert plain.meta.tags == {}
    assert other.meta.tags == {"tenant": "t", "job": "j"}
    assert plain.raw is None
    assert other.raw is not None
    headers = [request.headers for request in opened.transports[0].requests]
    assert "X-B" not in headers[0]
    assert (headers[1]["X-A"], headers[1]["X-B"]) == ("1", "2")
    with pytest.raises(TypeError, match="'tiemout'"):
        fluence.with_options(tiemout=3)  # type: ignore[call-arg]


@pytest.mark.anyio
async def test_unknown_fields_are_reachable_on_request() -> None:
    chunk = b'data: {"id":"c","choices":[{"delta":{"content":"a","mood":"good"}}],"x":1}\n\n'
    transport = ScriptedTransport(Answer(chunk, FINISH, DONE))
    async with session(transport) as fluence:
        async with fluence.chat.completions.stream(
            model="m", messages="hi", keep_raw=True
        ) as stream:
            first = await anext(stream)
    assert first.raw is not None
    assert first.raw["x"] == 1
    assert first.raw["choices"][0]["delta"]["mood"] == "good"
    assert first.text == "a"


@pytest.mark.anyio
async def test_a_closed_session_says_so() -> None:
    fluence = session()
    await fluence.aclose()
    await fluence.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await fluence.chat.completions.create(model="m", messages="hi")
    assert "closed" in repr(fluence)


@pytest.mark.parametrize(("backend", "library"), [("asyncio", "aiohttp"), ("trio", "httpcore2")])
def test_what_a_call_takes_is_imported_as_the_session_is_entered(
    backend: str, library: str
) -> None:
    source = f"""
import anyio, sys
from fluence_async import FluenceSession

async def main():
    session = FluenceSession(api_key="k", base_url="http://127.0.0.1:9/v1")
    assert {library!r} not in sys.modules
    async with session:
        assert {library!r} in sys.modules

anyio.run(main, backend={backend!r})
"""
    subprocess.run([sys.executable, "-c", source], cwd=Path(__file__).parents[2], check=True)


def test_a_session_has_no_pickle() -> None:
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(session())


def test_one_session_serves_several_loops_one_after_another() -> None:
    opened = Opened()
    fluence = session(transport=opened.open)

    async def ask() -> str:
        return (await fluence.chat.completions.create(model="m", messages="hi")).text

    assert asyncio.run(ask()) == "Hi"
    assert asyncio.run(ask()) == "Hi"
    assert trio.run(ask) == "Hi"
    assert asyncio.run(ask()) == "Hi"
    assert len(opened.transports) == 4


@pytest.mark.anyio
async def test_a_second_loop_at_the_same_time_is_refused_with_the_way_out() -> None:
    transport = ScriptedTransport(Answer(text("a"), STALL))
    fluence = session(transport)
    stream = await fluence.chat.completions.create(model="m", messages="hi", stream=True)
    refused: list[BaseException] = []

    async def ask() -> None:
        await fluence.chat.completions.create(model="m", messages="hi")

    def elsewhere() -> None:
        try:
            asyncio.run(ask())
        except RuntimeError as error:
            refused.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await anyio.to_thread.run_sync(thread.join)
    assert "one session for each thread" in str(refused[0])
    await stream.aclose()
    await fluence.aclose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_drops_the_connections_and_the_parent_goes_on() -> None:
    opened = Opened()
    fluence = session(transport=opened.open)

    async def ask() -> str:
        return (await fluence.chat.completions.create(model="m", messages="hi")).text

    assert asyncio.run(ask()) == "Hi"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - measured in the parent only
        try:
            os.write(writer, json.dumps([asyncio.run(ask()), len(opened.transports)]).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        assert json.loads(pipe.read()) == ["Hi", 2]
    assert asyncio.run(ask()) == "Hi"


@pytest.mark.anyio
async def test_the_default_clocks_bound_every_silence() -> None:
    clocks = Timeout()
    assert clocks.total is None
    assert clocks.queue is None
    assert None not in (clocks.connect, clocks.first_byte, clocks.idle, clocks.progress)


@pytest.mark.anyio
async def test_an_event_too_large_ends_the_stream_with_an_error() -> None:
    endless = [b"data: {" + b"a" * 2**20] + [b"a" * 2**20] * 17
    async with session(ScriptedTransport(Answer(*endless))) as fluence:
        with pytest.raises(Exception, match="larger than 16777216 bytes"):
            await fluence.chat.completions.create(model="m", messages="hi", stream=True)
