"""SECURITY.md promises nothing that no test holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fluence_async.server import app, local

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "SECURITY.md").read_text("utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
ROWS = [line for line in TEXT.splitlines() if re.match(r"\| (?!it could|they could|-)", line)]


@pytest.mark.parametrize(("path", "test"), NAMED, ids=lambda part: part.rpartition("/")[2])
def test_every_test_that_is_named_exists(path: str, test: str) -> None:
    assert re.search(rf"^(async )?def {test}\(", (ROOT / path).read_text("utf-8"), re.MULTILINE)


def test_every_row_names_a_test() -> None:
    rows = [line for line in ROWS if not line.startswith("|---")]
    assert len(rows) >= 20
    assert [row for row in rows if "::test_" not in row] == []


def test_its_figures_are_those_of_the_code() -> None:
    assert f"{local._IDLE_S:.0f} s for a head, {app.BODY_TIMEOUT_S:.0f} s for a body" in TEXT
    assert f"{app.MAX_BODY // 2**20} MiB a body" in TEXT
