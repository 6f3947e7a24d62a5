"""Processes that share a real Redis, in simulated time: the store and its script as they are, but
for the clock, which the script is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from random import Random
from typing import Any

import fluence_async.contrib.redis as package
from benchmarks.limits.ours import ONE, S, answer
from benchmarks.limits.peers import Limits
from benchmarks.limits.servers import Verdict
from fluence_async._sansio.bucket import Claim
from fluence_async._sansio.rate_limit import RateLimit
from fluence_async.contrib.redis._store import RedisStore
from fluence_async.contrib.redis._units import Reply, Terms
from fluence_async.limiter.limiter import Policy
from tests.contrib.redis_server import RedisServer

__all__ = ["InRedis", "Wire"]

_SCRIPT = (Path(package.__file__).parent / "_step.lua").read_text()
_CLOCK = "redis.call('TIME')"
assert _CLOCK in _SCRIPT
_TOLD = _SCRIPT.replace(_CLOCK, "cjson.decode(table.remove(ARGV))")
_KEYS = [f"fluence:{{simulated}}:{part}" for part in ("units", "tickets", "seen", "state")]


class Wire:
    """A connection to a Redis, for commands that answer with a list of texts and numbers."""

    def __init__(self, redis: RedisServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", redis.port))
        self._answers = self._socket.makefile("rb")

    def say(self, *words: str) -> Iterator[str]:
        encoded = [word.encode() for word in words]
        data = b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
        self._socket.sendall(b"*%d\r\n%s" % (len(words), data))
        head = self._answers.readline()
        assert head[:1] == b"*", head
        for _ in range(int(head[1:])):
            line = self._answers.readline()
            if line[:1] == b"$":
                size = int(line[1:])
                yield self._answers.read(size + 2)[:size].decode()
            else:
                yield line[1:].strip().decode()

    def forget(self) -> None:
        """Let it hold nothing."""
        self._socket.sendall(b"FLUSHALL\r\n")
        assert self._answers.readline() == b"+OK\r\n"

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


class Awake:
    """A courier that is never needed."""

    def rouse(self) -> bool:
        return True


class Line:
    """Nobody waits in it: the simulation asks again."""

    class queue:
        size = 1

    lock = threading.Lock()


class InRedis:
    """So many processes, which are asked in turn."""

    def __init__(
        self,
        wire: Wire,
        limits: Limits | list[RateLimit],
        policy: Policy = "any",
        processes: int = 1,
    ) -> None:
        self._wire = wire
        terms = Terms(
            url="redis://simulated", name="simulated", reserve=0.06, margin=S // 20, drift=5e-4,
            unseen=10 * S, clients=0, policy=policy,
        )  # fmt: skip
        rates = [each if isinstance(each, RateLimit) else RateLimit(*each) for each in limits]
        line: Any = Line()
        self.stores = [RedisStore(terms, rates, line, lambda _: Awake()) for _ in range(processes)]
        self._turns = cycle(range(processes))
        self._of: dict[Claim, RedisStore] = {}

    def take(self, now: int, costs: Mapping[str, int] = ONE) -> tuple[Claim | None, int]:
        wakes = []
        for _ in self.stores:
            store = self.stores[next(self._turns)]
            claim = Claim(costs)
            wake = 2**63
            for _ in range(4):  # to be told what others learnt, to ask, to be served
                wake = store.take(claim, now, 0)
                if not wake:
                    store.sent(claim)
                    self._of[claim] = store
                    return claim, 0
                if now < wake < 2**62:
                    break
                self.step(store, now)
            wakes.append(wake)
        return None, min(wakes)

    def delivered(self, claim: Claim, now: int) -> None:
        """Not told: its processes wait for the headers."""

    def answered(self, claim: Claim, now: int, verdict: Verdict) -> None:
        store = self._of.pop(claim)
        answer(store, claim, now, verdict)
        self.step(store, now)

    def retry_s(self, attempt: int, verdict: Verdict, chance: Random) -> float:
        said = float(verdict.headers.get("retry-after", 0))
        return said if 0 < said <= 60 else min(0.5 * 2.0 ** min(attempt, 10), 8.0) * chance.random()

    def step(self, store: RedisStore, now: int) -> None:
        """What a courier does."""
        store.renew(now)
        with self.asked(store, now):
            pass

    @contextmanager
    def asked(self, store: RedisStore, now: int) -> Iterator[Reply]:
        """A question is under way; its answer comes in at the end."""
        arguments, ask, unit = store.question(now)
        told = 1_800_000_000 * S + now
        clock = f"[{told // S}, {told % S // 1000}]"
        words = list(self._wire.say("EVAL", _TOLD, "4", *_KEYS, *arguments, clock))
        yield Reply.read(words)
        store.answered(words, ask, unit, now)

    def state(self, field: str) -> str:
        """What Redis has of the whole."""
        script = "return {redis.call('HGET', KEYS[1], ARGV[1]) or ''}"
        (word,) = self._wire.say("EVAL", script, "1", _KEYS[3], field)
        return word
