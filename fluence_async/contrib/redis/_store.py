"""The units that Redis gives go in, a limiter's questions are answered at once; see `Store`.

Law: what happened meanwhile (settled, released, paused) goes along with the next question, in one
round trip of one script (`_step.lua`), by Redis's own clock. Who is told to wait asks again when
that is over: a second at most after it could be first in turn, since those ahead may give up.

A unit in flight is leased, and its lease renewed, so that the units of a process that was killed
come back by themselves. A Redis that has forgotten (a flush, a failover to an empty one) is told
again what this process knows, and gives nothing for the shortest period. One that cannot be
reached gives nothing for five seconds; then each process keeps to its share of the limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from ..._sansio.bucket import ARRIVED, FRESH, HELD, NEVER, SENT, Bucket, Claim, WindowSnapshot
from ..._sansio.rate_limit import RateLimit
from ..._sansio.tariff import own
from ...limiter._line import Line
from ...meta import RateLimitSnapshot
from ._address import check_address
from ._asks import Ask, Asks
from ._pupil import Pupil
from ._units import Carrier, News, Reply, Terms, Unit, Units, in_words

__all__ = ["RedisStore"]

_S = 1_000_000_000
_US = 1_000
_LEASE = 30 * _S
_CLOSED = 5 * _S
RENEWED = 10 * _S


class RedisStore:
    """See `limiter._store.Store`; all of it under the line's lock, the courier's work apart."""

    stale_after: int = NEVER

    def __init__(
        self,
        terms: Terms,
        limits: Iterable[RateLimit],
        line: Line,
        start: Callable[[RedisStore], Carrier | None],
    ) -> None:
        self.terms = terms
        self.line = line
        self._start = start
        self.limits = tuple(limits)
        self._model = terms.bucket(self.limits)  # checks, names and holds; no units
        self._pupil = Pupil(self._model.windows, terms.policy)
        self.learns: bool = self._pupil.learns
        self._units = Units()
        self.me = self._units.me
        self._epoch = ""
        self._used = [0 for _ in self._model.windows]
        self.news: list[News] = []
        self._doubt = self._doubting = False  # what the server said; the others hear of it now
        self._hand: tuple[Ask, Unit, Reply] | None = None
        self._asks = Asks()
        self._renewed = 0
        self.down_since = 0
        self._share: Bucket | None = None
        self._courier: Carrier | None = None
        self.blocked_until = 0

    # ─── what a line asks ─────────────────────────────────────────────────────────────────

    def check(self, costs: Mapping[str, int], lane: int) -> None:
        """Raise ValueError if such a claim could never be taken."""
        self._model.check(costs, lane)

    def take(self, claim: Claim, now: int, lane: int) -> int:
        """Hand out the unit in hand, or have one asked for."""
        if now < self.blocked_until:
            return self.blocked_until
        ask = Ask(lane, claim.costs)
        if self._hand is not None and self._hand[0].whose == ask.whose:
            its, unit, reply = self._hand
            self._hand = None
            if its.lane >= lane and its.costs == claim.costs:
                self._units.hold(claim, unit)
                claim.state = HELD
                self._pupil.note(claim, reply, self._model.windows, now)
                return 0
            self._drop(unit)
        wake = self._asks.want(ask, now)
        if wake == NEVER:
            self._call_courier()
        if self.down_since:
            return self._take_of_share(claim, now, lane)
        return wake

    def _take_of_share(self, claim: Claim, now: int, lane: int) -> int:
        if not self.terms.clients:
            return NEVER
        if now < self.down_since + _CLOSED:
            return self.down_since + _CLOSED
        if self._share is None:
            self._share = self._units.share(self.terms, self.limits, now - self._longest)
        wake = self._share.take(claim, now, lane)
        if not wake:
            unit = self._units.new(claim.costs)
            unit.share = self._share
            self._units.keep(unit, now - self._longest)
            self._units.hold(claim, unit)
        return wake

    def earliest(self, claim: Claim, now: int, lane: int, ahead: int) -> int:  # noqa: ARG002 - Redis counts
        """When Redis said, if it did."""
        told = self._asks.known(Ask(lane, claim.costs), now)
        return max(now, self.blocked_until, told if told < NEVER else now)

    def shared_until(self, claim: Claim, now: int, lane: int) -> int:
        """0 if Redis said so; NEVER if not."""
        if self._share is not None:
            return self._share.shared_until(claim, now, lane)
        return 0 if self._asks.is_aside(Ask(lane, claim.costs)) else NEVER

    def sent(self, claim: Claim) -> None:
        """The first byte may have left this machine."""
        if claim.state == HELD:
            claim.state = SENT

    def settle(
        self,
        claim: Claim,
        ub: int,
        accepted: bool | None = None,
        reports: Sequence[RateLimitSnapshot] = (),
    ) -> None:
        """It had arrived by `ub`, and the server took it or not."""
        if claim.state in (HELD, SENT):
            self._tell(*self._units.arrive(claim, ub))
        if accepted is not None and claim.state == ARRIVED:
            self._tell(*self._pupil.settled(claim, ub, accepted, reports))
            self._teach()

    def release(self, claim: Claim, now: int, costs: Mapping[str, int] | None = None) -> None:
        """It is over, however far it came."""
        if claim.state == FRESH and self._asks and own(claim.costs) not in self._waiting:
            self._call_courier()  # which has a ticket to give back
        answered = claim.state != SENT
        if not answered:
            now += self.terms.unseen
            self.settle(claim, now)
        if claim.state in (HELD, ARRIVED):
            self._tell(*self._units.end(claim, now, costs, answered=answered))

    def refused(self, claim: Claim, now: int) -> bool:
        """Learn from it; all pause, if nothing explains it."""
        if not self.learns:
            return self._model.refused(claim, now)
        until = self._pupil.refused(claim, now) if claim.state >= ARRIVED else 0
        self._doubt = True
        self._call_courier()
        if until:
            self.block(until)
        self._teach()
        return until > 0

    def _teach(self) -> None:
        if self._pupil.has_news:
            self._call_courier()

    def block(self, until: int) -> None:
        """Let nobody take before `until`: everybody, once the others hear of it."""
        until += self.terms.margin
        if until > self.blocked_until:
            self.blocked_until = until
            self._tell(("block", until))

    def tighten(self, limits: Iterable[RateLimit], now: int) -> None:
        """Obey these limits too."""
        self._pupil.narrow()
        self._model.tighten(limits, now)
        self.limits = tuple(window.rate for window in self._model.windows)  # not yet what is stated
        self._pupil.watch(self._model.windows)
        self._used += [0] * (len(self.limits) - len(self._used))
        self._share = None

    def snapshot(self, now: int) -> tuple[WindowSnapshot, ...]:
        """As of Redis's last word; without Redis, of this process's share."""
        if self._share is not None:
            return self._share.snapshot(now)
        wait_s = self._asks.wait(now) / _S
        return self._pupil.snapshot(self._model.windows, self._used, wait_s)

    def inherit(self, now: int) -> RedisStore:  # noqa: ARG002 - units tell no time here
        """What is in flight here stays the parent's to tell of."""
        heir = RedisStore(self.terms, self.limits, self.line, self._start)
        heir.blocked_until = self.blocked_until
        self._courier = None
        self._units.orphan()
        return heir

    def __str__(self) -> str:
        if not self.down_since:
            return str(self._model)
        return f"{self._model} in the Redis at {check_address(self.terms.url)}, which is not there,"

    # ─── what the courier carries ─────────────────────────────────────────────────────────

    def question(self, now: int) -> tuple[list[str], Ask | None, Unit | None]:
        """The script's next arguments, what they ask for, and the unit that it will be."""
        ask, news, self.news = self._asks.next(now), self.news, []
        unit = None if ask is None else self._units.new(ask.costs)
        me, lane, name = self.me, "", ""
        if ask is not None and unit is not None:
            me, lane, name = self._ticket(ask.whose), str(ask.lane), unit.name
        self._pupil.think(now)
        news += self._pupil.news()
        if self._doubt:
            news.append(("doubt",))
        self._doubting, self._doubt = self._doubt, False
        arguments = [me, self._epoch, str(_LEASE // _US), lane, name]
        arguments += self._pupil.terms(self._model.windows, now)
        return [*arguments, *in_words(news, now)], ask, unit

    def _ticket(self, model: str) -> str:
        """Who stands in Redis's line for the calls of a model with limits of its own."""
        return f"{self.me}/{model}" if model else self.me

    def answered(self, words: list[str], ask: Ask | None, unit: Unit | None, now: int) -> None:
        """Take in what the script said; the line pumps next."""
        reply = Reply.read(words)
        self.down_since, self._share = 0, None
        self._used[: len(reply.used)] = reply.used
        lost, self._epoch = reply.verdict == "lost", reply.epoch
        self._doubting = False
        if lost:
            self.news = [each for each in self.news if each[0] != "credit"] + self._units.all()
        self._pupil.heard(reply, self._model.windows, now)
        if ask is None or unit is None or reply.verdict in ("lost", "learn"):
            self._asks.forget()
        elif reply.verdict in ("taken", "tried"):
            self._units.keep(unit, now - self._longest)
            self._hand = ask, unit, reply
            self._asks.granted(ask)
        else:
            wait = min(reply.wait, _S) if self._pupil.in_doubt else reply.wait
            self._asks.told(ask, now + wait, aside=reply.verdict == "aside")

    def unclaimed(self) -> None:
        """The line has pumped: who wanted the unit in hand has gone."""
        if self._hand is not None:
            self._drop(self._hand[1])
            self._hand = None
        gone = self._asks.keep(self._waiting)
        self.news += [("leave", self._ticket(model)) for model in gone]

    @property
    def _waiting(self) -> set[str]:
        """Models with limits of their own whose calls wait; `""` for all others."""
        return {waiter.own for waiter, _ in self.line.queue.heads()}

    def failed(self, now: int) -> None:
        """Redis did not answer: it may have heard, or not. It is told all, once it is back."""
        self.down_since = self.down_since or now
        self._asks.forget()
        self._doubt, self._doubting = self._doubt or self._doubting, False

    def begin(self, now: int) -> None:
        """A new connection: to a Redis that may have forgotten what was told to the last one."""
        self._units.forget(now - self._longest)
        self.news = [each for each in self.news if each[0] in ("drop", "leave")]
        self.news += self._units.all()
        if self.blocked_until > now:
            self.news.append(("block", self.blocked_until))

    def renew(self, now: int) -> None:
        """Let the leases of what is in flight last, when it is time."""
        if self.in_flight and now >= self._renewed + RENEWED:
            self._renewed = now
            self.news += self._units.leases()

    @property
    def busy(self) -> bool:
        """Whether there is anything to tell or to ask."""
        return self._has_news or bool(self._asks)

    @property
    def in_flight(self) -> bool:
        """Whether there are leases to be renewed."""
        return self._units.in_flight

    def patience(self, now: int, idle: int) -> int:
        """How long there is nothing to do, in ns, if nothing happens; at most `idle` for ever."""
        until = self._asks.wake(now) if self._asks else now + idle
        if self._has_news or until <= now:
            return 0
        if self.in_flight:
            until = min(until, self._renewed + RENEWED)
        return max(1, until - now)

    # ─── news ─────────────────────────────────────────────────────────────────────────────

    @property
    def _has_news(self) -> bool:
        return bool(self.news) or self._doubt or self._pupil.has_news

    @property
    def _longest(self) -> int:
        longest = max(window.hold for window in self._model.windows)
        return 2 * longest if self.learns else longest

    def _drop(self, unit: Unit) -> None:
        self._tell(self._units.drop(unit))

    def _tell(self, *news: News) -> None:
        if news:
            self.news += news
            self._call_courier()

    def _call_courier(self) -> None:
        if self._courier is None or not self._courier.rouse():
            self._courier = self._start(self)

    def let_go(self, courier: Carrier) -> bool:
        """Whether the courier may end: there is nothing to do but what a next one would be told.
        After that it hears of nothing any more."""
        self.unclaimed()
        if self._asks or (self._has_news and not self.down_since):
            return False
        self.gone(courier)
        return True

    def gone(self, courier: Carrier) -> None:
        """The courier has ended."""
        if self._courier is courier:
            self._courier = None
