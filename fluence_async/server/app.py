"""The API as documented: a request comes in from aiohttp, and its answer goes out on a wire.

The order of the checks is the law: who may talk to this server at all (host, origin), what is
asked for (path, method), who asks (key), whether they may now (windows), and only then what
they say (content type, size, JSON, parameters). So a request is counted once its key is known
to be good, also if it turns out to be invalid; and a refused one is not read.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from aiohttp import web

from .chat import parse
from .control import CONTROL_PATH, Control
from .idempotency import Idempotency
from .received import Received
from .refusal import Refusal
from .replies import Reply, ReplyLike, Status, answer_in, executes, play
from .responders import MODELS, Responder, models_of
from .turn import Turn
from .windows import Windows
from .wire import Wire

__all__ = ["App", "Received"]

MAX_BODY = 16 * 1024 * 1024
BODY_TIMEOUT_S = 30.0
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})

_log = logging.getLogger("fluence_async.server")


class App:
    """The API's front door.

    Args:
        responder: Who answers.
        keys: The API keys that are good.
        windows: The rate limits; None for none.
        clock: The server's clock, in seconds.
        time_scale: Its seconds per real one.
        pace: Real seconds between two tokens of a streamed answer.
        hosts: Names under which it may be addressed, beside those of the loopback.
        watch: Is told each request, and may watch what becomes of it.
        control: Takes scripts over HTTP; None for none.
    """

    def __init__(
        self,
        responder: Responder,
        *,
        keys: Sequence[str],
        windows: Windows | None,
        clock: Callable[[], float],
        time_scale: float = 1.0,
        pace: float = 0.0,
        hosts: Sequence[str] = (),
        watch: Callable[[Received], None] | None = None,
        control: Control | None = None,
    ) -> None:
        self._responder = responder
        self._keys = [key.encode() for key in keys]
        self._windows = windows
        self._clock = clock
        self._time_scale = time_scale
        self._pace = pace
        self._hosts = _LOOPBACK | set(hosts)
        self._watch = watch
        self._control = control
        self._models = models_of(responder)
        self._kept = Idempotency[tuple[Turn, ReplyLike]](
            clock, lambda result: answer_in(result[1]) is not None
        )
        self.answering: int = 0

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request. Never raises anything but a cancellation."""
        wire = Wire(request, self._pace)
        self.answering += 1
        try:
            await play(await self._reply(request, wire), wire)
        except ConnectionError:
            return wire.done(keep_alive=False)
        except Exception:  # noqa: BLE001 - a responder may raise anything; the server goes on
            _log.exception("a reply could not be played")
            return wire.done(keep_alive=False)
        finally:
            self.answering -= 1
        return wire.done()

    async def aclose(self) -> None:
        """Stop executions that nobody waits for any more."""
        await self._kept.aclose()

    async def _reply(self, request: web.BaseRequest, wire: Wire) -> ReplyLike:
        """What is to be answered, errors too."""
        received = wire.received = _received(request, self._clock())
        control = self._control if request.path.startswith(CONTROL_PATH) else None
        if self._watch is not None and control is None:
            self._watch(received)
        try:
            self._check_origin(request)
            if control is not None:
                self._key(received.headers)
                body = b"" if request.method in {"GET", "DELETE"} else await _body(request, wire)
                return control.answer(request.method, request.path, body)
            if request.path == "/v1/chat/completions":
                _check_method(request, "POST")
                return await self._chat(request, received, wire)
            if request.path == "/v1/models":
                _check_method(request, "GET")
                self._key(received.headers)
                return Reply(json=_MODEL_LIST)
            raise Refusal(404, f"No such path: {request.path!r}")
        except Refusal as refusal:
            return Reply(refusal.status, json=refusal.body, headers=refusal.headers)
        except ConnectionError:
            raise
        except Exception:  # noqa: BLE001 - a responder may raise anything; the server goes on
            _log.exception("a request could not be answered")
            return Status(500, "The server failed; its log says why")

    async def _chat(self, request: web.BaseRequest, received: Received, wire: Wire) -> ReplyLike:
        key = self._key(received.headers)
        received.counted = True
        if self._windows is not None:
            verdict = self._windows.admit(key, received.at)
            headers = verdict.headers(self._time_scale)
            wire.headers.update(headers)
            if not verdict.accepted:
                received.refused = True
                wait = headers["retry-after"]
                raise Refusal(429, f"Rate limit exceeded: {verdict.window}; wait {wait} s")
        received.body = await _body(request, wire)
        turn = Turn(parse(received.body), received.headers, received.body)
        if self._models is not None and turn.chat.model not in self._models:
            raise Refusal(
                404,
                f"No such model: {turn.chat.model!r}; there are {', '.join(self._models)}",
                code="model_not_found",
                param="model",
            )
        wire.turn, reply = await self._execute(key, turn, received)
        return reply

    async def _execute(self, key: str, turn: Turn, received: Received) -> tuple[Turn, ReplyLike]:
        async def execute() -> tuple[Turn, ReplyLike]:
            reply = await self._responder.respond(turn)
            received.executed = executes(reply)
            return turn, reply

        idempotency_key = received.headers.get("idempotency-key")
        if not idempotency_key:
            return await execute()
        (first, reply), fresh = await self._kept.once(
            (key, idempotency_key), received.body, execute
        )
        return first, reply if fresh else answer_in(reply) or reply

    def _key(self, headers: Mapping[str, str]) -> str:
        """The request's key, if it is good. Compares all in constant time."""
        scheme, _, key = headers.get("authorization", "").partition(" ")
        given = key.strip().encode("utf-8", "surrogateescape")
        good = [hmac.compare_digest(given, known) for known in self._keys]
        if scheme.lower() != "bearer" or not any(good):
            problem = "is wrong" if key else "is missing: send Authorization: Bearer YOUR_API_KEY"
            raise Refusal(401, f"The API key {problem}", headers={"www-authenticate": "Bearer"})
        return key.strip()

    def _check_origin(self, request: web.BaseRequest) -> None:
        """A web page must not reach a server on the loopback, by its own name or by another."""
        host = _hostname(f"//{request.headers.get('host', '')}")
        if host not in self._hosts:
            raise Refusal(403, f"This server is not {host!r}", code="host_not_allowed")
        origin = request.headers.get("origin")
        if origin is not None and _hostname(origin) not in self._hosts:
            raise Refusal(403, f"Origin {origin!r} may not use it", code="origin_not_allowed")


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _received(request: web.BaseRequest, at: float) -> Received:
    peer = request.transport.get_extra_info("peername") if request.transport else None
    return Received(
        at=at,
        method=request.method,
        path=request.path,
        headers={name.lower(): value for name, value in request.headers.items()},
        connection=peer[1] if peer else 0,
    )


def _check_method(request: web.BaseRequest, allowed: str) -> None:
    if request.method != allowed:
        raise Refusal(
            405, f"{request.method} is not allowed here; use {allowed}", headers={"allow": allowed}
        )


async def _body(request: web.BaseRequest, wire: Wire) -> bytes:
    """The request's body, of the right type and size."""
    if request.content_type != "application/json":
        raise Refusal(415, f"Content-Type is {request.content_type!r}; send application/json")
    if request.headers.get("expect", "").lower() == "100-continue":
        await wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for piece in request.content.iter_any():
                body += piece
                if len(body) > MAX_BODY:
                    raise Refusal(413, f"The request body is larger than {MAX_BODY} bytes")
    except TimeoutError:
        raise Refusal(408, f"The request body took over {BODY_TIMEOUT_S:.0f} s") from None
    except web.RequestPayloadError as error:
        raise Refusal(400, f"The request body cannot be read: {error}") from None
    return bytes(body)


_MODEL_LIST = {
    "object": "list",
    "data": [
        {"id": model, "object": "model", "created": 0, "owned_by": "fluence"} for model in MODELS
    ],
}
