"""Who answers: a turn goes in, a reply comes out.

`rules` computes the answer from the request; `script` plays what a test wrote down; `upstream`
asks another server, and may record what it says; `replay` plays a recording; `chaos` spoils what
another answers.
"""

from __future__ import annotations

from typing import Protocol

from ..replies import ReplyLike
from ..turn import Turn

__all__ = ["MODELS", "Responder", "models_of"]

MODELS = ("fluence-chat", "fluence-local")


class Responder(Protocol):
    """Whoever answers a turn. A responder may have an attribute `models`: the names of the models
    that it answers as, or None if it takes any; without it, they are `MODELS`."""

    async def respond(self, turn: Turn) -> ReplyLike:
        """The reply to a valid request. Called once for each execution.

        Raises:
            Refusal: The request cannot be served.
        """
        ...


def models_of(responder: Responder) -> tuple[str, ...] | None:
    """The models that `responder` answers as; None for any."""
    models: tuple[str, ...] | None = getattr(responder, "models", MODELS)
    return models
