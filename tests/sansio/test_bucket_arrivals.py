"""What the limiter's state machine promises, whatever happens in which order.

No unit is lost or made; and however the server stamps the arrivals (each anywhere between its
first byte and the bound by which it had arrived), no period holds more than the limit.
"""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fluence_async._sansio.bucket import ARRIVED, FRESH, HELD, NEVER, SENT, Bucket, Claim, RateLimit

S = 1_000_000_000
ONE = {"requests": 1}


def bucket(*limits: str, **options: float) -> Bucket:
    return Bucket([RateLimit(limit) for limit in limits], **options)  # type: ignore[arg-type]


class Request:
    """One claim as the server may see it: stamped anywhere between `first` and `last`."""

    def __init__(self, claim: Claim, first: int) -> None:
        self.claim = claim
        self.first = first
        self.last: float = float("inf")
        self.may_arrive = False


def most_arrivals(requests: list[Request], period: int) -> int:
    """The most arrivals within [x, x + period), for every x and every choice of the stamps.

    The stamps are independent, so a request can be made to fall into a window if its span touches
    it; and a window can be moved on until it begins where one of its spans ends.
    """
    spans = [(each.first, each.last) for each in requests if each.may_arrive]
    begins = [*{last for _, last in spans if last < float("inf")}, *(first for first, _ in spans)]
    return max(
        (sum(last >= x and first < x + period for first, last in spans) for x in begins), default=0
    )


def holds(of: Bucket, requests: list[Request]) -> None:
    """Assert the invariant."""
    for window in of.windows:
        flying = sum(
            each.claim.costs.get(window.dimension, 0)
            for each in requests
            if each.claim.state in (HELD, SENT)
        )
        returning = sum(cost for _, cost in window.returns)
        assert window.free + flying + returning == window.rate.limit
        assert 0 <= window.free <= window.rate.limit
        assert sorted(window.returns) == list(window.returns)


class Traffic(RuleBasedStateMachine):
    """Any order of takes, sends, settles and failures, at any times."""

    limits = ("3/second", "5/3s")

    def __init__(self) -> None:
        super().__init__()
        self.of = bucket(*self.limits, reserve=0.34, margin=1_000_000)
        self.now = 0
        self.requests: list[Request] = []

    def open(self, state: tuple[int, ...]) -> list[Request]:
        return [each for each in self.requests if each.claim.state in state]

    @rule(lane=st.integers(0, 1))
    def take(self, lane: int) -> None:
        request = Request(Claim(ONE), self.now)
        wake = self.of.take(request.claim, self.now, lane)
        if wake == 0:
            self.requests.append(request)
        else:
            assert request.claim.state == FRESH
            assert wake > self.now

    @rule(lane=st.integers(0, 1))
    def sleep_until_told_and_take(self, lane: int) -> None:
        request = Request(Claim(ONE), self.now)
        wake = self.of.take(request.claim, self.now, lane)
        if 0 < wake < NEVER:
            assert self.of.take(request.claim, wake - 1, lane) == wake
            self.now = request.first = wake
            assert self.of.take(request.claim, wake, lane) == 0
        if wake < NEVER:
            self.requests.append(request)

    @rule(ns=st.sampled_from([1, S // 10, S, 3 * S]) | st.integers(0, 4 * S))
    def wait(self, ns: int) -> None:
        self.now += ns

    @precondition(lambda self: self.open((HELD,)))
    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.open((HELD,))))
        self.of.sent(request.claim)
        request.first, request.may_arrive = self.now, True

    @precondition(lambda self: self.open((SENT,)))
    @rule(data=st.data())
    def answer(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.open((SENT,))))
        self.of.settle(request.claim, self.now)
        request.last = self.now

    @precondition(lambda self: self.open((SENT,)))
    @rule(data=st.data(), grace=st.integers(-S, S))
    def be_delivered(self, data: st.DataObject, grace: int) -> None:
        request = data.draw(st.sampled_from(self.open((SENT,))))
        request.last = max(request.first, self.now + grace)
        self.of.settle(request.claim, int(request.last))

    @precondition(lambda self: self.open((ARRIVED,)))
    @rule(data=st.data())
    def be_answered_or_end(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.open((ARRIVED,))))
        if data.draw(st.booleans()):
            self.of.settle(request.claim, self.now, True)
        else:
            self.of.release(request.claim, self.now)

    @precondition(lambda self: self.open((HELD, SENT)))
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(self.open((HELD, SENT))))
        request.last = self.now + 10 * S
        self.of.release(request.claim, self.now)

    @rule(ns=st.integers(0, S))
    def block(self, ns: int) -> None:
        self.of.block(self.now + ns)

    @invariant()
    def no_unit_is_lost_or_made(self) -> None:
        holds(self.of, self.requests)

    def teardown(self) -> None:
        assert most_arrivals(self.requests, S) <= 3
        assert most_arrivals(self.requests, 3 * S) <= 5


Traffic.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_any_traffic_keeps_the_invariant_and_the_limits = Traffic.TestCase


def busy_traffic(of: Bucket, seed: int, calls: int = 40) -> list[Request]:
    """Callers that send as soon as they may, and whose answers take up to three seconds."""
    chance = random.Random(seed)
    now = 0
    requests: list[Request] = []
    while len(requests) < calls:
        due = [each for each in requests if each.claim.state == SENT and each.last <= now]
        for each in due:
            of.settle(each.claim, int(each.last))
        request = Request(Claim(ONE), now)
        wake = of.take(request.claim, now)
        holds(of, requests + [request] * (wake == 0))
        if wake == 0:
            of.sent(request.claim)
            request.may_arrive = True
            request.last = now + chance.randrange(3 * S)
            requests.append(request)
        else:
            answers = [int(each.last) for each in requests if each.claim.state == SENT]
            now = min([wake, *answers])
    return requests


def broken(seed: int, margin: int) -> bool:
    of = bucket("5/second", margin=margin, drift=0)
    return most_arrivals(busy_traffic(of, seed), S) > 5


def test_a_busy_client_never_has_more_arrivals_than_the_limit_in_any_period() -> None:
    assert not any(broken(seed, margin=0) for seed in range(200))


def test_units_that_come_back_50_ms_early_are_caught() -> None:
    assert sum(broken(seed, margin=-50_000_000) for seed in range(200)) > 150


@pytest.mark.parametrize("limit", ["2/3s", "2/second"])
def test_limits_that_come_later_hold_for_all_that_is_taken_after_them(limit: str) -> None:
    rate = RateLimit(limit)
    period = round(rate.period_s * S)
    for seed in range(100):
        of = bucket("5/3s", margin=0, drift=0)
        before = busy_traffic(of, seed, calls=9)
        now = int(max(each.first for each in before))
        of.tighten([rate], now)
        requests = list(before)
        for _ in range(8):
            request = Request(Claim(ONE), now)
            while wake := of.take(request.claim, now):
                flying = [each for each in requests if each.claim.state == SENT]
                now = min([wake, *(int(each.last) for each in flying)])
                for each in flying:
                    if each.last <= now:
                        of.settle(each.claim, now)
            of.sent(request.claim)
            request.first, request.last, request.may_arrive = now, now, True
            requests.append(request)
            near = [each for each in requests if each.last > now - period]
            assert len(near) <= rate.limit, seed
            of.settle(request.claim, now)
