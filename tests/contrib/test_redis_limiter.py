"""A limiter in a Redis: a real one, which is killed, flushed and started again."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus

from fluence_async import APITimeoutError, FluenceSession, LimitWaitError
from fluence_async._sansio.lanes import EVERY
from fluence_async.limiter import Limiter, Permit
from fluence_async.limits import SharedLimits
from fluence_async.testing import FluenceServer
from fluence_async.testing.limiter_contract import CHECKS, Check
from tests.contrib.redis_server import WHY_NOT, RedisServer

pytest.importorskip("coredis", reason="coredis is not installed")

from coredis import Redis
from coredis.exceptions import ConnectionError as RedisConnectionError
from coredis.retry import NoRetryPolicy

from fluence_async.contrib.redis import (
    RedisLimiter,
    RedisLook,
    _background,
    _connecting,
    _courier,
    _store,
)

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]

S = 1_000_000_000


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(shared_redis: RedisServer) -> RedisServer:
    shared_redis.say("FLUSHALL")
    return shared_redis


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


def limiter_of(redis: RedisServer, *limits: str, **settings: object) -> RedisLimiter:
    return RedisLimiter(redis.url, "n", limits or ["10/second"], reserve=0, **settings)  # type: ignore[arg-type]


async def call(limiter: Limiter, sent: list[float] | None = None, **options: object) -> None:
    permit = await limiter.acquire(**options)  # type: ignore[arg-type]
    try:
        permit.sent()
        if sent is not None:
            sent.append(time.monotonic())
        permit.settle()
    finally:
        permit.release()


def most_in(sent: list[float], period_s: float) -> int:
    return max(sum(start <= each < start + period_s for each in sent) for start in sent)


def steps(redis: RedisServer) -> int:
    """How often it was asked for units, or told of them."""
    calls = "return redis.call('INFO', 'commandstats'):match('cmdstat_evalsha:calls=(%d+)')"
    return int(redis.say("EVAL", calls, "0"))


async def test_limiters_of_one_name_share_their_units(redis: RedisServer) -> None:
    sent: list[float] = []
    began = time.monotonic()
    async with anyio.create_task_group() as tasks:
        for each in (limiter_of(redis), limiter_of(redis)):
            for _ in range(15):
                tasks.start_soon(call, each, sent)
    assert len(sent) == 30
    assert most_in(sent, 1.0) == 10
    assert 2.0 < sent[-1] - began < 5.0


async def test_another_name_has_units_of_its_own(redis: RedisServer) -> None:
    other = RedisLimiter(redis.url, "other", ["10/minute"], reserve=0)
    with anyio.fail_after(5):
        for each in (limiter_of(redis, "10/minute"), other):
            for _ in range(10):
                await call(each)


async def test_what_was_used_outlives_its_process(redis: RedisServer) -> None:
    for _ in range(10):
        await call(limiter_of(redis, "10/minute"))
    with pytest.raises(LimitWaitError) as caught:
        await call(limiter_of(redis, "10/minute"), deadline=anyio.current_time() + 20)
    assert 50 < caught.value.wait_s < 61


async def test_all_windows_count(redis: RedisServer) -> None:
    both = limiter_of(redis, "100/second", "5/minute")
    for _ in range(5):
        await call(both)
    with pytest.raises(LimitWaitError):
        await call(both, deadline=anyio.current_time() + 5)
    assert [window.used for window in both.snapshot().windows] == [5, 5]


async def test_what_was_never_sent_is_free_at_once(redis: RedisServer) -> None:
    one = limiter_of(redis, "1/minute")
    with anyio.fail_after(5):
        for _ in range(3):
            permit = await one.acquire()
            permit.release()


async def test_a_cancelled_wait_leaves_neither_unit_nor_ticket(redis: RedisServer) -> None:
    one = limiter_of(redis, "1/second")
    await call(one)
    for _ in range(20):
        with anyio.move_on_after(0.01):
            await one.acquire()
    with anyio.fail_after(5):
        await call(one)
        await call(limiter_of(redis, "1/second"))
    assert redis.say("ZCARD", "fluence:{n}:tickets") == b":0"


async def test_a_batch_call_leaves_the_reserve(redis: RedisServer) -> None:
    one = RedisLimiter(redis.url, "n", ["10/minute"], reserve=0.2)
    for _ in range(8):
        await call(one, lane=1)
    with pytest.raises(LimitWaitError):
        await call(one, lane=1, deadline=anyio.current_time() + 5)
    with anyio.fail_after(5):
        await call(one)


async def test_batch_beside_busy_interactive_limiters_has_its_tenth(redis: RedisServer) -> None:
    served: list[int] = []

    async def work(one: Limiter, lane: int) -> None:
        while True:
            await call(one, lane=lane)
            served.append(lane)

    async with anyio.create_task_group() as tasks:
        for lane in (0, 0, 1):
            one = RedisLimiter(redis.url, "n", ["20/0.5s"], reserve=0.1)
            for _ in range(30):
                tasks.start_soon(work, one, lane)
        with anyio.fail_after(20):
            while len(served) < 20:  # the first, who come before anybody waits
                await anyio.sleep(0.01)
            served.clear()
            while len(served) < 120:
                await anyio.sleep(0.05)
        tasks.cancel_scope.cancel()
    assert sum(served[:120]) >= 120 / EVERY - 2
    assert served[:120].count(0) >= 60


async def test_batch_that_the_reserve_keeps_out_sees_that_it_is_owed_a_turn(
    redis: RedisServer,
) -> None:
    one, other = (RedisLimiter(redis.url, "n", ["20/hour"], reserve=0.5) for _ in range(2))
    for _ in range(10):
        await call(one, lane=1)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(partial(call, one, lane=1))
            await anyio.sleep(0.2)  # it is told to come again in an hour
            for _ in range(9):
                await call(other)


async def test_a_pause_is_everybodys(redis: RedisServer) -> None:
    one, other = limiter_of(redis), limiter_of(redis)
    await call(one)
    await call(other)
    one.pause(30)
    await anyio.sleep(0.2)  # until Redis has heard of it
    with pytest.raises(LimitWaitError) as caught:
        await call(other, deadline=anyio.current_time() + 10)
    assert 25 < caught.value.wait_s < 31


async def test_the_units_of_one_that_died_come_back(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_store, "_LEASE", S // 5)
    source = (
        "import anyio, os, sys\n"
        "from fluence_async.contrib.redis import RedisLimiter, _store\n"
        "_store._LEASE = 200_000_000\n"
        "async def main():\n"
        "    one = RedisLimiter(sys.argv[1], 'n', ['2/second'], reserve=0)\n"
        "    held = [await one.acquire(), await one.acquire()]\n"
        "    os.kill(os.getpid(), 9)\n"
        "anyio.run(main)\n"
    )
    dead = await anyio.run_process(
        [sys.executable, "-c", source, redis.url], cwd=Path(__file__).parents[2], check=False
    )
    assert dead.returncode == -9
    with anyio.fail_after(5):
        await call(limiter_of(redis, "2/second"))


async def test_a_lease_lasts_as_long_as_its_call(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_store, "_LEASE", S // 5)
    monkeypatch.setattr(_store, "RENEWED", S // 20)
    one = limiter_of(redis, "1/second")
    permit = await one.acquire()
    permit.sent()
    await anyio.sleep(1.5)
    with pytest.raises(LimitWaitError), anyio.fail_after(5):
        await call(limiter_of(redis, "1/second"), deadline=anyio.current_time() + 0.3)
    permit.settle()


async def test_a_redis_that_has_lost_its_scripts_is_told_them_again(redis: RedisServer) -> None:
    one = limiter_of(redis, "10/minute")
    await call(one)
    redis.say("SCRIPT", "FLUSH")
    with anyio.fail_after(5):
        await call(one)


async def test_a_redis_that_was_flushed_hears_what_was_used(redis: RedisServer) -> None:
    one = limiter_of(redis, "3/second", "5/minute")
    for _ in range(3):
        await call(one)
    redis.say("FLUSHALL")
    sent: list[float] = []
    flushed = time.monotonic()
    with anyio.fail_after(10):
        await call(one, sent)
        await call(one, sent)
    assert sent[0] - flushed >= 1.0, "the shortest period is waited for"
    with pytest.raises(LimitWaitError):
        await call(one, deadline=anyio.current_time() + 5)


async def test_without_redis_a_process_keeps_to_its_share(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_store, "_CLOSED", S // 2)
    monkeypatch.setattr(_courier, "_RETRIED_S", 0.05)
    one = limiter_of(own_redis, "8/second", clients=2)
    sent: list[float] = []
    await call(one, sent)
    own_redis.stop()
    with anyio.fail_after(10):
        for _ in range(9):
            await call(one, sent)
    assert most_in(sent, 1.0) == 4
    assert [str(window.limit) for window in one.snapshot().windows] == ["4/second"]
    assert [record.levelno for record in caplog.records if record.name == "fluence_async"] == [
        logging.WARNING
    ]
    assert "keeps to 1/2 of the limits" in caplog.text
    own_redis.start()
    with anyio.fail_after(10):
        await call(limiter_of(own_redis, "8/second"))
        sent.clear()
        for _ in range(16):
            await call(one, sent)
    assert 4 < most_in(sent, 1.0) <= 8


async def test_who_cannot_wait_for_a_redis_that_is_not_there_is_told_which() -> None:
    one = RedisLimiter("redis://:secret@127.0.0.1:1/0", "n", ["8/second"])
    with pytest.raises(LimitWaitError, match=r"8/\S* in the Redis at 127.0.0.1:1/0") as caught:
        await call(one, deadline=anyio.current_time() + 0.5)
    assert "secret" not in str(caught.value)


async def test_a_redis_that_is_not_there_leaves_nothing_open() -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for _ in range(3):
            with pytest.raises(OSError, match=r"127.0.0.1:1 cannot be reached"):
                await RedisLook("redis://127.0.0.1:1", "n", ["8/second"]).look()
        gc.collect()
    assert not [each for each in warned if issubclass(each.category, ResourceWarning)]


async def test_without_redis_one_can_wait_for_it(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_courier, "_RETRIED_S", 0.05)
    one = limiter_of(own_redis, "100/second", when_down="wait")
    await call(one)
    own_redis.stop()
    with pytest.raises(APITimeoutError):
        await call(one, deadline=anyio.current_time() + 1)
    assert "nothing is sent until it is back" in caplog.text
    own_redis.start()
    with anyio.fail_after(10):
        await call(one)


async def test_no_task_is_left_when_there_is_nothing_to_do(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_courier, "_IDLE", S // 100)
    one = limiter_of(redis)
    for _ in range(3):
        await call(one)
        with anyio.fail_after(5):
            while redis.clients():
                await anyio.sleep(0.01)


def test_one_loop_after_another_has_the_same_units(redis: RedisServer) -> None:
    one = limiter_of(redis, "3/minute")

    async def twice() -> None:
        await call(one)

    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(twice, backend=backend)

    async def refused() -> None:
        with pytest.raises(LimitWaitError):
            await call(one, deadline=anyio.current_time() + 5)

    anyio.run(refused, backend="trio")


async def test_sessions_of_one_key_share_what_is_in_redis(redis: RedisServer) -> None:
    async with FluenceServer() as server:
        settings = {"api_key": server.api_key, "base_url": server.base_url, "limiter": redis.url}
        async with FluenceSession(**settings, limits=["2/minute"]) as fluence:  # type: ignore[arg-type]
            for _ in range(2):
                answer = await fluence.chat.completions.create(
                    model="fluence-chat", messages="Hello!"
                )
                assert answer.text
        async with FluenceSession(**settings, limits=["2/minute"]) as fluence:  # type: ignore[arg-type]
            with pytest.raises(LimitWaitError):
                await fluence.chat.completions.create(
                    model="fluence-chat", messages="Hello!", timeout=5
                )
        names = redis.say("EVAL", "return table.concat(redis.call('KEYS', '*'), ' ')", "0")
        assert b"fluence:{" in names
        assert server.api_key.encode() not in names


# ─── the loop's end ───────────────────────────────────────────────────────────────────────


def test_a_loop_may_end_before_the_first_step_of_a_connection() -> None:
    """`asyncio.run` cancels every task, also those that have not run: nobody may wait for them."""

    async def connect(*, task_status: TaskStatus[None]) -> None:
        task_status.started()

    async def hold() -> None:
        async with anyio.create_task_group() as tasks:
            await _connecting.Starting(tasks).start(connect)

    async def main() -> None:
        holder = asyncio.create_task(hold())
        await asyncio.sleep(0)  # it has begun the connection's task, which has not run
        here = asyncio.current_task()
        rest = [task for task in asyncio.all_tasks() if task is not here]
        assert len(rest) == 2
        for task in rest:
            task.cancel()
        await asyncio.wait([holder], timeout=5)
        assert holder.done()

    with pytest.warns(RuntimeWarning, match="never awaited"):
        asyncio.run(main())
        gc.collect()


async def test_every_connection_is_begun_in_that_way(redis: RedisServer) -> None:
    for client in (_connecting.text_client, _connecting.bytes_client):
        async with client(redis.url, NoRetryPolicy()) as opened:
            assert isinstance(opened.connection_pool.task_group, _connecting.Starting)
            await opened.ping()
    sources = Path(_connecting.__file__).parent.glob("*.py")
    assert [path.name for path in sources if "Redis.from_url" in path.read_text("utf-8")] == []


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_courier_that_is_cancelled_says_nothing_of_its_redis(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """asyncio cancels once, and a task group forgets that over an error of its own."""
    leave = Redis.__aexit__

    async def lose(self: Redis[str], *error: Any) -> None:
        with suppress(asyncio.CancelledError):
            await leave(self, *error)
        raise RedisConnectionError("lost")

    known = set(_background._tasks)
    monkeypatch.setattr(Redis, "__aexit__", lose)
    limiter = limiter_of(redis, "5/second")
    permit = await limiter.acquire()
    (courier,) = _background._tasks - known
    courier.cancel()
    with anyio.fail_after(5):
        while not courier.done():
            await anyio.sleep(0.005)
    monkeypatch.undo()
    assert not caplog.records
    permit.release()


# ─── looking ──────────────────────────────────────────────────────────────────────────────


async def test_looking_from_outside_sees_everything_and_leaves_nothing(redis: RedisServer) -> None:
    outside = RedisLook(redis.url, "n", ["10/minute", "100 tokens/minute"])
    empty = await outside.look()
    assert [window.used for window in empty.windows] == [0, 0]
    assert redis.say("DBSIZE") == b":0"
    one = RedisLimiter(redis.url, "n", ["10/minute", "100 tokens/minute"], reserve=0)
    for _ in range(6):
        await call(one, costs={"tokens": 5})
    held = [await one.acquire() for _ in range(4)]
    other = RedisLimiter(redis.url, "n", ["10/minute"], reserve=0)
    async with anyio.create_task_group() as tasks:
        for lane in (0, 0, 1):
            tasks.start_soon(partial(call, one, lane=lane))
        tasks.start_soon(partial(call, other, lane=1))
        await anyio.sleep(0.3)
        one.pause(5)
        await anyio.sleep(0.2)  # until Redis has heard of it
        before = redis.say(
            "EVAL", "return redis.call('HGETALL', KEYS[1])[2]", "1", "fluence:{n}:state"
        )
        now = await outside.look()
        assert [window.used for window in now.windows] == [10, 30]
        assert now.windows[0].outlook is not None
        assert now.windows[0].outlook.in_flight == 4
        assert (now.waiting, now.waiting_batch) == (2, 1)  # limiters
        assert 4 < now.paused_s < 5.1
        eta = now.eta_s(1)
        assert eta is not None
        assert 55 < eta < 61  # the third unit
        theirs = await one.look()
        assert (theirs.waiting, theirs.waiting_batch) == (4, 2)
        assert one.snapshot().eta_s(1) is None  # nobody has asked Redis
        assert before == redis.say(
            "EVAL", "return redis.call('HGETALL', KEYS[1])[2]", "1", "fluence:{n}:state"
        )
        tasks.cancel_scope.cancel()
    for permit in held:
        permit.release()


async def test_a_limiter_that_was_tightened_looks_at_what_it_obeys(redis: RedisServer) -> None:
    one = limiter_of(redis, "10/minute")
    one.tighten(["8/minute", "5/minute for large"])
    await call(one, model="large")
    await heard()
    there = (await one.look()).windows
    assert [(str(each.limit), each.used) for each in there] == [
        ("8/minute", 1), ("5/minute for large", 1),
    ]  # fmt: skip


async def test_a_redis_that_is_not_there_cannot_be_looked_at() -> None:
    shared = SharedLimits(api_key="k", limiter="redis://:secret@127.0.0.1:1/0")
    with pytest.raises(
        OSError, match=r"the Redis at 127\.0\.0\.1:1/0 cannot be reached: "
    ) as caught:
        await shared.look()
    assert "secret" not in f"{caught.value}{shared!r}{shared.where}"


async def test_the_gauge_is_exact_when_all_have_been_answered(redis: RedisServer) -> None:
    one = limiter_of(redis, "10/second", "15/2s")
    for _ in range(12):
        await call(one)
    now, begun = await one.look(), time.monotonic()
    eta = now.eta_s(10)
    sent: list[float] = []
    for _ in range(10):
        await call(one, sent)
    assert eta is not None
    assert sent[-1] - begun == pytest.approx(eta, abs=0.2)


# ─── beside requests ──────────────────────────────────────────────────────────────────────

DIMENSIONS = ("100/second", "100 tokens/second", "2 concurrent", "50/second for large")


async def begun(limiter: Limiter, tokens: int = 40, **options: object) -> Permit:
    """A call under way."""
    options = {"model": "large", "costs": {"tokens": tokens}, **options}
    permit = await limiter.acquire(**options)  # type: ignore[arg-type]
    permit.sent()
    permit.settle()
    return permit


async def heard() -> None:
    """Until Redis has heard of what another limiter did."""
    await anyio.sleep(0.2)


async def used(limiter: Limiter) -> list[int]:
    """As Redis says."""
    permit = await limiter.acquire(costs={"tokens": 0, "concurrent": 0})
    permit.release()
    return [window.used for window in limiter.snapshot().windows][1:]


async def test_tokens_and_places_are_everybodys_until_the_calls_end(redis: RedisServer) -> None:
    one, other = limiter_of(redis, *DIMENSIONS), limiter_of(redis, *DIMENSIONS)
    with anyio.fail_after(10):
        first = await begun(one)
        assert await used(other) == [40, 1, 1]
        await anyio.sleep(1.2)
        assert await used(other) == [40, 1, 0]  # the request is forgotten, and the call goes on
        second = await begun(other)
        with anyio.move_on_after(0.3):
            await one.acquire()
            raise AssertionError("two are under way")
        first.release({"tokens": 30})
        over = time.monotonic()
        permit = await other.acquire()  # another process's place, soon
        assert time.monotonic() - over < 0.9
        permit.release()
        await heard()
        assert await used(one) == [70, 1, 1]
        over = time.monotonic()
        second.release({"tokens": 500})  # a debt
        await heard()
        (await one.acquire(costs={"tokens": 1})).release()
        assert time.monotonic() - over >= 1.0
        await heard()
        assert await used(other) == [0, 0, 0]


async def test_a_place_that_is_given_back_is_forgotten(redis: RedisServer) -> None:
    one = limiter_of(redis, "100/minute", "2 concurrent")
    with anyio.fail_after(10):
        for _ in range(3):
            await call(one)
        (await one.acquire()).release()
    await heard()
    assert redis.say("ZCARD", "fluence:{n}:units") == b":3"  # the requests


@pytest.mark.parametrize("lane", [0, 1])
async def test_who_waits_for_its_models_limit_holds_up_no_other_process(
    lane: int, redis: RedisServer
) -> None:
    limits = ("4/0.1s", "1/hour for large")
    large, one = (limiter_of(redis, *limits, margin_s=0, drift=0) for _ in range(2))
    look = RedisLook(redis.url, "n", limits)
    await call(large, model="large", lane=lane)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(call, large, model="large", lane=lane))
        while not (now := await look.look()).waiting:
            await anyio.sleep(0.01)
        assert (now.waiting, now.waiting_batch) == (1, lane)
        began = time.monotonic()
        with anyio.move_on_after(8):
            for _ in range(60):
                await call(one)
        assert 1.4 <= time.monotonic() - began < 5
        assert (await look.look()).passed == 0
        group.cancel_scope.cancel()


@pytest.mark.parametrize("lane", [0, 1])
async def test_who_waits_for_its_models_limit_holds_up_no_other_model(
    lane: int, redis: RedisServer
) -> None:
    limits = ("30/minute", "1/hour for large", "1/0.5s for huge")
    one = limiter_of(redis, *limits, margin_s=0, drift=0)
    look = RedisLook(redis.url, "n", limits)
    await call(one, model="large", lane=lane)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(call, one, model="large", lane=lane))
        with anyio.fail_after(8):
            for _ in range(10):
                await call(one, lane=lane)
            began = time.monotonic()
            await call(one, model="huge", lane=lane)
            async with anyio.create_task_group() as others:
                for _ in range(2):
                    others.start_soon(partial(call, one, model="huge", lane=lane))
                while (await look.look()).waiting < 2:
                    await anyio.sleep(0.01)
                for _ in range(5):
                    await call(one, lane=lane)
                assert time.monotonic() - began < 0.5
                assert (await one.look()).waiting == 3
            assert time.monotonic() - began >= 1.0
        assert (await look.look()).waiting == 1
        before = steps(redis)
        await anyio.sleep(0.5)
        assert steps(redis) - before <= 3
        group.cancel_scope.cancel()
    await heard()
    assert redis.say("ZCARD", "fluence:{n}:tickets") == b":0"
    assert [window.used for window in one.snapshot().windows] == [19, 1, 0]


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_nor_if_everybodys_limit_held_it_up_as_well_when_it_came(
    elsewhere: bool, redis: RedisServer
) -> None:
    limits = ("1/0.4s", "1/hour for large")
    one = other = limiter_of(redis, *limits, margin_s=0, drift=0)
    if elsewhere:
        other = limiter_of(redis, *limits, margin_s=0, drift=0)
    await call(one, model="large")
    await call(one)
    async with anyio.create_task_group() as group:
        group.start_soon(partial(call, one, model="large"))
        with anyio.fail_after(5):
            while not (await other.look()).waiting:
                await anyio.sleep(0.005)
            for _ in range(3):
                await call(other)
        group.cancel_scope.cancel()


async def test_who_waits_for_everybodys_limit_is_passed_by_no_other_model(
    redis: RedisServer,
) -> None:
    limits = ("90/minute", "100 tokens/0.5s", "9/minute for large")
    one = limiter_of(redis, *limits, margin_s=0, drift=0)
    await call(one, costs={"tokens": 60})
    went: list[str] = []

    async def talk(model: str, tokens: int) -> None:
        await call(one, model=model, costs={"tokens": tokens})
        went.append(model)

    async with anyio.create_task_group() as group:
        group.start_soon(talk, "large", 90)
        while not one.snapshot().waiting:
            await anyio.sleep(0.001)
        group.start_soon(talk, "small", 10)
    assert went == ["large", "small"]


async def test_an_address_may_name_a_policy(redis: RedisServer) -> None:
    async with FluenceServer() as server:
        for policy, learnt in (("any", True), ("window", False)):
            address = f"{redis.url}?policy={policy}"
            async with FluenceSession(
                api_key=server.api_key, base_url=server.base_url, limiter=address
            ) as fluence:
                await fluence.chat.completions.create(model="fluence-chat", messages="Hello!")
                assert isinstance(fluence.limiter, RedisLimiter)
                windows = fluence.limiter.snapshot().windows
                assert [window.learnt is not None for window in windows] == [learnt, learnt]
            with anyio.fail_after(5):
                now = await SharedLimits(
                    api_key=server.api_key, base_url=server.base_url, limiter=address
                ).look()
            assert now.windows[0].used >= 1
    for named in (FluenceSession, SharedLimits):
        for policy in ("most", ""):
            with pytest.raises(ValueError, match=f"policy='{policy}'"):
                named(api_key="k", limiter=f"{redis.url}?policy={policy}")
    other = FluenceSession(api_key="k", limiter="redis://h:1?a=1&policy=any&b=2").limiter
    assert isinstance(other, RedisLimiter)
    store = other._line.store
    assert isinstance(store, _store.RedisStore)
    assert (store.terms.url, store.terms.policy) == ("redis://h:1?a=1&b=2", "any")


async def test_small_calls_of_other_processes_overtake_no_large_one(redis: RedisServer) -> None:
    limits = ("90/0.2s", "100 tokens/0.2s")
    one, other = (limiter_of(redis, *limits, margin_s=0, drift=0) for _ in range(2))

    async def talk(after_s: float) -> None:
        await anyio.sleep(after_s)
        while True:
            await call(other, costs={"tokens": 20})

    async with anyio.create_task_group() as group:
        for number in range(5):  # so that tokens come back a few at a time
            group.start_soon(talk, number * 0.04)
        await anyio.sleep(0.3)
        with anyio.fail_after(3):
            await call(one, costs={"tokens": 90})
        group.cancel_scope.cancel()


async def test_a_model_that_has_a_limit_counts_once_for_its_calls(redis: RedisServer) -> None:
    one = limiter_of(redis, "100/minute", "3/minute for %d|requests=9")
    with anyio.fail_after(10):
        for _ in range(3):
            await call(one, model="%d|requests=9")
        with pytest.raises(LimitWaitError, match="3/minute for %d"):
            await call(one, model="%d|requests=9", deadline=anyio.current_time() + 5)
        await call(one, model="other")
        (await one.acquire()).release()
    assert [window.used for window in one.snapshot().windows] == [5, 3]


async def test_what_one_that_was_killed_held_until_the_end_comes_back(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its places when its lease is over, its tokens a period later."""
    monkeypatch.setattr(_store, "_LEASE", S // 2)
    source = (
        "import anyio, os, sys\n"
        "from fluence_async.contrib.redis import RedisLimiter, _store\n"
        "_store._LEASE = 500_000_000\n"
        "async def main():\n"
        "    one = RedisLimiter(sys.argv[1], 'n', sys.argv[2:], reserve=0)\n"
        "    held = [await one.acquire(costs={'tokens': 50}) for _ in range(2)]\n"
        "    held[0].sent()\n"
        "    held[0].settle()\n"
        "    await anyio.sleep(0.2)\n"
        "    os.kill(os.getpid(), 9)\n"
        "anyio.run(main)\n"
    )
    dead = await anyio.run_process(
        [sys.executable, "-c", source, redis.url, *DIMENSIONS],
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert dead.returncode == -9
    killed = time.monotonic()
    one = limiter_of(redis, *DIMENSIONS)
    with anyio.fail_after(10):
        (await one.acquire()).release()
        assert time.monotonic() - killed > 0.05
        (await one.acquire(costs={"tokens": 1})).release()
        assert time.monotonic() - killed >= 1.0
        while await used(one) != [0, 0, 0]:  # of the other one, a little later
            await anyio.sleep(0.01)


async def test_a_call_that_lasts_keeps_its_lease(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_store, "_LEASE", S // 5)
    monkeypatch.setattr(_store, "RENEWED", S // 20)
    one, other = limiter_of(redis, *DIMENSIONS), limiter_of(redis, *DIMENSIONS)
    with anyio.fail_after(10):
        held = await begun(one)
        await anyio.sleep(1.2)
        assert await used(other) == [40, 1, 0]
        held.release()


async def test_a_redis_that_was_flushed_hears_of_calls_under_way(redis: RedisServer) -> None:
    one, other = limiter_of(redis, *DIMENSIONS), limiter_of(redis, *DIMENSIONS)
    with anyio.fail_after(10):
        held = await begun(one)
        redis.say("FLUSHALL")
        flushed = time.monotonic()
        assert (await used(one))[:2] == [40, 1]
        assert time.monotonic() - flushed >= 1.0, "the shortest period is waited for"
        assert (await used(other))[:2] == [40, 1]
        held.release({"tokens": 0})
        assert (await used(one))[:2] == [0, 0]


async def test_without_redis_a_process_keeps_to_its_share_of_each(
    own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_store, "_CLOSED", S // 10)
    monkeypatch.setattr(_courier, "_RETRIED_S", 0.05)
    one = limiter_of(own_redis, "100/second", "8 tokens/minute for a", "4 concurrent", clients=2)
    with anyio.fail_after(10):
        await call(one)
        own_redis.stop()
        first = await begun(one, 3, model="a")
        second = await begun(one, 1, model="a")
        with anyio.move_on_after(0.2):
            await one.acquire()
            raise AssertionError("half of the places are two")
        first.release({"tokens": 4})
        (await one.acquire()).release()
        second.release()
        with pytest.raises(LimitWaitError):
            await one.acquire(model="a", costs={"tokens": 1}, deadline=anyio.current_time() + 5)


# ─── processes, settings, the contract ───────────────────────────────────────────────────

WORKER = """
import anyio, sys, time
from fluence_async.contrib.redis import RedisLimiter

async def main(url, calls):
    limiter = RedisLimiter(url, "n", ["25/second"], reserve=0)

    async def call():
        permit = await limiter.acquire()
        permit.sent()
        print(time.monotonic(), flush=True)
        permit.settle()
        permit.release()

    async with anyio.create_task_group() as tasks:
        for _ in range(calls):
            tasks.start_soon(call)

anyio.run(main, sys.argv[1], int(sys.argv[2]), backend=sys.argv[3])
"""


def test_processes_share_the_limit_fairly_also_when_one_is_killed(redis: RedisServer) -> None:
    def start(backend: str, calls: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", WORKER, redis.url, str(calls), backend],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )

    workers = [start(backend, 30) for backend in ("asyncio", "trio", "asyncio")]
    victim = start("asyncio", 1000)
    assert victim.stdout is not None
    stamps = [float(victim.stdout.readline()) for _ in range(5)]
    victim.kill()
    stamps += [float(line) for line in victim.communicate()[0].splitlines()]
    for worker in workers:
        stamps += [float(line) for line in worker.communicate(timeout=60)[0].splitlines()]
    assert len(stamps) >= 95
    assert most_in(stamps, 1.0) <= 25


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"when_down": "open"}, ValueError, "'share' or 'wait'"),
        ({"clients": 0}, ValueError, "clients=0"),
        ({"clients": True}, TypeError, "clients=True"),
        ({"url": "http://x"}, ValueError, "redis://"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(
    settings: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        RedisLimiter(**{"url": "redis://x", "name": "n", **settings})  # type: ignore[arg-type]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_passes_the_contract(redis: RedisServer, check: Check) -> None:
    await check(lambda name, limits: RedisLimiter(redis.url, name, limits))
