"""A limiter whose units are in a Redis: every process and machine that names it shares them.

A line of waiting calls stands in each process, as ever; behind it are a store (`_store.py`) that
has units in hand when Redis has just given them, and a courier (`_courier.py`) that asks.

Rejected: units handed out in advance to each process (one that idles keeps them from the others);
a subscription to what becomes free (a connection more, and a wake for everybody).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

import msgspec

from ..._sansio.arguments import check_count
from ..._sansio.rate_limit import DOCUMENTED_LIMITS, RateLimit, read_limits
from ...limiter import Limiter, LimiterSnapshot
from ...limiter.limiter import Policy, as_policy
from ._address import check_address
from ._courier import Courier
from ._look import RedisLook
from ._store import RedisStore
from ._units import Terms

__all__ = ["RedisLimiter"]

_S = 1_000_000_000

WhenDown: TypeAlias = Literal["share", "wait"]


class RedisLimiter(Limiter):
    """A `Limiter` that shares its units through a Redis, with whoever names the same units there.

    `acquire_nowait` never succeeds: Redis must be asked.

    Args:
        url: `redis://host:port/db`, `rediss://…` (TLS) or `unix://…`, as coredis has it.
        name: What the units are called there; `limiter_name(api_key, origin)` for a key's.
        limits: As of `Limiter`.
        policy: As of `Limiter`. What one process learns holds for all. With any but `"window"`,
            97 % are used of a limit that is used up for long, or as much as the server says that
            remains: without its word, no sliding counter is tried.
        when_down: What to do without Redis: keep to a `share` of the limits, or `wait` for it.
        clients: How many processes share the limits; each one's share without Redis.
        strict: As of `Limiter`.
        reserve: As of `Limiter`.
        margin_s: As of `Limiter`.
        drift: As of `Limiter`.
        unseen_s: As of `Limiter`.

    Raises:
        ValueError, TypeError: A setting that cannot work.

    Example:
        ```python
        limiter = RedisLimiter("redis://localhost:6379", "nightly", ["100/minute"])
        ```
    """

    def __init__(
        self,
        url: str,
        name: str,
        limits: str | RateLimit | Iterable[str | RateLimit] = DOCUMENTED_LIMITS,
        *,
        policy: Policy = "window",
        when_down: WhenDown = "share",
        clients: int = 4,
        strict: bool = False,
        reserve: float = 0.06,
        margin_s: float = 0.05,
        drift: float = 5e-4,
        unseen_s: float = 10.0,
    ) -> None:
        super().__init__(
            limits,
            strict=strict,
            reserve=reserve,
            margin_s=margin_s,
            drift=drift,
            unseen_s=unseen_s,
        )
        check_address(url)
        if when_down not in ("share", "wait"):
            raise ValueError(f"when_down={when_down!r}: 'share' or 'wait'")
        check_count("clients", clients, least=1, way_out=", the processes that share it")
        terms = Terms(
            url=url,
            name=name,
            reserve=reserve,
            margin=round(margin_s * _S),
            drift=drift,
            unseen=round(unseen_s * _S),
            clients=clients if when_down == "share" else 0,
            policy=as_policy(policy),
        )
        store = RedisStore(terms, read_limits(limits), self._line, Courier.start)
        self._line.store = store

    async def look(self) -> LimiterSnapshot:
        """How the limits stand, after asking Redis: with when which units come back, so that
        `eta_s` of it is known. Of another limiter that waits, one call counts for each model with
        limits of its own, and one for all others.

        Raises:
            OSError: Redis cannot be reached.
        """
        here = self.snapshot()
        store = self._line.store
        assert isinstance(store, RedisStore)
        terms, clock = store.terms, self._line.clock
        look = RedisLook(
            terms.url,
            terms.name,
            store.limits,
            bucket=terms.bucket,
            policy=terms.policy,
            clock=clock,
        )
        there = await look.look(beside=store.me)
        return msgspec.structs.replace(
            there,
            waiting=there.waiting + here.waiting,
            waiting_batch=there.waiting_batch + here.waiting_batch,
            paused_s=max(there.paused_s, here.paused_s),
        )
