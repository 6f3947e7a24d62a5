"""The soak's runs, small: what they find in minutes, they must be able to find."""

from __future__ import annotations

import pytest

from tests.soak import crowd, mixed

pytestmark = pytest.mark.anyio


async def test_of_many_streams_at_once_each_is_told_right_and_nothing_is_left() -> None:
    streams = 300
    crowd.allow_open_files(2 * streams)
    with crowd.served(streams) as base_url:
        result = await crowd.counted(base_url, streams)
    assert result["wrong"] == 0, result["ended"]
    assert (result["files_left"], result["tasks_left"]) == (0, 0)


@pytest.mark.parametrize("cancels", [1.0, 0.2], ids=["random cancels", "mixed faults"])
@pytest.mark.filterwarnings("ignore:.*dropped unclosed:ResourceWarning")
async def test_a_few_seconds_of_it_leave_nothing(cancels: float) -> None:
    told: list[str] = []
    with mixed.served(1) as server:
        problems = await mixed.soak(
            server, seconds=2.5, cancels=cancels, every=0.5, most_growth_mb=50, tell=told.append
        )
    assert problems == []
    assert "cancelled" in told[-1]
    assert "broken off" in told[-1] or cancels == 1
