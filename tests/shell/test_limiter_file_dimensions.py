"""What a file counts beside requests: of a model, of LLM tokens, of calls at once; and whose end
nobody tells it."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from fluence_async import Limiter
from fluence_async._sansio.bucket import ARRIVED, DONE, Claim
from fluence_async._sansio.limits_file import DIMENSIONS
from fluence_async._sansio.rate_limit import read_limits
from fluence_async._sansio.tariff import Tariff
from fluence_async.limiter._ledger import Ledger
from fluence_async.limiter._state import StateFile, state_path
from fluence_async.limiter.file import FileStore
from tests.shell.limiting import after, left
from tests.shell.test_limiter_file import (
    UNSEEN,
    Killed,
    Time,
    as_another_process,
    die,
    free,
    store,
)
from tests.shell.test_limiter_file import path as path
from tests.shell.test_limiter_file import time_ as time_
from tests.virtual import anyio_backend as anyio_backend

LIMITS = ("9/minute", "100 tokens/minute", "2 concurrent", "4/minute for large")


def taken(
    of: FileStore, time_: Time, model: str | None = "large", tokens: int = 10, *limits: str
) -> Claim | None:
    claim = Claim(Tariff(read_limits(limits or LIMITS)).of({"tokens": tokens}, model))
    return None if of.take(claim, time_.boot, 0) else claim


def head(of: FileStore) -> int:
    assert of._ledger is not None
    return of._ledger.header.head


def test_each_process_sees_what_the_others_have_of_each(path: Path, time_: Time) -> None:
    one, other = store(path, time_, *LIMITS), store(path, time_, *LIMITS)
    claim = taken(one, time_)
    assert claim is not None
    assert free(other, time_) == [8, 90, 1, 3]
    one.sent(claim)
    one.settle(claim, time_.boot)
    assert claim.state == ARRIVED
    time_.go(60)
    assert free(other, time_) == [9, 90, 1, 4]
    one.release(claim, time_.boot, {"tokens": 30})
    assert claim.state == DONE
    for each in (one, other, store(path, time_, *LIMITS)):
        assert free(each, time_) == [9, 70, 2, 4]
    time_.go(60)
    for each in (one, other, store(path, time_, *LIMITS)):
        assert free(each, time_) == [9, 100, 2, 4]


def test_a_place_that_is_given_back_is_not_remembered(path: Path, time_: Time) -> None:
    one = store(path, time_, "9/minute", "2 concurrent")
    claim = taken(one, time_, None, 0, "9/minute", "2 concurrent", "1 tokens/minute")
    assert claim is not None
    claim.costs = {"requests": 1, "concurrent": 1}
    one.sent(claim)
    one.settle(claim, time_.boot)
    assert head(one) == 1
    one.release(claim, time_.boot)
    assert head(one) == 1
    assert free(one, time_) == free(store(path, time_, "9/minute", "2 concurrent"), time_) == [8, 2]


def test_what_was_sent_and_never_answered_keeps_its_place_a_while(path: Path, time_: Time) -> None:
    one, other = store(path, time_, *LIMITS), store(path, time_, *LIMITS)
    claim = taken(one, time_)
    assert claim is not None
    one.sent(claim)
    one.release(claim, time_.boot)
    for each in (one, other, store(path, time_, *LIMITS)):
        assert free(each, time_) == [8, 90, 1, 3]
    time_.go(10)
    for each in (one, other, store(path, time_, *LIMITS)):
        assert free(each, time_) == [8, 90, 2, 3]
    time_.go(60)
    assert free(other, time_) == [9, 100, 2, 4]


def test_a_debt_is_everybodys_and_outlives_its_process(path: Path, time_: Time) -> None:
    one = store(path, time_, *LIMITS)
    claim = taken(one, time_)
    assert claim is not None
    one.settle(claim, time_.boot)
    one.release(claim, time_.boot, {"tokens": 500})
    die(one)
    other = store(path, time_, *LIMITS)
    assert other.snapshot(time_.boot)[1].used == 500
    assert taken(other, time_, tokens=1) is None
    time_.go(60)
    assert taken(other, time_, tokens=1) is not None


# ─── kills ────────────────────────────────────────────────────────────────────────────────


def test_a_killed_holders_tokens_and_places_come_back(tmp_path: Path) -> None:
    """Of a call under way at once and of one not sent: both may have reached the server."""
    path = tmp_path / "limits"
    limits = ("9/0.1s", "100 tokens/0.1s", "2 concurrent", "9/0.1s for large")
    options: dict[str, Any] = {"path": path, "margin_s": 0, "drift": 0, "unseen_s": 0.2}
    if (child := os.fork()) == 0:
        limiter = Limiter(limits, **options)
        permits = [limiter.acquire_nowait(model="large", costs={"tokens": 50}) for _ in range(2)]
        permits[0].sent()
        permits[0].settle()
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    killed = time.monotonic()
    limiter = Limiter(limits, **options)
    assert left(limiter)[1:3] == [0, 0]
    permit = None
    while permit is None:
        assert time.monotonic() - killed < 20
        time.sleep(0.005)
        with suppress(anyio.WouldBlock):
            permit = limiter.acquire_nowait()
    assert time.monotonic() - killed >= 0.2 - 0.001
    while left(limiter)[1:] != [100, 1, 9]:
        assert time.monotonic() - killed < 20
        time.sleep(0.005)
    assert time.monotonic() - killed >= 0.3 - 0.001


def calls_of_a_victim(seed: int, store: FileStore, time_: Time, gone: list[int]) -> None:
    """Some calls, each with an end of its own; what they took at least, of requests, tokens and
    places, is noted before it is done."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 6)):
        claim = taken(store, time_)
        if claim is None:
            continue
        end = chance.randrange(5)
        if end:
            store.sent(claim)
            gone[0] += 1
            gone[2] += 1
        match end:
            case 1:
                store.settle(claim, time_.boot)
            case 2 | 3:
                store.settle(claim, time_.boot)
                gone[1] += end
                gone[2] -= 1
                store.release(claim, time_.boot, {"tokens": end})
            case _:  # 0: nothing left this machine; 4: and it was never answered
                store.release(claim, time_.boot)
        time_.go(0.001)


def bury(store: FileStore) -> None:
    """As who waits in vain does, now and then."""

    def do(ledger: Ledger, now: int) -> int:
        store._mirror.bury(ledger, now, UNSEEN)
        return 0

    assert store._locked(do) == 0


@pytest.mark.parametrize("seed", range(15))
def test_a_crash_at_any_write_frees_nothing_too_early_and_loses_nothing(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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

        time_, path = Time(), tmp_path / str(at)
        neighbour = store(path, time_, *LIMITS)
        victim = as_another_process(store(path, time_, *LIMITS))
        gone = [0, 0, 0]
        with monkeypatch.context() as patch:
            patch.setattr(StateFile, "write", until_killed)
            try:
                calls_of_a_victim(seed, victim, time_, gone)
            except Killed:
                crashed = True
        die(victim)
        requests, tokens, under_way = gone
        most = [9 - requests, 100 - tokens, 2 - under_way]
        for survivor in (neighbour, store(path, time_, *LIMITS)):
            assert all(map(int.__le__, free(survivor, time_), most))
            bury(survivor)
            assert all(map(int.__le__, free(survivor, time_), most))
        time_.go(60 + 11)
        for each in (neighbour, store(path, time_, *LIMITS)):
            assert free(each, time_) == [9, 100, 2, 4]


# ─── room ─────────────────────────────────────────────────────────────────────────────────


def many(count: int, name: str = "m") -> list[str]:
    """Limits of so many dimensions."""
    return ["9/minute", *(f"5/minute for {name}{number}" for number in range(count - 1))]


def test_more_dimensions_than_a_file_counts_are_refused(path: Path, time_: Time) -> None:
    with pytest.raises(ValueError, match=r"8 dimensions at most .* these are 9"):
        store(path, time_, *many(DIMENSIONS + 1))
    fits = store(path, time_, *many(DIMENSIONS))
    before = str(fits)
    with pytest.raises(ValueError, match="8 dimensions at most"):
        fits.tighten(read_limits(["5/minute", "1 concurrent"]), time_.boot)
    assert str(fits) == before
    assert len(free(fits, time_)) == DIMENSIONS


def test_what_nobody_counts_any_more_makes_room(path: Path, time_: Time) -> None:
    old = store(path, time_, *many(DIMENSIONS))
    claim = Claim({"requests": 1})
    assert old.take(claim, time_.boot, 0) == 0
    old.settle(claim, time_.boot)
    die(old)
    time_.go(61)
    new = store(path, time_, *many(DIMENSIONS, "n"))
    assert free(new, time_) == [9, *[5] * 7]
    assert new._ledger is not None
    assert free(store(path, time_), time_) == [10, 20]


def test_a_process_that_began_before_that_goes_on(path: Path, time_: Time) -> None:
    old = store(path, time_, *many(DIMENSIONS))
    assert free(old, time_)[0] == 9
    new = store(path, time_, *many(DIMENSIONS, "n"))
    claim = Claim({"requests": 1})
    assert new.take(claim, time_.boot, 0) == 0
    # its places are others' now, so it keeps to its limits alone
    assert len(free(old, time_)) == DIMENSIONS
    claim = Claim({"requests": 1})
    assert old.take(claim, time_.boot, 0) == 0


def test_what_others_still_count_is_said_to_leave_no_room(
    path: Path, time_: Time, caplog: pytest.LogCaptureFixture
) -> None:
    old = store(path, time_, *many(DIMENSIONS))
    assert old.take(Claim({"requests": 1}), time_.boot, 0) == 0
    new = store(path, time_, *many(3, "n"))
    assert free(new, time_) == [9, 5, 5]
    assert new._ledger is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "one dimension more than it can count" in caplog.text


def test_another_versions_file_has_another_name() -> None:
    assert state_path("name").name == "name.2.limits"


# ─── waiting ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.anyio
async def test_a_place_that_another_process_gives_back_is_soon_seen(tmp_path: Path) -> None:
    def clock() -> int:
        return round(anyio.current_time() * 1e9)

    one, other = (
        Limiter(["9/minute", "1 concurrent"], path=tmp_path / "limits", clock=clock)
        for _ in range(2)
    )
    held = await one.acquire()
    held.sent()
    held.settle()
    async with anyio.create_task_group() as group:

        async def give_back() -> None:
            await anyio.sleep(7.3)
            held.release()

        group.start_soon(give_back)
        began = anyio.current_time()
        (await other.acquire(deadline=after(20))).release()
        assert 7.3 <= anyio.current_time() - began < 7.36
