"""One fault: what the server does, and what it must lead to."""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import FluenceError
from ..options import Timeout

__all__ = ["Fault"]

_SHORT = Timeout(total=10, first_byte=0.3, idle=0.3, progress=0.5)
_LONG = Timeout(total=30)


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One fault.

    Attributes:
        name: What the server does.
        script: How it does it: `server.script(*fault.script, repeat=True)`.
        raises: What a stream (a plain call, if not `stream`) must raise; None if it must end well.
        text: The text that must have arrived, whole or partial.
        attempts: How many requests one call with `max_retries=1` may make.
        clock: The clock of a timeout.
        stream: Whether the call asks for a stream.
    """

    name: str
    script: tuple[Any, ...]
    raises: type[FluenceError] | None = None
    text: str = ""
    attempts: int = 1
    clock: str | None = None
    stream: bool = True

    def __repr__(self) -> str:
        return f"<Fault: {self.name}>"

    @property
    def timeout(self) -> Timeout:
        """Short clocks for a fault that ends of one, long ones for the others."""
        return _LONG if self.clock is None else _SHORT
