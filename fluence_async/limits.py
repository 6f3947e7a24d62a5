"""A key and an address go in, how the limits stand that programs share comes out, by looking only.

Law: nothing is taken, created or waited for, and no program notices.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from ._annexes import named_look
from ._sansio.origin import API_BASE_URL, Origin
from ._sansio.rate_limit import DOCUMENTED_LIMITS, RateLimit
from .limiter import LimiterSnapshot, WindowSnapshot, limiter_name

__all__ = ["LimiterSnapshot", "SharedLimits", "WindowSnapshot"]


class SharedLimits:
    """The limits that all programs of one key share, in a file or a Redis, seen from outside.

    Args:
        api_key: Whose limits; by default FLUENCE_API_KEY.
        base_url: Of which API; by default FLUENCE_BASE_URL, and without that the Fluence API.
        limits: What the programs obey; each has its own, and nobody writes them down.
        limiter: Where they are, as the programs name it: `"file"` (or `"file:any"`: it is the same
            file), a `redis://…` address, or `"auto"` for what FLUENCE_LIMITER names, and without
            that the file.

    Attributes:
        where: The file, or the Redis without its password.

    Raises:
        ValueError: There is no key, or an argument makes no sense.
        ImportError: A Redis is named, without the extra `redis`.

    Example:
        ```python
        from fluence_async.limits import SharedLimits

        now = await SharedLimits(api_key="sk-mine").look()
        print(now.windows, now.eta_s(100))
        ```
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        base_url: str | None = None,
        limits: Sequence[str | RateLimit] = DOCUMENTED_LIMITS,
        limiter: str = "auto",
    ) -> None:
        key = api_key or os.environ.get("FLUENCE_API_KEY")
        if not key:
            raise ValueError(
                "no API key, and limits are each key's own: set FLUENCE_API_KEY to that of the "
                "programs whose limits are to be seen"
            )
        if base_url is None:
            base_url = os.environ.get("FLUENCE_BASE_URL") or API_BASE_URL
        origin = Origin.of(base_url, allow_insecure=True)  # nothing is sent there
        self._look = named_look(limiter, limiter_name(key, origin.name), limits)
        self.where: str = self._look.where

    async def look(self) -> LimiterSnapshot:
        """How they stand now, with what the programs have learnt of the server
        (`windows[0].learnt`). Each program that waits counts as one call; in a Redis, as one for
        each model with limits of its own, and one for all others.

        Raises:
            OSError: The file cannot be read, or Redis not be reached.
            ValueError: The file is none of a limiter's.
        """
        return await self._look.look()

    def __repr__(self) -> str:
        return f"<SharedLimits in {self.where}>"
