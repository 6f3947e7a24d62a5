"""What processes learn through a Redis: a real one, in simulated time and in real time."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import anyio
import msgspec
import pytest

from benchmarks.limits.networks import NETWORKS
from benchmarks.limits.runs import AS_PROMISED, DOCUMENTED, SMALL, Scene, broken, promised
from benchmarks.limits.servers import SERVERS, Server, SlidingLog
from benchmarks.limits.world import World, ideal
from fluence_async import LimitWaitError, RateLimit
from fluence_async.limiter import Learnt, Limiter
from fluence_async.meta import RateLimitSnapshot
from tests.contrib.redis_server import WHY_NOT, RedisServer

pytest.importorskip("coredis", reason="coredis is not installed")

from fluence_async.contrib.redis import RedisLimiter, RedisLook
from fluence_async.contrib.redis._store import RedisStore
from tests.contrib.simulated_redis import InRedis, S, Wire

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]

STATE = "fluence:{n}:state"


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(shared_redis: RedisServer) -> RedisServer:
    shared_redis.say("FLUSHALL")
    return shared_redis


@pytest.fixture
def wire(redis: RedisServer) -> Iterator[Wire]:
    wire = Wire(redis)
    yield wire
    wire.close()


# ─── in simulated time ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("headers", [False, True])
@pytest.mark.parametrize("kind", SERVERS)
def test_any_server_is_learnt(kind: str, headers: bool, wire: Wire) -> None:
    scene = Scene(kind, "jittered", seed=7, headers=headers)
    outcome = scene.run(partial(InRedis, wire, processes=3), 250)
    assert outcome.busiest(60) <= 100
    most = {"sliding counter": headers, "small bucket": 20 * (not headers)}
    most["GCRA"] = most["small bucket"]
    assert len(outcome.refused) <= most.get(kind, 0)
    if kind in AS_PROMISED:  # without headers a pace, and no burst
        assert promised(DOCUMENTED, 250) / outcome.makespan >= (0.97 if headers else 0.7)
    else:
        at_best = ideal(scene.server(), 250) - ideal(scene.server(), 125)
        assert at_best / (outcome.accepted[249] - outcome.accepted[124]) >= 0.96


def test_no_seed_breaks_a_promise(wire: Wire) -> None:
    for seed in range(40):
        wire.forget()
        assert not broken(seed, partial(InRedis, wire, processes=1 + seed % 4))


@pytest.mark.parametrize("seed", range(4))
def test_whether_a_sliding_counter_is_kept_is_tried_once_by_all(seed: int, wire: Wire) -> None:
    for policy, most in (("any", 1), ("any-strict", 0)):
        wire.forget()
        scene = Scene("sliding counter", "jittered", seed=seed, headers=True)
        outcome = scene.run(partial(InRedis, wire, processes=4, policy=policy), 400)
        assert len(outcome.refused) <= most


def test_who_is_refused_was_the_trial(wire: Wire) -> None:
    """And not one that went before it, on credit, and that it overtook."""
    for seed in range(24):
        wire.forget()
        scene = Scene("sliding counter", "jittered", seed=seed, limits=tuple(SMALL), headers=True)
        assert len(scene.run(partial(InRedis, wire, processes=3), 60).refused) <= 1


class Forgetful(Server):
    """One whose headers stop."""

    told = 0

    def _headers(self, now: float) -> dict[str, str]:
        self.told += 1
        return super()._headers(now) if self.told <= 600 else {}


def test_what_went_on_credit_holds_nobody_up_when_the_headers_stop(wire: Wire) -> None:
    sender = InRedis(wire, [(20, 60.0)], "any-strict", processes=2)
    server = Forgetful([SlidingLog(400, 60.0)], headers=True)
    accepted = World(sender, server, NETWORKS["jittered"], seed=1).run(640).accepted
    assert max(later - sooner for sooner, later in pairwise(accepted)) < 70


def test_credit_that_a_redis_heard_of_before_it_forgot_is_none(wire: Wire) -> None:
    sender = InRedis(wire, [(100, 60.0)])
    (store,), now = sender.stores, S
    for remaining in (60, 60, 60):
        claim, _ = sender.take(now)
        assert claim is not None
        store.settle(claim, now, True, [RateLimitSnapshot(limit=100, remaining=remaining)])
        sender.step(store, now)
        now += S
    claim, _ = sender.take(now)
    assert claim is not None
    wire.forget()
    with sender.asked(store, now) as lost:  # and while that is under way, the answer comes
        store.settle(claim, now, True, [RateLimitSnapshot(limit=100, remaining=1)])
    assert lost.verdict == "lost"
    sender.step(store, now)
    assert not sender.state("credit:60080000")


def test_the_newest_word_of_the_server_counts_for_a_period(wire: Wire) -> None:
    sender = InRedis(wire, [(100, 60.0)])
    (store,), now = sender.stores, S
    for _ in range(3):
        claim, wake = sender.take(now)
        while claim is None:
            claim, wake = sender.take(now := wake)
        store.settle(claim, now, True)
    for more, since in ((70, 2), (90, 1), (5000, 9)):  # what is older, or of nobody here
        store.news.append(("credit", 60_080_000, more, since))
        sender.step(store, now)
    assert sender.state("credit:60080000").split()[:2] == ["70", "2"]
    ran = [sender.take(now)[0] for _ in range(5)]
    assert all(ran)
    now += 61 * S
    for claim in ran:
        assert claim is not None
        store.settle(claim, now, True)
    assert sum(sender.take(now)[0] is not None for _ in range(20)) < 20


def test_a_doubt_that_never_reached_redis_is_told_again(wire: Wire) -> None:
    sender = InRedis(wire, [(100, 60.0)])
    (store,), now = sender.stores, S
    claim, _ = sender.take(now)
    assert claim is not None
    store.settle(claim, now, True, [RateLimitSnapshot(limit=100, remaining=60)])
    sender.step(store, now)
    assert sender.state("credit:60080000")
    claim, _ = sender.take(now)
    assert claim is not None
    store.settle(claim, now, False)
    store.refused(claim, now)
    store.question(now)
    store.failed(now)
    store.begin(now)
    sender.step(store, now)
    assert not sender.state("credit:60080000")


def test_a_request_is_granted_once_whatever_else_it_costs(wire: Wire) -> None:
    limits = [RateLimit("100/minute"), RateLimit("50 concurrent"), RateLimit("9999 tokens/minute")]
    sender = InRedis(wire, limits)
    (store,), now = sender.stores, S
    costs = {"requests": 1, "concurrent": 1, "tokens": 10}
    claims = []
    for _ in range(5):
        claim, wake = sender.take(now, costs)
        while claim is None:
            now = wake
            claim, wake = sender.take(now, costs)
        store.settle(claim, now, True, [RateLimitSnapshot(limit=100, remaining=60)])
        sender.step(store, now)
        claims.append(claim)
    for claim in claims:
        store.release(claim, now, {"tokens": 3})
    sender.step(store, now)
    assert sender.state("granted") == "5"


def test_an_hours_limit_is_used_whole_where_the_server_says_what_remains(wire: Wire) -> None:
    scene = Scene("sliding log", "jittered", seed=7, headers=True)
    outcome = scene.run(partial(InRedis, wire, processes=2), 1300)
    assert not outcome.refused
    assert promised(DOCUMENTED, 1300) / outcome.makespan >= 0.99


def test_a_larger_limit_that_the_server_states_is_used_where_that_is_allowed(wire: Wire) -> None:
    more = [SERVERS["sliding log"](4 * limit, period, 0.4) for limit, period in DOCUMENTED]
    sender = InRedis(wire, DOCUMENTED, "any-generous", processes=2)
    server = Server(more, headers=True)
    outcome = World(sender, server, NETWORKS["jittered"], seed=3).run(380)
    assert not outcome.refused
    assert outcome.makespan < 60
    learnt = [window.learnt for window in sender.stores[0].snapshot(0)]
    assert [each.stated for each in learnt if each] == [400, 4000]


# ─── in real time ─────────────────────────────────────────────────────────────────────────


def limiter_of(redis: RedisServer, *limits: str, policy: str = "any") -> RedisLimiter:
    return RedisLimiter(redis.url, "n", limits or ["100/minute"], reserve=0, policy=policy)  # type: ignore[arg-type]


async def call(limiter: Limiter, *reports: RateLimitSnapshot, refused: float | None = None) -> None:
    with anyio.fail_after(10):
        permit = await limiter.acquire()
    permit.sent()
    if refused is None:
        permit.settle(reports=reports)
    else:
        permit.refused(refused)
    permit.release()


def learnt(limiter: Limiter) -> Learnt:
    found = limiter.snapshot().windows[0].learnt
    assert found is not None
    return found


async def until_told(redis: RedisServer, changes: int = 1) -> None:
    with anyio.fail_after(10):
        while not (said := redis.say("HGET", STATE, "changed")).isdigit() or int(said) < changes:
            await anyio.sleep(0.005)


LITTLE = RateLimitSnapshot(limit=100, remaining=9)


async def test_what_one_learns_the_others_know_before_they_send(redis: RedisServer) -> None:
    one, other = limiter_of(redis), limiter_of(redis)
    await call(one, LITTLE)
    await until_told(redis)
    permit = await other.acquire()
    assert learnt(other) == learnt(one)
    assert learnt(other).reported
    assert learnt(other).burst == 8
    permit.release()


CREDIT = "credit:60080000"


async def test_what_the_server_said_it_takes_is_had_less_what_was_granted_since(
    redis: RedisServer,
) -> None:
    one, other = limiter_of(redis), limiter_of(redis)
    await call(one, RateLimitSnapshot(limit=100, remaining=60))
    await until_told(redis)
    with anyio.fail_after(10):
        while redis.say("HGET", STATE, CREDIT).split()[:2] != [b"60", b"1"]:
            await anyio.sleep(0.005)
    await call(other)
    assert redis.say("HGET", STATE, "granted") == b"2"
    store = one._line.store
    assert isinstance(store, RedisStore)
    with one._line.lock:  # of a while in which Redis was not to be had
        store._tell(("put", "elsewhere|requests=3", one._line.clock()))
    with anyio.fail_after(10):
        while redis.say("HGET", STATE, "granted") != b"5":
            await anyio.sleep(0.005)
    permit = await other.acquire()
    permit.sent()
    permit.settle(reports=[RateLimitSnapshot(limit=100, remaining=54)])
    permit.refused()
    with anyio.fail_after(10):
        while redis.say("HGET", STATE, CREDIT) != b"$-1":
            await anyio.sleep(0.005)
    permit.release()


async def test_what_was_said_of_requests_that_redis_has_forgotten_is_no_credit(
    redis: RedisServer,
) -> None:
    one = limiter_of(redis, "100/minute", "100/0.1s")
    await call(one, RateLimitSnapshot(limit=100, remaining=99, period_s=60.0))
    await until_told(redis)
    with anyio.fail_after(10):
        permits = [await one.acquire() for _ in range(2)]
    redis.say("FLUSHALL")
    for permit in permits:
        permit.sent()
        permit.settle(reports=[RateLimitSnapshot(limit=100, remaining=97, period_s=60.0)])
        permit.release()
        await anyio.sleep(0.1)  # until Redis has heard of it
    assert redis.say("HGET", STATE, "granted") == b"3"
    assert redis.say("HGET", STATE, CREDIT) == b"$-1"


async def test_answers_that_go_on_are_no_requests_on_their_way(redis: RedisServer) -> None:
    """What a streamed answer holds until its end says nothing of how much was counted."""
    one = limiter_of(redis, "100/minute", "9 concurrent")
    permits = []
    with anyio.fail_after(10):
        for number in range(7):
            permits.append(permit := await one.acquire())
            permit.sent()
            reports = [RateLimitSnapshot(limit=100, remaining=40)] if number == 6 else []
            permit.settle(reports=reports)
    assert learnt(one).burst == 40 + 7 - 2  # itself, and what lies less far apart than was taken
    for permit in permits:
        permit.release()


def test_a_limit_that_is_tightened_is_the_users_whatever_the_server_states() -> None:
    limiter = RedisLimiter("redis://localhost:1", "n", ["100/minute"], policy="any-generous")
    store = limiter._line.store
    assert isinstance(store, RedisStore)
    store._pupil._learner.watches[0].regard(500, 0)
    limiter.tighten(["90/minute"])
    assert [window.limit.limit for window in limiter.snapshot().windows] == [500]
    assert [rate.limit for rate in store.limits] == [90]


async def test_nobody_is_given_a_unit_by_lessons_that_are_old(redis: RedisServer) -> None:
    one = limiter_of(redis)
    await call(one, RateLimitSnapshot(limit=100, remaining=99))
    await until_told(redis)
    lessons = msgspec.json.encode({"windows": {"100/minute": Learnt(burst=1, proven=1)}})
    redis.say("HSET", STATE, "lessons", lessons.decode(), "changed", "2")
    redis.say("HDEL", STATE, CREDIT)
    with pytest.raises(LimitWaitError):
        await one.acquire(deadline=anyio.current_time() + 0.2)
    assert learnt(one).burst == 1


async def test_what_a_killed_process_had_learnt_is_known_to_the_next(redis: RedisServer) -> None:
    source = (
        "import anyio, os, sys\n"
        "from fluence_async.contrib.redis import RedisLimiter\n"
        "from fluence_async.meta import RateLimitSnapshot\n"
        "async def main():\n"
        "    one = RedisLimiter(sys.argv[1], 'n', ['100/minute'], reserve=0, policy='any')\n"
        "    permit = await one.acquire()\n"
        "    permit.sent()\n"
        "    permit.settle(reports=[RateLimitSnapshot(limit=100, remaining=9)])\n"
        "    await anyio.sleep_forever()\n"
        "anyio.run(main)\n"
    )
    command = [sys.executable, "-c", source, redis.url]
    async with await anyio.open_process(command, cwd=Path(__file__).parents[2]) as process:
        await until_told(redis)
        process.kill()
    other = limiter_of(redis)
    await call(other)
    assert learnt(other).burst == 8


async def test_a_redis_that_has_forgotten_is_told_again(redis: RedisServer) -> None:
    one, other = limiter_of(redis, "100/second"), limiter_of(redis, "100/second")
    await call(one, LITTLE)
    await until_told(redis)
    redis.say("FLUSHALL")
    await call(one)
    await until_told(redis)
    await call(other)
    assert learnt(other).reported


NONSENSE = [
    "{",
    "[]",
    '{"windows": 5}',
    '{"windows": {"100/minute": {"burst": -1}}}',
    '{"windows": {"100/minute": {"burst": 10000000}}}',
    '{"windows": {"100/minute": {"withheld": 100}}}',
    '{"taught_at": 9e30}',
    '{"taught_at": 4611686018427387904, "pause": 4611686018427387904}',
]


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_lessons_that_cannot_be_are_forgotten(nonsense: str, redis: RedisServer) -> None:
    redis.say("HSET", STATE, "lessons", nonsense, "changed", "7", "epoch", "e")
    one, other = limiter_of(redis), limiter_of(redis)
    await call(one)
    assert learnt(one).withheld == 0
    assert 1 <= learnt(one).burst <= 100
    await call(one, LITTLE)
    await until_told(redis, 8)
    await call(other)
    assert learnt(other).reported


async def test_who_looks_sees_what_was_learnt(redis: RedisServer) -> None:
    one, outside = limiter_of(redis), RedisLook(redis.url, "n", ["100/minute"])
    assert (await outside.look()).windows[0].learnt is None
    await call(one, LITTLE)
    await until_told(redis)
    (seen,) = (await outside.look()).windows
    assert seen.learnt is not None
    assert (seen.learnt.reported, seen.learnt.burst) == (True, learnt(one).burst)
    assert (await one.look()).windows[0].learnt == seen.learnt
    later = time.time_ns() + 30_000_000_000
    known = Learnt(burst=100, withheld=5, restore_at=later, restore_in=60_000_000_000)
    lessons = msgspec.json.encode({"windows": {"100/minute": known}}).decode()
    redis.say("HSET", STATE, "lessons", lessons, "changed", "9")
    (seen,) = (await outside.look()).windows
    assert seen.outlook is not None
    assert (seen.used, seen.outlook.in_flight, seen.left) == (1, 0, 94)
    await call(one)
    assert one.snapshot().windows[0].left == (await outside.look()).windows[0].left == 93


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_lessons_that_cannot_be_are_not_shown(nonsense: str, redis: RedisServer) -> None:
    redis.say("HSET", STATE, "lessons", nonsense, "changed", "7", "epoch", "e")
    (seen,) = (await RedisLook(redis.url, "n", ["100/minute"]).look()).windows
    assert (seen.left, seen.learnt) == (100, None)
    assert redis.say("HGET", STATE, "lessons").decode().endswith(nonsense)


async def test_one_that_learns_nothing_shares_the_units_and_leaves_the_lessons(
    redis: RedisServer,
) -> None:
    plain, pupil = limiter_of(redis, policy="window"), limiter_of(redis)
    await call(pupil, LITTLE)
    await until_told(redis)
    before = redis.say("HGET", STATE, "lessons")
    await call(plain)
    assert plain.snapshot().windows[0].used == 2
    assert plain.snapshot().windows[0].learnt is None
    assert (await plain.look()).windows[0].learnt is None
    assert redis.say("HGET", STATE, "lessons") == before


async def test_a_429_pauses_all_once(redis: RedisServer) -> None:
    one, other = limiter_of(redis), limiter_of(redis)
    await call(one, LITTLE)
    await call(other)
    begun = time.monotonic()
    permit = await one.acquire()
    permit.sent()
    permit.refused(1.0)
    permit.refused(1.0)
    permit.release()
    await anyio.sleep(0.1)  # until Redis has heard of it
    with anyio.fail_after(5), pytest.raises(LimitWaitError):
        await other.acquire(deadline=anyio.current_time() + 0.3)
    await call(other)
    assert 1.0 <= time.monotonic() - begun < 2.5


def test_a_policy_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="policy='some'"):
        RedisLimiter("redis://x", "n", policy="some")  # type: ignore[arg-type]
