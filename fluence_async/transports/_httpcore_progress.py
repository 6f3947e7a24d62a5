"""What httpcore2 tells of one request on its way goes in; its deadlines, and word of it, come out.

Law: a connection has a deadline of its own from the moment it is begun until the request's head
is written. From then on the request may have left, and once its body is written, it is asked
whether the server's kernel has it (`_delivery.py`), until it is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import trio

from ._base import Request
from ._delivery import EVERY_S, Deliveries, unacknowledged
from ._httpcore_pool import Line

__all__ = ["Progress", "later"]


class Progress:
    """httpcore2's `trace` extension of one request.

    Args:
        request: The request.
        scope: What it is sent in, with the request's deadline.
        deliveries: Who asks whether it is delivered; None if nobody does.

    Attributes:
        request: The request.
        line: The connection, once it is chosen.
        sent: Some of the request may have left.
    """

    def __init__(
        self, request: Request, scope: trio.CancelScope, deliveries: Deliveries | None
    ) -> None:
        self.request = request
        self.line: Line | None = None
        self.sent = False
        self._scope = scope
        self._deliveries = deliveries

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Something begins or ends."""
        if event == "connection.connect_tcp.started":
            if (timeout := self.request.connect_timeout) is not None:
                self._scope.deadline = min(trio.current_time() + timeout, self.request.deadline)
        elif event == "connection.connect_tcp.complete":
            assert self.line is not None
            self.line.socket = info["return_value"].get_extra_info("socket")
        elif (
            event == "http11.send_request_headers.started"
            and info["request"].method == b"POST"  # not the CONNECT that opens a tunnel
            and not self._scope.cancel_called  # else nothing leaves any more
        ):
            self._scope.deadline = self.request.deadline
            self.sent = True
            self.request.on_sent()
        elif event == "http11.send_request_body.complete" and self._deliveries is not None:
            self._deliveries.watch(self)

    def is_delivered(self) -> bool:
        """See `OnItsWay`: trio keeps nothing back of what was written."""
        socket = None if self.line is None else self.line.socket
        return socket is not None and not unacknowledged(socket)


def later(ring: Callable[[], None]) -> trio.CancelScope | None:
    """Call it once, in a while; see `Deliveries`."""
    timer = trio.CancelScope()
    try:
        trio.lowlevel.spawn_system_task(_sleep, timer, ring)
    except RuntimeError:  # the run is ending
        return None
    return timer


async def _sleep(timer: trio.CancelScope, ring: Callable[[], None]) -> None:
    with timer:
        await trio.sleep(EVERY_S)
        ring()
