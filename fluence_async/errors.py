"""Every way a call can fail, as plain data.

Law: an error holds values only (no live response, no key), so that it pickles, prints and
outlives its session; its message names the cause, the value and the way out.

```
FluenceError
├── APIConnectionError            the bytes did not arrive
│   ├── APITimeoutError           .clock: connect | first_byte | idle | progress | total | queue
│   └── TLSError                  never retried
├── APIStatusError                the API understood and said no
│   ├── BadRequestError           400  invalid_request
│   ├── AuthenticationError       401  authentication_error
│   ├── PermissionDeniedError     403
│   ├── NotFoundError             404
│   ├── ConflictError             409
│   ├── UnprocessableEntityError  422
│   ├── RateLimitError            429  rate_limit_exceeded
│   │   └── QuotaExceededError    429  insufficient_quota: never retried
│   └── InternalServerError       500 and above  server_error
├── StreamError                   a stream broke after it began
│   ├── StreamInterruptedError    it ended before its end was seen
│   ├── StreamTimeoutError        .clock: idle | progress | total
│   ├── BadChunkError             an event that is no chunk
│   └── StreamServerError         the server sent an error event
├── ResponseError                 bytes arrived and made no sense
├── LimitWaitError                the limiter's wait would pass the deadline
├── BudgetExceededError           a usage budget has no room for the call
├── ParseError                    the answer is not of the type that was asked for
└── ToolError                     a user's tool raised; __cause__ is what it raised
    └── TurnLimitError            the model called tools in the last turn that it had
```
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from .meta import Meta
    from .types import ChatCompletion, MessageLike, Usage

__all__ = [
    "APIConnectionError",
    "APIStatusError",
    "APITimeoutError",
    "AuthenticationError",
    "BadChunkError",
    "BadRequestError",
    "BudgetExceededError",
    "Clock",
    "ConflictError",
    "FluenceError",
    "InternalServerError",
    "LimitWaitError",
    "NotFoundError",
    "ParseError",
    "ParseReason",
    "PermissionDeniedError",
    "QuotaExceededError",
    "RateLimitError",
    "ResponseError",
    "StreamError",
    "StreamInterruptedError",
    "StreamServerError",
    "StreamTimeoutError",
    "TLSError",
    "ToolError",
    "TurnLimitError",
    "UnprocessableEntityError",
]

Clock = Literal["connect", "first_byte", "idle", "progress", "total", "queue"]
"""The clocks of `Timeout`, by name."""

ParseReason = Literal["refusal", "length", "content_filter", "tool_calls", "invalid"]
"""Why an answer is not of the type that was asked for."""


class FluenceError(Exception):
    """Root of every error that this package raises for a reason outside your program.

    Attributes:
        message: The cause, the value and the way out, in one sentence or two.
        meta: What is known of the call that failed: request id, attempts, waits. None where
            the error did not come from a call.
    """

    message: str
    meta: Meta | None

    def __init__(self, message: str, *, meta: Meta | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.meta = meta

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.__dict__.copy())


def _rebuild(cls: type[FluenceError], message: str, state: dict[str, Any]) -> FluenceError:
    error = cls.__new__(cls, message)
    error.__dict__.update(state)
    return error


class APIConnectionError(FluenceError):
    """No answer: the connection failed, or closed before the answer was whole.

    Attributes:
        permanent: Trying again cannot help, because the host does not exist.
    """

    permanent: bool

    def __init__(self, message: str, *, permanent: bool = False, meta: Meta | None = None) -> None:
        super().__init__(message, meta=meta)
        self.permanent = permanent


class APITimeoutError(APIConnectionError):
    """A clock ran out before the answer was whole.

    Attributes:
        clock: Which one: `connect`, `first_byte`, `idle`, `progress`, `total` or `queue`.
    """

    clock: Clock

    def __init__(self, message: str, *, clock: Clock, meta: Meta | None = None) -> None:
        super().__init__(message, meta=meta)
        self.clock = clock


class TLSError(APIConnectionError):
    """The TLS handshake failed, so nothing was sent. Never retried."""


class APIStatusError(FluenceError):
    """The API answered with an error status.

    Attributes:
        status_code: The HTTP status.
        code: The API's own error code (`invalid_request`, `rate_limit_exceeded`, …), if it
            gave one.
        param: The request parameter at fault, if named.
        body: The start of the error body as text, at most 2 KiB, the key scrubbed.
        retry_after: Seconds that the server asked to wait, if it did.
    """

    status_code: int
    code: str | None
    param: str | None
    body: str
    retry_after: float | None

    def __init__(
        self,
        message: str,
        *,
        status_code: int,
        code: str | None = None,
        param: str | None = None,
        body: str = "",
        retry_after: float | None = None,
        meta: Meta | None = None,
    ) -> None:
        super().__init__(message, meta=meta)
        self.status_code = status_code
        self.code = code
        self.param = param
        self.body = body
        self.retry_after = retry_after

    @classmethod
    def for_status(cls, status_code: int, code: str | None) -> type[APIStatusError]:
        """The class of the tree that stands for a status and an error code."""
        if status_code == 429:
            return QuotaExceededError if code == "insufficient_quota" else RateLimitError
        if status_code >= 500:
            return InternalServerError
        return _BY_STATUS.get(status_code, APIStatusError)


class BadRequestError(APIStatusError):
    """400: the request was invalid."""


class AuthenticationError(APIStatusError):
    """401: the key was missing or wrong."""


class PermissionDeniedError(APIStatusError):
    """403: the key may not do this."""


class NotFoundError(APIStatusError):
    """404: no such model or path."""


class ConflictError(APIStatusError):
    """409: the request conflicts with another."""


class UnprocessableEntityError(APIStatusError):
    """422: well-formed, and still not acceptable."""


class RateLimitError(APIStatusError):
    """429: the server counted more requests than it allows."""


class QuotaExceededError(RateLimitError):
    """429 `insufficient_quota`: the account is spent. Waiting does not help: never retried."""


class InternalServerError(APIStatusError):
    """500 and above: the server failed."""


_BY_STATUS: dict[int, type[APIStatusError]] = {
    400: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    422: UnprocessableEntityError,
}


class StreamError(FluenceError):
    """A stream broke after it began. What had arrived is not lost.

    Attributes:
        partial: Everything that arrived, folded; None if nothing did.
        usage: The tokens that the server reported before the break, if it did.
    """

    partial: ChatCompletion | None

    def __init__(
        self, message: str, *, partial: ChatCompletion | None = None, meta: Meta | None = None
    ) -> None:
        super().__init__(message, meta=meta)
        self.partial = partial

    @property
    def usage(self) -> Usage | None:
        """The usage of `partial`."""
        return self.partial.usage if self.partial is not None else None


class StreamInterruptedError(StreamError):
    """The stream ended before its end was seen: reset, cut, or closed too early."""


class StreamTimeoutError(StreamError):
    """A clock ran out in mid-stream.

    Attributes:
        clock: `idle` (no bytes), `progress` (bytes, but no event) or `total`.
    """

    clock: Clock

    def __init__(
        self,
        message: str,
        *,
        clock: Clock,
        partial: ChatCompletion | None = None,
        meta: Meta | None = None,
    ) -> None:
        super().__init__(message, partial=partial, meta=meta)
        self.clock = clock


class BadChunkError(StreamError):
    """An event that is not a chunk; the message shows at most 200 characters of it."""


class StreamServerError(StreamError):
    """The server sent an error in place of a chunk.

    Attributes:
        status_code: The HTTP status that the error stands for: the one that the server gave, or
            that its code has; 500 where neither is known.
        code: The API's error code, if it gave one.
        param: The request parameter at fault, if named.
        retry_after: Seconds that the server asked to wait, if it did.
        error_class: The class that the same error has as an HTTP response.
    """

    status_code: int | None
    code: str | None
    param: str | None
    retry_after: float | None

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        partial: ChatCompletion | None = None,
        meta: Meta | None = None,
    ) -> None:
        super().__init__(message, partial=partial, meta=meta)
        self.status_code = status_code
        self.code = code
        self.param = param
        self.retry_after = retry_after

    @property
    def error_class(self) -> type[APIStatusError]:
        """The class that the same error has as an HTTP response."""
        return APIStatusError.for_status(self.status_code or 500, self.code)


class ResponseError(FluenceError):
    """Bytes arrived and made no sense: wrong content type, redirect, too large, undecodable.

    Attributes:
        status_code: The HTTP status, where there was one.
        body: The start of the body as text, at most 2 KiB, the key scrubbed.
    """

    status_code: int | None
    body: str

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        body: str = "",
        meta: Meta | None = None,
    ) -> None:
        super().__init__(message, meta=meta)
        self.status_code = status_code
        self.body = body


class LimitWaitError(FluenceError):
    """The limiter's wait would pass the deadline, so nothing was waited and nothing sent.

    Attributes:
        wait_s: Seconds until a unit is free.
        retry_at: The same as a wall-clock time, in seconds since the epoch.
    """

    wait_s: float
    retry_at: float

    def __init__(
        self, message: str, *, wait_s: float, retry_at: float, meta: Meta | None = None
    ) -> None:
        super().__init__(message, meta=meta)
        self.wait_s = wait_s
        self.retry_at = retry_at


class BudgetExceededError(FluenceError):
    """A usage budget has no room for the call, so nothing was sent and nothing spent.

    Amounts are tokens or money, whichever the budget counts.

    Attributes:
        budget: What the budget is called, whose it is included.
        limit: How much of it there is.
        spent: How much calls that have ended cost.
        reserved: How much is set aside for calls under way.
        amount: What this call may cost.
        retry_at: When the budget begins anew, in seconds since the epoch; None for never.
    """

    budget: str
    limit: float
    spent: float
    reserved: float
    amount: float
    retry_at: float | None

    def __init__(
        self,
        message: str,
        *,
        budget: str = "",
        limit: float = 0,
        spent: float = 0,
        reserved: float = 0,
        amount: float = 0,
        retry_at: float | None = None,
        meta: Meta | None = None,
    ) -> None:
        super().__init__(message, meta=meta)
        self.budget = budget
        self.limit = limit
        self.spent = spent
        self.reserved = reserved
        self.amount = amount
        self.retry_at = retry_at


class ParseError(FluenceError):
    """The answer is not of the type that was asked for.

    Attributes:
        reason: `refusal` (the model would not), `length` or `content_filter` (it was cut),
            `tool_calls` (it called tools instead), or `invalid` (it does not fit the type).
        completion: The answer as it came.
    """

    reason: ParseReason
    completion: ChatCompletion

    def __init__(
        self,
        message: str,
        *,
        reason: ParseReason,
        completion: ChatCompletion,
        meta: Meta | None = None,
    ) -> None:
        super().__init__(message, meta=meta)
        self.reason = reason
        self.completion = completion


class ToolError(FluenceError):
    """A tool of yours raised, and `__cause__` is what it raised; or it was called wrongly."""


class TurnLimitError(ToolError):
    """The model still called tools in the last turn that it had.

    Attributes:
        messages: The conversation before that turn, fit to go on with.
    """

    messages: Sequence[MessageLike]

    def __init__(
        self, message: str, *, messages: Sequence[MessageLike] = (), meta: Meta | None = None
    ) -> None:
        super().__init__(message, meta=meta)
        self.messages = messages
