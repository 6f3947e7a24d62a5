"""A response's rate-limit headers in, what they say out.

Law: what makes no sense says nothing. Resets come as seconds (`1`, `0.5`), as durations (`1s`,
`6m0s`, `12ms`) or as a time (seconds or milliseconds since 1970).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..meta import RateLimitSnapshot

__all__ = ["rate_limit_of", "rate_reports"]

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"[0-9]{1,9}(?:\.[0-9]{1,9})?"
_PART = re.compile(f"({_NUMBER})(ms|s|m|h|d|)")
_DURATION = re.compile(f"(?:{_NUMBER}(?:ms|s|m|h|d))+")
_EPOCH_FROM = 1e9  # as seconds from now it would be thirty years
_PERIODS = {"second": 1.0, "minute": 60.0, "hour": 3600.0, "day": 86400.0}
_NAMES: dict[str, float | None] = {"-requests": None, "": None}
_NAMES |= {f"-requests-{name}": period for name, period in _PERIODS.items()}
_NAMES |= {f"-{name}": period for name, period in _PERIODS.items()}
_HEADERS = [
    (f"x-ratelimit-limit{name}", f"x-ratelimit-remaining{name}", f"x-ratelimit-reset{name}", period)
    for name, period in _NAMES.items()
]
_IETF_ITEM = re.compile(r'\s*"?[A-Za-z0-9_.-]*"?((?:\s*;\s*[a-z]+=[0-9]{1,15})+)\s*')
_IETF_PARAMETER = re.compile(r"([a-z]+)=([0-9]{1,15})")


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


def rate_reports(headers: Mapping[str, str], *, now: float) -> list[RateLimitSnapshot]:
    """What the headers say remains of requests, in each window of which they say something that
    can be true; of tokens, nothing.

    Args:
        headers: Names in lower case.
        now: The wall clock, in seconds: some name the time of a reset.
    """
    found = []
    for limit, remaining, reset, period_s in _HEADERS:
        if (said := headers.get(remaining)) is not None:
            count, seconds = _count(headers.get(limit, "")), _reset(headers.get(reset, ""))
            found.append(_report(count, _count(said), seconds, period_s, now))
    if not found and "ratelimit" in headers:
        found = _ietf(headers["ratelimit"], headers.get("ratelimit-policy", ""), now)
    elif not found and (said := headers.get("ratelimit-remaining")) is not None:
        count = _count(headers.get("ratelimit-limit", ""))
        seconds = _reset(headers.get("ratelimit-reset", ""))
        found.append(_report(count, _count(said), seconds, None, now))
    return [report for report in found if report is not None]


def _ietf(said: str, policy: str, now: float) -> list[RateLimitSnapshot | None]:
    """`RateLimit: "a";r=50;t=30` and `RateLimit-Policy: "a";q=100;w=60`, of one item each, or the
    older `limit=100, remaining=50, reset=30`."""
    if "remaining=" in said:
        numbers = {name: int(n) for name, n in _IETF_PARAMETER.findall(said)}
        limit, reset = numbers.get("limit"), numbers.get("reset")
        return [_report(limit, numbers.get("remaining"), reset, None, now)]
    if (item := _IETF_ITEM.fullmatch(said)) is None:
        return []
    numbers = {name: int(n) for name, n in _IETF_PARAMETER.findall(item[1])}
    if (quota := _IETF_ITEM.fullmatch(policy)) is not None:
        numbers |= {name: int(n) for name, n in _IETF_PARAMETER.findall(quota[1])}
    period = numbers.get("w")
    return [
        _report(
            numbers.get("q"),
            numbers.get("r"),
            numbers.get("t"),
            None if period is None else float(period),
            now,
        )
    ]


def _report(
    limit: int | None,
    remaining: int | None,
    reset_s: float | None,
    period_s: float | None,
    now: float,
) -> RateLimitSnapshot | None:
    """None if it cannot be true."""
    if remaining is None or limit == 0 or (limit is not None and remaining > limit):
        return None
    if reset_s is not None and reset_s >= _EPOCH_FROM:
        reset_s = max(0.0, (reset_s / 1000 if reset_s >= 1e12 else reset_s) - now)
    return RateLimitSnapshot(limit=limit, remaining=remaining, reset_s=reset_s, period_s=period_s)


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 15 else None


def _reset(text: str) -> float | None:
    if text.isascii() and text.isdecimal() and 10 <= len(text) <= 13:
        return float(text)  # a time
    return _seconds(text)


def _seconds(text: str) -> float | None:
    if (part := _PART.fullmatch(text)) is not None:
        return float(part[1]) * _UNITS[part[2]]
    if _DURATION.fullmatch(text):
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    return None
