"""What every cache store must do: checks that any implementation can be put through.

Each check is an async function that takes a factory of empty stores (`Factory`) and raises an
AssertionError that says what was expected. They run on asyncio and trio, in real time.

    import pytest
    from fluence_async.testing.cache_contract import CHECKS

    @pytest.mark.anyio
    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_store(check):
        await check(MyStore)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import anyio

from ..cache import CacheStore, LeasingStore
from .transport_contract._expect import expect

__all__ = [
    "CHECKS",
    "Check",
    "Factory",
    "a_cancelled_use_leaves_the_store_usable",
    "a_key_that_is_not_there_is_none",
    "a_later_put_takes_the_place_of_the_earlier",
    "a_lease_has_one_holder",
    "a_lease_that_nobody_ends_runs_out",
    "clearing_forgets_everything",
    "closing_twice_is_closing_once",
    "deleting_forgets_one",
    "keys_do_not_meet",
    "many_tasks_at_once_do_not_mix",
    "what_has_expired_is_gone",
    "what_is_put_is_got",
]

Factory = Callable[[], CacheStore]
Check = Callable[[Factory], Awaitable[None]]
_LONG_S = 3600.0


@asynccontextmanager
async def _opened(factory: Factory) -> AsyncIterator[CacheStore]:
    store = factory()
    try:
        yield store
    finally:
        await store.aclose()


def _key(n: int) -> str:
    return f"{n:064x}"


async def what_is_put_is_got(factory: Factory) -> None:
    """Byte for byte, whatever the bytes."""
    values = [b"", b"\0", b"text", bytes(range(256)), b"x" * 2**20, b"\xff\xfe'\"\n"]
    async with _opened(factory) as store:
        expect(store.ttl_s > 0, "ttl_s says how long an answer is kept where the call does not")
        for n, value in enumerate(values):
            await store.put(_key(n), value, _LONG_S)
        for n, value in enumerate(values):
            got = await store.get(_key(n))
            expect(got == value and isinstance(got, bytes), f"value {n} as it was put")


async def a_key_that_is_not_there_is_none(factory: Factory) -> None:
    """And no error."""
    async with _opened(factory) as store:
        expect(await store.get(_key(1)) is None, "None of an empty store")
        await store.put(_key(2), b"two", _LONG_S)
        expect(await store.get(_key(1)) is None, "None beside another key")


async def a_later_put_takes_the_place_of_the_earlier(factory: Factory) -> None:
    """Its value and its time."""
    async with _opened(factory) as store:
        await store.put(_key(1), b"earlier" * 1000, 0.001)
        await store.put(_key(1), b"later", _LONG_S)
        await anyio.sleep(0.005)
        expect(await store.get(_key(1)) == b"later", "the later value, for its own time")


async def what_has_expired_is_gone(factory: Factory) -> None:
    """And nothing else is."""
    async with _opened(factory) as store:
        await store.put(_key(1), b"short", 0.001)
        await store.put(_key(2), b"long", _LONG_S)
        await anyio.sleep(0.005)
        expect(await store.get(_key(1)) is None, "what was put for 1 ms is gone after 5")
        expect(await store.get(_key(2)) == b"long", "what was put for an hour is there")


async def deleting_forgets_one(factory: Factory) -> None:
    """Whether or not it is there."""
    async with _opened(factory) as store:
        await store.put(_key(1), b"one", _LONG_S)
        await store.put(_key(2), b"two", _LONG_S)
        for _ in range(2):
            await store.delete(_key(1))
            expect(await store.get(_key(1)) is None, "what was deleted is gone")
        expect(await store.get(_key(2)) == b"two", "the other one is there")


async def clearing_forgets_everything(factory: Factory) -> None:
    """And the store goes on."""
    async with _opened(factory) as store:
        for n in range(20):
            await store.put(_key(n), b"value", _LONG_S)
        await store.clear()
        expect([await store.get(_key(n)) for n in range(20)] == [None] * 20, "nothing is left")
        await store.put(_key(1), b"new", _LONG_S)
        expect(await store.get(_key(1)) == b"new", "it can be used again")


async def keys_do_not_meet(factory: Factory) -> None:
    """However alike."""
    keys = [_key(n) for n in range(100)] + ["a", "A", "aa", "a" * 64, "A" * 64]
    async with _opened(factory) as store:
        for key in keys:
            await store.put(key, key.encode(), _LONG_S)
        for key in keys:
            expect(await store.get(key) == key.encode(), f"the value of {key}")


async def many_tasks_at_once_do_not_mix(factory: Factory) -> None:
    """Each gets what it put."""
    async with _opened(factory) as store:

        async def use(n: int) -> None:
            for turn in range(3):
                value = b"%d of %d" % (turn, n)
                await store.put(_key(n), value, _LONG_S)
                expect(await store.get(_key(n)) == value, "each task gets what it put")

        async with anyio.create_task_group() as tasks:
            for n in range(20):
                tasks.start_soon(use, n)


async def a_cancelled_use_leaves_the_store_usable(factory: Factory) -> None:
    """And an entry that was being put is there whole, or not at all."""
    async with _opened(factory) as store:
        for n in range(10):
            with anyio.move_on_after(0.0002 * n):
                await store.put(_key(1), b"%d" % n * 10_000, _LONG_S)
                await store.get(_key(1))
        got = await store.get(_key(1))
        whole = {b"%d" % n * 10_000 for n in range(10)} | {None}
        expect(got in whole, "one of the values, whole, or none")
        await store.put(_key(2), b"two", _LONG_S)
        expect(await store.get(_key(2)) == b"two", "it can be used after")


async def closing_twice_is_closing_once(factory: Factory) -> None:
    """Used or not."""
    store = factory()
    await store.aclose()
    await store.aclose()
    store = factory()
    await store.put(_key(1), b"one", _LONG_S)
    await store.aclose()
    await store.aclose()


async def a_lease_has_one_holder(factory: Factory) -> None:
    """Of any number who want it at once; a store without leases need not do anything."""
    async with _opened(factory) as store:
        if not isinstance(store, LeasingStore):
            return
        holders = [b"%d" % n for n in range(10)]
        got: list[bytes] = []

        async def want(holder: bytes) -> None:
            if await store.lease(_key(1), holder, _LONG_S):
                got.append(holder)

        async with anyio.create_task_group() as tasks:
            for holder in holders:
                tasks.start_soon(want, holder)
        expect(len(got) == 1, f"one of ten has the lease, not {len(got)}")
        other = next(holder for holder in holders if holder not in got)
        expect(await store.lease(_key(1), got[0], _LONG_S), "its holder has it again")
        expect(await store.lease(_key(2), other, _LONG_S), "another key's is another lease")
        expect(await store.get(_key(1)) is None, "a lease is no value")
        await store.release(_key(1), other)
        expect(not await store.lease(_key(1), other, _LONG_S), "only its holder ends it")
        await store.release(_key(1), got[0])
        expect(await store.lease(_key(1), other, _LONG_S), "then the next one has it")


async def a_lease_that_nobody_ends_runs_out(factory: Factory) -> None:
    """Its holder may have been killed."""
    async with _opened(factory) as store:
        if isinstance(store, LeasingStore):
            await store.lease(_key(1), b"dead", 0.001)
            await anyio.sleep(0.005)
            expect(await store.lease(_key(1), b"next", _LONG_S), "it ends after its time")


CHECKS: tuple[Check, ...] = (
    what_is_put_is_got,
    a_key_that_is_not_there_is_none,
    a_later_put_takes_the_place_of_the_earlier,
    what_has_expired_is_gone,
    deleting_forgets_one,
    clearing_forgets_everything,
    keys_do_not_meet,
    many_tasks_at_once_do_not_mix,
    a_cancelled_use_leaves_the_store_usable,
    closing_twice_is_closing_once,
    a_lease_has_one_holder,
    a_lease_that_nobody_ends_runs_out,
)
"""All checks."""
