"""A seed and a time in, findings out: the loop of the fuzz, and where its findings are kept."""

from __future__ import annotations

import hashlib
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz import checks, inputs
from tests.sansio import naive_sse

WIRE = Path(__file__).parent.parent / "wire"
CUTTINGS = 8
"""Of each event stream, so that its naive reading is made once for all of them."""

Finding = tuple[str, list[bytes], str]
"""A check's name, the pieces, and the complaint."""


def fuzz(seed: int, seconds: float) -> tuple[Counter[str], list[Finding]]:
    """Run every check on inputs of this seed; how many executions of each, and what was found."""
    dice, executions, findings = random.Random(seed), Counter[str](), []
    until = time.monotonic() + seconds
    while time.monotonic() < until and len(findings) < 20:
        for _ in range(20):
            found = _events(dice, executions)
            findings += [found] if found else []
        tried = [("codec", inputs.cut(dice, inputs.chunk_streams(dice))) for _ in range(4)]
        for name, pieces in (*tried, ("whole", inputs.bodies(dice))):
            executions[name] += 1
            complaint = checks.complaint(checks.CHECKS[name], pieces)
            if complaint:
                findings.append((name, list(pieces), complaint))
    return executions, findings


def _events(dice: random.Random, executions: Counter[str]) -> Finding | None:
    stream = inputs.event_streams(dice)
    expected = naive_sse.read(stream)
    executions["sse"] += CUTTINGS
    for _ in range(CUTTINGS):
        pieces = inputs.cut(dice, stream)
        complaint = checks.compare_sse(pieces, expected)
        if complaint:
            return "sse", pieces, complaint
    return None


def keep(findings: Sequence[Finding]) -> list[Path]:
    """Write each finding as a vector, which the suite replays from then on."""
    kept = []
    for name, pieces, complaint in findings:
        digest = hashlib.sha256(b"|".join(pieces)).hexdigest()[:12]
        path = WIRE / f"fuzz-{name}-{digest}.json"
        vector = {"check": name, "pieces_hex": [piece.hex() for piece in pieces]}
        path.write_text(json.dumps({**vector, "complaint": complaint[:1000]}, indent=1) + "\n")
        kept.append(path)
    return kept
