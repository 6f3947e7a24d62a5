"""A Redis's address in, where that is out: without what may not be shown."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["check_address"]

_SCHEMES = ("redis", "rediss", "unix")


def check_address(url: str) -> str:
    """Where it is, without user and password.

    Raises:
        ValueError: It is no address of a Redis.
    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not (parts.hostname or parts.path):
        raise ValueError(
            f"no address of a Redis: must begin with one of {', '.join(_SCHEMES)}, as in "
            "redis://localhost:6379/0"
        )
    address = parts.hostname or ""
    return f"{address}:{parts.port or 6379}{parts.path}" if address else parts.path
