"""A limiter by its policy, and what a 429 means to all who share it."""

from __future__ import annotations

import anyio
import pytest

from fluence_async import Limiter
from fluence_async.meta import RateLimitSnapshot
from tests.shell.limiting import after, store, virtual  # noqa: F401
from tests.virtual import anyio_backend  # noqa: F401

pytestmark = pytest.mark.anyio


async def test_by_default_the_first_call_goes_alone_and_a_report_lets_the_others_follow() -> None:
    limiter = virtual("100/minute", policy="any")
    first = await limiter.acquire()
    first.sent()
    with pytest.raises(anyio.WouldBlock):
        limiter.acquire_nowait()
    first.settle(reports=[RateLimitSnapshot(limit=100, remaining=99)])
    permits = [limiter.acquire_nowait() for _ in range(99)]
    assert len(permits) == 99
    (window,) = limiter.snapshot().windows
    assert window.learnt is not None
    assert window.learnt.burst == 100


async def test_without_an_answer_it_goes_on_after_a_second() -> None:
    limiter = virtual("100/minute", policy="any")
    (await limiter.acquire()).sent()
    with anyio.fail_at(after(1.1)):
        (await limiter.acquire()).sent()


async def test_policy_window_lets_the_whole_limit_go_and_learns_nothing() -> None:
    limiter = virtual("100/minute", policy="window")
    permits = [limiter.acquire_nowait() for _ in range(100)]
    permits[0].refused()
    assert limiter.snapshot().windows[0].learnt is None


@pytest.mark.parametrize("policy", ["any", "window"])
async def test_a_429_pauses_everyone_once(policy: str) -> None:
    limiter = virtual("100/minute", policy=policy)
    permit = await limiter.acquire()
    permit.sent()
    permit.refused(3.0)
    permit.refused(3.0)
    begun = anyio.current_time()
    (await limiter.acquire()).settle()
    assert 3.0 < anyio.current_time() - begun < 3.2
    (await limiter.acquire()).settle()
    assert anyio.current_time() - begun < 4


async def test_a_quota_that_is_used_up_teaches_nothing() -> None:
    limiter = virtual("100/minute", policy="any")
    before = limiter.snapshot().windows[0].learnt
    permit = await limiter.acquire()
    permit.sent()
    permit.refused(for_rate=False)
    assert limiter.snapshot().windows[0].learnt == before


async def test_a_policy_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="policy='some'"):
        Limiter(policy="some")  # type: ignore[arg-type]
