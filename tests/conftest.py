"""One fixture runs each async test on both backends; one profile holds for all hypotheses."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# This machine may be slow, so no deadline; and a build must not fail by chance.
settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tests")


@pytest.fixture(autouse=True, scope="session")
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test leaves anything in the state directory of who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The backend that an async test runs on."""
    return str(request.param)
