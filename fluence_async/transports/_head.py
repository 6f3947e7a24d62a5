"""Heads, alike for both HTTP libraries: what a request's must hold, what a response's may.

Law: what one library lets pass and the other does not is decided here, once. Both framings at a
time (RFC 9112, section 6.3) may be an attempt to smuggle a second response past us; a change of
protocol (101) was not asked for. Values are read as latin-1, as RFC 9110 has it, so that no byte
can make a later print or pickle fail.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from ._base import ProtocolViolated, Request
from ._failures import authority

__all__ = ["read_head", "write_head"]

_FORBIDDEN = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")


def read_head(url: str, status: int, raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """A response's headers: names in lower case; repeated ones joined by ", " (RFC 9110, 5.3).

    Args:
        url: Where the response is from, for the message.
        status: The HTTP status.
        raw: Names and values in their order.

    Raises:
        ProtocolViolated: The head is one that no HTTP client may accept.
    """
    headers = {_name(name): str(value, "latin-1") for name, value in raw}
    if len(headers) < len(raw):
        headers = _joined(raw)
    if status == 101:
        raise ProtocolViolated(f"{authority(url)} answered 101, a change of protocol")
    if "transfer-encoding" in headers and "content-length" in headers:
        raise ProtocolViolated(
            f"{authority(url)} framed its answer twice, by Content-Length and Transfer-Encoding"
        )
    return headers


@lru_cache(maxsize=256)
def _name(name: bytes) -> str:
    return str(name, "latin-1").lower()


def _joined(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, list[str]] = {}
    for name, value in raw:
        headers.setdefault(_name(name), []).append(str(value, "latin-1"))
    return {name: ", ".join(values) for name, values in headers.items()}


def write_head(request: Request) -> list[tuple[bytes, bytes]]:
    """A request's headers with the two that HTTP requires, for a library that adds none.

    No local variable here holds a raw value, which a traceback with variables would print.

    Raises:
        ValueError: A header holds what HTTP forbids; the message does not show it.
    """
    given = {name.lower() for name in request.headers}
    required = {"Host": _host(request.url), "Content-Length": str(len(request.body))}
    headers = {name: value for name, value in required.items() if name.lower() not in given}
    headers |= request.headers
    return [(_encoded(name), _encoded(value)) for name, value in headers.items()]


def _encoded(text: str) -> bytes:
    if _FORBIDDEN.search(text) is not None:
        raise ValueError("a request header holds a character that HTTP forbids")
    return text.encode()


@lru_cache(maxsize=64)
def _host(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
