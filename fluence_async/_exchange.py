"""One request, as many attempts as the policy allows: the only retry loop of the package.

Law: what a body means is not known here. The caller hands in `begin`, which takes a good
response over and returns once the attempt has begun to succeed; what it raises is a failed
attempt like any other. Every attempt takes one unit of the limiter, and gives it back only if
nothing left this machine. At every await exactly one thing is owned (a permit, a response), and
it is released in a `finally`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias, TypeVar
from weakref import WeakSet

import anyio

from ._admission import Admission, on_sent
from ._call import Call, read_error_body
from ._sansio.error_bodies import decode_status
from ._sansio.processing import processing_s
from ._sansio.rate_headers import rate_limit_of, rate_reports
from ._sansio.retry import RetryQuota, full_jitter, parse_retry_after, retry_wait
from ._sansio.secret import ApiKey
from ._stay import Stay
from ._telling import Telling
from .cache._flight import Flight
from .errors import (
    APIConnectionError,
    Clock,
    FluenceError,
    QuotaExceededError,
    RateLimitError,
    ResponseError,
    StreamInterruptedError,
    TLSError,
)
from .meta import Attempt, Meta
from .transports._base import (
    ConnectFailed,
    ConnectTimeout,
    Disconnected,
    ProtocolViolated,
    Request,
    Response,
    SendTimeout,
    TLSFailed,
    Transport,
    TransportError,
)
from .usage import UsageMeter

if TYPE_CHECKING:
    from .limiter import Limiter, Permit

__all__ = ["Begin", "Exchange", "quota_of"]

T = TypeVar("T")
Begin: TypeAlias = Callable[["Exchange", "Call", Response], Awaitable[T]]
"""Takes a good response over."""
_NO_TOKENS: Mapping[str, int] = {"tokens": 0}
_quotas: dict[str, RetryQuota] = {}


def quota_of(origin: str) -> RetryQuota:
    """The process's retry quota for an origin: an outage is one outage for all its sessions."""
    return _quotas.setdefault(origin, RetryQuota())


class Exchange:
    """What a session sends its calls through, bound to one event loop.

    Args:
        transport: How bytes travel.
        limiter: Whose units the attempts take; None for none.
        quota: The origin's retry quota.
        key: Scrubbed from the text of every error.
        telling: How the meter and the hooks are told.
        usage: Whose budgets are asked before anything is sent.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        limiter: Limiter | None,
        quota: RetryQuota,
        key: ApiKey,
        telling: Telling,
        usage: UsageMeter,
    ) -> None:
        self.transport = transport
        self.clock = transport.clock
        self.key = key
        self.telling = telling
        self.flights: dict[str, Flight] = {}
        """The requests under way that equal calls may join, by the key of their answer."""
        self._stays: WeakSet[Stay] = WeakSet()
        self._admission = Admission(limiter, usage, telling, self.clock)
        self._quota = quota

    def close(self) -> None:
        """Give back what is held for calls that have not ended: their connections are closed."""
        for stay in tuple(self._stays):
            stay.end()

    async def run(self, call: Call, begin: Begin[T]) -> T:
        """Send `call` until `begin` has taken a response over, or the policy gives up.

        Raises:
            FluenceError: What the last attempt failed of; its `meta` tells of all of them.
        """
        self.telling.started(call)
        try:
            return await self.run_untold(call, begin)
        except BaseException as error:  # told, cancelled or not, and raised as it is
            self.telling.failed(call, error)
            raise

    async def run_untold(self, call: Call, begin: Begin[T]) -> T:
        """As `run`, for a call whose beginning and failing others tell of."""
        self._admission.reserve(call)
        taken = 0
        counted = 0
        freed = False
        while True:
            try:
                result = await self._attempt(call, begin)
            except FluenceError as failure:
                error = failure
            else:
                self._quota.give_back(taken)
                return result
            free = not freed and _was_stale(error)
            if free:
                freed = True
                wait: float | None = 0.0
            else:
                counted += 1
                wait = self._wait_after(call, error, counted)
                if wait is not None:
                    taken = self._quota.take(error)
                    wait = wait if taken else None
            if wait is not None and not self._admission.renew(call):
                wait = None
            self._note_failure(call, error, wait, free=free)
            if wait is None:
                error.meta = call.meta
                call.meta.total_s = self.clock() - call.started
                raise error
            call.front = True
            await anyio.sleep(wait)

    # ─── one attempt ──────────────────────────────────────────────────────────────────────

    async def _attempt(self, call: Call, begin: Begin[T]) -> T:
        response, permit = await self._send(call)
        try:
            if response.status != 200:
                if call.reservation is not None:
                    call.reservation.refused()
                raise await self._refused(call, response, permit)
            self.telling.responded(call)
            return await begin(self, call, response)
        except BaseException:
            response.abort()
            if permit is not None:  # what was answered with an error came to no tokens
                permit.release(costs=None if response.status == 200 else _NO_TOKENS)
            raise

    async def _send(self, call: Call) -> tuple[Response, Permit | None]:
        permit = await self._admission.acquire(call)
        timeout = call.timeout
        first_byte_s = math.inf if timeout.first_byte is None else timeout.first_byte
        until = min(self.clock() + first_byte_s, call.total_at)
        request = Request(
            url=call.url,
            headers=call.headers,
            body=call.body,
            connect_timeout=timeout.connect,
            deadline=until,
            on_sent=on_sent(call, permit),
            on_delivered=permit.delivered if permit is not None else None,
        )
        call.meta.attempts += 1
        stays = False
        try:
            response = await self.transport.send(request)
            if permit is not None:
                reports = rate_reports(response.headers, now=time.time()) if permit.learns else ()
                permit.settle(
                    accepted=response.status != 429,
                    reports=reports,
                    processed_s=processing_s(response.headers),
                )
                stays = permit.stays
        except SendTimeout as error:
            ran_out: Clock = "total" if until == call.total_at else "first_byte"
            raise call.timed_out(ran_out, "waiting for the response's headers") from error
        except TransportError as error:
            raise self._public(call, error) from error
        finally:
            if permit is not None and not stays:
                permit.release()
        if permit is not None and stays:
            response = stay = Stay(response, permit)
            self._stays.add(stay)
            call.came_to = stay.came_to
        self._note_head(call.meta, response.headers)
        call.meta.headers_s = self.clock() - call.started
        return response, permit

    def _note_head(self, meta: Meta, headers: Mapping[str, str]) -> None:
        request_id = headers.get("x-request-id")
        meta.request_id = None if request_id is None else self.key.scrub(request_id)
        meta.rate_limit = rate_limit_of(headers)

    async def _refused(self, call: Call, response: Response, permit: Permit | None) -> FluenceError:
        """What a response that is not a 200 amounts to."""
        status = response.status
        if status == 204:
            empty = StreamInterruptedError if call.stream else APIConnectionError
            return empty("the server answered 204: no content, where an answer belongs")
        if 300 <= status < 400:
            return ResponseError(
                f"the server answered {status}, a redirect to "
                f"{self.key.scrub(response.headers.get('location', 'nowhere'))[:200]!r}; redirects "
                "are not followed, because the key would go along: set base_url to the new place",
                status_code=status,
            )
        body = await read_error_body(call, response, self.clock)
        retry_after = parse_retry_after(response.headers, now=time.time())
        if status < 400:
            return ResponseError(
                f"the server answered {status}, which no chat API does",
                status_code=status,
                body=self.key.scrub(body.decode("utf-8", "replace"))[:2048],
            )
        error = decode_status(status, body, key=self.key, retry_after=retry_after, url=call.url)
        if isinstance(error, RateLimitError) and permit is not None:
            # what the server asks of one call, it asks of all that share the limiter
            asked = retry_after if (retry_after or 0) <= call.retry.max_retry_after_s else None
            permit.refused(asked, for_rate=not isinstance(error, QuotaExceededError))
        return error

    def _public(self, call: Call, error: TransportError) -> FluenceError:
        """A transport's error in the words of the package."""
        text = self.key.scrub(str(error))
        match error:
            case ConnectTimeout():
                return call.timed_out("connect", f"connecting ({text})")
            case TLSFailed():
                return TLSError(text)
            case ProtocolViolated():
                return ResponseError(text)
            case _:
                permanent = isinstance(error, ConnectFailed) and error.permanent
                return APIConnectionError(text, permanent=permanent)

    # ─── between attempts ─────────────────────────────────────────────────────────────────

    def _wait_after(self, call: Call, error: FluenceError, attempt: int) -> float | None:
        now = self.clock()
        wait = retry_wait(
            call.retry,
            error,
            attempt=attempt,
            elapsed_s=now - call.started - call.meta.limiter_wait_s,
            jitter=full_jitter,
        )
        if wait is not None and now + wait >= call.total_at:
            return None
        return wait

    def _note_failure(
        self, call: Call, error: FluenceError, wait: float | None, *, free: bool
    ) -> None:
        call.meta.failures.append(
            Attempt(error=type(error).__name__, message=error.message, wait_s=wait, free=free)
        )
        self.telling.attempt_failed(call, error, wait)


def _was_stale(error: FluenceError) -> bool:
    """A kept-alive connection that the server was just closing: nobody's failure."""
    return isinstance(error.__cause__, Disconnected) and error.__cause__.reused
