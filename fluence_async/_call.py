"""One logical call, and the body of its response read within the call's clocks.

Law: a body is bounded in bytes and in time, whatever the server says of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import msgspec

from ._sansio.budget import Reservation
from .cache.cache import Cached
from .errors import APIConnectionError, APITimeoutError, Clock, ResponseError
from .meta import Meta
from .options import RetryPolicy, Timeout
from .transports._base import BodyBroken, BodyTimeout, Response, TransportError
from .types import Usage

__all__ = ["Call", "read_body", "read_error_body"]

_MAX_BODY = 32 * 2**20
_MAX_ERROR_BODY = 64 * 2**10
_ERROR_BODY_S = 5.0


class Call(msgspec.Struct, kw_only=True):
    """One logical call: what all its attempts share.

    Attributes:
        choices: How many choices were asked for.
        lane: 0 for interactive, 1 for batch.
        started: When it began, on the loop's clock.
        cached: Where its answer may be found and is kept; None if it is always sent.
        reservation: What is set aside for it of the session's budgets.
        expected: What it may cost, where somebody has asked.
        came_to: Who is told how many tokens it came to, once it has ended, and whether the server
            reported them.
        front: It waits at the head of its lane, because it has waited before.
        total_at: When it must have ended, on the loop's clock; `math.inf` for never.
    """

    url: str
    headers: Mapping[str, str]
    body: bytes
    model: str
    choices: int
    stream: bool
    timeout: Timeout
    retry: RetryPolicy
    lane: int
    keep_raw: bool
    call_id: str
    started: float
    meta: Meta
    cached: Cached | None = None
    reservation: Reservation | None = None
    expected: Usage | None = None
    came_to: Callable[[int, bool], None] | None = None
    front: bool = False
    total_at: float = math.inf

    def timed_out(self, clock: Clock, doing: str) -> APITimeoutError:
        """The error of a clock that ran out while `doing`."""
        seconds = getattr(self.timeout, clock)
        return APITimeoutError(
            f"timed out after {seconds:g} s {doing}; allow more with timeout=Timeout({clock}=...)",
            clock=clock,
        )


async def read_body(call: Call, response: Response, clock: Callable[[], float]) -> bytes:
    """The whole body of a good response.

    Raises:
        APITimeoutError: The idle or the total clock ran out.
        APIConnectionError: The body broke.
        ResponseError: It is larger than 32 MiB, or its encoding is invalid.
    """
    parts: list[bytes] = []
    size = 0
    total = call.total_at
    idle_s = math.inf if call.timeout.idle is None else call.timeout.idle
    while True:
        until = min(clock() + idle_s, total)
        try:
            data = await response.receive(until)
        except BodyTimeout as error:
            ran_out: Clock = "total" if until == total else "idle"
            raise call.timed_out(ran_out, "reading the answer") from error
        except BodyBroken as error:
            if error.undecodable:
                raise ResponseError(str(error), status_code=response.status) from error
            raise APIConnectionError(str(error)) from error
        if not data:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        size += len(data)
        if size > _MAX_BODY:
            raise ResponseError(
                f"the server's answer is larger than {_MAX_BODY} bytes, which no completion is",
                status_code=response.status,
            )
        parts.append(data)


async def read_error_body(call: Call, response: Response, clock: Callable[[], float]) -> bytes:
    """As much of an error's body as comes in time and fits, 64 KiB and 5 s; never an error."""
    until = min(clock() + _ERROR_BODY_S, call.total_at)
    parts: list[bytes] = []
    size = 0
    try:
        while size < _MAX_ERROR_BODY and (data := await response.receive(until)):
            parts.append(data)
            size += len(data)
        if size < _MAX_ERROR_BODY:
            await response.aclose()
    except TransportError:
        pass
    return b"".join(parts)[:_MAX_ERROR_BODY]
