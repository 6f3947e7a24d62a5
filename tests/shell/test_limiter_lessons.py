"""What the processes of one file learn of its server: known to all of them, and to those of
tomorrow; forgotten, never believed, where it is damaged."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import subprocess
import sys
from binascii import crc32
from pathlib import Path

import anyio
import msgspec
import pytest

from fluence_async import FluenceSession
from fluence_async._sansio.bucket import Claim
from fluence_async._sansio.learning import LearningBucket
from fluence_async._sansio.learnt import Learnt
from fluence_async._sansio.lessons import LESSONS_SIZE, Lessons
from fluence_async._sansio.limits_file import LESSONS_AT
from fluence_async._sansio.rate_limit import read_limits
from fluence_async.limiter import Limiter, memory
from fluence_async.limiter._state import StateFile
from fluence_async.limiter.file import FileStore
from fluence_async.meta import RateLimitSnapshot
from fluence_async.testing import FluenceServer
from tests.shell.test_limiter_file import (
    UNSEEN,
    Killed,
    S,
    Time,
    as_another_process,
    die,
    reboot,
    store,
    take,
    take_all,
)

LIMITS = ("100/minute", "1000/hour")


@pytest.fixture
def time_() -> Time:
    return Time()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "limits"


def pupil(path: Path, time_: Time, *limits: str) -> FileStore:
    bucket = LearningBucket(
        read_limits(limits or LIMITS), reserve=0, margin=0, drift=0, unseen=UNSEEN
    )
    return FileStore(path, bucket, UNSEEN, lambda: time_.boot, wall=lambda: time_.wall)


def send_all(store: FileStore, time_: Time) -> list[Claim]:
    claims = take_all(store, time_)
    for claim in claims:
        store.sent(claim)
    return claims


def accept(store: FileStore, claims: list[Claim], time_: Time, *reports: RateLimitSnapshot) -> None:
    for claim in claims:
        store.settle(claim, time_.boot, True, reports)


def refuse(store: FileStore, claims: list[Claim], time_: Time) -> None:
    for claim in claims:
        store.settle(claim, time_.boot, False)
        store.refused(claim, time_.boot)


def learnt(store: FileStore, time_: Time, window: int = 0) -> Learnt:
    found = store.snapshot(time_.boot)[window].learnt
    assert found is not None
    return found


def learn(store: FileStore, time_: Time) -> Learnt:
    """Send until something is refused: the server takes no more than ten at once."""
    bearable = 10
    while True:
        claims = send_all(store, time_)
        time_.go(0.1)
        accept(store, claims[:bearable], time_)
        if claims[bearable:]:
            refuse(store, claims[bearable:], time_)
            return learnt(store, time_)
        bearable -= len(claims)


# ─── who knows it ─────────────────────────────────────────────────────────────────────────


def test_what_one_process_learns_the_others_know_at_once(path: Path, time_: Time) -> None:
    one, other = pupil(path, time_), pupil(path, time_)
    assert learnt(other, time_).burst == 1
    found = learn(one, time_)
    assert found.ended
    assert 5 <= found.burst <= 12
    assert learnt(other, time_) == found
    assert learnt(pupil(path, time_), time_) == found
    time_.go(70)
    claims = send_all(other, time_)
    assert len(claims) <= found.burst + 1


def test_what_was_learnt_outlives_all_processes_and_a_boot(
    path: Path, time_: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pupil(path, time_)
    found = learn(first, time_)
    when = found.retry_burst_at - time_.boot
    die(first)
    time_.wall += 20 * S
    reboot(monkeypatch, time_)
    after = learnt(pupil(path, time_), time_)
    assert after == msgspec.structs.replace(found, retry_burst_at=after.retry_burst_at)
    assert after.retry_burst_at - time_.boot == pytest.approx(when - 19 * S, abs=S // 10)


LEARNER = """
import os, signal, sys
from fluence_async import Limiter
from fluence_async.meta import RateLimitSnapshot
from fluence_async.testing import FluenceServer

limiter = Limiter("100/minute", path=sys.argv[1], policy="any", reserve=0)
permit = limiter.acquire_nowait()
permit.sent()
permit.settle(reports=[RateLimitSnapshot(limit=100, remaining=9)])
print(limiter.snapshot().windows[0].learnt.burst, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_had_learnt_is_known_to_the_next(tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", LEARNER, str(tmp_path / "limits")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    limiter = Limiter("100/minute", path=tmp_path / "limits", policy="any", reserve=0)
    (window,) = limiter.snapshot().windows
    assert window.learnt is not None
    assert window.learnt.reported
    assert window.learnt.burst == int(killed.stdout)


def test_the_salvos_of_several_processes_teach_one_lesson(path: Path, time_: Time) -> None:
    stores = [pupil(path, time_) for _ in range(3)]
    accept(stores[0], send_all(stores[0], time_), time_)
    accept(stores[0], send_all(stores[0], time_), time_)
    time_.go(60)
    salvos = []
    for each in stores:
        claim = take(each, time_)
        assert claim is not None
        each.sent(claim)
        salvos.append((each, [claim]))
    time_.go(1)
    refuse(*salvos[0], time_)
    found = learnt(stores[0], time_)
    for salvo in salvos[1:]:
        refuse(*salvo, time_)
        assert learnt(salvo[0], time_) == found


def before_a_trial(path: Path, time_: Time) -> list[FileStore]:
    """Two that would try whether the server keeps a sliding counter: next is one that might be
    refused if it does."""
    stores = [pupil(path, time_, "100/minute") for _ in range(2)]
    first = [claim for claim in [take(stores[0], time_)] if claim]
    accept(stores[0], first, time_, RateLimitSnapshot(limit=100, remaining=99))
    accept(stores[0], send_all(stores[0], time_), time_)
    time_.go(60)
    return stores


def test_of_all_processes_one_at_a_time_tries_what_may_be_refused(path: Path, time_: Time) -> None:
    one, other = before_a_trial(path, time_)
    (trial,) = send_all(one, time_)
    assert other.take(Claim({"requests": 1}), time_.boot, 0) == time_.boot + S
    time_.go(0.2)
    accept(one, [trial], time_)
    (trial,) = send_all(other, time_)
    assert take(one, time_) is None
    time_.go(0.2)
    refuse(other, [trial], time_)
    time_.go(0.2)
    assert take(one, time_) is None
    assert learnt(one, time_).counter


def test_a_trial_whose_process_died_holds_up_the_others_for_a_second(
    path: Path, time_: Time
) -> None:
    one, other = before_a_trial(path, time_)
    send_all(one, time_)
    die(one)
    time_.go(0.9)
    assert take(other, time_) is None
    time_.go(0.1)
    assert take(other, time_) is not None


def test_a_trial_of_a_time_to_come_holds_up_nobody(path: Path, time_: Time) -> None:
    one, other = before_a_trial(path, time_)
    bucket = one._mirror.bucket
    assert isinstance(bucket, LearningBucket)
    bucket.lessons.tried_at = time_.boot + 3600 * S
    assert one.snapshot(time_.boot)  # and tells it
    assert learnt(other, time_)
    bucket = other._mirror.bucket
    assert isinstance(bucket, LearningBucket)
    assert bucket.lessons.tried_at == time_.boot + 3600 * S
    assert take(other, time_) is not None


def test_a_trial_that_never_left_holds_up_nobody(path: Path, time_: Time) -> None:
    one, other = before_a_trial(path, time_)
    claim = take(one, time_)
    assert claim is not None
    assert take(other, time_) is None
    one.release(claim, time_.boot)
    assert take(other, time_) is not None


def test_a_lesson_is_known_also_where_nothing_else_was_written(path: Path, time_: Time) -> None:
    one, other = pupil(path, time_), pupil(path, time_)
    accept(one, send_all(one, time_), time_)
    (claim, *_) = send_all(one, time_)
    time_.go(0.1)
    one.settle(claim, time_.boot, False)
    before = learnt(other, time_)
    time_.go(0.1)
    one.refused(claim, time_.boot)
    assert learnt(other, time_) == learnt(one, time_) != before


def test_who_begins_knows_the_last_two_periods_which_a_sliding_counter_counts(
    path: Path, time_: Time
) -> None:
    one = pupil(path, time_, "100/minute")
    sent = 0
    while sent < 20:
        claims = send_all(one, time_)
        sent += len(claims)
        accept(one, claims, time_)
    time_.go(90)
    bucket = pupil(path, time_, "100/minute")._mirror.bucket
    assert isinstance(bucket, LearningBucket)
    one = FileStore(path, bucket, UNSEEN, lambda: time_.boot, wall=lambda: time_.wall)
    assert one.snapshot(time_.boot)[0].left == 100
    assert bucket.watches[0].counter.known(time_.boot) == sent


@pytest.mark.anyio
async def test_a_refusal_teaches_also_while_another_holds_the_files_lock(path: Path) -> None:
    limiter = Limiter("100/minute", path=path, policy="any")
    first = await limiter.acquire()
    first.sent()
    first.settle()
    permit = await limiter.acquire()
    permit.sent()
    with path.open("rb+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        permit.refused()
    with anyio.fail_after(10):
        while not (found := limiter.snapshot().windows[0].learnt) or not found.ended:
            await anyio.sleep(0.001)


def test_others_requests_are_part_of_the_burst_and_of_the_slow_start(
    path: Path, time_: Time
) -> None:
    one, other = pupil(path, time_), pupil(path, time_)
    alone = pupil(path.with_name("alone"), time_)
    for _ in range(6):
        claims = [(each, take_all(each, time_)) for each in (one, other)]
        accept(alone, mine := send_all(alone, time_), time_)
        assert sum(len(taken) for _, taken in claims) <= max(1, len(mine))
        for each, taken in claims:
            for claim in taken:
                each.sent(claim)
            accept(each, taken, time_)
        time_.go(1)
    assert learnt(one, time_).proven <= learnt(alone, time_).proven


def test_who_was_idle_has_not_seen_a_burst_in_what_others_sent_one_by_one(
    path: Path, time_: Time
) -> None:
    idle, busy = pupil(path, time_, "60/minute"), pupil(path, time_, "60/minute")
    for _ in range(30):
        accept(busy, [claim for claim in [take(busy, time_)] if claim], time_)
        time_.go(1.2)
    accept(idle, [claim for claim in [take(idle, time_)] if claim], time_)
    assert learnt(idle, time_).proven <= 2


def test_a_pause_that_nothing_explains_is_everybodys_and_doubled_by_all(
    path: Path, time_: Time
) -> None:
    one, other = pupil(path, time_), pupil(path, time_)
    pauses = []
    for each in (one, other, one):
        refuse(each, send_all(each, time_), time_)
        for any_ in (one, other):
            assert any_.take(Claim({"requests": 1}), time_.boot, 0) >= any_.blocked_until
        assert one.blocked_until == other.blocked_until
        pauses.append(one.blocked_until - time_.boot)
        time_.go(10)
    assert pauses == [S, 2 * S, 4 * S]


def test_withheld_units_are_withheld_by_all_and_given_back_by_all(path: Path, time_: Time) -> None:
    one, other = pupil(path, time_, "100/minute"), pupil(path, time_, "100/minute")
    whole = RateLimitSnapshot(limit=100, remaining=99)
    accept(one, [claim for claim in [take(one, time_)] if claim], time_, whole)
    time_.go(130)
    (claim,) = [claim for claim in [take(one, time_)] if claim]
    one.sent(claim)
    refuse(one, [claim], time_)
    assert learnt(other, time_).withheld == 5
    assert other.snapshot(time_.boot)[0].left == one.snapshot(time_.boot)[0].left == 94
    time_.go(61)
    assert take(other, time_) is not None
    assert learnt(one, time_).withheld == 0
    assert one.snapshot(time_.boot)[0].left == 99


# ─── damage ───────────────────────────────────────────────────────────────────────────────


def overwrite(path: Path, data: bytes) -> None:
    with path.open("rb+") as file:
        file.seek(LESSONS_AT)
        file.write(data)
        file.flush()
        os.utime(path)


def area(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(LESSONS_AT)
        return file.read(LESSONS_SIZE)


def nonsense(**fields: object) -> bytes:
    lessons = Lessons(windows={"100/minute": msgspec.structs.replace(Learnt(), **fields)})
    return lessons.pack(0, read_limits(LIMITS))


NONSENSE = [
    nonsense(burst=10**9),
    nonsense(burst=0),
    nonsense(burst=-5),
    nonsense(proven=-1),
    nonsense(withheld=100),
    nonsense(withheld=-100),
    nonsense(retry_burst_at=2**62),
    nonsense(restore_at=2**62, restore_in=2**61),
    Lessons(taught_at=2**62, proven_at=2**62, tried_at=2**62, pause=2**62).pack(0, ()),
    b"\xff" * LESSONS_SIZE,
    os.urandom(LESSONS_SIZE),
]


@pytest.mark.parametrize("data", NONSENSE, ids=range(len(NONSENSE)))
def test_what_cannot_be_is_forgotten_and_units_count_as_ever(
    data: bytes, path: Path, time_: Time
) -> None:
    first = pupil(path, time_)
    claims = send_all(first, time_)
    die(first)
    overwrite(path, data)
    second = pupil(path, time_)
    assert second.snapshot(time_.boot)[0].left == 100 - len(claims)
    assert learnt(second, time_) == Learnt()
    found = learn(second, time_)
    assert found.burst > 1
    assert learnt(pupil(path, time_), time_) == found


def test_a_byte_that_was_changed_is_noticed(path: Path, time_: Time) -> None:
    first = pupil(path, time_)
    learn(first, time_)
    die(first)
    good = area(path).rstrip(b"\0")
    for at in random.Random(1).sample(range(len(good)), 40):
        overwrite(path, good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        other = pupil(path, time_)
        assert learnt(other, time_) == Learnt()
        die(other)


def test_what_a_later_version_wrote_is_neither_believed_nor_touched(
    path: Path, time_: Time
) -> None:
    first = pupil(path, time_)
    learn(first, time_)
    die(first)
    later = area(path)
    end = 8 + int.from_bytes(later[6:8], "little")
    later = (2).to_bytes(2, "little") + later[6:end]
    later = (crc32(later).to_bytes(4, "little") + later).ljust(LESSONS_SIZE, b"\0")
    overwrite(path, later)
    second = pupil(path, time_)
    assert learnt(second, time_) == Learnt()
    learn(second, time_)
    assert area(path) == later


def test_one_that_knows_no_lessons_shares_the_units_and_leaves_them_standing(
    path: Path, time_: Time
) -> None:
    one = pupil(path, time_)
    found = learn(one, time_)
    time_.go(120)
    plain = store(path, time_, *LIMITS)
    accept(plain, take_all(plain, time_)[:30], time_)
    assert learnt(one, time_) == found
    assert take(one, time_) is None
    assert learnt(pupil(path, time_), time_) == found


def test_other_limits_are_other_lessons_and_both_stay(path: Path, time_: Time) -> None:
    one, other = pupil(path, time_, "100/minute"), pupil(path, time_, "50/second")
    found = learn(one, time_)
    assert learnt(other, time_) == Learnt()
    time_.go(5)
    accept(other, send_all(other, time_), time_)
    assert learnt(other, time_).proven >= 1
    assert learnt(pupil(path, time_, "100/minute"), time_) == found
    assert learnt(pupil(path, time_, "50/second"), time_) == learnt(other, time_)


def test_lessons_of_too_many_limits_make_room_for_ones_own(time_: Time) -> None:
    ours = read_limits(LIMITS)
    lessons = Lessons(windows={f"{n}/day": Learnt() for n in range(100)})
    for rate in ours:
        lessons.of(rate).burst = 7
    data = lessons.pack(5, ours)
    assert len(data) <= LESSONS_SIZE
    found = Lessons.unpack(data, 5)
    assert found is not None
    assert set(found.windows) == {*LIMITS}


def test_a_crash_at_any_write_costs_lessons_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = StateFile.write
    crashed, at = True, 0
    while crashed:
        crashed, at, count = False, at + 1, 0

        def until_killed(self: StateFile, data: bytes, where: int, last: int = at) -> None:
            nonlocal count
            count += 1
            if count == last:
                write(self, data[: len(data) // 2], where) if where == LESSONS_AT else None
                raise Killed
            write(self, data, where)

        time_, path = Time(), tmp_path / str(at)
        neighbour = pupil(path, time_, "40/hour")
        accept(neighbour, [claim for claim in [take(neighbour, time_)] if claim], time_)
        victim = as_another_process(pupil(path, time_, "40/hour"))
        sent = 1
        with monkeypatch.context() as patch:
            patch.setattr(StateFile, "write", until_killed)
            try:
                for accepted in (True, True, False):
                    for claim in take_all(victim, time_)[:3]:
                        victim.sent(claim)
                        sent += 1
                        victim.settle(claim, time_.boot, accepted)
                        if not accepted:
                            victim.refused(claim, time_.boot)
                    time_.go(0.1)
            except Killed:
                crashed = True
        die(victim)
        time_.go(30)
        for survivor in (neighbour, pupil(path, time_, "40/hour")):
            assert survivor.snapshot(time_.boot)[0].left <= 40 - sent
            for claim in take_all(survivor, time_):
                survivor.release(claim, time_.boot)
        assert learnt(neighbour, time_) == learnt(pupil(path, time_, "40/hour"), time_)
    assert at > 10


# ─── more than the user's limits ──────────────────────────────────────────────────────────


def test_a_limit_that_the_server_states_is_used_by_all_who_may(path: Path, time_: Time) -> None:
    def generous() -> FileStore:
        rates = read_limits("100/minute")
        bucket = LearningBucket(rates, generous=True, reserve=0, margin=0, drift=0, unseen=UNSEEN)
        return FileStore(path, bucket, UNSEEN, lambda: time_.boot, wall=lambda: time_.wall)

    def limit(store: FileStore) -> int:
        return store.snapshot(time_.boot)[0].limit.limit

    one, other, plain = generous(), generous(), pupil(path, time_, "100/minute")
    report = RateLimitSnapshot(limit=300, remaining=299, period_s=60.0)
    accept(one, send_all(one, time_), time_, report)
    assert [limit(each) for each in (one, other, generous())] == [300, 300, 300]
    assert limit(plain) == 100
    accept(plain, [claim for claim in [take(plain, time_)] if claim], time_)
    assert [limit(each) for each in (one, other, generous())] == [300, 300, 300]
    (claim,) = [claim for claim in [take(other, time_)] if claim]
    other.sent(claim)
    time_.go(0.1)
    refuse(other, [claim], time_)
    assert [limit(each) for each in (one, other, generous(), plain)] == [100] * 4
    assert one.snapshot(time_.boot)[0].left == 97


# ─── sessions ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_a_session_may_learn_in_the_users_file_and_tomorrows_run_knows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    async with FluenceServer() as server:
        found = []
        for limiter in ("file:any", "file:any", "file"):
            monkeypatch.setattr(memory, "_registry", memory._Registry())
            async with FluenceSession(
                api_key=server.api_key, base_url=server.base_url, limiter=limiter
            ) as fluence:
                assert fluence.limiter is not None
                found.append([window.learnt for window in fluence.limiter.snapshot().windows])
                if len(found) == 1:
                    await fluence.chat.completions.create(model="fluence-chat", messages="Hello!")
                    found.append([window.learnt for window in fluence.limiter.snapshot().windows])
    first, after, again, plain = found
    assert first == [Learnt(), Learnt()]
    assert after != first
    assert again == after
    assert plain == [None, None]


@pytest.mark.parametrize("limiter", ["file:most", "memory:some", "disk:any"])
def test_a_limiter_of_no_policy_is_none(limiter: str) -> None:
    with pytest.raises(ValueError, match=r"policy='(most|some)'|limiter='disk:any'"):
        FluenceSession(api_key="k", base_url="http://127.0.0.1:9/v1", limiter=limiter)


def test_a_server_that_states_more_than_a_file_remembers_is_no_error(tmp_path: Path) -> None:
    limiter = Limiter(["100/minute"], policy="any-generous", path=tmp_path / "limits")
    store = limiter._line.store
    assert isinstance(store, FileStore)
    assert isinstance(store._bucket, LearningBucket)
    store._bucket.watches[0].regard(60_000, 0)
    assert limiter.snapshot().windows[0].limit.limit == 60_000
    limiter.tighten(["100/minute"])  # as the next session does
    limiter.tighten(["1000/hour"])
    assert [window.limit.limit for window in limiter.snapshot().windows] == [60_000, 1000]
