"""What an HTTP library raises, in; what the seam calls it and says of it, out.

Law: a failure to connect is judged by what the operating system or OpenSSL said, which is the
same under both libraries, and never by a library's text or status. A message names host:port and
the cause; it holds no header and no path.
"""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import urlsplit

from ._base import ConnectFailed, TLSFailed

__all__ = ["authority", "brief", "connecting_failed"]

_CUT_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""A handshake that merely ended is the network's failure, and may be tried again."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
"""What OpenSSL's versions say of who does not speak TLS at all."""
_QUOTE = re.compile(r"""[:\n]|\sb?['"]|\bbytearray""")


def authority(url: str) -> str:
    """The `host:port` of a URL, for messages: never its user, path or query."""
    parts = urlsplit(url)
    host = parts.hostname or "?"
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def connecting_failed(url: str, error: BaseException) -> ConnectFailed | TLSFailed:
    """What kept a connection from being made."""
    where = authority(url)
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, _CUT_OFF):
            # Of the same kind, but without a reason, are the wrappings that aiohttp adds.
            reason = getattr(cause, "verify_message", None) or getattr(cause, "reason", None)
            if reason:
                asked = ": is it http://?" if reason in _NO_TLS else ""
                return TLSFailed(f"TLS with {where} failed: {reason}{asked}")
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            permanent = cause.errno == socket.EAI_NONAME
            return ConnectFailed(
                f"cannot connect to {where}: {cause.strerror}", permanent=permanent
            )
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno is not None and cause.errno > 0:
            return ConnectFailed(f"cannot connect to {where}: {os.strerror(cause.errno)}")
    return ConnectFailed(f"cannot connect to {where}: {str(error) or type(error).__name__}")


def brief(error: BaseException) -> str:
    """An error in few words, without the bytes that a parser quotes."""
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    text = getattr(error, "message", str(error))
    if not isinstance(text, str):
        return type(error).__name__
    return _QUOTE.split(text, 1)[0].strip()[:100] or type(error).__name__


def _causes(error: BaseException) -> Iterator[BaseException]:
    """`error` and every error it came from: chained, wrapped as an argument, or grouped."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        current = waiting.pop(0)
        if current is None or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        waiting += [argument for argument in current.args if isinstance(argument, BaseException)]
        waiting += [current.__cause__, current.__context__]
        if isinstance(current, BaseExceptionGroup):
            waiting += current.exceptions
