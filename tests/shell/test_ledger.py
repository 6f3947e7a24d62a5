"""The ledger: sums that outlive the process, kept by several at once, and never in the way."""

from __future__ import annotations

import logging
import math
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from fluence_async import FluenceSession, Meta, Price, Usage, UsageTotals
from fluence_async import ledger as ledgers
from fluence_async._own_database import OwnConnection
from fluence_async.ledger import Ledger, LedgerEntry, _opened, default_path, read_ledger
from tests.shell.scripted import ScriptedTransport
from tests.shell.test_exchange import GOOD

pytestmark = pytest.mark.anyio

DAY = 86_400.0
USAGE = Usage(prompt_tokens=3, completion_tokens=2)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "of" / "its" / "own" / "usage.sqlite3"


def count(ledger: Ledger, *, at: float = 0.0, model: str = "m", **tags: str) -> None:
    ledger.count(at, model, Meta(attempts=1, tags=tags), USAGE, 0.5, estimated=False, failed=False)


def calls(path: Path) -> int:
    return sum(entry.totals.calls for entry in read_ledger(path))


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.005)


def writers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fluence usage ledger"]


# ─── what is in it ────────────────────────────────────────────────────────────────────────


async def test_a_session_keeps_what_its_calls_cost(path: Path) -> None:
    for tags in ({"tenant": "a"}, {}, {"tenant": "a"}):
        async with FluenceSession(
            api_key="k",
            limiter=None,
            ledger=path,
            prices={"m": Price(prompt=1e6, completion=1e6)},
            transport=lambda: ScriptedTransport(GOOD),
        ) as fluence:
            await fluence.chat.completions.create(model="m", messages="hi", tags=tags)
            await fluence.chat.completions.create(model="other", messages="hi")
    entries = read_ledger(path)
    assert [
        (entry.model, entry.tags, entry.totals.calls, entry.totals.cost) for entry in entries
    ] == [
        ("m", {"tenant": "a"}, 2, 4.0),
        ("m", {}, 1, 2.0),
        ("other", {}, 3, 0.0),
    ]


async def test_sums_are_by_day_of_utc_model_and_tags(path: Path) -> None:
    ledger = Ledger(path)
    count(ledger, at=DAY - 1, a="1", b="2")
    count(ledger, at=DAY - 0.5, b="2", a="1")
    count(ledger, at=DAY)
    await ledger.aclose()
    count(ledger, at=DAY)
    await ledger.aclose()
    once = UsageTotals(calls=1, requests=1, prompt_tokens=3, completion_tokens=2, cost=0.5)
    twice = UsageTotals(calls=2, requests=2, prompt_tokens=6, completion_tokens=4, cost=1.0)
    first = LedgerEntry(day="1970-01-01", model="m", tags={"a": "1", "b": "2"}, totals=twice)
    second = LedgerEntry(day="1970-01-02", model="m", tags={}, totals=twice)
    assert once != twice
    assert read_ledger(path) == [first, second]
    assert read_ledger(path, since="1970-01-02") == [second]


async def test_it_is_written_while_the_session_is_open(path: Path) -> None:
    ledger = Ledger(path)
    count(ledger)
    await until(path.exists)
    await until(lambda: not writers())
    assert calls(path) == 1
    await ledger.aclose()


def test_only_its_owner_may_read_it(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.touch(mode=0o644)
    ledger = Ledger(path)
    count(ledger)
    ledger._write()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_its_default_place_is_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_STATE_HOME", "/of/mine")
    assert default_path() == Path("/of/mine/fluence/usage.sqlite3")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_path() == Path.home() / ".local/state/fluence/usage.sqlite3"


async def test_true_is_the_default_place(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(path))
    monkeypatch.setattr("sys.platform", "linux")
    async with FluenceSession(
        api_key="k", limiter=None, ledger=True, transport=lambda: ScriptedTransport(GOOD)
    ) as fluence:
        await fluence.chat.completions.create(model="m", messages="hi")
    assert [entry.model for entry in read_ledger()] == ["m"]


# ─── reading ──────────────────────────────────────────────────────────────────────────────


def test_where_there_is_none_it_says_how_to_keep_one(path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no ledger at .*ledger=True"):
        read_ledger(path)
    assert not path.parent.exists()


def test_what_is_no_ledger_is_named(tmp_path: Path) -> None:
    text, other = tmp_path / "text", tmp_path / "other"
    text.write_text("no database, and long enough to be sure of it" * 100)
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE usage (day)")
    connection.close()
    for file in (text, other):
        before = file.read_bytes()
        with pytest.raises(ValueError, match=f"{file}"):
            read_ledger(file)
        assert file.read_bytes() == before


@pytest.mark.parametrize("kind", ["text", "zeros", "database", "another's", "log"])
def test_what_is_no_ledger_is_left_as_it_is(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "l.md"
    if kind in ("text", "zeros"):
        path.write_bytes(b"# Notes\n" * 100 if kind == "text" else bytes(4096))
    else:
        other = sqlite3.connect(tmp_path / "other")
        if kind == "log":  # as a kill leaves it: who opened it would write the log into it
            other.execute("PRAGMA journal_mode = WAL")
        if kind == "another's":
            other.execute("PRAGMA application_id = 7")
        other.execute("CREATE TABLE things (thing)")
        other.commit()
        for part in ("", "-wal", "-shm") if kind == "log" else ("",):
            Path(f"{tmp_path}/other{part}").rename(f"{path}{part}")
        other.close()
    path.chmod(0o664)
    before = _states(tmp_path)
    ledger = Ledger(path)
    count(ledger)
    ledger._write()
    with pytest.raises(ValueError, match=r"no ledger.*another path"):
        read_ledger(path)
    assert _states(tmp_path) == before
    assert str(path) in caplog.text
    assert "name another path" in caplog.text


def _states(folder: Path) -> dict[str, tuple[bytes, int, int]]:
    return {
        path.name: (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
        for path in folder.iterdir()
    }


def test_a_row_that_makes_no_sense_is_a_value_error(path: Path) -> None:
    ledger = Ledger(path)
    count(ledger)
    anyio.run(ledger.aclose)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE usage SET calls = 'many'")
    connection.close()
    with pytest.raises(ValueError, match="cannot be read"):
        read_ledger(path)


# ─── never in the way ─────────────────────────────────────────────────────────────────────


def unwritable(path: Path, how: str) -> Callable[[], None]:
    """Make a file that cannot be written; returns what mends it."""
    path.parent.mkdir(parents=True)
    if how == "a directory":
        path.mkdir()
        return path.rmdir
    if how == "another program's":
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE things (thing)")
        connection.close()
        return path.unlink
    if how == "damaged":
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 5_000)
        return path.unlink
    ledger = Ledger(path)
    count(ledger)
    ledger._write()
    locking = sqlite3.connect(path, isolation_level=None)
    locking.execute("DELETE FROM usage")
    locking.execute("BEGIN EXCLUSIVE")
    return locking.close


@pytest.mark.parametrize("how", ["a directory", "another program's", "damaged", "locked"])
async def test_a_file_that_cannot_be_written_is_a_warning_and_tried_again(
    how: str, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_BUSY_S", 0.01)
    mend = unwritable(path, how)
    async with FluenceSession(
        api_key="k", limiter=None, ledger=path, transport=lambda: ScriptedTransport(GOOD)
    ) as fluence:
        for _ in range(3):
            await fluence.chat.completions.create(model="m", messages="hi")
        await until(lambda: caplog.records and not writers())
        await fluence.chat.completions.create(model="m", messages="hi")
        assert not writers()  # not tried again at once
        mend()
    warned = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(warned) == 1
    assert str(path) in warned[0].getMessage()
    assert calls(path) == 4


async def test_a_full_disk_loses_nothing_that_was_written(
    path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cramped(OwnConnection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.execute("PRAGMA max_page_count = 8")

    monkeypatch.setattr(ledgers, "OwnConnection", Cramped)
    ledger = Ledger(path)
    ledger._not_before = math.inf  # nobody else writes meanwhile
    count(ledger)
    ledger._write()
    for number in range(500):
        count(ledger, model=f"{number}" * 30)
    ledger._write()
    assert "full" in caplog.text
    assert calls(path) == 1
    monkeypatch.undo()
    await ledger.aclose()
    assert calls(path) == 501


def test_what_nobody_can_write_does_not_grow_for_ever(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_MANY_ROWS", 10)
    path.mkdir(parents=True)
    ledger = Ledger(path)
    for number in range(20):
        count(ledger, model=str(number))
    assert len(ledger._sums) == 10


async def test_a_closed_session_leaves_no_thread_and_no_open_file(path: Path) -> None:
    ledger = Ledger(path)
    for _ in range(100):
        count(ledger)
    await ledger.aclose()
    await until(lambda: not writers())
    assert calls(path) == 100
    assert sorted(file.name for file in path.parent.iterdir()) == ["usage.sqlite3"]


async def test_counting_goes_on_while_it_is_written(path: Path) -> None:
    ledger = Ledger(path)

    def counting() -> None:
        for number in range(2_000):
            count(ledger, model=str(number % 7))

    threads = [threading.Thread(target=counting) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await anyio.to_thread.run_sync(thread.join)
    await ledger.aclose()
    assert calls(path) == 8_000


# ─── several processes, and their ends ────────────────────────────────────────────────────

COUNTING = """
import sys, time
from fluence_async import Meta, Usage
from fluence_async.ledger import Ledger
ledger = Ledger(sys.argv[1])
for number in range(int(sys.argv[2])):
    usage = Usage(prompt_tokens=3, completion_tokens=2)
    ledger.count(0.0, str(number % 50), Meta(attempts=1), usage, 0.5, estimated=False, failed=False)
    if number % 20 == 0:
        time.sleep(0.002)
"""


def counting(path: Path, number: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-W", "error", "-c", COUNTING, str(path), str(number)]
    return subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_several_processes_add_up_and_none_needs_to_close_it(path: Path) -> None:
    processes = [counting(path, 500) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    assert calls(path) == 2_000


def test_a_kill_leaves_whole_sums(path: Path) -> None:
    for round_ in range(5):
        before = calls(path) if round_ else 0
        process = counting(path, 10**9)
        try:
            while not _readable(path) or calls(path) == before:
                assert process.poll() is None
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(10)
        for entry in read_ledger(path):
            assert entry.totals.prompt_tokens == 3 * entry.totals.calls
            assert entry.totals.cost == 0.5 * entry.totals.calls


def _readable(path: Path) -> bool:
    try:
        read_ledger(path)
    except (FileNotFoundError, ValueError):  # it is just being made
        return False
    return True


def test_who_reads_it_here_does_not_cost_the_writer_its_locks(path: Path) -> None:
    """Another process would take itself for the last one then, and delete the log."""
    ledger = Ledger(path)
    count(ledger)
    ledger._write()
    reading = "import sys; from fluence_async.ledger import read_ledger; read_ledger(sys.argv[1])"
    with _opened(path, new=True):
        assert calls(path) == 1
        subprocess.run([sys.executable, "-c", reading, str(path)], cwd=ROOT, check=True)
        assert Path(f"{path}-wal").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_fork_counts_for_itself_and_its_parent_for_itself(path: Path) -> None:
    ledger = Ledger(path)
    ledger._writing = True  # as if the writer were just about to
    for _ in range(3):
        count(ledger)
    child = os.fork()
    if not child:
        count(ledger)
        ledger._write()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    ledger._write()
    assert calls(path) == 4
