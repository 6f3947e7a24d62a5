"""What every limiter must do: checks that any implementation can be put through.

Each check is an async function that takes a factory (`Factory`): a function of a name and limits
that gives a limiter, such that limiters of one name share their units, in whatever process they
are. A check raises an AssertionError that says what was expected. They run on asyncio and trio, in
real time, with windows of fractions of a second; each takes names of its own, so a store may keep
what it has.

    import pytest
    from fluence_async.testing.limiter_contract import CHECKS

    @pytest.mark.anyio
    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_limiter(check):
        await check(lambda name, limits: MyLimiter(name, limits))
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from . import dimensions, units, waiting
from ._limiter import ContractLimiter, ContractPermit, Factory

__all__ = ["CHECKS", "Check", "ContractLimiter", "ContractPermit", "Factory"]

Check = Callable[[Factory], Awaitable[None]]

CHECKS: tuple[Check, ...] = tuple(
    getattr(part, name) for part in (units, dimensions, waiting) for name in part.__all__
)
"""All checks."""
