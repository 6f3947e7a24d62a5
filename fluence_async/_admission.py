"""What is asked before anything is sent: a call's budgets once, the limiter for each attempt.

Law: one estimate of what a call may cost serves both, and is made only where one of them counts
tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import anyio

from ._call import Call
from ._sansio.claim import NeverFitsError
from ._telling import Telling
from .errors import APITimeoutError, BudgetExceededError, Clock, LimitWaitError
from .types import Usage
from .usage import UsageMeter

if TYPE_CHECKING:
    from .limiter import Limiter, Permit

__all__ = ["Admission", "on_sent"]


class Admission:
    """Lets the calls of a session through.

    Args:
        limiter: Whose units their attempts take; None for none.
        usage: Whose budgets are asked.
        telling: How the hooks are told of waits.
        clock: The loop's.
    """

    def __init__(
        self,
        limiter: Limiter | None,
        usage: UsageMeter,
        telling: Telling,
        clock: Callable[[], float],
    ) -> None:
        self._limiter = limiter
        self._usage = usage
        self._telling = telling
        self._clock = clock

    def reserve(self, call: Call) -> None:
        """Set aside of the budgets what a call may cost.

        Raises:
            BudgetExceededError: There is no room for it.
        """
        if self._usage.budgeted:
            call.reservation = self._usage.reserve(call.model, call.meta, self._expected(call))

    def renew(self, call: Call) -> bool:
        """Whether the budgets have room for one more attempt. One that was sent and never answered
        may have cost what was set aside for it."""
        reservation = call.reservation
        if reservation is None or not reservation.at_risk:
            return True
        reservation.lose()
        try:
            self.reserve(call)
        except BudgetExceededError:
            return False
        return True

    def _expected(self, call: Call) -> Usage:
        if call.expected is None:
            call.expected = self._usage.expected(call.model, call.body, call.choices)
        return call.expected

    async def acquire(self, call: Call) -> Permit | None:
        """The permit of one attempt, once the limiter has one; None without a limiter.

        Raises:
            ValueError: No limit will ever have room for it.
            LimitWaitError, APITimeoutError: Not in time.
        """
        limiter = self._limiter
        if limiter is None:
            return None
        costs = None
        if limiter.counts("tokens", call.model):
            may_cost = self._expected(call)
            costs = {"tokens": may_cost.prompt_tokens + may_cost.completion_tokens}
        try:
            return limiter.acquire_nowait(
                lane=call.lane, front=call.front, costs=costs, model=call.model
            )
        except NeverFitsError as error:
            raise _too_large(call, error) from None
        except anyio.WouldBlock:
            if self._telling.of_waits:
                wait_s = limiter.wait_s(
                    lane=call.lane, front=call.front, costs=costs, model=call.model
                )
                self._telling.waits(call, wait_s)
        queue_s = math.inf if call.timeout.queue is None else call.timeout.queue
        until = min(self._clock() + queue_s, call.total_at)
        ran_out: Clock = "total" if until == call.total_at else "queue"
        try:
            permit = await limiter.acquire(
                lane=call.lane,
                front=call.front,
                costs=costs,
                model=call.model,
                deadline=None if until == math.inf else until,
            )
        except NeverFitsError as error:  # another session made the limits tighter meanwhile
            raise _too_large(call, error) from None
        except LimitWaitError as error:
            raise LimitWaitError(
                f"{error}; it has {getattr(call.timeout, ran_out):g} s, of "
                f"timeout=Timeout({ran_out}=...)",
                wait_s=error.wait_s,
                retry_at=error.retry_at,
            ) from None
        except APITimeoutError:
            raise call.timed_out(ran_out, "waiting for the limiter") from None
        if permit.waited_s:
            call.meta.limiter_wait_s += permit.waited_s
            self._telling.waited(call, permit.waited_s)
        return permit

    def __repr__(self) -> str:
        return f"<Admission by {self._limiter!r}>"


def _too_large(call: Call, error: NeverFitsError) -> ValueError:
    """That a limit will never have room, in words of what the caller wrote."""
    may_cost = call.expected
    if may_cost is None or error.rate.dimension != "tokens":
        return error
    prompt, answer = may_cost.prompt_tokens, may_cost.completion_tokens
    return ValueError(
        f"this call may cost {prompt + answer} tokens (by estimate {prompt} of its messages, and "
        f"{answer} of its answer), and the limit '{error.rate}' never has room for more than "
        f"{error.most}{' of a batch call' if call.lane else ''}: set a lower max_tokens, send "
        "less, or raise the limit"
    )


def on_sent(call: Call, permit: Permit | None) -> Callable[[], None]:
    """Who is to hear that a request may have left."""
    reservation = call.reservation
    if reservation is None:
        return _nothing if permit is None else permit.sent
    if permit is None:
        return reservation.sent

    def both() -> None:
        reservation.sent()
        permit.sent()

    return both


def _nothing() -> None:
    """For a request whose sending nobody waits to hear of."""
