"""What the fuzz once found stays mended, and a little of it runs with the suite."""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

from fluence_async._sansio.codec import ChunkDecoder
from tests.fuzz import checks, inputs, run

FOUND = sorted(run.WIRE.glob("fuzz-*.json"))
SECONDS = 5.0


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_a_finding_stays_mended(path: Path) -> None:
    vector: dict[str, Any] = json.loads(path.read_text())
    pieces = [bytes.fromhex(piece) for piece in vector["pieces_hex"]]
    assert checks.complaint(checks.CHECKS[vector["check"]], pieces) is None


def test_a_few_seconds_find_nothing() -> None:
    seed = 0 if "CI" in os.environ else time.time_ns() % 10**9
    executions, findings = run.fuzz(seed, SECONDS)
    assert not findings, f"seed {seed}: {findings[0]}"
    assert set(executions) == set(checks.CHECKS)


def test_a_wrong_reading_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The fuzz would see it: a decoder that loses what one piece too many brings."""
    feed = ChunkDecoder.feed

    def forgetful(decoder: ChunkDecoder, data: bytes) -> Any:
        return feed(decoder, data[:-1] if len(data) == 7 else data)

    monkeypatch.setattr(ChunkDecoder, "feed", forgetful)
    monkeypatch.setattr(run, "WIRE", tmp_path)
    _, findings = run.fuzz(1, 20.0)
    assert {name for name, _, _ in findings} == {"codec"}
    vector = json.loads(run.keep(findings)[0].read_text())
    monkeypatch.undo()
    pieces = [bytes.fromhex(piece) for piece in vector["pieces_hex"]]
    assert checks.complaint(checks.CHECKS[vector["check"]], pieces) is None


def test_the_same_seed_gives_the_same_inputs() -> None:
    for make in (inputs.event_streams, inputs.chunk_streams, inputs.bodies):
        assert make(random.Random(7)) == make(random.Random(7))
