"""Why a request is not served: a status, a documented error code, and one sentence.

Every error answer of the server is one of these, in OpenAI's envelope
`{"error": {"message", "type", "param", "code"}}`. `type` is the documented word for the
status, `code` the same word or a narrower one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Refusal", "envelope"]

_DOCUMENTED = {
    401: "authentication_error",
    429: "rate_limit_exceeded",
}


def envelope(
    status: int, message: str, *, code: str | None = None, param: str | None = None
) -> dict[str, Any]:
    """The JSON body of an error; `type` follows from `status`, and so does `code` if not given."""
    kind = _DOCUMENTED.get(status, "server_error" if status >= 500 else "invalid_request")
    return {"error": {"message": message, "type": kind, "param": param, "code": code or kind}}


class Refusal(Exception):
    """Raised wherever the server finds that it will not serve a request.

    Attributes:
        status: The HTTP status.
        headers: What the answer carries beside the usual ones (`retry-after`, `allow`).
        body: The error's envelope.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers: dict[str, str] = dict(headers or {})
        self.body: dict[str, Any] = envelope(status, message, code=code, param=param)
