"""A unit whose request is with the server comes back before its answer does, in virtual time."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import pytest

from fluence_async import Limiter, Permit
from fluence_async.errors import APITimeoutError, LimitWaitError
from tests.shell.limiting import HOLD, after, callers, store, virtual  # noqa: F401
from tests.virtual import anyio_backend  # noqa: F401

pytestmark = pytest.mark.anyio

GRACE = 0.25


class Sent:
    """A limiter of one unit a minute, which is sent; and when it comes back."""

    def __init__(self, **options: object) -> None:
        self.limiter = virtual("1/minute", **options)
        self.permit = self.limiter.acquire_nowait()
        self.permit.sent()
        self.begun = anyio.current_time()

    async def back(self) -> float:
        """Seconds from its sending until it is back, and the hold."""
        (await self.limiter.acquire()).release()
        return anyio.current_time() - self.begun - HOLD


def about(seconds: float) -> object:
    return pytest.approx(seconds, abs=1e-4)


# ─── delivered ────────────────────────────────────────────────────────────────────────────


async def test_a_delivered_unit_does_not_wait_for_the_headers() -> None:
    sent = Sent()
    await anyio.sleep(2)
    sent.permit.delivered()
    assert await sent.back() == about(2 + GRACE)


@pytest.mark.parametrize("end", ["settle", "release", "delivered", "refused", "sent"])
async def test_the_first_bound_stands(end: str) -> None:
    sent = Sent()
    sent.permit.delivered()
    await anyio.sleep(30)
    getattr(sent.permit, end)()
    assert await sent.back() == about(GRACE)


async def test_headers_that_were_first_stand_too() -> None:
    sent = Sent()
    await anyio.sleep(1)
    sent.permit.settle()
    await anyio.sleep(1)
    sent.permit.delivered()
    assert await sent.back() == about(1)


async def test_strictly_headers_alone_are_believed() -> None:
    sent = Sent(strict=True)
    sent.permit.delivered()
    await anyio.sleep(30)
    sent.permit.settle(processed_s=30)
    assert await sent.back() == about(30)


async def test_a_request_that_was_never_sent_is_not_delivered() -> None:
    limiter = virtual("1/minute")
    permit = limiter.acquire_nowait()
    permit.delivered()
    permit.release()
    limiter.acquire_nowait().release()


async def test_who_waits_knows_for_how_long_from_then_on() -> None:
    sent = Sent()
    with pytest.raises(APITimeoutError):
        await sent.limiter.acquire(deadline=after(5))
    sent.permit.delivered()
    with pytest.raises(LimitWaitError) as refused:
        await sent.limiter.acquire(deadline=after(5))
    assert refused.value.wait_s == about(GRACE + HOLD)


async def test_who_waits_already_is_served_in_time() -> None:
    sent = Sent()
    async with callers(sent.limiter) as those:
        await those.come("waiting")
        sent.permit.delivered()
        await anyio.sleep(GRACE + HOLD + 0.001)
        assert those.names == ["waiting"]


# ─── stated ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("stated", "back"),
    [
        (None, 40),
        (0.0, 40),
        (GRACE / 2, 40),
        (GRACE, 40),
        (30, 10 + GRACE),
        (39.9, 0.1 + GRACE),
        (41, GRACE),  # it cannot have begun before it was sent
        (1e5, GRACE),
    ],
)
async def test_the_time_that_the_server_states_is_counted_back(
    stated: float | None, back: float
) -> None:
    sent = Sent()
    await anyio.sleep(40)
    sent.permit.settle(processed_s=stated)
    assert await sent.back() == about(back)


async def test_of_what_was_not_said_to_be_sent_nothing_is_counted_back() -> None:
    limiter = virtual("1/minute")
    await anyio.sleep(50)
    begun = anyio.current_time()
    limiter.acquire_nowait().settle(processed_s=50)
    (await limiter.acquire()).release()
    assert anyio.current_time() - begun == about(HOLD)


# ─── the grace ────────────────────────────────────────────────────────────────────────────


def refuse(limiter: Limiter, early: bool = True, for_rate: bool = True) -> None:
    permit = limiter.acquire_nowait()
    permit.sent()
    if early:
        permit.delivered()
    permit.refused(for_rate=for_rate)


def grace(limiter: Limiter) -> float:
    early = limiter._line.early
    assert early is not None
    return early.grace / 1e9


async def test_a_refusal_that_nothing_explains_doubles_the_grace_up_to_a_bound() -> None:
    limiter = virtual("100/minute")
    graces = []
    for _ in range(8):
        refuse(limiter)
        await anyio.sleep(61)
        refuse(limiter)
        refuse(limiter)  # of the same salvo
        graces.append(grace(limiter))
    assert graces == [0.5, 1, 2, 4, 8, 8, 8, 8]


@pytest.mark.parametrize("more", [(), ("5 concurrent", "9 tokens/second")])
async def test_a_refusal_before_a_unit_can_have_come_back_early_does_not(
    more: tuple[str, ...],
) -> None:
    limiter = virtual("100/minute", *more)
    for _ in range(3):
        refuse(limiter)
        await anyio.sleep(15)
    assert grace(limiter) == GRACE


@pytest.mark.parametrize(
    "harmless",
    [
        lambda limiter: refuse(limiter, early=False),
        lambda limiter: refuse(limiter, for_rate=False),
        lambda limiter: limiter.acquire_nowait().settle(),
    ],
)
async def test_nothing_else_does(harmless: Callable[[Limiter], None]) -> None:
    limiter = virtual("100/minute")
    for _ in range(3):
        harmless(limiter)
        await anyio.sleep(61)
    assert grace(limiter) == GRACE


async def test_what_the_learner_can_explain_is_not_the_graces_fault() -> None:
    limiter = Limiter("100/minute", policy="any", clock=lambda: round(anyio.current_time() * 1e9))

    async def send(accepted: bool) -> Permit:
        permit = await limiter.acquire()
        permit.sent()
        permit.delivered()
        permit.settle(accepted=accepted)
        return permit

    await send(accepted=True)
    await anyio.sleep(61)
    burst = [await send(accepted=True) for _ in range(2)]
    (await send(accepted=False)).refused()  # deeper than was proven: a smaller burst
    assert burst
    assert grace(limiter) == GRACE
