"""Text in, a rate limit out; and the name under which a key's limiter is shared.

Law: pure, and the same in every process and every version, since files and servers that share a
limiter are named by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

import msgspec

from .arguments import meant

__all__ = ["DOCUMENTED_LIMITS", "RateLimit", "limiter_name", "limits_of_calls", "read_limits"]

DOCUMENTED_LIMITS: Final = ("100/minute", "1000/hour")
"""The limits of the API's documentation."""

_FORM = re.compile(
    r"\s*([0-9]{1,15})(?:(?: ?([a-z_]+))? ?/ ?([0-9]{1,9}(?:\.[0-9]{1,9})?)?([a-z]+)| concurrent)"
    r"(?: for (.+)|\s*)",
    re.DOTALL,
)
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_SECONDS |= {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NAMES = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86400.0: "day"}
_OF_CALLS = ("requests", "tokens", "concurrent")
_FORMS = (
    "'100/minute' (second, minute, hour, day), '5/30s' (s, m, h, d), '90000 tokens/minute' or "
    "'8 concurrent', each with or without ' for <model>'"
)


class RateLimit(msgspec.Struct, frozen=True):
    """So many units in any period: `RateLimit("100/minute")`, or `RateLimit(100, 60.0)`.

    Attributes:
        limit: How many, at least 1.
        period_s: In how many seconds, from a millisecond to a year; 0 for `concurrent`, which is
            counted at every moment.
        dimension: Of what: `requests`, of which a call costs one; LLM `tokens`, prompt and answer
            together; `concurrent`, calls under way at once; or what the caller of
            `Limiter.acquire` says that it costs.
        model: Count only what this model is asked; None for every model.

    Raises:
        ValueError: Out of range, or a text of another form.

    Example:
        ```python
        limits = [
            "100/minute",
            "90000 tokens/minute",
            "8 concurrent",
            "20/minute for fluence-large",
            RateLimit("2 concurrent", model="fluence-large"),
        ]
        ```
    """

    __module__ = "fluence_async"

    limit: int
    period_s: float = 0.0
    dimension: str = "requests"
    model: str | None = None

    if TYPE_CHECKING:

        def __init__(
            self,
            limit: int | str,
            period_s: float = ...,
            dimension: str = ...,
            model: str | None = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        if isinstance(self.limit, str):
            self._read(self.limit)
        if type(self.limit) is not int or self.limit < 1:
            raise ValueError(f"a rate limit of {self.limit!r}: must be a whole number from 1 up")
        if re.fullmatch("[a-z][a-z_]*", self.dimension) is None:
            raise ValueError(f"a rate limit's dimension {self.dimension!r}: must be like 'tokens'")
        if self.model is not None and (not self.model or self.model != self.model.strip()):
            raise ValueError(f"a rate limit's model {self.model!r}: must be a name, without blanks")
        msgspec.structs.force_setattr(self, "period_s", round(float(self.period_s), 9))
        if self.dimension == "concurrent":
            if self.period_s:
                raise ValueError(
                    f"a rate limit of calls at once in {self.period_s!r} s: they have no period, "
                    f"write '{self.limit} concurrent'"
                )
        elif not self.period_s:
            raise ValueError(
                f"a rate limit of {self.limit!r} has no period: write "
                f"'{self.limit}{_of(self.dimension)}/minute', or RateLimit({self.limit}, 60.0)"
            )
        elif not 0.001 <= self.period_s <= 366 * 86400:
            raise ValueError(
                f"a rate limit's period of {self.period_s!r} s: must be from 0.001 to 366 days"
            )

    def _read(self, text: str) -> None:
        match = _FORM.fullmatch(text)
        if match is None or (match[4] and match[4] not in _SECONDS) or self.period_s:
            raise ValueError(f"rate limit {text!r}: must be like {_FORMS}")
        if match[5] and self.model not in (None, match[5]):
            raise ValueError(f"rate limit {text!r} is not for the model {self.model!r}: name one")
        put = msgspec.structs.force_setattr
        put(self, "limit", int(match[1]))
        if match[4]:
            put(self, "period_s", float(match[3] or 1) * _SECONDS[match[4]])
            put(self, "dimension", match[2] or self.dimension)
        else:
            put(self, "dimension", "concurrent")
        put(self, "model", match[5] or self.model)

    @property
    def counted_as(self) -> str:
        """The name under which a store counts it: the dimension, and for one model's a digest of
        the model's name, which may hold anything and be of any length."""
        if self.model is None:
            return self.dimension
        name = self.model.encode("utf-8", "surrogatepass")
        digest = blake2b(name, digest_size=8, person=b"fluence.model").hexdigest()
        return f"{self.dimension}:{digest}"

    def __str__(self) -> str:
        whose = "" if self.model is None else f" for {self.model}"
        if self.dimension == "concurrent":
            return f"{self.limit} concurrent{whose}"
        period = _NAMES.get(self.period_s) or f"{self.period_s:.9f}".rstrip("0").rstrip(".") + "s"
        return f"{self.limit}{_of(self.dimension)}/{period}{whose}"

    def __repr__(self) -> str:
        return f"RateLimit({str(self)!r})"


def _of(dimension: str) -> str:
    return "" if dimension == "requests" else f" {dimension}"


def read_limits(limits: str | RateLimit | Iterable[str | RateLimit]) -> tuple[RateLimit, ...]:
    """The rate limits that a user wrote.

    Raises:
        TypeError: One of them is neither a text nor a `RateLimit`.
        ValueError: One of them is none, or none of them counts every model's requests.
    """
    if not isinstance(limits, RateLimit | Iterable):
        raise TypeError(
            f"limits={limits!r}: must be a list, such as limits=['100/minute']; leave it out for "
            "the documented ones, limiter=None is for no limits"
        )
    several = (limits,) if isinstance(limits, str | RateLimit) else tuple(limits)
    for each in several:
        if not isinstance(each, str | RateLimit):
            raise TypeError(f"limits: {each!r} must be a text like {_FORMS}, or a RateLimit")
    found = tuple(each if isinstance(each, RateLimit) else RateLimit(each) for each in several)
    if not any(limit.counted_as == "requests" for limit in found):
        raise ValueError(
            f"limits={limits!r}: one of them must count requests of every model, such as "
            "'100/minute'; limiter=None is for no limits"
        )
    return found


def limits_of_calls(limits: str | RateLimit | Iterable[str | RateLimit]) -> tuple[RateLimit, ...]:
    """As `read_limits`, for a session: its calls cost three things, and a limit of any other would
    hold nobody back.

    Raises:
        TypeError, ValueError: One of them is of something else, or is none.
    """
    found = read_limits(limits)
    for rate in found:
        if rate.dimension not in _OF_CALLS:
            raise ValueError(
                f"the limit '{rate}' counts {meant([rate.dimension], _OF_CALLS, '')}, of which a "
                "session's calls cost nothing: '100/minute' counts requests, '90000 tokens/minute' "
                "tokens, '8 concurrent' calls at once"
            )
    return found


def limiter_name(api_key: str, origin: str) -> str:
    """The name under which all sessions of one key and origin share a limiter, in every process.

    A keyed hash: equal for equal pairs, and worthless to whoever wants the key.
    """
    key = blake2b(api_key.encode("utf-8", "surrogatepass")).digest()
    text = origin.encode("utf-8", "surrogatepass")
    return blake2b(text, key=key, digest_size=16, person=b"fluence.limiter").hexdigest()
