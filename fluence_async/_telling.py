"""What happens to a call goes in, its count goes to the meter, facts go out to the hooks.

Law: telling changes nothing. Every call's end is told here once, and so counted once. Without hooks
a fact costs one question. What a hook raises is logged, the first time, and the call goes on.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from . import hooks as facts
from ._sansio.metering import bounded, estimate
from .errors import FluenceError
from .usage import UsageMeter

if TYPE_CHECKING:
    from ._call import Call
    from .stream import ChatStream
    from .types import ChatCompletion, Usage

__all__ = ["Telling"]

logger = logging.getLogger("fluence_async")

_LONG_S = 1.0


class Telling:
    """The hooks of a session, and how they are told.

    Args:
        hooks: Who is told, in order.
        usage: Who counts.
    """

    def __init__(self, hooks: tuple[facts.Hook, ...], usage: UsageMeter) -> None:
        self._hooks = hooks
        self._usage = usage
        self._raised: set[int] = set()
        self._curious = tuple(h for h in hooks if getattr(h, "wants_content", False))

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def tell(self, fact: facts.Fact) -> None:
        """Tell every hook one fact."""
        self._tell(self._hooks, fact)

    def _tell(self, hooks: tuple[facts.Hook, ...], fact: facts.Fact) -> None:
        for hook in hooks:
            try:
                hook(fact)
            except Exception:  # a boundary: the hook is not ours
                if id(hook) in self._raised:
                    continue
                self._raised.add(id(hook))
                logger.exception(
                    "a hook raised on %s: %s; the call goes on, and what else this hook raises is "
                    "not logged",
                    type(fact).__name__,
                    getattr(hook, "__qualname__", type(hook).__qualname__),
                )

    def started(self, call: Call) -> None:
        """The call began."""
        logger.debug("%s: a call of %s begins", call.call_id, call.model)
        if self._hooks:
            self.tell(
                facts.CallStarted(
                    call_id=call.call_id,
                    model=call.model,
                    stream=call.stream,
                    origin=call.url,
                    tags=call.meta.tags,
                )
            )

    def looked(self, call: Call, *, hit: bool = False, coalesced: bool = False) -> None:
        """It is known where the call's answer comes from."""
        if self._hooks:
            self.tell(facts.CacheLooked(call_id=call.call_id, hit=hit, coalesced=coalesced))

    @property
    def of_waits(self) -> bool:
        """Whether anybody would hear of a wait."""
        return bool(self._hooks) or logger.isEnabledFor(logging.INFO)

    def waits(self, call: Call, at_least_s: float) -> None:
        """It begins to wait for the limiter; short waits are not told."""
        if at_least_s > _LONG_S:
            logger.info("%s: waits for the limiter, for at least %.1f s", call.call_id, at_least_s)
            if self._hooks:
                self.tell(facts.LimiterWaits(call_id=call.call_id, at_least_s=at_least_s))

    def waited(self, call: Call, wait_s: float) -> None:
        """It has waited for the limiter; short waits are not told."""
        if wait_s > _LONG_S:
            logger.info("%s: waited %.1f s for the limiter", call.call_id, wait_s)
            if self._hooks:
                self.tell(facts.LimiterWaited(call_id=call.call_id, wait_s=wait_s))

    def responded(self, call: Call) -> None:
        """A good response's headers came."""
        logger.debug("%s: answered, request %s", call.call_id, call.meta.request_id)
        if self._hooks:
            self.tell(
                facts.ResponseStarted(
                    call_id=call.call_id,
                    attempt=call.meta.attempts,
                    request_id=call.meta.request_id,
                    headers_s=call.meta.headers_s or 0.0,
                )
            )

    def attempt_failed(self, call: Call, error: FluenceError, wait_s: float | None) -> None:
        """An attempt failed; another follows in `wait_s` seconds, or none."""
        name, attempt = type(error).__name__, call.meta.attempts
        logger.info(
            "%s: attempt %d failed of %s, next in %s s", call.call_id, attempt, name, wait_s
        )
        if not self._hooks:
            return
        self.tell(
            facts.AttemptFailed(
                call_id=call.call_id, attempt=attempt, error=name, message=error.message
            )
        )
        if wait_s is not None:
            self.tell(
                facts.RetryScheduled(call_id=call.call_id, attempt=attempt + 1, wait_s=wait_s)
            )

    def failed(self, call: Call, error: BaseException) -> None:
        """The call ended in an error, or was cancelled."""
        self._count(call, None, None, True)
        self._tell_failed(call, error)

    def _tell_failed(
        self,
        call: Call,
        error: BaseException | type[BaseException],
        partial: ChatCompletion | None = None,
    ) -> None:
        """`error`, or the class of what cancelled the call, and what of the answer had come."""
        name = error.__name__ if isinstance(error, type) else type(error).__name__
        logger.info("%s: failed of %s", call.call_id, name)
        if self._hooks:
            usage = None if partial is None else partial.usage
            self._show(call, getattr(error, "partial", partial))
            self.tell(
                facts.CallFailed(
                    call_id=call.call_id,
                    model=call.model,
                    error=name,
                    message=error.message if isinstance(error, FluenceError) else "",
                    usage=getattr(error, "usage", usage),
                    meta=call.meta,
                )
            )

    def finished(self, call: Call, completion: ChatCompletion) -> None:
        """The call ended well."""
        self._count(call, completion.usage, completion, False)
        logger.debug("%s: ended after %s s", call.call_id, call.meta.total_s)
        if self._hooks:
            self._tell_finished(call, completion, complete=True)

    def _tell_finished(self, call: Call, completion: ChatCompletion, *, complete: bool) -> None:
        self._show(call, completion)
        reasons = [choice.finish_reason for choice in completion.choices]
        self.tell(
            facts.CallFinished(
                call_id=call.call_id,
                model=completion.model or call.model,
                response_id=completion.id,
                complete=complete,
                finish_reason=completion.finish_reason,
                finish_reasons=tuple(reason for reason in reasons if reason),
                usage=completion.usage,
                meta=call.meta,
            )
        )

    def _show(self, call: Call, answer: ChatCompletion | None) -> None:
        """What was said, to who asks for it."""
        if self._curious:
            content = facts.CallContent(call_id=call.call_id, request=call.body, answer=answer)
            self._tell(self._curious, content)

    def tool_called(
        self, call_id: str, tool: str, duration_s: float, error: BaseException | None
    ) -> None:
        """A tool ran, to its end or not."""
        if self._hooks:
            name = None if error is None else type(error).__name__
            self.tell(
                facts.ToolCalled(call_id=call_id, tool=tool, duration_s=duration_s, error=name)
            )

    def stream_done(
        self, call: Call, stream: ChatStream, error: FluenceError | type[BaseException] | None
    ) -> None:
        """A stream ended, one way or the other, or its reader was cancelled, or closed it early."""
        usage = stream.usage
        self._count(call, usage, stream.partial if usage is None else None, error is not None)
        if isinstance(error, type):
            self._tell_failed(call, error, stream.partial)
        elif error is not None:
            self._tell_failed(call, error)
        elif self._hooks:
            self._tell_finished(call, stream.partial, complete=stream.complete)

    # ─── the meter ────────────────────────────────────────────────────────────────────────

    def _count(
        self,
        call: Call,
        usage: Usage | None,
        answer: ChatCompletion | None,
        failed: bool,
    ) -> None:
        """Let the meter and the limiter count the call; what the server has not counted is
        estimated."""
        estimated = False
        if usage is None and answer is not None:
            usage, estimated = estimate(call.body, answer), True
        if call.came_to is not None and usage is not None:
            used = bounded(usage)
            call.came_to(used.prompt_tokens + used.completion_tokens, not estimated)
        for pot in self._usage.count(
            call.model, call.meta, usage, estimated, failed, reservation=call.reservation
        ):
            limit, spent = pot.budget.limit, pot.spent
            self.tell(
                facts.BudgetReached(call_id=call.call_id, budget=pot.name, limit=limit, spent=spent)
            )

    def __repr__(self) -> str:
        return f"<Telling: {len(self._hooks)} hooks>"
