"""A response's rate-limit headers in, what they say out.

Law: what makes no sense says nothing. Resets come as seconds (`1`, `0.5`) or as durations
(`1s`, `6m0s`, `12ms`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..meta import RateLimitSnapshot

__all__ = ["rate_limit_of"]

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_PART = re.compile(f"({_NUMBER})(ms|s|m|h|d|)")
_DURATION = re.compile(f"(?:{_NUMBER}(?:ms|s|m|h|d))+")


def rate_limit_of(headers: Mapping[str, str]) -> RateLimitSnapshot | None:
    """What the `x-ratelimit-*` headers say of requests; None without them.

    Args:
        headers: Names in lower case.
    """
    limit = headers.get("x-ratelimit-limit-requests")
    if limit is None:
        return None
    return RateLimitSnapshot(
        limit=_count(limit),
        remaining=_count(headers.get("x-ratelimit-remaining-requests", "")),
        reset_s=_seconds(headers.get("x-ratelimit-reset-requests", "")),
    )


def _count(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) <= 15 else None


def _seconds(text: str) -> float | None:
    if (part := _PART.fullmatch(text)) is not None:
        return float(part[1]) * _UNITS[part[2]]
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    return None
