"""A call that need not be sent: its answer comes from the store or from an equal call under way.

```
call → an equal one under way? its tape : stored? its recording : exchange.run, recorded as it comes
```

Law: what is replayed is read like any response, from its first byte, by the caller's own stream
with the caller's own clocks. Only what has been read to its end and is whole is kept. An error is
shared by those who would have met it: not that of another's clock or budget, nor a stream's by a
plain call.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import NoReturn, TypeVar, cast

import anyio
from msgspec.structs import replace

from ._call import Call
from ._exchange import Begin, Exchange
from ._sansio.caching import is_whole
from ._sansio.codec import is_json
from .cache._flight import Flight, Tape, View
from .cache._lease import Lease
from .errors import APITimeoutError, BudgetExceededError, FluenceError, LimitWaitError, StreamError
from .stream import ChatStream
from .transports._base import Response
from .types import ChatCompletion

__all__ = ["answered"]

T = TypeVar("T")


async def answered(exchange: Exchange, call: Call, begin: Begin[T]) -> T:
    """What `begin` makes of the answer to `call`, wherever that comes from.

    Raises:
        FluenceError: As of `exchange.run`.
    """
    exchange.telling.started(call)
    try:
        return await _answered(exchange, call, begin)
    except BaseException as error:  # told, cancelled or not, and raised as it is
        if isinstance(error, FluenceError):
            error.meta = call.meta
        exchange.telling.failed(call, error)
        raise


async def _answered(exchange: Exchange, call: Call, begin: Begin[T]) -> T:
    assert call.cached is not None
    name = call.cached.key.name
    while True:
        flight = exchange.flights.get(name)
        if flight is None:
            flight = exchange.flights[name] = Flight(partial(_forget, exchange.flights, name))
        with flight:
            if flight.take_lead(stream=call.stream):
                return await _lead(exchange, call, flight, begin)
            nothing_yet = flight.error is None and flight.tape is None
            if nothing_yet and not await _waited(exchange, call, flight):
                exchange.telling.looked(call)
                return await exchange.run_untold(call, begin)
            if flight.error is not None and flight.stream is call.stream:
                exchange.telling.looked(call, coalesced=True)
                _share(exchange, call, flight.error)
            elif flight.tape is not None:
                if call.stream or not flight.tape.streamed:
                    exchange.telling.looked(call, coalesced=True)
                    return await _replay(exchange, call, flight, flight.tape, begin)
                try:
                    completion = await _fold(exchange, call, flight, flight.tape)
                except StreamError:  # a plain answer has shown nothing yet: asked for again
                    flight.forget()
                    call.meta.coalesced, call.meta.first_token_s = False, None
                else:
                    exchange.telling.looked(call, coalesced=True)
                    exchange.telling.finished(call, completion)
                    return cast("T", completion)


def _forget(flights: dict[str, Flight], name: str, flight: Flight) -> None:
    if flights.get(name) is flight:
        del flights[name]


# ─── the first of equal calls ─────────────────────────────────────────────────────────────


async def _lead(exchange: Exchange, call: Call, flight: Flight, begin: Begin[T]) -> T:
    assert call.cached is not None
    tape: Tape | None = None
    shared: FluenceError | None = None
    lease = Lease(call.cached)

    async def record(exchange: Exchange, call: Call, response: Response) -> T:
        nonlocal tape
        streamed = call.stream and not is_json(response.headers.get("content-type", ""))
        keep = partial(_keep, exchange, call, flight, lease)
        recorded = Tape(response, streamed=streamed, on_end=keep)
        recorded.request_id = call.meta.request_id
        recorded.came_to = call.came_to
        view = View(recorded, flight, headers=response.headers)
        try:
            result = await begin(exchange, call, view)
        except BaseException:
            view.abort()
            raise
        tape = recorded
        return result

    try:
        recording = await call.cached.cache.read(call.cached.key, call.cached.ttl_s)
        if recording is None and call.cached.cache.leases:
            recording = await lease.take(_patience_s(exchange, call), flight.go_abroad)
        if recording is None:
            exchange.telling.looked(call)
            return await exchange.run_untold(call, record)
        exchange.telling.looked(call, hit=True)
        flight.forget()
        tape = Tape.stored(recording)
        if tape.streamed and not call.stream:
            completion = await _fold(exchange, call, flight, tape)
            exchange.telling.finished(call, completion)
            return cast("T", completion)
        return await _replay(exchange, call, flight, tape, begin)
    except FluenceError as error:
        if not _of_its_own(error):
            shared = error
        raise
    finally:
        flight.land(tape=tape, error=shared)
        if tape is None or tape.cached:  # else its end is awaited
            await lease.release()


async def _keep(exchange: Exchange, call: Call, flight: Flight, lease: Lease, tape: Tape) -> None:
    """Store what is whole; from then on it is found there."""
    cached = call.cached
    assert cached is not None
    body = tape.body
    try:
        if is_whole(body, streamed=tape.streamed, choices=call.choices, key=exchange.key):
            await cached.cache.write(
                cached.key,
                body,
                ttl_s=cached.ttl_s,
                streamed=tape.streamed,
                request_id=tape.request_id,
            )
    finally:
        flight.forget()
        await lease.release()


def _of_its_own(error: FluenceError) -> bool:
    """An error that an equal call which began later, or has other tags, need not have."""
    return isinstance(error, LimitWaitError | BudgetExceededError) or (
        isinstance(error, APITimeoutError) and error.clock == "total"
    )


# ─── and the others ───────────────────────────────────────────────────────────────────────


async def _waited(exchange: Exchange, call: Call, flight: Flight) -> bool:
    """Whether the leader came to something; False if this call had better ask for itself."""
    with anyio.CancelScope(deadline=exchange.clock() + _patience_s(exchange, call)) as scope:
        await flight.wait()
    if not scope.cancelled_caught:
        return True
    if flight.abroad:
        return False
    with anyio.CancelScope(deadline=call.total_at) as scope:
        await flight.wait()
    if scope.cancelled_caught:
        raise call.timed_out("total", "waiting for an equal call")
    return True


def _patience_s(exchange: Exchange, call: Call) -> float:
    """How long to wait for another process: then there must be time left to ask."""
    return max(0.0, (call.total_at - exchange.clock()) / 2)


def _share(exchange: Exchange, call: Call, error: FluenceError) -> NoReturn:
    """Raise what the leader's request failed of, as this call's own."""
    own = copy(error)
    if error.meta is not None:
        call.meta = replace(error.meta, coalesced=True, tags=call.meta.tags)
    call.meta.total_s = exchange.clock() - call.started
    raise own from error


async def _replay(exchange: Exchange, call: Call, flight: Flight, tape: Tape, begin: Begin[T]) -> T:
    """Read a tape from its start, as `begin` reads any response."""
    view = _viewed(call, flight, tape)
    try:
        return await begin(exchange, call, view)
    except BaseException:
        view.abort()
        raise


async def _fold(exchange: Exchange, call: Call, flight: Flight, tape: Tape) -> ChatCompletion:
    """The whole answer of a stream, for who asked for it whole."""
    view = _viewed(call, flight, tape)
    stream = ChatStream(view, call, key=exchange.key, clock=exchange.clock)
    try:
        await stream.begin(_untold)
        return await stream.get_final_completion()
    except BaseException:
        view.abort()
        raise
    finally:
        await stream.aclose()


def _viewed(call: Call, flight: Flight, tape: Tape) -> View:
    meta = call.meta
    meta.cached, meta.coalesced = tape.cached, not tape.cached
    meta.request_id = tape.request_id
    call.came_to = tape.came_to
    return View(tape, flight)


def _untold(stream: ChatStream, error: FluenceError | type[BaseException] | None) -> None:
    """Who folds a stream tells of its end."""
