"""Configuration goes in, `chat` comes out: where everything is wired and nothing is decided.

Law: a session holds no loop. It is bound to the running one at its first call, bound anew when
that loop is gone (several `asyncio.run` one after another, a fork), and says what is wrong when
two loops want it at once.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, Self, Unpack

from ._annexes import named_limiter, named_store
from ._binding import Binding
from ._call import Call
from ._defaults import LANES, OPTIONS, Defaults
from ._exchange import Exchange, quota_of
from ._sansio.arguments import check_count, check_flag, check_headers, check_hooks
from ._sansio.bucket import DOCUMENTED_LIMITS, RateLimit
from ._sansio.budget import Budget
from ._sansio.metering import Price
from ._sansio.origin import API_BASE_URL, Origin
from ._sansio.request import encode_request
from ._sansio.secret import ApiKey
from ._telling import Telling
from .cache import CacheStore
from .cache.cache import Cache, Cached
from .completions import Chat
from .hooks import Hook
from .limiter import Limiter, limiter_name
from .meta import Meta
from .options import CallOptions, RetryPolicy, Timeout
from .transports import open_transport
from .transports._base import Transport
from .usage import UsageMeter, open_ledger

__all__ = ["FluenceSession"]


class FluenceSession:
    """A session with the Fluence Chat API, for as many concurrent calls as you like.

    Args:
        api_key: The key; without it `FLUENCE_API_KEY`.
        base_url: The API's address, ending in its version; without it `FLUENCE_BASE_URL`, and
            without that the Fluence API's own. Must be https, or loopback.
        timeout: A `Timeout`, or the total in seconds.
        max_retries: Attempts after the first. With `retry` it takes that policy's place.
        limits: What the server allows: strings such as `"100/minute"`, `"90000 tokens/minute"`,
            `"8 concurrent"`, `"20/minute for fluence-large"`, or `RateLimit`s.
        limiter: Who keeps to the limits together:
            `"memory"`: all sessions of this process with the same key and origin.
            `"file"`: all processes of this user on this machine (Linux), through a file in the
            user's state directory.
            `"memory:any"`, `"file:any"`: the same with a policy of `Limiter`, any of them: it
            learns how the server counts. Of sessions that share it, the first one's counts.
            `"redis://…"`, `"rediss://…"`, `"unix://…"`: all processes and machines that name it;
            with a policy, `"redis://localhost/0?policy=any"`.
            A `Limiter` or `RedisLimiter` of your own, for as many sessions as you like.
            None or `"none"`: nobody waits.
            `"auto"`: what `FLUENCE_LIMITER` says, and without that `"memory"`.
        cache: Where answers are kept that need not be asked for again: `"memory"` (this
            session's), `"sqlite"` (a file in the user's cache directory), `"redis://…"`, a
            `CacheStore`, which stays yours to close, or None for nowhere. Equal calls at once
            then make one request.
        budget: What the calls may cost: `"2M tokens/day"`, `"$20/month"`, a `Budget`, or several
            of these. A call that no longer fits is a `BudgetExceededError` and is not sent.
        prices: What each model's tokens cost, for `usage` and for budgets of money.
        ledger: Keep what the calls cost in a file, for `fluence usage`: True for the user's own,
            or its path.
        hooks: Plain functions that are told what happens, and never awaited; see
            `fluence_async.hooks`.
        default_headers: Headers to send with every request.
        allow_insecure: Allow `http:` to another machine; the key then travels readable.
        retry: How often and how long to try again, in full.
        max_connections: The most connections at once; None for no bound but the limiter's.
        transport: Makes a transport of your own for the running loop; it passes the contract in
            `fluence_async.testing`.

    Raises:
        ValueError, TypeError: A setting that cannot work; the message says which and what would.

    Example:
        ```python
        async with FluenceSession() as fluence:
            answer = await fluence.chat.completions.create(model="fluence-chat", messages="Hi")
            print(answer.text)
        ```
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        timeout: Timeout | float | None = None,
        max_retries: int | None = None,
        limits: Sequence[str | RateLimit] = DOCUMENTED_LIMITS,
        limiter: str | Limiter | None = "auto",
        cache: str | CacheStore | None = None,
        budget: str | Budget | Sequence[str | Budget] | None = None,
        prices: Mapping[str, Price] | None = None,
        ledger: bool | str | os.PathLike[str] | None = None,
        hooks: Sequence[Hook] = (),
        default_headers: Mapping[str, str] | None = None,
        allow_insecure: bool = False,
        retry: RetryPolicy | None = None,
        max_connections: int | None = None,
        transport: Callable[[], Transport] | None = None,
    ) -> None:
        try:
            self._key = ApiKey(_key_or_environment(api_key))
        finally:
            del api_key  # no traceback of this frame may show it
        _check(retry, max_connections, transport, default_headers)
        check_flag("allow_insecure", allow_insecure)
        check_hooks(hooks)
        if base_url is None:
            base_url = os.environ.get("FLUENCE_BASE_URL") or API_BASE_URL
        self._origin = Origin.of(base_url, allow_insecure=allow_insecure)
        name = limiter_name(self._key.reveal(), self._origin.name)
        self._limiter = named_limiter(limiter, name, limits)
        self._cache = None if cache is None else Cache(named_store(cache))
        self._own_store = self._cache.store if self._cache and isinstance(cache, str) else None
        self._options = Defaults(retry=retry or RetryPolicy()).changed(
            {"timeout": timeout, "max_retries": max_retries, "extra_headers": default_headers}
        )
        self._usage = UsageMeter(prices, budget, open_ledger(ledger))
        self._telling = Telling(tuple(hooks), self._usage)
        self._binding = Binding(
            transport or partial(open_transport, max_connections=max_connections), self._exchange
        )
        self.chat: Chat = Chat(self)
        _configure_logging()

    @property
    def limiter(self) -> Limiter | None:
        """The limiter that this session's calls wait for; None if they wait for none."""
        return self._limiter

    @property
    def usage(self) -> UsageMeter:
        """What this session's calls cost: `usage.snapshot()`."""
        return self._usage

    @property
    def base_url(self) -> str:
        """The API's address."""
        return self._origin.base_url

    def with_options(self, **options: Unpack[CallOptions]) -> FluenceSession:
        """The same session (its connections, limiter and hooks) with other options for its calls.

        Raises:
            ValueError, TypeError: An option that is not known or cannot work.

        Example:
            ```python
            nightly = fluence.with_options(priority="batch", max_retries=8)
            ```
        """
        variant = object.__new__(FluenceSession)
        variant.__dict__.update(self.__dict__)
        variant._options = self._options.changed(options)
        variant.chat = Chat(variant)
        return variant

    def _prepare(self, params: Mapping[str, Any], *, stream: bool) -> tuple[Exchange, Call]:
        """Check everything that can be checked before anything is spent."""
        options = self._options
        if not OPTIONS.isdisjoint(params):
            options = options.changed({name: params[name] for name in OPTIONS & params.keys()})
            params = {name: value for name, value in params.items() if name not in OPTIONS}
        body = encode_request(params, stream=stream)
        exchange = self._binding.get()
        call_id = os.urandom(16).hex()
        started = exchange.clock()
        total_s = options.timeout.total
        call = Call(
            url=self._origin.completions_url,
            headers=self._headers(options, stream=stream, call_id=call_id),
            body=body.data,
            model=body.model,
            choices=body.choices,
            stream=stream,
            timeout=options.timeout,
            retry=options.retry,
            lane=LANES[options.priority],
            keep_raw=options.keep_raw,
            call_id=call_id,
            started=started,
            total_at=math.inf if total_s is None else started + total_s,
            meta=Meta(tags=dict(options.tags)),
            cached=self._cached(options, body.data),
        )
        return exchange, call

    def _cached(self, options: Defaults, body: bytes) -> Cached | None:
        if self._cache is None:
            return None
        url, key = self._origin.completions_url, self._key.reveal()
        return self._cache.place(options.cache, body, url, key, options.extra_headers)

    def _headers(self, options: Defaults, *, stream: bool, call_id: str) -> Mapping[str, str]:
        return {
            "Authorization": self._key.authorization,
            "Content-Type": "application/json",
            "Accept": "text/event-stream" if stream else "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": "fluence-async",
            "Idempotency-Key": call_id,
            **options.extra_headers,
        }

    def _exchange(self, transport: Transport) -> Exchange:
        return Exchange(
            transport,
            limiter=self._limiter,
            quota=quota_of(self._origin.name),
            key=self._key,
            telling=self._telling,
            usage=self._usage,
        )

    async def aclose(self) -> None:
        """Close every connection; the session cannot be used after that. Idempotent."""
        exchange = self._binding.held
        try:
            await self._binding.aclose()
        finally:
            if exchange is not None:
                exchange.close()
        if self._own_store is not None:
            await self._own_store.aclose()
        await self._usage.aclose()

    async def __aenter__(self) -> Self:
        self._binding.get()  # what it takes is imported before the first call, which is timed
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.aclose()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a session cannot be pickled: open one where it is used")

    def __repr__(self) -> str:
        if not hasattr(self, "_binding"):  # a traceback shows the one that could not be made
            return "<FluenceSession: not made>"
        return f"<FluenceSession of {self._origin.name}: {self._binding.state}>"


def _check(retry: Any, max_connections: Any, transport: Any, headers: Any) -> None:
    """Refuse what would be missed at the first call, or at the first failure, only."""
    if retry is not None and not isinstance(retry, RetryPolicy):
        raise TypeError(
            f"retry={retry!r}: must be a RetryPolicy, as RetryPolicy(max_retries=3); for the count "
            "alone max_retries=3"
        )
    if max_connections is not None:
        check_count("max_connections", max_connections, least=1)
    if transport is not None and not callable(transport):
        raise TypeError(f"transport={transport!r}: must make one, as transport=MyTransport")
    if headers is not None:
        check_headers("default_headers", headers)


def _key_or_environment(api_key: str | None) -> str:
    key = api_key if api_key is not None else os.environ.get("FLUENCE_API_KEY")
    if key is None:
        raise ValueError("no API key: pass api_key=, or set FLUENCE_API_KEY")
    return key


def _configure_logging() -> None:
    """`FLUENCE_LOG=info|debug` shows the package's log without further set-up."""
    level = os.environ.get("FLUENCE_LOG", "").upper()
    if not level:
        return
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR"):
        raise ValueError(f"FLUENCE_LOG={level.lower()!r}: one of debug, info, warning, error")
    logger = logging.getLogger("fluence_async")
    logger.setLevel(level)
    if not logger.handlers and not logging.getLogger().handlers:
        logger.addHandler(logging.StreamHandler())
