"""The limits in simulated hours, against servers that count in every way."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from random import Random

import pytest

from benchmarks.limits.networks import NETWORKS, Way
from benchmarks.limits.ours import Ours, Several
from benchmarks.limits.peers import Limits
from benchmarks.limits.runs import AS_PROMISED, DOCUMENTED, SMALL, Scene, broken, long_run, promised
from benchmarks.limits.servers import SERVERS, Server
from benchmarks.limits.world import S, World, ideal
from fluence_async._sansio.claim import Claim
from fluence_async.limiter._early import Early


@pytest.mark.parametrize("first", range(0, 240, 60))
def test_no_seed_breaks_a_promise(first: int) -> None:
    """Each one by itself: `python -m benchmarks.limits --seed N`."""
    wrong = {seed: text for seed in range(first, first + 60) if (text := broken(seed))}
    assert not wrong


@pytest.mark.parametrize("seed", [6362, 7026, 9013])
def test_a_burst_that_jitter_made_look_deeper_than_it_was_is_unlearnt(seed: int) -> None:
    assert not broken(seed)


@pytest.mark.parametrize("kind", AS_PROMISED)
@pytest.mark.parametrize("network", ["jittered", "bursty", "slow headers"])
def test_servers_that_keep_to_their_limits_refuse_nothing_and_cost_no_time(
    kind: str, network: str
) -> None:
    outcome = Scene(kind, network, seed=7).run()
    assert not outcome.refused
    assert promised(DOCUMENTED, 3000) / outcome.makespan >= 0.99
    assert outcome.busiest(60) <= 100
    assert outcome.busiest(3600) <= 1000


# ─── answers that take up to a minute ─────────────────────────────────────────────────────


@pytest.mark.parametrize("policy", ["any", "window"])
@pytest.mark.parametrize("kind", AS_PROMISED)
@pytest.mark.parametrize("limits", [DOCUMENTED, DOCUMENTED[:1]], ids=len)
def test_slow_answers_do_not_hold_the_rate_down(limits: Limits, kind: str, policy: str) -> None:
    scene = Scene(kind, "slow headers", seed=7, limits=tuple(limits))
    outcome = scene.run(partial(Ours, policy=policy), 3000)
    assert not outcome.refused
    assert long_run(outcome, limits) >= 0.99


def test_without_a_kernel_that_tells_they_do() -> None:
    class Deaf(Ours):
        def delivered(self, claim: Claim, now: int) -> None: ...

    scene = Scene("sliding log", "slow headers", seed=7, limits=((100, 60.0),))
    assert 0.6 < long_run(scene.run(Deaf, 3000), DOCUMENTED[:1]) < 0.7


@pytest.mark.parametrize("kind", AS_PROMISED)
def test_slow_answers_cost_no_refusal_whatever_the_seed(kind: str) -> None:
    for seed in range(40):
        scene = Scene(kind, "slow headers", seed=seed, limits=tuple(SMALL))
        for policy in ("any", "window"):
            assert not scene.run(partial(Ours, policy=policy), 120).refused, (seed, policy)


def queued(chance: Random) -> Way:
    """A server that counts every other request two seconds after its kernel has it."""
    wait = chance.choice([0, 2])
    return Way(0.05 + wait, chance.uniform(1, 60), 0.05, 0.1 - wait)


class NeverToBlame(Early):
    def blame(self, now: int, period: int) -> None: ...


def test_a_server_that_queues_before_it_counts_is_met_with_a_longer_grace() -> None:
    def refused(early: Early | None) -> int:
        ours = Ours([(100, 60.0)], "window")
        ours.early = early
        return len(World(ours, scene.server(), queued, seed=7).run(3000).refused)

    scene = Scene("sliding log", "slow headers", seed=7, limits=((100, 60.0),))
    early = Early()
    assert 0 < refused(early) <= 40
    assert early.grace >= 2 * S
    assert refused(NeverToBlame()) > 90
    assert refused(None) == 0


def test_what_is_settled_when_it_is_sent_meets_refusals() -> None:
    class Hasty(Ours):
        def take(self, now: int) -> tuple[Claim | None, int]:
            claim, wake = super().take(now)
            if claim is not None:
                self.delivered(claim, now)
            return claim, wake

    assert Scene("sliding log", "bursty", seed=7).run(partial(Hasty, policy="window")).refused


# ─── servers that count otherwise ─────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", sorted({*SERVERS} - {*AS_PROMISED}))
@pytest.mark.parametrize(("headers", "most"), [(False, 20), (True, 1)])
def test_servers_that_count_otherwise_are_learnt(kind: str, headers: bool, most: int) -> None:
    """The rate from the second hour on; before that, what is learnt and what was saved up."""
    scene = Scene(kind, "jittered", seed=7, headers=headers)
    outcome = scene.run()
    assert len(outcome.refused) <= most
    at_best = ideal(scene.server(), 3000) - ideal(scene.server(), 1000)
    assert at_best / (outcome.accepted[2999] - outcome.accepted[999]) >= 0.96


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("headers", [False, True])
def test_processes_that_share_a_file_learn_as_one(kind: str, headers: bool, tmp_path: Path) -> None:
    scene = Scene(kind, "jittered", seed=7, headers=headers)
    outcome = scene.run(partial(Several, tmp_path), 400)
    assert outcome.busiest(60) <= 100
    assert len(outcome.refused) <= (0 if kind in AS_PROMISED else 1 if headers else 16)
    if kind in AS_PROMISED:
        assert promised(DOCUMENTED, 400) / outcome.makespan >= 0.95


def test_no_seed_breaks_a_promise_of_processes_that_share_a_file(tmp_path: Path) -> None:
    for seed in range(12):
        folder = tmp_path / str(seed)
        assert not broken(seed, partial(Several, folder, processes=1 + seed % 4))


@pytest.mark.parametrize("kind", SERVERS)
def test_a_server_that_states_more_than_the_limits_is_used_where_that_is_allowed(kind: str) -> None:
    more = [(3 * limit, period) for limit, period in DOCUMENTED]
    makespans = {}
    for policy in ("any", "any-generous"):
        rules = [SERVERS[kind](limit, period, 0.4) for limit, period in more]
        server = Server(rules, headers=True, retry_after=True)
        outcome = World(Ours(DOCUMENTED, policy), server, NETWORKS["jittered"], seed=3).run(900)
        assert len(outcome.refused) <= (0 if kind in AS_PROMISED else 2)
        assert outcome.busiest(60) <= (300 if policy == "any-generous" else 100)
        makespans[policy] = outcome.makespan
    if kind in AS_PROMISED:
        assert makespans["any-generous"] < 1.05 * promised(more, 900)
    assert makespans["any-generous"] < makespans["any"]


def test_a_seed_says_all() -> None:
    runs = [Scene.of(11).run(calls=120) for _ in range(2)]
    assert runs[0] == runs[1]


def test_the_simulation_catches_a_limiter_that_gives_units_back_too_early() -> None:
    class Early(Ours):
        def __init__(self, limits: list[tuple[int, float]]) -> None:
            super().__init__(limits, "window")
            for window in self.bucket.windows:
                window.hold -= 10**9

    assert Scene("sliding log", "jittered", seed=7).run(Early).refused
