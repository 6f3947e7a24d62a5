"""The cache in a real Redis: what every store must do, and what a Redis may do to us."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from fluence_async import FluenceSession
from fluence_async.cache import LeasingStore
from fluence_async.cache.cache import Cache
from fluence_async.contrib.redis import RedisCache
from fluence_async.contrib.redis import cache as room
from fluence_async.testing.cache_contract import CHECKS, Check
from tests.contrib.redis_server import WHY_NOT, RedisServer
from tests.shell.scripted import ScriptedTransport
from tests.shell.test_cache_stores import body, read, write
from tests.shell.test_exchange import BODY, GOOD, answer

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)]
HOUR = 3600.0
HI: dict[str, Any] = {"model": "fluence-chat", "messages": "What is 6 times 7?"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis(shared: RedisServer) -> RedisServer:
    """The module's Redis, emptied."""
    shared.say("FLUSHALL")
    return shared


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that a test may ill-treat."""
    with RedisServer(tmp_path) as server:
        yield server


@pytest.fixture
def no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_REST_S", 0.0)


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Ours; coredis has a log of its own."""
    ours = [record for record in caplog.records if record.name == "fluence_async"]
    return [record.getMessage() for record in ours if record.levelno >= logging.WARNING]


# ─── the store ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_contract(check: Check, redis: RedisServer) -> None:
    made = 0

    def factory() -> RedisCache:
        nonlocal made
        made += 1
        return RedisCache(redis.url, prefix=f"{made}*[a]:")

    with anyio.fail_after(20):
        await check(factory)


async def test_redis_itself_forgets_what_has_expired(redis: RedisServer) -> None:
    store = RedisCache(redis.url)
    await store.put("a", b"1", 60)
    assert 0 < int(redis.say("PTTL", "fluence:a")[1:]) <= 60_000
    await store.lease("a", b"me", 5)
    assert 0 < int(redis.say("PTTL", "fluence:a:lease")[1:]) <= 5_000
    await store.aclose()


async def test_what_is_too_large_is_not_kept(redis: RedisServer) -> None:
    store = RedisCache(redis.url, max_bytes=10)
    await store.put("a", b"x" * 11, HOUR)
    assert redis.keys() == 0
    await store.aclose()


async def test_clearing_leaves_what_is_not_ours(redis: RedisServer) -> None:
    redis.say("SET", "theirs", "1")
    store = RedisCache(redis.url)
    await store.put("a", b"1", HOUR)
    await store.clear()
    assert (redis.keys(), redis.say("GET", "theirs")) == (1, b"1")
    await store.aclose()


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="redis://localhost"):
        RedisCache(url)


@pytest.mark.parametrize("bounds", [{"max_bytes": 0}, {"ttl_s": 0}, {"timeout_s": 0}])
def test_a_bound_that_cannot_work_is_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bounds))):
        RedisCache(**bounds)


async def test_the_password_is_nowhere_to_be_read(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        store = RedisCache("redis://user:hush@127.0.0.1:1/0", timeout_s=0.2)
        with pytest.raises(ConnectionError, match=r"127\.0\.0\.1:1") as raised:
            await store.get("a")
        await store.aclose()
    assert "hush" not in f"{store!r} {raised.value} {raised.value.__cause__} {caplog.text}"


async def test_one_store_serves_several_loops_one_after_another(redis: RedisServer) -> None:
    store = RedisCache(redis.url)

    async def use() -> bytes | None:
        await store.put("a", b"1", HOUR)
        return await store.get("a")

    def elsewhere() -> list[bytes | None]:
        return [anyio.run(use, backend=backend) for backend in ("asyncio", "trio", "asyncio")]

    assert await use() == b"1"
    assert await anyio.to_thread.run_sync(elsewhere) == [b"1"] * 3
    await store.aclose()


async def test_a_thousand_at_once_use_few_connections(redis: RedisServer) -> None:
    store = RedisCache(redis.url, timeout_s=60)  # a thousand answers take a busy machine a while
    found: list[bytes | None] = []

    async def use(n: int) -> None:
        await store.put(str(n), b"%d" % n, HOUR)
        found.append(await store.get(str(n)))

    async with anyio.create_task_group() as tasks:
        for n in range(1000):
            tasks.start_soon(use, n)
    assert sorted(found, key=str) == sorted((b"%d" % n for n in range(1000)), key=str)
    assert 0 < redis.clients() <= room._CONNECTIONS
    await store.aclose()


# ─── what a Redis may do ──────────────────────────────────────────────────────────────────


async def try_all(cache: Cache) -> None:
    """Use it as sessions do; whatever it does, nothing is raised and nothing is wrong."""
    for n in range(3):
        await write(cache, n)
        assert await read(cache, n) in (None, body(n))


async def test_a_redis_that_is_down_is_a_miss_and_a_warning(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture, no_rest: None
) -> None:
    store = RedisCache(own_redis.url)
    cache = Cache(store)
    await try_all(cache)
    own_redis.stop()
    await try_all(cache)
    assert len(warnings_in(caplog)) == 1
    assert "does not answer" in warnings_in(caplog)[0]
    own_redis.start()
    await write(cache, 1)
    assert await read(cache, 1) == body(1), "and it is used again when it is back"
    await store.aclose()


async def test_a_redis_that_is_slow_is_left_alone(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisCache(own_redis.url, timeout_s=0.1)
    cache = Cache(store)
    await write(cache, 0)
    own_redis.hold_still()
    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for n in range(100):
            tasks.start_soon(read, cache, n)
    first = anyio.current_time() - began
    await try_all(cache)
    assert anyio.current_time() - began - first < 0.1, "it is not asked again at once"
    assert first < 1.5
    assert len(warnings_in(caplog)) == 1
    own_redis.go_on()
    store._rests_until = 0.0
    assert await read(cache, 0) == body(0)
    await store.aclose()


async def test_a_redis_that_was_flushed_is_a_miss(
    redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisCache(redis.url)
    cache = Cache(store)
    await write(cache, 1)
    redis.say("FLUSHALL")
    assert await read(cache, 1) is None
    assert warnings_in(caplog) == []
    await store.aclose()


async def test_a_redis_that_is_full_is_a_warning_and_still_read(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisCache(own_redis.url)
    cache = Cache(store)
    await write(cache, 1)
    own_redis.say("CONFIG", "SET", "maxmemory-policy", "noeviction")
    own_redis.say("CONFIG", "SET", "maxmemory", "1")
    for n in range(2, 9):
        await write(cache, n)
        assert await read(cache, n) is None
    assert await read(cache, 1) == body(1)
    assert len(warnings_in(caplog)) == 1
    assert "memory" in warnings_in(caplog)[0]
    await store.aclose()


@pytest.mark.parametrize("kind", ["another value", "another type"])
async def test_a_value_that_is_not_ours_is_a_miss(
    kind: str, redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    store = RedisCache(redis.url)
    cache = Cache(store)
    name = f"fluence:{1:064x}"
    redis.say(*(("SET", name, "nonsense") if kind == "another value" else ("RPUSH", name, "a")))
    assert await read(cache, 1) is None
    assert len(warnings_in(caplog)) == 1
    await write(cache, 1)
    assert await read(cache, 1) == body(1)
    await store.aclose()


@pytest.fixture(
    params=[b"HTTP/1.1 400 Bad Request\r\n\r\n", b"$-5\r\n\xff\x00", b"+OK\r\n" * 9, b""]
)
def impostor(request: pytest.FixtureRequest) -> Iterator[int]:
    """The port of a server that is no Redis."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                with closing(listening.accept()[0]) as connection:
                    connection.recv(1000)
                    connection.sendall(request.param)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listening.getsockname()[1]
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(5)


async def test_what_is_no_redis_is_a_miss_and_a_warning(
    impostor: int, caplog: pytest.LogCaptureFixture, no_rest: None
) -> None:
    store = RedisCache(f"redis://127.0.0.1:{impostor}/0", timeout_s=0.3)
    with anyio.fail_after(20):
        await try_all(Cache(store))
        await store.aclose()
    assert len(warnings_in(caplog)) == 1


# ─── sessions ─────────────────────────────────────────────────────────────────────────────


async def test_a_session_opens_and_closes_the_redis_that_it_names(redis: RedisServer) -> None:
    for cached in (False, True):
        async with FluenceSession(
            api_key="k", limiter=None, cache=redis.url, transport=lambda: ScriptedTransport(GOOD)
        ) as fluence:
            got = await fluence.chat.completions.create(**HI)
            assert got.meta.cached is cached
            store = fluence._cache.store if fluence._cache else None
            assert isinstance(store, LeasingStore)
    assert redis.keys() == 1, "the answer, and no lease"


async def test_two_keys_and_two_origins_never_meet(redis: RedisServer) -> None:
    seen: list[tuple[str, str]] = []

    async def ask(fluence: FluenceSession, who: str) -> None:
        seen.append((who, (await fluence.chat.completions.create(**HI)).text))

    sessions = {}
    for place in ("here", "there"):
        for key in ("one", "two"):
            who = f"{key} at {place}"
            transport = ScriptedTransport(answer(BODY.replace(b"Hi", who.encode())))
            sessions[who] = FluenceSession(
                api_key=key,
                base_url=f"https://{place}.example/v1",
                limiter=None,
                cache=redis.url,
                transport=lambda transport=transport: transport,  # type: ignore[misc]
            )
    async with anyio.create_task_group() as tasks:
        for who, fluence in sessions.items():
            for _ in range(10):
                tasks.start_soon(ask, fluence, who)
    for who, fluence in sessions.items():
        await ask(fluence, who)
        await fluence.aclose()
    assert len(seen) == 44
    assert [pair for pair in seen if pair[0] != pair[1]] == []
