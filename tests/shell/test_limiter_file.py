"""Limits in a file: what outlives a process, a boot and a crash, and files that are not as they
should be."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from fluence_async import FluenceSession
from fluence_async._sansio import limits_file
from fluence_async._sansio.bucket import ARRIVED, NEVER, Bucket, Claim
from fluence_async._sansio.limits_file import (
    FILE_SIZE,
    NO_SLOT,
    SLOTS,
    SLOTS_AT,
    entry_at,
    slot_at,
)
from fluence_async._sansio.rate_limit import read_limits
from fluence_async.limiter import Limiter, _ledger, _mirror, limiter_name, memory
from fluence_async.limiter._ledger import Ledger
from fluence_async.limiter._process import this_process
from fluence_async.limiter._state import StateFile, state_path
from fluence_async.limiter.file import FileStore, open_store
from tests.shell.limiting import in_a_fork, left

S = 1_000_000_000
HOUR = 3600 * S
UNSEEN = 10 * S
LIMITS = ("10/minute", "20/hour")


class Time:
    """The clocks of a machine."""

    def __init__(self) -> None:
        self.boot = 1000 * S
        self.wall = 1_800_000_000 * S

    def go(self, seconds: float) -> None:
        self.boot += round(seconds * S)
        self.wall += round(seconds * S)


@pytest.fixture
def time_() -> Time:
    return Time()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "name.limits"


def store(path: Path, time_: Time, *limits: str) -> FileStore:
    bucket = Bucket(read_limits(limits or LIMITS), reserve=0, margin=0, drift=0, unseen=UNSEEN)
    return FileStore(path, bucket, UNSEEN, lambda: time_.boot, wall=lambda: time_.wall)


def take(store: Any, time_: Time) -> Claim | None:
    claim = Claim({"requests": 1})
    return None if store.take(claim, time_.boot, 0) else claim


def take_all(store: Any, time_: Time) -> list[Claim]:
    claims = []
    while (claim := take(store, time_)) is not None:
        claims.append(claim)
    return claims


def send(store: Any, time_: Time, count: int) -> None:
    for _ in range(count):
        claim = take(store, time_)
        assert claim is not None
        store.sent(claim)
        store.settle(claim, time_.boot)


def free(store: Any, time_: Time) -> list[int]:
    return [window.left for window in store.snapshot(time_.boot)]


def die(store: FileStore) -> None:
    """As if the process were gone."""
    assert store._ledger is not None
    store._ledger.close()
    store._ledger = None


def as_another_process(store: FileStore) -> FileStore:
    """One that the others will find dead: its number now belongs to a younger process."""
    assert store._ledger is not None
    store._ledger.process = this_process()._replace(started=1)
    return store


# ─── what it remembers ────────────────────────────────────────────────────────────────────


def test_what_a_program_sent_is_known_to_the_next_one(path: Path, time_: Time) -> None:
    first = store(path, time_)
    send(first, time_, 4)
    die(first)
    time_.go(30)
    second = store(path, time_)
    assert free(second, time_) == [6, 16]
    time_.go(31)
    assert free(second, time_) == [10, 16]
    time_.go(3600)
    assert free(store(path, time_), time_) == [10, 20]


def test_who_begins_reads_nothing_that_is_long_over(path: Path, time_: Time) -> None:
    for _ in range(30):
        send(store(path, time_, "100/second"), time_, 100)
        time_.go(2)
    last = store(path, time_, "100/second")
    assert free(last, time_) == [100]
    assert last._ledger is not None
    assert last._ledger.header.head - last._ledger.header.tail <= 100


def test_who_slept_while_the_ring_went_round_goes_on(
    path: Path, time_: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (limits_file, _ledger, _mirror):
        monkeypatch.setattr(module, "RING", 64)
    sleeper, other = store(path, time_, "10/second"), store(path, time_, "10/second")
    send(sleeper, time_, 3)
    for _ in range(20):
        time_.go(2)
        send(other, time_, 10)
    assert free(sleeper, time_) == [0]
    assert sleeper._mirror.epoch == other._mirror.epoch


def test_a_ring_that_is_full_forgets_nothing_that_counts(
    path: Path, time_: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (limits_file, _ledger, _mirror):
        monkeypatch.setattr(module, "RING", 128)
    of_tokens = ("50/hour", "1000 tokens/hour")
    talker = store(path, time_, *of_tokens)
    for _ in range(10):
        claim = Claim({"requests": 1, "tokens": 100})
        assert talker.take(claim, time_.boot, 0) == 0
        talker.settle(claim, time_.boot)
        talker.release(claim, time_.boot)
    for _ in range(5):
        time_.go(61)
        send(store(path, time_, "60/minute"), time_, 25)
    assert free(store(path, time_, *of_tokens), time_) == [0, 0]


def test_a_longer_window_than_before_remembers_all_that_is_there(path: Path, time_: Time) -> None:
    send(store(path, time_, "10/second"), time_, 10)
    time_.go(2)
    assert free(store(path, time_, "10/second"), time_) == [10]
    assert free(store(path, time_, "100/hour"), time_) == [90]


def test_limits_with_other_windows_and_dimensions_share_a_file(path: Path, time_: Time) -> None:
    one, other = store(path, time_), store(path, time_, "5/second", "100 tokens/minute")
    claim = Claim({"requests": 1, "tokens": 60})
    assert other.take(claim, time_.boot, 0) == 0
    send(one, time_, 3)
    other.settle(claim, time_.boot)
    other.release(claim, time_.boot, {"tokens": 80})
    assert free(one, time_) == [6, 16]
    assert free(other, time_) == [1, 20]
    assert free(store(path, time_, "100 tokens/hour", "9/hour"), time_) == [20, 5]


def test_a_pause_holds_all_and_outlives_who_was_told(path: Path, time_: Time) -> None:
    one, other = store(path, time_), store(path, time_)
    one.block(time_.boot + 5 * S)
    assert take(other, time_) is None
    die(one)
    time_.go(5.1)
    assert take(other, time_) is not None


# ─── whose turn it is ─────────────────────────────────────────────────────────────────────


def waiting(store: FileStore, time_: Time, lane: int = 0) -> Claim:
    claim = Claim({"requests": 1})
    claim.came = time_.boot
    assert store.take(claim, time_.boot, lane) > time_.boot
    time_.go(0.01)
    return claim


def test_who_came_first_is_served_first_whichever_process_asks_first(
    path: Path, time_: Time
) -> None:
    stores = [store(path, time_, "3/second") for _ in range(3)]
    send(stores[0], time_, 1)
    time_.go(0.3)
    send(stores[0], time_, 2)
    claims = [waiting(each, time_) for each in stores]
    time_.go(0.7)  # one is back
    served = [each.take(claim, time_.boot, 0) for each, claim in zip(stores, claims, strict=True)]
    assert served[0] == 0
    assert all(wake > time_.boot for wake in served[1:])
    late = store(path, time_, "3/second")
    time_.go(0.3)  # and two more
    assert take(late, time_) is None
    assert stores[2].take(claims[2], time_.boot, 0) == 0
    assert stores[1].take(claims[1], time_.boot, 0) == 0


def test_interactive_calls_of_any_process_go_before_batch_calls(path: Path, time_: Time) -> None:
    batch, chat = store(path, time_, "1/second"), store(path, time_, "1/second")
    send(batch, time_, 1)
    first, second = waiting(batch, time_, lane=1), waiting(chat, time_)
    time_.go(0.985)
    assert batch.take(first, time_.boot, 1) > time_.boot
    assert chat.take(second, time_.boot, 0) == 0


@pytest.mark.parametrize("ends", ["leaves", "dies"])
def test_who_leaves_the_line_holds_up_nobody(ends: str, path: Path, time_: Time) -> None:
    first, second = store(path, time_, "1/second"), store(path, time_, "1/second")
    send(first, time_, 1)
    gone, claim = waiting(first, time_), waiting(second, time_)
    if ends == "leaves":
        first.release(gone, time_.boot)
        time_.go(0.98)
    else:
        die(first)
        time_.go(2)
    assert second.take(claim, time_.boot, 0) == 0


# ─── who dies ─────────────────────────────────────────────────────────────────────────────


def test_what_a_killed_holder_had_sent_comes_back_when_it_can_no_longer_arrive(
    tmp_path: Path,
) -> None:
    path = tmp_path / "limits"
    options: dict[str, Any] = {"path": path, "margin_s": 0, "drift": 0, "unseen_s": 0.2}
    if (child := os.fork()) == 0:
        permits = [Limiter("3/0.1s", **options).acquire_nowait() for _ in range(3)]
        permits[0].sent()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    limiter = Limiter("3/0.1s", **options)
    assert left(limiter) == [0]
    killed = time.monotonic()
    permit = None
    while permit is None:
        assert time.monotonic() - killed < 20
        time.sleep(0.005)
        with suppress(anyio.WouldBlock):
            permit = limiter.acquire_nowait()
    assert time.monotonic() - killed >= 0.3 - 0.001
    assert left(limiter) == [2]


class Killed(BaseException):
    """Between two writes."""


def calls_of_a_victim(
    seed: int, store: FileStore, time_: Time, sent: list[int], costs: dict[str, int]
) -> None:
    """Some calls, each with an end of its own; and what each came to at least, of tokens."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 6)):
        claim = Claim(costs)
        if store.take(claim, time_.boot, 0):
            continue
        match chance.randrange(5):
            case 0:
                store.release(claim, time_.boot)
            case 1:
                store.sent(claim)
                sent.append(2)
                store.settle(claim, time_.boot)
            case 2:
                store.sent(claim)
                sent.append(2)
                store.release(claim, time_.boot)
            case 3:
                store.sent(claim)
                sent.append(1)
                store.settle(claim, time_.boot)
                store.release(claim, time_.boot, {"tokens": 1})
            case _:
                store.sent(claim)
                sent.append(2)
        time_.go(0.001)


@pytest.mark.parametrize("costs", [{"requests": 1}, {"requests": 1, "tokens": 2}], ids=len)
@pytest.mark.parametrize("seed", range(30))
def test_a_crash_at_any_write_frees_no_unit_too_early_and_loses_none(
    seed: int, costs: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = ("4/hour", "8 tokens/hour")[: len(costs)]
    write = StateFile.write
    crashed, at = True, 0
    while crashed:
        crashed, at, count = False, at + 1, 0

        def until_killed(self: StateFile, data: bytes, where: int, last: int = at) -> None:
            nonlocal count
            count += 1
            if count == last:
                raise Killed
            write(self, data, where)

        time_, sent, path = Time(), list[int](), tmp_path / str(at)
        neighbour = store(path, time_, *limits)
        send(neighbour, time_, 1)
        victim = as_another_process(store(path, time_, *limits))
        with monkeypatch.context() as patch:
            patch.setattr(StateFile, "write", until_killed)
            try:
                calls_of_a_victim(seed, victim, time_, sent, costs)
            except Killed:
                crashed = True
        die(victim)
        for survivor in (neighbour, store(path, time_, *limits)):
            claims = take_all(survivor, time_)  # the last of them looks for the dead
            assert len(claims) <= 4 - 1 - len(sent)
            assert free(survivor, time_)[1:] <= [8 - sum(sent)][: len(costs) - 1]
            for claim in claims:
                survivor.release(claim, time_.boot)
        time_.go(3600 + 11)
        assert (
            free(neighbour, time_)
            == free(store(path, time_, *limits), time_)
            == [4, 8][: len(costs)]
        )


@pytest.mark.parametrize("end", ["settle", "release"])
def test_who_was_taken_for_dead_and_is_not_counts_once(end: str, path: Path, time_: Time) -> None:
    ghost, other = as_another_process(store(path, time_, "4/hour")), store(path, time_, "4/hour")
    claim = take(ghost, time_)
    assert claim is not None
    assert len(take_all(other, time_)) == 3  # and looks for the dead
    if end == "settle":
        ghost.settle(claim, time_.boot)
    else:
        ghost.release(claim, time_.boot)
    for each in (ghost, other, store(path, time_, "4/hour")):
        assert free(each, time_) == [0]
    time_.go(3611)
    for each in (ghost, other, store(path, time_, "4/hour")):
        assert free(each, time_) == [1]


def test_a_process_in_a_container_that_cannot_be_seen_is_believed_for_an_hour(
    path: Path, time_: Time
) -> None:
    contained, other = store(path, time_, "4/minute"), store(path, time_, "4/minute")
    assert contained._ledger is not None
    contained._ledger.process = this_process()._replace(namespace=1)
    assert take(contained, time_) is not None
    for seconds, count in ((3500, 3), (101, 3), (71, 4)):
        time_.go(seconds)
        claims = take_all(other, time_)
        assert len(claims) == count
        for claim in claims:
            other.release(claim, time_.boot)


def test_a_holder_that_stands_still_holds_up_nobodys_loop(path: Path, time_: Time) -> None:
    one = store(path, time_)
    claim = take(one, time_)
    assert claim is not None
    with path.open("rb+") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        begun = time.perf_counter()
        wake = one.take(Claim({"requests": 1}), time_.boot, 0)
        one.sent(claim)
        one.settle(claim, time_.boot)
        assert free(one, time_) == [9, 19]
        assert time.perf_counter() - begun < 1
        assert time_.boot < wake <= time_.boot + S // 100
        time_.go(120)  # whoever was stopped so long must not be taken for a broken clock
    give_up = time.monotonic() + 20
    while claim.state != ARRIVED:  # written by a thread, without anybody asking
        assert time.monotonic() < give_up
        time.sleep(0.002)
    assert free(store(path, time_), time_) == [10, 19]


def test_a_forked_child_and_its_parent_go_on_with_one_file(tmp_path: Path) -> None:
    limiter = Limiter("5/hour", path=tmp_path / "limits")
    limiter.acquire_nowait().settle()
    held = limiter.acquire_nowait()

    def child() -> None:
        assert left(limiter) == [3]
        limiter.acquire_nowait().settle()
        held.release()  # the parent's, and not the child's to give back
        assert left(limiter) == [2]

    in_a_fork(child)
    assert left(limiter) == [2]
    held.release()
    assert left(limiter) == [3]


# ─── clocks ───────────────────────────────────────────────────────────────────────────────


def reboot(monkeypatch: pytest.MonkeyPatch, time_: Time) -> None:
    monkeypatch.setattr(_ledger, "boot_id", lambda: random.randbytes(16))
    time_.boot = 3 * S


def test_a_boot_goes_on_where_the_wall_clock_is(
    path: Path, time_: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(store(path, time_), time_, 4)
    time_.wall += 70 * S
    reboot(monkeypatch, time_)
    assert free(store(path, time_), time_) == [10, 16]
    time_.go(3600)
    assert free(store(path, time_), time_) == [10, 20]


@pytest.mark.parametrize("jump", [-HOUR, -100 * HOUR, 0])
def test_a_boot_with_a_wall_clock_that_was_set_back_frees_nothing(
    jump: int, path: Path, time_: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(store(path, time_), time_, 4)
    time_.wall += jump
    reboot(monkeypatch, time_)
    after = store(path, time_)
    assert free(after, time_) == [6, 16]
    time_.go(59.9)
    assert free(after, time_) == [6, 16]
    time_.go(0.2)
    assert free(after, time_) == [10, 16]


def test_what_was_in_flight_at_a_boot_comes_back(
    path: Path, time_: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = as_another_process(store(path, time_, "2/minute"))
    take_all(before, time_)
    die(before)
    reboot(monkeypatch, time_)
    after = store(path, time_, "2/minute")
    assert take(after, time_) is None
    time_.go(71)
    assert len(take_all(after, time_)) == 2


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
def test_a_wall_clock_that_jumps_changes_nothing(jump: int, path: Path, time_: Time) -> None:
    one = store(path, time_)
    send(one, time_, 4)
    time_.wall += jump
    for each in (one, store(path, time_)):
        assert free(each, time_) == [6, 16]
    send(one, time_, 1)
    time_.wall -= 2 * jump
    time_.go(59)
    assert free(store(path, time_), time_) == [5, 15]


def test_a_machines_clock_that_goes_back_frees_nothing(path: Path, time_: Time) -> None:
    send(store(path, time_), time_, 4)
    time_.boot -= 500 * S
    after = store(path, time_)
    assert free(after, time_) == [6, 16]
    time_.go(59.9)
    assert free(after, time_) == [6, 16]
    time_.go(0.2)
    assert free(after, time_) == [10, 16]


# ─── files that are not as they should be ─────────────────────────────────────────────────


def alone(path: Path, time_: Time) -> Any:
    bucket = Bucket(read_limits(LIMITS), reserve=0, margin=0, drift=0, unseen=UNSEEN)
    return open_store(path, bucket, UNSEEN, lambda: time_.boot)


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0x40
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "its header is cut": lambda path: os.truncate(path, 50),
    "its slots are cut": lambda path: os.truncate(path, SLOTS_AT + 100),
    "a bit of its header is another": lambda path: flip(path, 60),
    "a bit of a slot is another": lambda path: flip(path, slot_of(path) + 10),
    "a bit of an entry is another": lambda path: flip(path, entry_at(2) + 10),
}


def slot_of(path: Path) -> int:
    """Where the first slot that is taken stands."""
    data = path.read_bytes()
    return next(at for at in map(slot_at, range(SLOTS)) if not data.startswith(NO_SLOT, at))


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_begun_anew_and_that_is_said(
    damage: Callable[[Path], object], path: Path, time_: Time, caplog: pytest.LogCaptureFixture
) -> None:
    one = store(path, time_)
    send(one, time_, 4)
    assert take(one, time_) is not None
    damage(path)
    other = store(path, time_)
    for claim in take_all(other, time_):
        other.settle(claim, time_.boot)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "is damaged" in caplog.text
    assert "begun anew" in caplog.text
    assert take(other, time_) is None
    time_.go(3600 + 11)
    assert free(other, time_) == free(store(path, time_), time_) == [10, 20]
    assert len(path.read_bytes()) == FILE_SIZE


def test_who_was_there_before_the_damage_forgets_nothing(path: Path, time_: Time) -> None:
    one = store(path, time_)
    send(one, time_, 4)
    flying = take(one, time_)
    flip(path, 60)
    assert free(one, time_) == [5, 15]
    assert flying is not None
    one.settle(flying, time_.boot)
    assert free(one, time_) == [5, 15]


def test_no_damage_whatever_reaches_the_caller(path: Path, time_: Time) -> None:
    for seed in range(150):
        chance = random.Random(seed)
        one, other = store(path, time_), store(path, time_)
        send(one, time_, 3)
        flying = take_all(other, time_)
        data = bytearray(path.read_bytes())
        for _ in range(chance.choice([1, 5, 500])):
            data[chance.randrange(chance.choice([200, SLOTS_AT + 4096, len(data)]))] = (
                chance.randrange(256)
            )
        path.write_bytes(data[: chance.choice([len(data), chance.randrange(len(data))])])
        for each in (one, other, alone(path, time_)):
            take_all(each, time_)
            each.block(time_.boot)
            each.tighten(read_limits("1000/day"), time_.boot)
            assert max(free(each, time_)) <= 1000
        for claim in flying:
            other.settle(claim, time_.boot)
        time_.go(1)
        path.unlink()


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"#!/bin/sh\n" + b"rm -rf build\n" * 100, "another program's"),
        (b"abcdflulimit" + (7).to_bytes(4, "little") + bytes(400), "version 7"),
        (bytes(32_768) + b"\1CD001\1" + bytes(2_000), "another program's"),
        (b"\n", "another program's"),
    ],
)
def test_another_programs_file_and_another_versions_are_left_alone(
    content: bytes, why: str, path: Path, time_: Time, caplog: pytest.LogCaptureFixture
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    path.chmod(0o664)
    before = path.stat()
    lonely = alone(path, time_)
    assert len(take_all(lonely, time_)) == 10
    after = path.stat()
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    assert why in caplog.text
    assert len(caplog.records) == 1
    assert path.read_bytes() == content


def _directory(path: Path, _: pytest.MonkeyPatch) -> None:
    path.mkdir(parents=True)


def _no_directory(path: Path, _: pytest.MonkeyPatch) -> None:
    path.parent.write_bytes(b"")


def _link(path: Path, _: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    path.symlink_to("/etc/hostname")


def _pipe(path: Path, _: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    os.mkfifo(path)


def _anothers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    path.write_bytes(b"")
    monkeypatch.setattr(os, "geteuid", lambda: 4711)


def _read_only(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> int:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "open", refuse)


def _no_proc(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: Any) -> str:
        raise FileNotFoundError(errno.ENOENT, "no such file", "/proc/sys/kernel/random/boot_id")

    monkeypatch.setattr(Path, "read_text", missing)


@pytest.mark.parametrize(
    "make", [_directory, _no_directory, _link, _pipe, _anothers, _read_only, _no_proc]
)
def test_what_cannot_be_used_is_said_once_and_the_process_keeps_to_the_limits_alone(
    make: Callable[[Path, pytest.MonkeyPatch], None],
    path: Path,
    time_: Time,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patch:
        make(path, patch)
        lonely = alone(path, time_)
    assert len(take_all(lonely, time_)) == 10
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "cannot be used" in caplog.text
    assert str(path) in caplog.text


def test_a_full_disk_leaves_the_process_alone_with_all_that_it_knew(
    path: Path, time_: Time, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one = store(path, time_)
    send(one, time_, 4)
    flying = take(one, time_)
    assert flying is not None
    one.sent(flying)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(StateFile, "write", full)
    one.settle(flying, time_.boot)
    assert len(take_all(one, time_)) == 5
    assert len(caplog.records) == 1
    assert "No space left" in caplog.text
    time_.go(71)
    assert free(one, time_) == [5, 10]


def test_a_disk_that_has_no_room_for_the_file_leaves_the_process_alone(tmp_path: Path) -> None:
    def child() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        limiter = Limiter("5/hour", path=tmp_path / "limits")
        for _ in range(5):
            limiter.acquire_nowait().settle()
        assert left(limiter) == [0]

    in_a_fork(child)


def test_a_file_that_is_deleted_is_begun_anew_and_nobody_forgets(path: Path, time_: Time) -> None:
    one = store(path, time_)
    send(one, time_, 4)
    path.unlink()
    time_.go(1)
    assert free(one, time_) == [6, 16]
    send(one, time_, 1)
    assert free(store(path, time_), time_) == [9, 19]


def test_more_than_a_file_remembers_is_refused(path: Path, time_: Time) -> None:
    with pytest.raises(ValueError, match="more requests in the longest period"):
        store(path, time_, "1000000/day")


def test_an_absurd_cost_does_no_harm(path: Path, time_: Time) -> None:
    one = store(path, time_, "5/minute", "100 tokens/minute")
    claim = Claim({"requests": 1, "tokens": 10})
    assert one.take(claim, time_.boot, 0) == 0
    one.settle(claim, time_.boot)
    one.release(claim, time_.boot, {"tokens": 10**30})
    assert free(one, time_) == [4, 0]
    assert max(free(store(path, time_, "5/minute"), time_)) < NEVER


def test_only_its_owner_can_read_it(path: Path, time_: Time) -> None:
    path.parent.mkdir()
    path.write_bytes(b"")
    for _ in range(2):
        path.chmod(0o666)
        send(store(path, time_), time_, 1)
        assert path.stat().st_mode & 0o777 == 0o600


# ─── sessions ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(memory, "_registry", memory._Registry())
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "fluence"


KEY, URL = "sk-a-key-of-the-test", "http://127.0.0.1:9/v1"


def test_sessions_of_one_key_share_a_file_whose_name_does_not_tell_it(state: Path) -> None:
    one, other = (FluenceSession(api_key=KEY, base_url=URL, limiter="file") for _ in range(2))
    assert one.limiter is other.limiter is not None
    one.limiter.acquire_nowait().settle()
    (file,) = state.iterdir()
    assert file == state_path(limiter_name(KEY, "http://127.0.0.1:9"))
    assert state.stat().st_mode & 0o777 == 0o700
    assert KEY not in file.name
    assert KEY.encode() not in file.read_bytes()

    def another_run() -> None:
        memory._registry = memory._Registry()
        session = FluenceSession(api_key=KEY, base_url=URL, limiter="file")
        assert session.limiter is not None
        assert left(session.limiter) == [99, 999]

    in_a_fork(another_run)


def test_the_environment_says_where_unless_the_code_does(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limiter(**how: Any) -> Limiter | None:
        return FluenceSession(api_key=KEY, base_url=URL, **how).limiter

    assert limiter() is limiter(limiter="memory") is not None
    monkeypatch.setenv("FLUENCE_LIMITER", "file")
    assert limiter() is limiter(limiter="file") is not limiter(limiter="memory")
    assert limiter(limiter=None) is None
    monkeypatch.setenv("FLUENCE_LIMITER", "none")
    assert limiter() is None
    monkeypatch.setenv("FLUENCE_LIMITER", "disk")
    with pytest.raises(ValueError, match="limiter='disk'"):
        limiter()
    with pytest.raises(ValueError, match="limiter='tape'"):
        limiter(limiter="tape")


def test_a_ledger_reads_nothing_anew_that_nobody_wrote(path: Path, time_: Time) -> None:
    one = store(path, time_)
    send(one, time_, 1)
    ledger = one._ledger
    assert isinstance(ledger, Ledger)
    assert not ledger.refresh(time_.boot)
    send(store(path, time_), time_, 1)
    assert ledger.refresh(time_.boot)
