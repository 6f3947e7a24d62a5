"""The running event loop in, a transport for it out.

Law: an HTTP library is imported when the loop that it is for runs, and not before: importing
aiohttp takes half a second.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from anyio.lowlevel import current_token

from ._base import Transport

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["open_transport"]


def open_transport(
    *,
    max_connections: int | None = None,
    ssl_context: SSLContext | None = None,
    trust_env: bool = False,
) -> Transport:
    """A transport for the running event loop: on aiohttp for asyncio, on httpcore2 for trio.

    Args:
        max_connections: The most connections at once, others wait; None for no bound.
        ssl_context: How to verify servers; None for the system's certificates.
        trust_env: Whether the environment may name proxies.

    Raises:
        ImportError: On trio, without the extra `trio`.
        RuntimeError: No event loop is running.
    """
    asyncio = sys.modules.get("asyncio")  # imported by now, if its loop is the one that runs
    if asyncio and isinstance(current_token().native_token, asyncio.AbstractEventLoop):
        from .aiohttp import AiohttpTransport

        return AiohttpTransport(
            max_connections=max_connections, ssl_context=ssl_context, trust_env=trust_env
        )
    try:
        from .httpcore import HttpcoreTransport
    except ImportError as error:
        raise ImportError(
            "on trio, fluence_async needs httpcore2: pip install 'fluence-async[trio]'"
        ) from error
    return HttpcoreTransport(
        max_connections=max_connections, ssl_context=ssl_context, trust_env=trust_env
    )
