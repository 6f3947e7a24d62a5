"""The limiter of the process passes the contract; and limiters that break it are found out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from fluence_async import RateLimit
from fluence_async.limiter import Limiter, shared_limiter
from fluence_async.testing.limiter_contract import (
    CHECKS,
    Check,
    ContractLimiter,
    Factory,
    _limiter,
    dimensions,
    units,
    waiting,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_limiter_of_the_process_passes(check: Check) -> None:
    await check(shared_limiter)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_limiters_that_share_a_file_pass(check: Check, tmp_path: Path) -> None:
    await check(lambda name, limits: Limiter(limits, path=tmp_path / name))


# ─── and each check can fail ──────────────────────────────────────────────────────────────


class Nothing:
    """A permit that does nothing."""

    def sent(self) -> None: ...

    def settle(self) -> None: ...

    def delivered(self) -> None: ...

    def release(self, costs: Mapping[str, int] | None = None) -> None: ...


class Open:
    """A limiter that limits nothing."""

    async def acquire(self, **how: Any) -> Nothing:
        await anyio.lowlevel.checkpoint()
        return Nothing()

    def pause(self, seconds: float) -> None: ...


class Shut(Open):
    """A limiter that gives a unit and then no more."""

    given = False

    async def acquire(self, *, deadline: float | None = None, **how: Any) -> Nothing:
        if self.given:
            await anyio.sleep_forever()
        self.given = True
        return Nothing()


def opened(name: str, limits: Sequence[str]) -> ContractLimiter:
    return Open()


def shut(name: str, limits: Sequence[str]) -> ContractLimiter:
    return Shut()


def alone(name: str, limits: Sequence[str]) -> ContractLimiter:
    return Limiter(limits)


def crowded(name: str, limits: Sequence[str]) -> ContractLimiter:
    return shared_limiter("one for all", limits)


class Backwards:
    """A limiter of one unit that serves the last comer first."""

    def __init__(self) -> None:
        self._waiting: list[anyio.Event] = []
        self._out = False

    async def acquire(self, **how: Any) -> Backwards:
        if self._out:
            self._waiting.append(event := anyio.Event())
            await event.wait()
        self._out = True
        return self

    def release(self, costs: Mapping[str, int] | None = None) -> None:
        self._out = bool(self._waiting)
        if self._waiting:
            self._waiting.pop().set()

    def sent(self) -> None: ...

    def settle(self) -> None: ...

    def delivered(self) -> None: ...

    def pause(self, seconds: float) -> None: ...


class Laneless(Limiter):
    """A limiter for which all lanes are one."""

    async def acquire(self, **how: Any) -> Any:
        return await super().acquire(**{**how, "lane": 0})


def backwards(name: str, limits: Sequence[str]) -> ContractLimiter:
    return Backwards()


def early(name: str, limits: Sequence[str]) -> ContractLimiter:
    halved = [RateLimit(limit.limit, limit.period_s / 2) for limit in map(RateLimit, limits)]
    return Limiter(halved, margin_s=0, drift=0, unseen_s=0)


class Sloppy(Limiter):
    """A limiter that takes any cost, and never gives up."""

    async def acquire(self, **how: Any) -> Any:
        how.pop("costs", None)
        how.pop("deadline", None)
        return await super().acquire(**how)


class Modelless(Limiter):
    """A limiter for which all models are one."""

    async def acquire(self, **how: Any) -> Any:
        return await super().acquire(**{**how, "model": None})


class Forgiving(Limiter):
    """A limiter that never asks what it came to."""

    async def acquire(self, **how: Any) -> Any:
        permit = await super().acquire(**how)
        permit.sent()
        return Forgiven(permit)


class Forgiven:
    def __init__(self, permit: Any) -> None:
        self.sent, self.settle, self._release = permit.sent, permit.settle, permit.release

    def release(self, costs: Mapping[str, int] | None = None) -> None:
        self._release()


def hasty(name: str, limits: Sequence[str]) -> ContractLimiter:
    limiter = early(name, limits)
    limiter._line.early.grace = 0  # type: ignore[attr-defined]
    return limiter


def broken(kind: type[Limiter]) -> Factory:
    return lambda name, limits: kind(limits)


BREACHES: list[tuple[str, Factory]] = [
    ("units_that_are_free_are_had_without_waiting", opened),
    ("a_released_unit_is_free_at_once", shut),
    ("a_settled_unit_comes_back_one_period_later", early),
    ("a_delivered_unit_comes_back_no_earlier_than_a_period_later", hasty),
    ("a_sent_request_without_an_answer_keeps_its_unit", early),
    ("a_permit_that_is_forgotten_comes_back", shut),
    ("a_permit_bears_any_call_in_any_order", shut),
    ("a_cost_that_never_fits_is_refused", broken(Sloppy)),
    ("other_costs_are_counted_too", broken(Sloppy)),
    ("other_costs_are_in_flight_until_the_end", broken(Sloppy)),
    ("a_models_limit_counts_its_calls_and_no_others", broken(Modelless)),
    ("limits_of_two_models_are_two", broken(Forgiving)),
    ("too_little_reserved_becomes_a_debt", broken(Forgiving)),
    ("calls_at_once_are_counted_until_their_end", opened),
    ("a_dropped_permit_gives_back_what_it_held_until_the_end", shut),
    ("all_windows_hold_together", opened),
    ("many_tasks_never_pass_the_limit", opened),
    ("limiters_of_one_name_share_their_units", alone),
    ("limiters_of_other_names_do_not", crowded),
    ("callers_are_served_in_the_order_in_which_they_came", backwards),
    ("interactive_calls_go_before_batch_calls", broken(Laneless)),
    ("a_call_that_is_cancelled_while_it_waits_leaves_nothing", shut),
    ("a_deadline_ends_the_wait", broken(Sloppy)),
    ("a_pause_holds_all", opened),
]


@pytest.mark.parametrize(("name", "factory"), BREACHES, ids=[name for name, _ in BREACHES])
async def test_a_limiter_that_breaks_it_is_found_out(
    name: str, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in (_limiter, dimensions, units, waiting):
        monkeypatch.setattr(part, "PATIENCE_S", 0.5)
    (check,) = [check for check in CHECKS if check.__name__ == name]
    with pytest.raises((AssertionError, TimeoutError)):
        await check(factory)


def test_every_check_has_a_breach() -> None:
    assert {name for name, _ in BREACHES} == {check.__name__ for check in CHECKS}
