"""The pytest plugin of fluence_async: a server for each test, a session to it, and a closed door.

It is a module of its own, outside the package, and imports it only when a fixture is used: pytest
loads its plugins in every project of the environment, and those that do not test with this one
must not pay for it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fluence_async import FluenceSession
    from fluence_async.testing import FluenceServer

__all__ = ["fluence_server", "fluence_session"]

_MARKERS = (
    "fluence_server(**options): how the test's FluenceServer is made",
    "fluence_session(**options): how the test's FluenceSession is made",
    "forbid_network(allow=()): let no connection of the test leave this machine",
    "allow_network: where the ini option fluence_forbid_network is on, let this test out",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The ini option that closes the door for all tests."""
    parser.addini(
        "fluence_forbid_network",
        "let no connection of any test leave this machine, unless it is marked allow_network",
        type="bool",
        default=False,
    )


def pytest_configure(config: pytest.Config) -> None:
    """The markers."""
    for marker in _MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.fixture
def fluence_server(request: pytest.FixtureRequest) -> Iterator[FluenceServer]:
    """The Fluence Chat API on this machine, fresh for each test, in a thread of its own: for sync
    tests and async ones, on any event loop. `@pytest.mark.fluence_server(limits=None)` says how it
    is made."""
    from fluence_async.testing import FluenceServer

    with FluenceServer(**_options(request, "fluence_server")) as server:
        yield server


@pytest.fixture
def fluence_session(
    request: pytest.FixtureRequest, fluence_server: FluenceServer
) -> Iterator[FluenceSession]:
    """A session with the test's server: without a limiter, and with waits of milliseconds between
    retries. `@pytest.mark.fluence_session(max_retries=0)` says otherwise."""
    from fluence_async import FluenceSession, RetryPolicy

    options: dict[str, Any] = {
        "api_key": fluence_server.api_key,
        "base_url": fluence_server.base_url,
        "limiter": None,
        "retry": RetryPolicy(base_s=0.001),
        **_options(request, "fluence_session"),
    }
    session = FluenceSession(**options)
    yield session
    _closed(session)


def _options(request: pytest.FixtureRequest, name: str) -> dict[str, Any]:
    marker = request.node.get_closest_marker(name)
    if marker is None:
        return {}
    if marker.args:
        example = {"fluence_server": "time_scale=60", "fluence_session": "max_retries=0"}[name]
        raise TypeError(
            f"@pytest.mark.{name}({', '.join(map(repr, marker.args))}): its options go by name, "
            f"as in @pytest.mark.{name}({example})"
        )
    return dict(marker.kwargs)


def _closed(session: FluenceSession) -> None:
    """Close a session whose loop may run no more: closing then waits for nothing. Not with
    `asyncio.run`, which would take the thread's own loop away."""
    import asyncio

    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(session.aclose())
    finally:
        loop.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Close the door while a test runs, its fixtures included."""
    marker = item.get_closest_marker("forbid_network")
    always = item.config.getini("fluence_forbid_network")
    if item.get_closest_marker("allow_network") or not (marker or always):
        return (yield)
    from fluence_async.testing import forbid_network

    with forbid_network(**(marker.kwargs if marker else {})):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the server was asked beside a test that failed."""
    report = yield
    server = getattr(item, "funcargs", {}).get("fluence_server")
    if report.when == "call" and report.failed and server is not None:
        from fluence_async.server.received import table

        report.sections.append(("requests to fluence_server", table(server.requests)))
    return report
