"""The key is in no text, whatever goes wrong: a hunt for one that nobody could miss.

Through every fault, and past servers that quote it wherever a server can write; in all that an
error, a log, a warning, a hook and a pickle can show; in each form that it might take on the way.
"""

from __future__ import annotations

import base64
import logging
import pickle
import socket
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import anyio
import pytest

from fluence_async import FluenceError, FluenceSession, RetryPolicy, Timeout
from fluence_async.hooks import Fact
from fluence_async.testing import (
    BOMBS,
    FAULTS,
    Event,
    Fault,
    FluenceServer,
    Reply,
    Stall,
    Status,
    Stream,
)

KEY = "sk-SENTINEL/0123+456=789?abcdef"
BEARER = f"Bearer {KEY}"
HTML = "text/html"


def forms() -> dict[str, str]:
    """What the key might look like, by name."""
    encoded = {
        "base64": base64.b64encode(KEY.encode()).decode(),
        "base64 of the header": base64.b64encode(BEARER.encode()).decode(),
        "base64 for URLs": base64.urlsafe_b64encode(KEY.encode()).decode(),
    }
    whole = {"raw": KEY, "URL-encoded": quote(KEY, safe=""), "its first 8 characters": KEY[:8]}
    return {**whole, **{name: text.rstrip("=")[:-1] for name, text in encoded.items()}}


class Quoting:
    """A server's answer with the key in it, in every form."""

    def __init__(self, reply: Callable[[str], Any], *, stream: bool = True) -> None:
        self.reply = reply
        self.stream = stream

    def __call__(self, turn: Any) -> Any:
        return self.reply(" ".join(forms().values()))


def _garbled(head: bytes) -> Callable[[str], bytes]:
    return lambda key: b"HTTP/1.1 " + head.replace(b"KEY", key.encode()) + b"\r\n\r\n"


QUOTING: dict[str, Quoting] = {
    "an error's message": Quoting(lambda key: Status(401, key)),
    "an error's message, whole": Quoting(lambda key: Status(400, key), stream=False),
    "an error's code": Quoting(lambda key: Status(400, code=key)),
    "an error's param": Quoting(lambda key: Status(400, param=key)),
    "an error that is tried again": Quoting(lambda key: Status(500, key)),
    "an error body in HTML": Quoting(
        lambda key: Reply(502, text=key, headers={"content-type": HTML})
    ),
    "a page": Quoting(lambda key: Reply(text=key, headers={"content-type": HTML}), stream=False),
    "a page for a stream": Quoting(lambda key: Reply(text=key, headers={"content-type": HTML})),
    "a status of its own": Quoting(lambda key: Reply(299, text=key)),
    "what is no completion": Quoting(lambda key: Reply(json={"x": key}), stream=False),
    "what is no completion, for a stream": Quoting(lambda key: Reply(json={"x": key})),
    "an error with status 200": Quoting(lambda key: Reply(json={"error": {"message": key}})),
    "a broken chunk": Quoting(lambda key: Stream("Hel", Event("{" + key))),
    "a chunk of wrong types": Quoting(lambda key: Stream("Hel", {"choices": key})),
    "a field's name": Quoting(lambda key: Stream("Hel", {"choices": [{"delta": {key: 1}}, 5]})),
    "an error event": Quoting(lambda key: Stream("Hel", Status(500, key))),
    "an error event in plain text": Quoting(lambda key: Stream("Hel", Event(key, event="error"))),
    "an error as the first event": Quoting(lambda key: Stream(Status(400, key, code=key))),
    "a redirect": Quoting(lambda key: Reply(307, headers={"location": f"http://{key}/"})),
    "a request id": Quoting(lambda key: Status(400, headers={"x-request-id": key})),
    "a retry-after": Quoting(lambda key: Status(429, retry_after=key)),
    "a rate limit": Quoting(lambda key: Status(400, headers={"x-ratelimit-limit-requests": key})),
    "a content type": Quoting(lambda key: Reply(text="x", headers={"content-type": key})),
    "a content type, whole": Quoting(
        lambda key: Reply(text="x", headers={"content-type": key}), stream=False
    ),
    "a content encoding": Quoting(
        lambda key: Reply(
            body=b"x", headers={"content-encoding": key, "content-type": "text/event-stream"}
        )
    ),
    "a content encoding, whole": Quoting(
        lambda key: Reply(json={}, headers={"content-encoding": key}), stream=False
    ),
    "a reason": Quoting(_garbled(b"400 KEY\r\ncontent-length: 0")),
    "a status line": Quoting(_garbled(b"KEY")),
    "a header line": Quoting(_garbled(b"200 OK\r\nKEY")),
    "a length": Quoting(_garbled(b"200 OK\r\ncontent-length: KEY")),
    "a transfer encoding": Quoting(_garbled(b"200 OK\r\ntransfer-encoding: KEY")),
    "a chunk size": Quoting(
        lambda key: (
            _garbled(b"200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked")(
                key
            )
            + key.encode()
            + b"\r\n"
        )
    ),
}


class Prey:
    """Everything that could be read by somebody, by where it was."""

    def __init__(self, logs: pytest.LogCaptureFixture) -> None:
        self.logs = logs
        self.quoted = False
        self.told: list[Fact] = []
        self.texts: dict[str, str] = {}

    def take(self, error: BaseException) -> None:
        # What a server quoted stands in the variables of who reads it, until it is scrubbed.
        full = traceback.TracebackException.from_exception(error, capture_locals=not self.quoted)
        self.texts |= {
            "str": str(error),
            "repr": repr(error),
            "args": repr(error.args),
            "attributes": repr(vars(error)),
            "traceback": "".join(full.format()),
            "pickle": pickle.dumps(error).decode("latin-1"),
        }

    def check(self, caught: list[warnings.WarningMessage]) -> None:
        self.texts["log"] = "".join(
            f"{record.getMessage()} {record.exc_text}"
            for record in self.logs.records
            if record.name.startswith("fluence_async") or not self.quoted
        )
        self.texts["warnings"] = "".join(str(warning.message) for warning in caught)
        self.texts["hooks"] = repr(self.told)
        found = [
            f"{form} in {where}: …{text[max(0, at - 100) : at + 60]}…"
            for where, text in self.texts.items()
            for form, needle in forms().items()
            if (at := text.find(needle)) >= 0
        ]
        assert not found, "\n".join(found)


@pytest.fixture
def prey(caplog: pytest.LogCaptureFixture) -> Iterator[Prey]:
    caplog.set_level(logging.DEBUG)
    prey = Prey(caplog)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield prey
    prey.check(caught)


def session(prey: Prey, base_url: str, **options: Any) -> FluenceSession:
    return FluenceSession(
        api_key=KEY,
        base_url=base_url,
        limiter=None,
        hooks=[prey.told.append],
        **{"retry": RetryPolicy(max_retries=1, base_s=0.001), **options},
    )


async def ask(prey: Prey, fluence: FluenceSession, *, stream: bool) -> None:
    request: Any = {"model": "fluence-chat", "messages": "hi"}
    prey.texts["session"] = repr([fluence, fluence.chat, fluence.chat.completions])
    try:
        if not stream:
            answer = await fluence.chat.completions.create(**request)
            prey.texts["answer"] = repr([answer, answer.meta])
            return
        async with fluence.chat.completions.stream(**request) as chunks:
            prey.texts["stream"] = repr([chunks, chunks.meta])
            async for chunk in chunks:
                prey.texts["chunk"] = repr(chunk)
    except FluenceError as error:
        prey.take(error)


@pytest.mark.anyio
@pytest.mark.parametrize(
    "fault",
    [fault for fault in FAULTS if fault not in BOMBS],
    ids=lambda fault: fault.name.replace(" ", "-"),
)
async def test_through_every_fault(fault: Fault, prey: Prey) -> None:
    async with FluenceServer(limits=None, api_keys=[KEY]) as server:
        server.script(*fault.script, repeat=True)
        async with session(prey, server.base_url, timeout=fault.timeout) as fluence:
            await ask(prey, fluence, stream=fault.stream)


@pytest.mark.anyio
@pytest.mark.parametrize("where", QUOTING, ids=lambda where: where.replace(" ", "-"))
async def test_quoted_by_the_server(where: str, prey: Prey) -> None:
    prey.quoted = True
    async with FluenceServer(limits=None, api_keys=[KEY]) as server:
        server.script(QUOTING[where])
        async with session(prey, server.base_url, timeout=2) as fluence:
            await ask(prey, fluence, stream=QUOTING[where].stream)
        assert "str" in prey.texts, "it was meant to fail"


@pytest.mark.anyio
async def test_where_nobody_answers(prey: Prey) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}/v1"
        for listening in (False, True):
            if listening:
                silent.listen()
            for scheme in ("http", "https"):
                clocks = Timeout(connect=0.05, first_byte=0.1)
                async with session(prey, f"{scheme}://{address}", timeout=clocks) as fluence:
                    await ask(prey, fluence, stream=False)
                assert prey.texts.pop("str")


@pytest.mark.anyio
async def test_in_a_call_that_is_cancelled_and_a_stream_that_is_dropped(prey: Prey) -> None:
    async with FluenceServer(limits=None, api_keys=[KEY]) as server:
        async with session(prey, server.base_url) as fluence:
            server.script(Stream("Hel", Stall()), repeat=True)
            dropped = await fluence.chat.completions.create(
                model="fluence-chat", messages="hi", stream=True
            )
            del dropped
            with anyio.move_on_after(0.001):
                await ask(prey, fluence, stream=True)


@pytest.mark.anyio
async def test_one_host_only_sees_it(prey: Prey) -> None:
    async with FluenceServer(limits=None) as elsewhere, FluenceServer(api_keys=[KEY]) as server:
        for status in (301, 302, 303, 307, 308):
            place = elsewhere.base_url + "/chat/completions"
            server.script(Reply(status, headers={"location": place, "refresh": f"0; {place}"}))
            async with session(prey, server.base_url) as fluence:
                for stream in (False, True):
                    await ask(prey, fluence, stream=stream)
        assert {request.headers["authorization"] for request in server.requests} == {BEARER}
        assert elsewhere.requests == []


def test_in_settings_that_cannot_work(prey: Prey) -> None:
    settings: list[dict[str, Any]] = [
        {"api_key": KEY + "\n"},
        {"api_key": KEY.encode()},
        {"base_url": "http://example.com"},
        {"timeout": -1},
        {"limits": ["never"]},
        {"default_headers": {"X-Key": "\n"}},
    ]
    for wrong in settings:
        if "api_key" in wrong:
            with pytest.raises((ValueError, TypeError)) as caught:
                FluenceSession(base_url="http://127.0.0.1/v1", **wrong)
        else:
            with pytest.raises((ValueError, TypeError)) as caught:
                FluenceSession(api_key=KEY, **wrong)
        # The frame of this test knows the key; what came of it below must not.
        assert caught.tb is not None
        below = caught.value.with_traceback(caught.tb.tb_next)
        prey.take(below)
        prey.check([])
