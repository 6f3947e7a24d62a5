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

__all__ = ["DOCUMENTED_LIMITS", "RateLimit", "limiter_name", "read_limits"]

DOCUMENTED_LIMITS: Final = ("100/minute", "1000/hour")
"""The limits of the API's documentation."""

_FORM = re.compile(r"([0-9]{1,15})(?: ?([a-z_]+))? ?/ ?([0-9]{1,9}(?:\.[0-9]{1,9})?)?([a-z]+)")
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_SECONDS |= {"s": 1, "m": 60, "h": 3600, "d": 86400}
_NAMES = {1.0: "second", 60.0: "minute", 3600.0: "hour", 86400.0: "day"}
_FORMS = "'100/minute' (second, minute, hour, day), '5/30s' (s, m, h, d) or '90000 tokens/minute'"


class RateLimit(msgspec.Struct, frozen=True):
    """So many units in any period: `RateLimit("100/minute")`, or `RateLimit(100, 60.0)`.

    Attributes:
        limit: How many, at least 1.
        period_s: In how many seconds, from a millisecond to a year.
        dimension: Of what. A call costs one of `requests`, and of anything else (`tokens`) what
            the caller of `Limiter.acquire` says.

    Raises:
        ValueError: Out of range, or a text of another form.
    """

    __module__ = "fluence_async"

    limit: int
    period_s: float = 0.0
    dimension: str = "requests"

    if TYPE_CHECKING:

        def __init__(
            self, limit: int | str, period_s: float = ..., dimension: str = ...
        ) -> None: ...

    def __post_init__(self) -> None:
        if isinstance(self.limit, str):
            self._read(self.limit)
        if type(self.limit) is not int or self.limit < 1:
            raise ValueError(f"a rate limit of {self.limit!r}: must be a whole number from 1 up")
        msgspec.structs.force_setattr(self, "period_s", round(float(self.period_s), 9))
        if not 0.001 <= self.period_s <= 366 * 86400:
            raise ValueError(
                f"a rate limit's period of {self.period_s!r} s: must be from 0.001 to 366 days"
            )
        if re.fullmatch("[a-z][a-z_]*", self.dimension) is None:
            raise ValueError(f"a rate limit's dimension {self.dimension!r}: must be like 'tokens'")

    def _read(self, text: str) -> None:
        match = _FORM.fullmatch(text.strip())
        if match is None or match[4] not in _SECONDS or self.period_s:
            raise ValueError(f"rate limit {text!r}: must be like {_FORMS}")
        put = msgspec.structs.force_setattr
        put(self, "limit", int(match[1]))
        put(self, "period_s", float(match[3] or 1) * _SECONDS[match[4]])
        put(self, "dimension", match[2] or self.dimension)

    def __str__(self) -> str:
        period = _NAMES.get(self.period_s) or f"{self.period_s:.9f}".rstrip("0").rstrip(".") + "s"
        dimension = "" if self.dimension == "requests" else f" {self.dimension}"
        return f"{self.limit}{dimension}/{period}"

    def __repr__(self) -> str:
        return f"RateLimit({str(self)!r})"


def read_limits(limits: str | RateLimit | Iterable[str | RateLimit]) -> tuple[RateLimit, ...]:
    """The rate limits that a user wrote.

    Raises:
        ValueError: One of them is none, or none of them counts requests.
    """
    several = (limits,) if isinstance(limits, str | RateLimit) else limits
    found = tuple(each if isinstance(each, RateLimit) else RateLimit(each) for each in several)
    if not any(limit.dimension == "requests" for limit in found):
        raise ValueError(
            f"limits={limits!r}: one of them must count requests, such as '100/minute'; "
            "limiter=None is for no limits"
        )
    return found


def limiter_name(api_key: str, origin: str) -> str:
    """The name under which all sessions of one key and origin share a limiter, in every process.

    A keyed hash: equal for equal pairs, and worthless to whoever wants the key.
    """
    key = blake2b(api_key.encode("utf-8", "surrogatepass")).digest()
    text = origin.encode("utf-8", "surrogatepass")
    return blake2b(text, key=key, digest_size=16, person=b"fluence.limiter").hexdigest()
