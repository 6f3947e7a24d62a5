"""One fixture runs each async test on both backends; one profile holds for all hypotheses."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# This machine may be slow, so no deadline; and a build must not fail by chance.
settings.register_profile("tests", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("tests")


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """The backend that an async test runs on."""
    return str(request.param)
