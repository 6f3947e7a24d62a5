"""The stores: the contract that both keep, their bounds, and what damage to a file may lead to."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from fluence_async._own_database import OwnConnection, make
from fluence_async._sansio.caching import CacheKey, seal
from fluence_async._sansio.caching import Recording as Kept
from fluence_async.cache import CacheStore, MemoryCache, SqliteCache, sqlite
from fluence_async.cache.cache import Cache
from fluence_async.testing.cache_contract import CHECKS, Check

KILLS = int(os.environ.get("FLUENCE_TEST_KILLS", "20"))
FLIPS = int(os.environ.get("FLUENCE_TEST_FLIPS", "50"))
HOUR = 3600.0


def keyed(n: int) -> CacheKey:
    return CacheKey(f"{n:064x}", b"%032d" % n)


def body(n: int) -> bytes:
    return b"the answer to %d. " % n * (1 + n % 7 * 40)


async def write(cache: Cache, n: int) -> None:
    await cache.write(keyed(n), body(n), ttl_s=HOUR, streamed=False, request_id=None)


async def read(cache: Cache, n: int) -> bytes | None:
    recording = await cache.read(keyed(n), HOUR)
    return None if recording is None else recording.body


class Clock:
    """What a process reads as the time; moved by hand."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def time(self) -> float:
        return self.now


# ─── the contract ─────────────────────────────────────────────────────────────────────────


@pytest.mark.anyio
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_the_contract(kind: str, check: Check, tmp_path: Path) -> None:
    opened: list[Path] = []

    def store() -> CacheStore:
        opened.append(tmp_path / f"{len(opened)}.sqlite3")
        return SqliteCache(opened[-1])

    await check(MemoryCache if kind == "memory" else store)


@pytest.mark.parametrize("make", [MemoryCache, SqliteCache])
@pytest.mark.parametrize("bounds", [{"max_bytes": 0}, {"ttl_s": 0}, {"ttl_s": float("inf")}])
def test_a_bound_that_cannot_work_is_refused(
    make: Callable[..., CacheStore], bounds: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match=next(iter(bounds))):
        make(**bounds)


# ─── memory ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_memory_forgets_what_was_not_used_for_longest() -> None:
    store = MemoryCache(max_bytes=3 * 1400)
    for name in "abc":
        await store.put(name, b"x" * 1000, HOUR)
    await store.get("a")
    await store.put("d", b"x" * 1000, HOUR)
    assert [name for name in "abcd" if await store.get(name)] == ["a", "c", "d"]
    await store.put("e", b"x" * 5000, HOUR)
    assert await store.get("e") is None, "larger than the whole store"
    assert [name for name in "abcd" if await store.get(name)] == ["a", "c", "d"]


@pytest.mark.anyio
async def test_memory_counts_what_it_holds_through_every_change() -> None:
    store = MemoryCache(max_bytes=50_000)
    chance = random.Random(1)
    for _ in range(2000):
        name = f"k{chance.randrange(40)}"
        if chance.random() < 0.2:
            await store.delete(name)
        else:
            await store.put(name, b"x" * chance.randrange(4000), chance.choice([0.0, HOUR]))
        await store.get(f"k{chance.randrange(40)}")
        held = sum(len(value) + 400 for value, _ in store._entries.values())
        assert held == store._bytes <= 50_000


# ─── SQLite: the file ─────────────────────────────────────────────────────────────────────


@pytest.mark.anyio
@pytest.mark.skipif(os.name != "posix", reason="the rights of POSIX")
async def test_only_its_owner_can_read_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    before = os.umask(0)
    try:
        store = SqliteCache()
        await store.put("a", b"1", HOUR)
        files = sorted((tmp_path / "fluence").iterdir())
        rights = {stat.S_IMODE(file.stat().st_mode) for file in files}
        assert files[0].name == "answers.sqlite3"
        assert len(files) == 3
        assert rights == {0o600}
        assert stat.S_IMODE((tmp_path / "fluence").stat().st_mode) == 0o700
        await store.aclose()
        files[0].chmod(0o644)
        await store.get("a")
        assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
        await store.aclose()
    finally:
        os.umask(before)


@pytest.mark.anyio
async def test_the_file_outlives_its_store_and_is_shared(tmp_path: Path) -> None:
    first, second = SqliteCache(tmp_path / "c"), SqliteCache(tmp_path / "c")
    await first.put("a", b"1", HOUR)
    assert await second.get("a") == b"1"
    await first.aclose()
    await second.aclose()
    third = SqliteCache(tmp_path / "c")
    assert await third.get("a") == b"1"
    await third.aclose()


@pytest.mark.anyio
async def test_the_file_stays_within_its_bound_and_the_least_used_go(tmp_path: Path) -> None:
    store = SqliteCache(tmp_path / "c", max_bytes=2**20)
    await store.put("kept", b"x" * 10_000, HOUR)
    await store.put("gone", b"x" * 10_000, HOUR)
    for n in range(200):
        await store.put(f"k{n}", b"x" * 10_000, HOUR)
        if n % 20 == 0:  # a hit a minute is as exactly as use is known
            with sqlite3.connect(tmp_path / "c") as other:
                other.execute("UPDATE answers SET used = used - 100")
            other.close()
            assert await store.get("kept") is not None
    assert await store.get("gone") is None
    assert await store.get("k199") is not None
    await store.put("huge", b"x" * 2**21, HOUR)
    assert await store.get("huge") is None
    await store.aclose()
    assert (tmp_path / "c").stat().st_size <= 2**20 + 2**18


@pytest.mark.anyio
async def test_one_store_serves_several_loops_one_after_another(tmp_path: Path) -> None:
    store = SqliteCache(tmp_path / "c")

    async def use() -> bytes | None:
        await store.put("a", b"1", HOUR)
        return await store.get("a")

    def elsewhere() -> list[bytes | None]:
        return [anyio.run(use, backend=backend) for backend in ("asyncio", "trio", "asyncio")]

    assert await use() == b"1"
    assert await anyio.to_thread.run_sync(elsewhere) == [b"1"] * 3
    await store.aclose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_opens_the_file_for_itself(tmp_path: Path) -> None:
    store = SqliteCache(tmp_path / "c")

    async def use(key: str) -> bool:
        await store.put(key, b"1", HOUR)
        return await store.get("parent") == b"1"

    assert anyio.run(use, "parent")
    child = os.fork()
    if child == 0:  # pragma: no cover - measured in the parent only
        code = 1
        try:
            code = 0 if anyio.run(use, "child") else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert anyio.run(use, "after")
    assert anyio.run(store.get, "child") == b"1"
    anyio.run(store.aclose)


# ─── SQLite: what goes wrong ──────────────────────────────────────────────────────────────


def warnings_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.anyio
async def test_a_damaged_file_is_put_aside_and_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "c"
    store = SqliteCache(path)
    await store.put("a", b"1", HOUR)
    await store.aclose()
    path.write_bytes(path.read_bytes()[:100] + b"this is no database" * 1000)
    assert await store.get("a") is None
    await store.put("a", b"1", HOUR)
    assert await store.get("a") == b"1"
    await store.aclose()
    assert b"this is no database" in (tmp_path / "c.broken").read_bytes()
    assert "begun anew" in warnings_in(caplog)[0]


def _text(path: Path) -> None:
    path.write_bytes(b"x" * 900)


def _zeros(path: Path) -> None:
    path.write_bytes(bytes(9000))


def _short(path: Path) -> None:
    path.write_bytes(b"\n")


def _database(path: Path, *before: str) -> None:
    with sqlite3.connect(path) as theirs:
        for statement in (*before, "CREATE TABLE precious (id)"):
            theirs.execute(statement)
    theirs.close()


def _database_with_a_number(path: Path) -> None:
    _database(path, "PRAGMA application_id = 7")


def _database_with_a_log(path: Path) -> None:
    """As a kill leaves it: who opened it would write the log into it."""
    live = path.with_name("live")
    theirs = sqlite3.connect(live)
    theirs.execute("PRAGMA journal_mode = WAL")
    theirs.execute("CREATE TABLE precious (id)")
    theirs.commit()
    for part in ("", "-wal", "-shm"):
        Path(f"{live}{part}").rename(f"{path}{part}")
    theirs.close()


FOREIGN = [_text, _zeros, _short, _database, _database_with_a_number, _database_with_a_log]


def states(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    """Every file of it: what is in it, its rights, when it was written."""
    found = {}
    for path in folder.iterdir():
        status = path.stat()
        found[path.name] = (path.read_bytes(), status.st_mode, status.st_mtime_ns)
    return found


@pytest.mark.anyio
@pytest.mark.parametrize("make", FOREIGN)
async def test_what_never_was_a_cache_is_left_as_it_is(
    make: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "theirs.md"
    make(path)
    path.chmod(0o664)
    before = states(tmp_path)
    store = SqliteCache(path)
    cache = Cache(store)
    for _ in range(3):
        await write(cache, 1)
        assert await read(cache, 1) is None
    await store.aclose()
    assert states(tmp_path) == before
    (warning,) = warnings_in(caplog)
    assert "another program's" in warning
    assert f"{path}" in warning
    assert "choose another path" in warning


@pytest.mark.anyio
async def test_what_is_written_over_an_open_cache_is_not_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "c"
    store = SqliteCache(path)
    await store.put("a", b"1", HOUR)
    await store.aclose()
    await store.get("a")
    path.write_bytes(b"# My notes\n" * 1000)  # in the very file
    with pytest.raises(OSError, match="left as it is"):
        for _ in range(5):
            await store.put("b", b"2" * 100_000, HOUR)
            await store.aclose()
    assert path.read_bytes().startswith(b"# My notes")
    assert not (tmp_path / "c.broken").exists()


@pytest.mark.anyio
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
async def test_what_is_no_plain_file_is_left_alone_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o644)
    with pytest.raises(OSError, match="left as it is"):
        await SqliteCache(tmp_path / "pipe").get("a")
    assert stat.S_IMODE((tmp_path / "pipe").stat().st_mode) == 0o644


@pytest.mark.anyio
@pytest.mark.parametrize("make", [_text, _zeros, _database])
async def test_in_its_default_place_it_is_begun_anew_whatever_is_there(
    make: Callable[[Path], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "platform", "linux")
    path = tmp_path / "fluence" / "answers.sqlite3"
    path.parent.mkdir()
    make(path)
    before = path.read_bytes()
    store = SqliteCache()
    await store.put("a", b"1", HOUR)
    assert await store.get("a") == b"1"
    await store.aclose()
    assert path.with_name("answers.sqlite3.broken").read_bytes() == before
    assert "begun anew" in warnings_in(caplog)[0]


@pytest.mark.anyio
async def test_a_cache_says_that_it_is_one_from_its_first_transaction_on(tmp_path: Path) -> None:
    """Also while all else is still in its log, as a kill would leave it."""
    store = SqliteCache(tmp_path / "c")
    await store.get("a")
    shutil.copy(tmp_path / "c", tmp_path / "killed")
    await store.aclose()
    again = SqliteCache(tmp_path / "killed")
    await again.put("a", b"1", HOUR)
    assert await again.get("a") == b"1"
    await again.aclose()


@pytest.mark.anyio
async def test_a_full_store_is_a_miss_and_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteCache(tmp_path / "c")
    cache = Cache(store)
    await write(cache, 0)
    assert store._connection is not None
    (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
    store._connection.execute(f"PRAGMA max_page_count = {pages + 4}")
    for n in range(1, 60):
        await write(cache, n)
    found = [n for n in range(60) if await read(cache, n) == body(n)]
    assert 0 < len(found) < 60
    assert [await read(cache, n) for n in range(60) if n not in found] == [None] * (60 - len(found))
    assert "full" in warnings_in(caplog)[0]
    await store.aclose()


@pytest.mark.anyio
async def test_a_locked_file_is_a_miss_and_no_long_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteCache(tmp_path / "c")
    cache = Cache(store)
    await write(cache, 1)
    other = sqlite3.connect(tmp_path / "c", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    began = anyio.current_time()
    await write(cache, 2)
    assert anyio.current_time() - began < 1.5
    assert await read(cache, 1) == body(1), "a reader is not stopped by a writer"
    other.execute("ROLLBACK")
    other.close()
    assert "locked" in warnings_in(caplog)[0]
    await write(cache, 2)
    assert await read(cache, 2) == body(2)
    await store.aclose()


@pytest.mark.anyio
async def test_a_place_that_cannot_be_written_is_a_miss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    cache = Cache(SqliteCache(tmp_path / "file" / "c"))
    await write(cache, 1)
    assert await read(cache, 1) is None
    assert len(warnings_in(caplog)) == 1


class Hostile:
    """A store that returns what it likes."""

    ttl_s = HOUR

    def __init__(self, got: Any) -> None:
        self.got = got

    async def get(self, key: str) -> Any:
        if isinstance(self.got, BaseException):
            raise self.got
        return self.got

    async def put(self, key: str, value: bytes, ttl_s: float) -> None:
        await self.get(key)

    async def delete(self, key: str) -> None:
        await self.get(key)

    async def clear(self) -> None:
        await self.get("")

    async def aclose(self) -> None: ...


@pytest.mark.anyio
@pytest.mark.parametrize(
    "got",
    [b"", b"short", b"x" * 1000, "text", 7, OSError("no"), RecursionError(), MemoryError(),
     seal(Kept(0, HOUR, False, None, b"{}"), keyed(2))],
)  # fmt: skip
async def test_whatever_a_store_does_is_a_miss_and_a_warning(
    got: Any, caplog: pytest.LogCaptureFixture
) -> None:
    cache = Cache(Hostile(got))
    assert await read(cache, 1) is None
    await write(cache, 1)
    assert len(warnings_in(caplog)) == 1


@pytest.mark.anyio
async def test_an_answer_that_is_too_old_or_from_the_future_is_not_used() -> None:
    now = [1e9]
    cache = Cache(MemoryCache(), clock=lambda: now[0])
    await write(cache, 1)
    for later, fresh in ((0, True), (HOUR - 1, True), (HOUR + 1, False), (-10, False)):
        now[0] = 1e9 + later
        assert (await read(cache, 1) == body(1)) is fresh


def flipped(sound: Path, path: Path, chance: random.Random) -> int:
    """Copy a sound file and flip one of its bytes; which."""
    for part in ("", "-wal", "-shm"):
        Path(f"{path}{part}").unlink(missing_ok=True)
    shutil.copy(sound, path)
    data = bytearray(path.read_bytes())
    # Half of them where the database's own structure is: header, schema, b-trees' heads.
    low = chance.choice([0, 4096, 8192, 12288]) + chance.randrange(128)
    at = low if chance.random() < 0.5 else chance.randrange(len(data))
    data[at] ^= chance.randrange(1, 256)
    path.write_bytes(data)
    return at


@pytest.mark.anyio
async def test_flipped_bytes_never_make_a_wrong_answer_nor_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = tmp_path / "sound"
    store = SqliteCache(sound)
    for n in range(40):
        await write(Cache(store), n)
    await store.aclose()
    chance = random.Random(20261123)
    path = tmp_path / "c"
    lost = 0
    for _ in range(FLIPS):
        at = flipped(sound, path, chance)
        store = SqliteCache(path)
        cache = Cache(store)
        for n in range(40):
            got = await read(cache, n)
            assert got in (body(n), None), f"byte {at}"
            lost += got is None
        await write(cache, 41)
        assert await read(cache, 41) in (body(41), None)
        await store.aclose()
    assert lost, "some flips must have hit something"


VICTIM = """
import anyio, os, random, signal, sys, time
from tests.shell.test_cache_stores import Cache, SqliteCache, body, read, write
path, kills = sys.argv[1], int(sys.argv[2])

reader, writer = os.pipe()

async def write_for_ever():
    cache = Cache(SqliteCache(path, max_bytes=2**20))
    await write(cache, 0)
    os.write(writer, b".")
    while True:
        await write(cache, random.randrange(300))

async def check():
    store = SqliteCache(path, max_bytes=2**20)
    cache = Cache(store)
    found = 0
    for n in range(300):
        got = await read(cache, n)
        if got not in (body(n), None):
            return 3
        found += got is not None
    await write(cache, 7)
    sound = await read(cache, 7) == body(7)
    whole = store._connection.execute("PRAGMA integrity_check").fetchone() == (b"ok",)
    await store.aclose()
    return 0 if found and sound and whole else f"{found} {sound} {whole}"

def forked(work):
    child = os.fork()
    if child == 0:
        code = 5
        try:
            code = anyio.run(work)
            if isinstance(code, str):
                print(code, file=sys.stderr, flush=True)
                code = 4
        finally:
            os._exit(code)
    return child

for kill in range(kills):
    child = forked(write_for_ever)
    os.read(reader, 1)
    time.sleep(random.random() * 0.03)
    os.kill(child, signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    if kill % 5 == 4:
        status = os.waitstatus_to_exitcode(os.waitpid(forked(check), 0)[1])
        assert status == 0, (kill, status)
print("sound")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_kill_while_writing_leaves_every_answer_whole_or_absent(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", VICTIM, str(tmp_path / "c"), str(KILLS)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120 + KILLS,
    )
    assert (done.stdout, done.stderr) == ("sound\n", "")


# ─── several processes begin ──────────────────────────────────────────────────────────────

BEGINNING = """
import sys, anyio
from pathlib import Path
from fluence_async.cache import SqliteCache, sqlite
sqlite._BUSY_S = 10.0  # a slow disk is not what this is about

async def main():
    for number in range(int(sys.argv[2])):
        sys.stdin.readline()
        cache = SqliteCache(Path(sys.argv[1]) / str(number))
        print(int(await cache.lease("k", sys.argv[3].encode(), 20)), flush=True)
        await cache.aclose()

anyio.run(main)
"""


def test_processes_that_make_the_file_at_once_all_have_it_and_one_has_the_lease(
    tmp_path: Path,
) -> None:
    rounds = 40
    with contextlib.ExitStack() as ends:
        processes = [
            ends.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", BEGINNING, str(tmp_path), str(rounds), str(n)],
                    cwd=Path(__file__).parents[2],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    bufsize=0,
                )
            )
            for n in range(4)
        ]
        for _ in range(rounds):
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
            said = [process.stdout.readline() for process in processes if process.stdout]
            assert sorted(said) == [b"0\n", b"0\n", b"0\n", b"1\n"]
    assert [process.returncode for process in processes] == [0] * 4


ANOTHER = """
import sys, anyio
from fluence_async.cache import SqliteCache

async def main():
    cache = SqliteCache(sys.argv[1])
    if len(sys.argv) > 2:
        await cache.put(sys.argv[2], b"4", 100)
    print(*[key for key in ("mine", "theirs") if await cache.get(key)])
    await cache.aclose()

anyio.run(main)
"""


@pytest.mark.anyio
async def test_two_caches_of_a_process_and_another_process_lose_nothing(tmp_path: Path) -> None:
    """The second must not cost the first its locks: the other process would delete the log."""
    path = tmp_path / "shared.sqlite3"

    async def another(*puts: str) -> str:
        command = [sys.executable, "-c", ANOTHER, str(path), *puts]
        ended = await anyio.run_process(command, cwd=Path(__file__).parents[2])
        return ended.stdout.decode().strip()

    one, two = SqliteCache(path), SqliteCache(path)
    await one.put("a", b"1", 100)
    await two.put("b", b"2", 100)
    assert await another("theirs") == "theirs"
    await one.put("mine", b"3", 100)
    assert await another() == "mine theirs"
    for each in (one, two):
        await each.aclose()


def test_a_database_that_another_program_made_just_now_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "theirs.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as theirs:
        theirs.execute("CREATE TABLE theirs (x)")
    content = path.read_bytes()
    with contextlib.closing(OwnConnection(path, isolation_level=None)) as connection:
        assert not make(connection, 1, ["CREATE TABLE ours (x)"])
    assert path.read_bytes() == content


# ─── leases ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_a_lease_holds_against_whoever_read_the_clock_just_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who reads it first may be the last to get at the file; an hour is a clock set back."""
    monkeypatch.setattr(sqlite, "time", clock := Clock())
    one, other = (SqliteCache(tmp_path / "shared.sqlite3") for _ in range(2))
    assert await one.lease("k", b"one", 20)
    clock.now -= 0.25
    assert not await other.lease("k", b"other", 20)
    clock.now -= HOUR
    assert await other.lease("k", b"other", 20)
    assert not await one.lease("k", b"one", 20)
    clock.now += 20
    assert await one.lease("k", b"one", 20)
    for each in (one, other):
        await each.aclose()
