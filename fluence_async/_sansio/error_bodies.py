"""An error's body in, the error that it amounts to out.

Law: the key is scrubbed from every text before it is cut, and every text is cut. What an error
says is found wherever servers put it; what they leave out, the status says.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from ..errors import APIStatusError
from .lenient_json import loads
from .secret import ApiKey
from .surrogates import whole_text

__all__ = ["ApiError", "decode_status", "error_of", "reason", "snippet", "status_error"]

MAX_SNIPPET = 200
MAX_ERROR_TEXT = 2048

_STATUS_OF_CODE = {
    "invalid_request": 400,
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "rate_limit_exceeded": 429,
    "rate_limit_error": 429,
    "insufficient_quota": 429,
    "server_error": 500,
    "overloaded_error": 529,
}
_STATUS_KEYS = ("status", "status_code", "http_status_code")


class ApiError(msgspec.Struct):
    """What an error object says, wherever servers put it."""

    message: str = ""
    code: str | None = None
    param: str | None = None
    status: int = 500
    retry_after: float | None = None


def decode_status(
    status: int, body: bytes, *, key: ApiKey, retry_after: float | None = None, url: str = ""
) -> APIStatusError:
    """The error that a response's status and (start of the) body amount to.

    Args:
        status: The response's.
        body: As much of it as came.
        key: Kept out of every text.
        retry_after: What the headers say of it.
        url: What was asked, if the error is to say so where the body says nothing of a model.
    """
    try:
        error = error_of(loads(body.decode("utf-8-sig", "replace"), 1000), key)
    except (ValueError, RecursionError):
        error = ApiError()
    error.status = status
    error.retry_after = retry_after
    text = snippet(body, key, MAX_ERROR_TEXT)
    if status == 404 and url and "model" not in f"{error.code} {error.param} {error.message}":
        error.message = (
            f"{error.message or text[:MAX_SNIPPET] or 'no further word'} (asked was POST "
            f"{key.scrub(url)}: if that is no chat API's address, base_url is wrong; it ends in "
            "the API's version, as in /v1)"
        )
    return status_error(error, text)


def status_error(error: ApiError, body: str) -> APIStatusError:
    code = f" {error.code}" if error.code else ""
    return APIStatusError.for_status(error.status, error.code)(
        f"{error.status}{code}: {error.message or body[:MAX_SNIPPET] or 'no further word'}",
        status_code=error.status,
        code=error.code,
        param=error.param,
        body=body,
        retry_after=error.retry_after,
    )


def error_of(raw: dict[str, Any], key: ApiKey) -> ApiError:
    """Reads `{"error": {...}}`, `{"error": "text"}`, `{"message": ...}` and `{"detail": ...}`."""
    error = raw.get("error") or raw
    if not isinstance(error, dict):
        error = {"message": error}
    message = error.get("message") or error.get("detail") or ""
    if not isinstance(message, str):
        message = json.dumps(message)
    code, kind, param = error.get("code"), error.get("type"), error.get("param")
    statuses = [code, *map(error.get, _STATUS_KEYS)]
    statuses += [_STATUS_OF_CODE.get(name) for name in (code, kind) if isinstance(name, str)]

    def text(value: Any, size: int) -> str | None:
        return whole_text(key.scrub(value))[:size] if isinstance(value, str) and value else None

    return ApiError(
        message=text(message, MAX_ERROR_TEXT) or "",
        code=text(code, MAX_SNIPPET) or text(kind, MAX_SNIPPET),
        param=text(param, MAX_SNIPPET),
        status=next((s for s in statuses if isinstance(s, int) and 400 <= s <= 599), 500),
    )


def snippet(body: bytes, key: ApiKey, size: int = MAX_SNIPPET) -> str:
    # Scrubbed before it is cut: half a key at the cut would not be found.
    return key.scrub(body[: 64 * 1024].decode("utf-8", "replace"))[:size]


def reason(error: BaseException, key: ApiKey) -> str:
    return "nested too deep" if isinstance(error, RecursionError) else key.scrub(str(error))[:200]
