"""One limiter for each key and origin in a process, while it has something to remember."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Iterator

import pytest

from fluence_async import RateLimit
from fluence_async.limiter import Limiter, limiter_name, memory, shared_limiter
from tests.shell.limiting import in_a_fork


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[memory._Registry]:
    """A registry of the test's own."""
    registry = memory._Registry()
    monkeypatch.setattr(memory, "_registry", registry)
    return registry


def limits(limiter: Limiter) -> list[str]:
    return [str(window.limit) for window in limiter.snapshot().windows]


def test_the_same_name_is_the_same_limiter_and_another_is_another() -> None:
    names = [limiter_name("key", "origin"), limiter_name("key", "elsewhere")]
    one, other = (shared_limiter(name, ["5/minute"]) for name in names)
    assert shared_limiter(names[0], ["5/minute"]) is one
    assert other is not one


def test_what_any_session_says_is_obeyed_by_all() -> None:
    first = shared_limiter("name", ["100/minute", "1000/hour"])
    for _ in range(3):
        first.acquire_nowait().settle()
    second = shared_limiter("name", ["50/minute", RateLimit("2000/hour"), "10/second"])
    assert second is first
    assert limits(first) == ["50/minute", "1000/hour", "10/second"]
    assert [window.used for window in first.snapshot().windows] == [3, 3, 3]


def test_limits_that_make_no_sense_leave_the_shared_ones_as_they_are() -> None:
    limiter = shared_limiter("name", ["5/minute"])
    with pytest.raises(ValueError, match="'nonsense'"):
        shared_limiter("name", ["1/second", "nonsense"])
    with pytest.raises(ValueError, match="must count requests"):
        shared_limiter("name", [])
    assert limits(limiter) == ["5/minute"]


def test_what_was_used_is_remembered_when_all_sessions_are_gone() -> None:
    shared_limiter("name", ["5/minute"]).acquire_nowait().settle()
    gc.collect()
    for n in range(200):
        shared_limiter(f"other {n}", ["5/minute"])
    gc.collect()
    (window,) = shared_limiter("name", ["5/minute"]).snapshot().windows
    assert window.used == 1


def test_a_limiter_that_somebody_holds_stays_the_same() -> None:
    held = shared_limiter("name", ["5/minute"])
    for n in range(200):
        shared_limiter(f"other {n}", ["5/minute"])
    gc.collect()
    assert shared_limiter("name", ["5/minute"]) is held


def test_limiters_with_nothing_to_remember_go() -> None:
    alive = weakref.WeakSet(shared_limiter(f"{n}", ["5/minute"]) for n in range(1000))
    gc.collect()
    assert len(alive) <= 200


def test_a_paused_limiter_has_something_to_remember() -> None:
    shared_limiter("name", ["5/minute"]).pause(1000)
    for n in range(200):
        shared_limiter(f"other {n}", ["5/minute"])
    gc.collect()
    assert shared_limiter("name", ["5/minute"]).snapshot().paused_s > 900


def test_threads_that_ask_at_once_get_one() -> None:
    found: list[Limiter] = []
    barrier = threading.Barrier(8)

    def ask() -> None:
        barrier.wait()
        found.append(shared_limiter("name", ["5/minute"]))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len({id(limiter) for limiter in found}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_while_another_thread_asks_does_not_deadlock_the_child(
    registry: memory._Registry,
) -> None:
    with registry.lock:
        thread = threading.Thread(target=in_a_fork, args=[lambda: shared_limiter("n", ["1/hour"])])
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
