"""Virtual time: a clock that jumps to the next deadline as soon as nothing else can happen.

A test module of waiting says `from tests.virtual import anyio_backend` (which takes the place of
the fixture of the same name in conftest) and then sleeps for hours at no cost, on both backends;
a single test says `@in_virtual_time()`.
Loopback sockets within the same loop work too: what was sent is readable before time moves on.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any

import pytest
import trio.testing


class _JumpingSelector(selectors.DefaultSelector):  # type: ignore[valid-type, misc]
    """A selector that never blocks: with nothing ready it lets the clock jump instead."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return super().select(1.0)  # only a thread or a signal can wake this loop
        self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An asyncio loop in virtual time."""

    def __init__(self) -> None:
        self._virtual = _JumpingSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now


def _options(backend: str) -> Mapping[str, Any]:
    if backend == "asyncio":
        return {"loop_factory": VirtualLoop}
    return {"clock": trio.testing.MockClock(autojump_threshold=0)}


def in_virtual_time() -> pytest.MarkDecorator:
    """For one test of a module that lives in real time."""
    backends = ("asyncio", "trio")
    return pytest.mark.parametrize(
        "anyio_backend", [(backend, _options(backend)) for backend in backends], ids=backends
    )


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, Mapping[str, Any]]:
    """The backend that an async test runs on, in virtual time."""
    return request.param, _options(request.param)
