"""Eight processes on one file, some of them killed: what a server would stamp.

Real processes, real time, windows of fractions of a second. `python -m
tests.shell.test_limiter_processes` runs it longer and prints its figures.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio
import pytest

from fluence_async.limiter import Limiter
from tests.shell.limiting import BACKENDS

UNSEEN_S = 0.1
AT_ONCE = 20
PATIENCE_S = 60


async def work(path: Path, limits: Sequence[str], stamps: int) -> None:
    """Call and call, until killed; the server's stamps are written down."""
    limiter = Limiter(limits, path=path, margin_s=0.002, drift=5e-4, unseen_s=UNSEEN_S, reserve=0)
    chance = random.Random(os.getpid())

    async def calls() -> None:
        while True:
            permit = await limiter.acquire()
            try:
                permit.sent()
                await anyio.sleep(chance.choice([0, 0, 0.001, 0.005]))
                os.write(stamps, time.monotonic_ns().to_bytes(8, sys.byteorder))
                permit.settle()
            finally:
                permit.release()

    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(calls)


def begin(backend: str, path: Path, limits: Sequence[str], stamps: int) -> int:
    if child := os.fork():
        return child
    try:
        signal.alarm(PATIENCE_S)
        anyio.run(work, path, limits, stamps, backend=backend)
    except BaseException as error:
        os.write(2, f"in a worker: {error!r}\n".encode())
    os._exit(1)


def crowd(
    backends: Sequence[str], folder: Path, limits: Sequence[str], count: int, kills_per_s: float
) -> list[int]:
    """So many stamps, in ns, of as many workers as there are backends."""
    path, file = folder / "limits", folder / "stamps"
    stamps = os.open(file, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    chance = random.Random(1)
    workers = [begin(backend, path, limits, stamps) for backend in backends]
    give_up = time.monotonic() + PATIENCE_S
    try:
        while file.stat().st_size < 8 * count:
            assert time.monotonic() < give_up
            time.sleep(0.01)
            if chance.random() < kills_per_s * 0.01:
                n = chance.randrange(len(workers))
                os.kill(workers[n], signal.SIGKILL)
                assert os.waitpid(workers[n], 0)[1] == signal.SIGKILL  # it had not ended before
                workers[n] = begin(backends[n], path, limits, stamps)
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
            os.waitpid(worker, 0)
        os.close(stamps)
    return sorted(array("q", file.read_bytes()))


def busiest(stamps: Sequence[int], period: int) -> int:
    """The most in any half-open window of that length."""
    return max(n + 1 - bisect_left(stamps, at - period + 1) for n, at in enumerate(stamps))


def used(stamps: Sequence[int], limit: int, period: int) -> float:
    """The share of what a client could have had that knew the server's every stamp."""
    rounds = (len(stamps) - 1) // limit
    return rounds * period / (stamps[rounds * limit] - stamps[0])


@pytest.mark.parametrize("kills_per_s", [0, 4])
def test_eight_processes_never_pass_the_limits_and_use_them(
    kills_per_s: float, tmp_path: Path
) -> None:
    limits = ("40/0.4s", "100/1.5s")
    stamps = crowd(BACKENDS * 4, tmp_path, limits, 300, kills_per_s)
    assert busiest(stamps, 400_000_000) <= 40
    assert busiest(stamps, 1_500_000_000) <= 100
    assert used(stamps, 100, 1_500_000_000) > 0.5  # a busy machine


TAKER = """
import sys, anyio
from fluence_async.limiter import Limiter

limiter = Limiter("10/minute", path=sys.argv[1], reserve=0)
for line in sys.stdin:
    taken = 0
    while taken < 3:
        try:
            permit = limiter.acquire_nowait()
        except anyio.WouldBlock:
            break
        permit.sent()
        permit.settle()
        taken += 1
    print(taken, flush=True)
"""
SHIFTED = ["unshare", "--time", "--boottime", "8640000", "--monotonic", "8640000", "--fork"]


def test_processes_whose_boot_clocks_differ_share_the_limit_too(tmp_path: Path) -> None:
    try:
        subprocess.run([*SHIFTED, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no time namespace can be made here: {error}")
    takers = [
        subprocess.Popen(
            [*prefix, sys.executable, "-c", TAKER, str(tmp_path / "limits")],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for prefix in ([], SHIFTED)
    ]
    taken = 0
    for taker in takers * 4:
        assert taker.stdin is not None
        assert taker.stdout is not None
        taker.stdin.write("go\n")
        taker.stdin.flush()
        taken += int(taker.stdout.readline())
    for taker in takers:
        taker.communicate()
    assert taken == 10


def main() -> None:
    for kills_per_s in (0, 1):
        with TemporaryDirectory() as folder:
            stamps = crowd(BACKENDS * 4, Path(folder), ("100/2s",), 1600, kills_per_s)
        most, share = busiest(stamps, 2_000_000_000), used(stamps, 100, 2_000_000_000)
        print(f"{kills_per_s} kills/s: {len(stamps)} stamps, most {most} of 100, {share:.1%} used")


if __name__ == "__main__":
    main()
