"""The name of a store or a limiter goes in, it comes out, also where that is an annex.

Law: an annex is imported when it is named, and what it needs is said when it is not there.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Protocol

from ._sansio.rate_limit import RateLimit, limits_of_calls
from .cache import CacheStore, open_store
from .limiter import FileLook, Limiter, LimiterSnapshot, shared_limiter
from .limiter.limiter import as_policy

__all__ = ["Look", "named_limiter", "named_look", "named_store"]

_NEEDS_COREDIS = "a limiter in Redis needs coredis: pip install 'fluence-async[redis]'"
_LIMITERS = (
    "must be 'memory', 'file', 'file:any', 'redis://…', a Limiter as Limiter(['100/minute']), or "
    "None (FLUENCE_LIMITER: 'none') for none"
)
_POLICY = "policy="
_REDIS = ("redis://", "rediss://", "unix://")


def named_store(cache: str | CacheStore) -> CacheStore:
    """The store that a session's `cache=` names.

    Raises:
        ValueError: It names none.
        ImportError: It names a Redis, without the extra `redis`.
    """
    if not isinstance(cache, str) or not cache.startswith(_REDIS):
        return open_store(cache)
    try:
        from .contrib.redis import RedisCache
    except ImportError as error:
        raise ImportError(
            "a cache in Redis needs coredis: pip install 'fluence-async[redis]'"
        ) from error
    return RedisCache(cache)


def named_limiter(
    limiter: str | Limiter | None, name: str, limits: Iterable[str | RateLimit]
) -> Limiter | None:
    """The limiter that a session's `limiter=` names.

    Args:
        limiter: `memory`, `file`, with a policy as `file:any`, the address of a Redis, with one as
            `redis://localhost/0?policy=any`, or the limiter itself; None or `none` for none; `auto`
            for what the environment says, and without that `memory`.
        name: What its units are called, from `limiter_name`.
        limits: What it obeys.

    Raises:
        ValueError, TypeError: It names none, or a limit that no call would count in.
        ImportError: It names a Redis, without the extra `redis`.
    """
    limits = limits_of_calls(limits)
    if isinstance(limiter, str) and limiter == "auto":
        limiter = os.environ.get("FLUENCE_LIMITER") or "memory"
    if limiter is None or limiter == "none":
        return None
    if isinstance(limiter, Limiter):
        return limiter
    if not isinstance(limiter, str):
        raise TypeError(f"limiter={limiter!r}: {_LIMITERS}")
    where, _, policy = limiter.partition(":")
    if where in ("memory", "file"):
        return shared_limiter(
            name, limits, policy=as_policy(policy or "window"), in_file=where == "file"
        )
    if not limiter.startswith(_REDIS):
        raise ValueError(f"limiter={limiter!r}: {_LIMITERS}")
    try:
        from .contrib.redis import RedisLimiter
    except ImportError as error:
        raise ImportError(_NEEDS_COREDIS) from error
    address, policy = _address_and_policy(limiter)
    return RedisLimiter(address, name, limits, policy=as_policy(policy))


def _address_and_policy(url: str) -> tuple[str, str]:
    """A Redis's address as Redis's clients know it, and the policy that it named."""
    address, _, query = url.partition("?")
    settings = query.split("&") if query else []
    others = [each for each in settings if not each.startswith(_POLICY)]
    policies = [each.removeprefix(_POLICY) for each in settings if each not in others]
    return "?".join((address, "&".join(others))) if others else address, [*policies, "window"][0]


class Look(Protocol):
    """Whoever looks at limits that programs share; `where` these are."""

    where: str

    async def look(self) -> LimiterSnapshot:
        """How they stand now."""
        ...


def named_look(limiter: str, name: str, limits: Iterable[str | RateLimit]) -> Look:
    """Who looks at the limiter that a session's `limiter=` names; `auto` is what the environment
    says, and without that the file.

    Raises:
        ValueError, TypeError: It names none that programs share, or a limit that no call would
            count in.
        ImportError: It names a Redis, without the extra `redis`.
    """
    limits = limits_of_calls(limits)
    if limiter == "auto":
        limiter = os.environ.get("FLUENCE_LIMITER") or "file"
    where, _, policy = limiter.partition(":")
    if where == "file":
        as_policy(policy or "window")  # which the programs have: what they learnt is in the file
        return FileLook(name, limits)
    if not limiter.startswith(_REDIS):
        raise ValueError(
            f"limiter={limiter!r}: only limits in a file or a Redis can be seen from outside their "
            "program: let it have limiter='file' or 'redis://…' (or FLUENCE_LIMITER), and name "
            "the same here"
        )
    try:
        from .contrib.redis import RedisLook
    except ImportError as error:
        raise ImportError(_NEEDS_COREDIS) from error
    address, policy = _address_and_policy(limiter)
    as_policy(policy)
    return RedisLook(address, name, limits)
