"""The floor of the batch lane, in virtual time: within a limiter, and among those of one file."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import anyio
import pytest

from fluence_async._sansio.lanes import EVERY
from fluence_async.limiter import Limiter
from tests.shell import limiting
from tests.shell.limiting import (
    HOLD,
    all_parked,
    callers,
    store,  # noqa: F401
    virtual,
)
from tests.virtual import anyio_backend  # noqa: F401

pytestmark = pytest.mark.anyio


async def test_every_tenth_grant_is_the_batch_lanes_while_both_wait() -> None:
    limiter = virtual("1/minute", reserve=0)
    async with callers(limiter) as those:
        await those.come("holder")
        await those.come("rb", lane=1, front=True)
        await those.come("b1", "b2", lane=1)
        await those.come(*[f"i{n}" for n in range(20)])
        await those.come("ri", front=True)
        await anyio.sleep(24 * HOLD + 1)
        interactive = ["ri", *[f"i{n}" for n in range(20)]]
        assert (
            those.names
            == [
                "holder",
                *interactive[:9],
                "rb",  # a retry keeps its place in its lane
                *interactive[9:18],
                "b1",
                *interactive[18:],
                "b2",
            ]
        )


async def test_who_comes_after_nine_others_does_not_pass_batch_by() -> None:
    limiter = virtual("20/minute", reserve=0.5)
    async with callers(limiter) as those:
        await those.come(*[f"first {n}" for n in range(10)], lane=1)
        await those.come("batch", lane=1)
        await those.come(*range(9))
        assert those.names[10:] == [*range(9), "batch"]  # which takes the last unit of the reserve
        await those.come("tenth")
        assert len(those.names) == 20
        await anyio.sleep(HOLD + 0.1)
        assert those.names[20:] == ["tenth"]


async def test_a_batch_call_that_left_is_owed_nothing() -> None:
    limiter = virtual("1/minute", reserve=0)
    async with callers(limiter) as those:
        await those.come("holder")
        await those.come("b1", lane=1)
        await those.come(*range(12))
        await anyio.sleep(8 * HOLD + 1)
        those.scopes["b1"].cancel()
        await all_parked()
        await those.come("b2", lane=1)
        await anyio.sleep(8 * HOLD)
        assert those.names == ["holder", *range(12), "b2"]


async def test_the_wait_that_is_refused_counts_the_floor() -> None:
    limiter = virtual("1/minute", reserve=0)
    async with callers(limiter) as those:
        await those.come("holder")
        await those.come("b1", "b2", lane=1)
        await those.come(*range(12))
        for name, lane, ahead in (("i", 0, 13), ("b", 1, 14)):
            for early, refused in ((-1, True), (1, False)):
                with anyio.move_on_after(0.1):
                    deadline = anyio.current_time() + (ahead + 1) * HOLD + early
                    await those._call((name, early), lane=lane, deadline=deadline)
                assert ((name, early) in those.failed) is refused


@pytest.mark.parametrize("store", ["file"], indirect=True)
@pytest.mark.parametrize("limits", [["2/second"], ["4/2s", "10/7s"]])
async def test_a_batch_process_beside_busy_interactive_ones_has_its_tenth(
    limits: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "shared"
    monkeypatch.setattr(limiting, "_paths", itertools.repeat(path))
    served: list[str] = []

    async def work(name: str, lane: int, limiter: Limiter) -> None:
        while True:
            permit = await limiter.acquire(lane=lane)
            permit.sent()
            await anyio.sleep(0.2)
            served.append(name)
            permit.settle()

    await anyio.sleep(1)  # who comes at 0 shows no ticket
    async with anyio.create_task_group() as group:
        for name, lane in (("a", 0), ("b", 0), ("batch", 1)):
            limiter = virtual(*limits)
            for _ in range(30):
                group.start_soon(work, name, lane, limiter)
        await anyio.sleep(1)  # the first, who come before anybody waits
        served.clear()
        while len(served) < 100:
            await anyio.sleep(5)
        group.cancel_scope.cancel()
    count = Counter(served[:100])
    assert count["batch"] >= 100 / EVERY - 1, count
    assert count["a"] + count["b"] >= 40, count
