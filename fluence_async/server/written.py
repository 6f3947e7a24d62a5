"""What stands in a script goes in, and comes out if it is a reply; an error says what it is.

Law: a script that cannot be played is an error where it is written, not a request that is answered
oddly later. What a function returns is known at the request only, and is checked then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .replies import ReplyLike, Step

__all__ = ["a_line", "a_reply"]


def a_reply(what: Any) -> ReplyLike:
    """`what`, if it is a reply, a step of one, or stands for one.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(what, type):
        raise TypeError(f"{what.__name__} is a class; write {what.__name__}()")
    if isinstance(what, list):
        for step in what:
            a_reply(step)
    elif not isinstance(what, Step | str | bytes | Mapping):
        raise TypeError(
            f"{what!r} is no reply: a str, bytes, a mapping, a list of these, or one of the "
            "replies and faults of fluence_async.testing"
        )
    reply: ReplyLike = what
    return reply


def a_line(what: Any) -> ReplyLike:
    """`what`, if it answers a request.

    Raises:
        TypeError: It is no reply.
        ValueError: It would never send anything.
    """
    reply = a_reply(what)
    if _silent(reply):
        raise ValueError(
            f"{what!r} alone never answers: write [Pause(1), 'Hello'], or Stall() for silence"
        )
    return reply


def _silent(reply: ReplyLike) -> bool:
    if isinstance(reply, list):
        return all(_silent(step) for step in reply)
    return isinstance(reply, Step) and reply.silent
