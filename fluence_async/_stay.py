"""A permit past the headers: a response goes in that keeps it, until its request is over.

Law: what counts until a call's end (tokens, calls at once) is settled once two things are known:
that the connection is let go of, whoever reads from it, and what the call came to. Whichever comes
last gives the permit back. An attempt that failed gives it back itself, a session that is closed
those of all that is still open, and what is dropped by everybody is given back by its finalizer.

Rejected: to give it back where the call is told to have ended. Equal calls may be reading on then,
and a stream's body has not ended with its end marker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .transports._base import Response

if TYPE_CHECKING:
    from .limiter import Permit

__all__ = ["Stay"]


class Stay:
    """A response, and the permit of its request.

    Args:
        response: The response.
        permit: Settled, and not yet released.
    """

    status: int
    headers: Mapping[str, str]

    def __init__(self, response: Response, permit: Permit) -> None:
        self.status = response.status
        self.headers = response.headers
        self.receive = response.receive
        self._response = response
        self._permit = permit
        self._over = False
        self._tokens: tuple[bool, int] | None = None

    async def aclose(self) -> None:
        """Let go of the connection."""
        try:
            await self._response.aclose()
        finally:
            self._over = True
            self._give_back()

    def abort(self) -> None:
        """Close the connection."""
        self._response.abort()
        self._over = True
        self._give_back()

    def came_to(self, tokens: int, reported: bool) -> None:
        """The call has ended, and came to so many tokens, as the server reported or as is
        estimated. Equal calls each say so of as much as they have read: the most is what it was,
        and the report goes before any estimate."""
        said = reported, tokens
        self._tokens = max(said, self._tokens or said)
        self._give_back()

    def end(self) -> None:
        """The session is closed, and the connection with it, whoever still holds the stream."""
        self._permit.release()

    def _give_back(self) -> None:
        if self._over and self._tokens is not None:
            self._permit.release(costs={"tokens": self._tokens[1]})

    def __repr__(self) -> str:
        return f"<Stay of {self._permit!r}: {'over' if self._over else 'under way'}>"
