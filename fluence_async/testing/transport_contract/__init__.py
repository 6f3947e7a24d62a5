"""What every transport must do: checks that any implementation can be put through.

Each check is an async function that takes a factory of transports (`Factory`), talks to a raw
server of its own on 127.0.0.1, and raises an AssertionError that says what was expected. They run
on asyncio and trio, in real time, and most of them in virtual time.

    import pytest
    from fluence_async.testing.transport_contract import CHECKS

    @pytest.mark.anyio
    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    async def test_my_transport(check):
        await check(MyTransport)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from . import bodies, cancelling, closing, connecting, delivering, encodings, heads, sending
from ._server import Factory

__all__ = ["CHECKS", "REAL_TIME", "Check", "Factory"]

Check = Callable[[Factory], Awaitable[None]]

CHECKS: tuple[Check, ...] = tuple(
    getattr(part, name)
    for part in (connecting, sending, delivering, heads, bodies, encodings, closing, cancelling)
    for name in part.__all__
)
"""All checks."""

REAL_TIME: frozenset[Check] = frozenset(
    {
        bodies.a_slow_reader_slows_the_server_down,
        closing.abort_may_be_called_from_another_thread,
        cancelling.a_cancelled_send_of_a_big_body_leaves_nothing,
        closing.closing_a_transport_does_not_wait_for_a_stuck_server,
        delivering.what_the_peer_does_not_read_is_not_delivered,
        connecting.a_name_that_does_not_resolve_is_a_failure_to_connect,
        heads.a_header_bomb_is_refused,
        sending.cookies_are_not_kept,
        sending.big_and_empty_bodies_go_out_whole,
    }
)
"""Those that wait for a thread, or for the kernel to move what fills its buffers: a clock that
jumps ahead when the loop is idle would not."""
