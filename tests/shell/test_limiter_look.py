"""A limiter's file seen from outside: what it tells is what the limiters there know."""

from __future__ import annotations

import fcntl
import os
import random
from contextlib import suppress
from pathlib import Path

import anyio
import pytest

from fluence_async import DOCUMENTED_LIMITS
from fluence_async._sansio.lessons import Lessons
from fluence_async._sansio.limits_file import LESSONS_AT, SLOTS_AT
from fluence_async.limiter import FileLook, Learnt, Limiter, LimiterSnapshot
from fluence_async.limiter._ledger import Ledger
from fluence_async.limiter._mirror import Mirror
from fluence_async.limiter.limiter import Policy
from fluence_async.limits import SharedLimits
from fluence_async.meta import RateLimitSnapshot
from tests.shell.limiting import all_parked, in_a_fork, left
from tests.shell.test_limiter_lessons import NONSENSE

S = 1_000_000_000
LIMITS = ("20/minute", "50/hour")


def look(path: Path, *limits: str) -> LimiterSnapshot:
    found: list[LimiterSnapshot] = []

    async def main() -> None:
        found.append(await FileLook("n", limits or LIMITS, path=path).look())

    anyio.run(main)
    return found[0]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("policy", ["window", "any", "any-generous"])
def test_it_sees_what_the_limiters_see(policy: Policy, seed: int, tmp_path: Path) -> None:
    chance, path, now = random.Random(seed), tmp_path / "limits", 0
    limiters = [
        Limiter(LIMITS, policy=policy, path=path, clock=lambda: now + 1000 * S) for _ in range(2)
    ]
    held = []
    for _ in range(60):
        now += chance.randrange(5 * S)
        limiter = chance.choice(limiters)
        if limiter.wait_s() == 0 and left(limiter)[0] and left(limiter)[1]:
            with suppress(anyio.WouldBlock):
                held.append(limiter.acquire_nowait())
                held[-1].sent()
        if held and chance.random() < 0.7:
            said = [RateLimitSnapshot(limit=40, remaining=30, period_s=60.0)] * (seed > 4)
            held.pop(chance.randrange(len(held))).settle(reports=said)
        if held and seed > 2 and chance.random() < 0.1:
            held.pop(chance.randrange(len(held))).refused()
    there = limiters[0].snapshot()
    before = path.read_bytes()
    seen = []

    async def main() -> None:
        outside = FileLook("n", LIMITS, path=path, clock=lambda: now + 1000 * S)
        seen.append(await outside.look())

    anyio.run(main)
    assert seen == [there]
    assert path.read_bytes() == before


def write_lessons(path: Path, lessons: bytes) -> None:
    with path.open("rb+") as file:
        file.seek(LESSONS_AT)
        file.write(lessons)


def test_what_the_programs_have_learnt_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    assert look(path).windows[0].learnt is None
    limiter = Limiter(LIMITS, path=path, policy="any")
    permit = limiter.acquire_nowait()
    permit.sent()
    permit.settle(reports=[RateLimitSnapshot(limit=20, remaining=9)])
    minute, hour = look(path).windows
    assert minute.learnt is not None
    assert minute.learnt.reported
    assert (minute.learnt, hour.learnt) == tuple(
        window.learnt for window in limiter.snapshot().windows
    )
    (other,) = look(path, "5/second").windows
    assert other.learnt is None  # nobody has


def test_withheld_units_are_neither_used_nor_in_flight_nor_left(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    Limiter(LIMITS, path=path).acquire_nowait().settle()
    lessons = Lessons(windows={"20/minute": Learnt(burst=20, withheld=5)})
    write_lessons(path, lessons.pack(0, ()))
    minute, _ = look(path).windows
    assert minute.outlook is not None
    assert (minute.used, minute.outlook.in_flight, minute.left) == (1, 0, 14)


@pytest.mark.parametrize("data", NONSENSE, ids=range(len(NONSENSE)))
def test_lessons_that_cannot_be_are_not_shown(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "limits"
    Limiter(path=path).acquire_nowait().settle()
    write_lessons(path, data)
    before = path.read_bytes()
    assert [(each.left, each.learnt) for each in look(path, *DOCUMENTED_LIMITS).windows] == [
        (99, None),
        (999, None),
    ]
    assert path.read_bytes() == before


def test_what_was_read_while_somebody_wrote_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "limits"
    limiter = Limiter(LIMITS, path=path)
    limiter.acquire_nowait().settle()
    read, writes = Mirror.read, iter(range(3))

    def read_amid_writing(mirror: Mirror, ledger: Ledger, now: int) -> None:
        for _ in writes:
            monkeypatch.setattr(Mirror, "read", read)
            limiter.acquire_nowait().settle()
            monkeypatch.setattr(Mirror, "read", read_amid_writing)
            break
        read(mirror, ledger, now)

    monkeypatch.setattr(Mirror, "read", read_amid_writing)
    found = look(path)
    assert [window.used for window in found.windows] == [4, 4]
    assert next(writes, None) is None


def test_who_has_the_lock_holds_up_nobody_who_looks(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    limiter = Limiter(LIMITS, path=path)
    limiter.acquire_nowait().settle()
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert [window.used for window in look(path).windows] == [1, 1]


def test_nothing_is_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    shared = SharedLimits(api_key="k", limiter="file")
    assert anyio.run(shared.look).waiting == 0
    assert [*tmp_path.iterdir()] == []
    (tmp_path / "fluence").mkdir()
    assert anyio.run(shared.look).windows[0].used == 0
    assert [*(tmp_path / "fluence").iterdir()] == []
    assert shared.where.startswith(f"{tmp_path}/fluence/")
    assert repr(shared) == f"<SharedLimits in {shared.where}>"


def test_an_empty_file_and_one_without_rights_are_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    path.touch(0o644)
    assert [window.used for window in look(path).windows] == [0, 0]
    assert (path.stat().st_size, path.stat().st_mode & 0o777) == (0, 0o644)


def test_what_a_dead_process_had_in_flight_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "limits"

    def killed() -> None:
        permit = Limiter("3/minute", path=path).acquire_nowait()
        permit.sent()
        os._exit(0)

    in_a_fork(killed)
    outlook = look(path, "3/minute").windows[0].outlook
    assert outlook is not None
    assert (outlook.free, outlook.in_flight) == (2, 0)
    ((back, _),) = outlook.returns
    assert (back - outlook.now) / S == pytest.approx(70.08, abs=1)


@pytest.mark.anyio
async def test_who_waits_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    limiters = [Limiter("2/minute", path=path, reserve=0) for _ in range(2)]
    held = [await limiters[0].acquire() for _ in range(2)]
    outside = FileLook("n", ("2/minute",), path=path)
    async with anyio.create_task_group() as group:
        for lane, limiter in enumerate(limiters):
            for _ in range(3):
                group.start_soon(_call, limiter, lane)
        await all_parked()
        await anyio.sleep(0.01)
        now = await outside.look()
        assert (now.waiting, now.waiting_batch) == (2, 1)  # limiters
        assert now.eta_s(1) is None
        held[0].settle()
        assert (await outside.look()).eta_s(1) is not None
        group.cancel_scope.cancel()
    held[1].settle()
    assert (await outside.look()).waiting == 0


async def _call(limiter: Limiter, lane: int) -> None:
    (await limiter.acquire(lane=lane)).settle()


def test_a_damaged_file_is_named_and_left_to_its_programs(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    Limiter(LIMITS, path=path).acquire_nowait().settle()
    os.truncate(path, SLOTS_AT + 100)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="makes no sense"):
        look(path)
    assert path.read_bytes() == before


def test_a_pipe_does_not_hold_up_who_looks(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a plain file"):
        look(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "limits"
    Limiter(path=tmp_path / "another").acquire_nowait().settle()
    path.symlink_to(tmp_path / "another")
    with pytest.raises(OSError, match="symbolic link"):
        look(path)
