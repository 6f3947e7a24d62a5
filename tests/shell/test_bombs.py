"""Whatever a server sends, its reader holds a bounded part of it and keeps its loop free."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from fluence_async import BadChunkError, stream
from fluence_async.testing import BOMBS, Event, FluenceServer, Repeat, Stream
from tests.shell import bombed
from tests.shell.test_faults import ask, opened

MOST_MB = 64
MOST_BLOCKED_MS = 250  # five times the promise, in CPU time: this machine may be slow, or shared


def replies() -> Any:
    scripts = {bomb.name: bomb.script[0] for bomb in BOMBS}
    return lambda turn: scripts.get(turn.headers["x-bomb"])


def costs(backend: str) -> list[dict[str, Any]]:
    """What every bomb costs a process of its own."""
    with FluenceServer(limits=None) as server:
        server.script(replies())
        bombs = json.dumps([(bomb.name, bomb.stream) for bomb in BOMBS])
        command = [sys.executable, "-m", bombed.__name__, server.base_url, server.api_key]
        done = subprocess.run(
            [*command, backend, bombs], stdout=subprocess.PIPE, text=True, check=True
        )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.skipif(not bombed.PEAK.exists(), reason="needs Linux's peak of memory")
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_bomb_costs_much_memory_or_holds_up_the_loop(backend: str) -> None:
    told = costs(backend)
    ended = {bomb.name: bomb.raises.__name__ if bomb.raises else "" for bomb in BOMBS}
    assert {cost["bomb"]: cost["ended"] for cost in told} == ended
    assert [cost for cost in told if cost["mb"] > MOST_MB] == []
    assert [cost for cost in told if cost["blocked_cpu_ms"] > MOST_BLOCKED_MS] == []


@pytest.mark.anyio
async def test_a_stream_of_good_chunks_without_end_is_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stream, "_MAX_STREAM", 2**20)
    async with opened() as (server, fluence):
        chunk = Event('{"choices":[{"delta":{"content":"aaaa"}}]}')
        server.script(Stream(Repeat([chunk] * 1000)))
        with pytest.raises(BadChunkError, match="over 1048576 bytes") as caught:
            await ask(fluence, stream=True)
    assert caught.value.partial is not None
    assert len(caught.value.partial.text) > 60_000
