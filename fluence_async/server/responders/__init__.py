"""Who answers: a turn goes in, a reply comes out.

`rules` computes the answer from the request; `script` plays what a test wrote down.
"""

from __future__ import annotations

from typing import Protocol

from ..replies import ReplyLike
from ..turn import Turn

__all__ = ["Responder"]


class Responder(Protocol):
    """Whoever answers a turn."""

    async def respond(self, turn: Turn) -> ReplyLike:
        """The reply to a valid request. Called once for each execution.

        Raises:
            Refusal: The request cannot be served.
        """
        ...
