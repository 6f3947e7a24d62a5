"""Processes that share a Redis or a file: equal calls at once are one request, kills and all."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fluence_async.testing import FluenceServer, Pause, Stream
from tests.contrib.redis_server import WHY_NOT, RedisServer

LEASE_S = 1.0
PROCESS = """
import logging, sys, anyio
from fluence_async import FluenceSession
from fluence_async.cache import SqliteCache, _lease, sqlite
sqlite._BUSY_S = 2.0  # a slow disk is not what this is about
base_url, api_key, place, _lease.LEASE_S = *sys.argv[1:4], float(sys.argv[4])
logging.basicConfig()

async def main():
    cache = place if "://" in place else SqliteCache(place)
    async with FluenceSession(api_key=api_key, base_url=base_url, cache=cache) as fluence:
        print("ready", flush=True)
        sys.stdin.readline()
        async with fluence.chat.completions.stream(model="fluence-chat", messages="hi") as stream:
            print(await stream.get_final_text(), stream.meta.cached)
    if not isinstance(cache, str):
        await cache.aclose()

anyio.run(main)
"""


@pytest.fixture(params=["sqlite", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the processes keep their answers."""
    if request.param == "sqlite":
        yield str(tmp_path / "answers.sqlite3")
        return
    if WHY_NOT:
        pytest.skip(WHY_NOT)
    with RedisServer(tmp_path) as redis:
        yield redis.url


class Process:
    """One that is ready to ask."""

    def __init__(self, server: FluenceServer, place: str, lease_s: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, server.base_url, server.api_key, place, str(lease_s)],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def begin(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdin is not None
        assert self._process.stdout.readline() == "ready\n"
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def end(self) -> str:
        printed, complaints = self._process.communicate(timeout=60)
        assert (self._process.returncode, complaints) == (0, "")
        return printed.strip()

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=60)


def until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_processes_that_ask_the_same_at_once_make_one_request(place: str) -> None:
    with FluenceServer() as server:
        server.script(Stream("Hel", Pause(1.0), "lo"), "another")
        processes = [Process(server, place, 20.0) for _ in range(4)]
        for process in processes:
            process.begin()
        answers = sorted(process.end() for process in processes)
        assert answers == ["Hello False", "Hello True", "Hello True", "Hello True"]
        assert len(server.requests) == 1


def test_a_killed_process_holds_up_others_for_its_lease_only(place: str) -> None:
    with FluenceServer() as server:
        server.script(Stream("Hel", Pause(20), "lo"), "Hello again")
        killed, other = (Process(server, place, LEASE_S) for _ in range(2))
        killed.begin()
        until(lambda: server.requests)
        killed.kill()
        began = time.monotonic()
        other.begin()
        assert other.end() == "Hello again False"
        assert time.monotonic() - began < 15
