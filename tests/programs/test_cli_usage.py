"""`fluence usage`: what was spent, as a table and as JSON."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import anyio
import pytest

from fluence_async import Meta, Usage
from fluence_async.ledger import Ledger

from .cli import Terminal, environment, fluence

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="terminals as Unix has them")

DAY = 86_400


@pytest.fixture
def kept(tmp_path: Path) -> str:
    ledger = Ledger(tmp_path / "usage.sqlite3")

    def count(days_ago: int, model: str, tokens: int, **more: bool) -> None:
        usage = Usage(prompt_tokens=tokens, completion_tokens=tokens // 2)
        how = {"estimated": False, "failed": False, **more}
        tags = {"tenant": "acme"}
        at = time.time() - days_ago * DAY
        ledger.count(at, model, Meta(attempts=1, tags=tags), usage, tokens / 100, **how)

    count(60, "fluence-chat", 7_000)
    count(1, "fluence-chat", 2_000)
    count(0, "fluence-chat", 1_000)
    count(0, "fluence-\x1b[31mlarge", 500, estimated=True, failed=True)
    anyio.run(ledger.aclose)
    return str(tmp_path / "usage.sqlite3")


def day(ago: int) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() - ago * DAY))


def test_a_table_has_each_day_and_model_and_their_total(kept: str) -> None:
    done = fluence("usage", "--ledger", kept)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.rstrip() for line in done.stdout.splitlines()]
    assert [line.split() for line in lines] == [
        [*"day (UTC) model calls failed cached prompt completion cost tokens".split()],
        [day(1), "fluence-chat", *"1 0 0 2,000 1,000 20.00".split(), "█" * 24],
        [day(0), "fluence-[31mlarge", *"1 1 0 ~500 ~250 5.00".split(), "█" * 6],
        ["fluence-chat", *"1 0 0 1,000 500 10.00".split(), "█" * 12],
        ["total", *"3 1 0 ~3,500 ~1,750 35.00".split()],
    ]


def test_days_say_how_far_back(kept: str) -> None:
    assert "7,000" in fluence("usage", "--ledger", kept, "--days", "61").stdout
    assert day(1) not in fluence("usage", "--ledger", kept, "--days", "1").stdout


def test_json_is_one_object_with_tags(kept: str) -> None:
    done = fluence("usage", "--ledger", kept, "--json")
    found = json.loads(done.stdout)
    assert (found["ledger"], found["since"]) == (kept, day(29))
    assert [entry["day"] for entry in found["entries"]] == [day(1), day(0), day(0)]
    first = found["entries"][0]
    assert (first["model"], first["tags"]) == ("fluence-chat", {"tenant": "acme"})
    assert (first["totals"]["prompt_tokens"], first["totals"]["cost"]) == (2_000, 20.0)


def test_a_terminal_that_is_narrow_has_the_figures_without_bars(kept: str) -> None:
    with Terminal(["usage", "--ledger", kept], environment(COLUMNS="72")) as terminal:
        assert terminal.wait() == 0
        assert "█" not in terminal.text
        assert "~3,500" in terminal.text
        assert "fluence-" in terminal.text


def test_without_a_ledger_it_says_how_to_keep_one(tmp_path: Path) -> None:
    env = environment(XDG_STATE_HOME=str(tmp_path))
    for arguments in (["usage"], ["usage", "--json"]):
        done = fluence(*arguments, env=env)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("fluence: there is no ledger at ")
        assert "ledger=True" in done.stderr


def test_what_is_no_ledger_is_named(tmp_path: Path) -> None:
    other = tmp_path / "notes.txt"
    other.write_text("notes" * 1_000)
    done = fluence("usage", "--ledger", str(other))
    assert (done.returncode, done.stdout) == (2, "")
    assert "notes.txt is no ledger" in done.stderr


def test_nothing_in_those_days_is_said(tmp_path: Path, kept: str) -> None:
    empty = tmp_path / "empty.sqlite3"
    ledger = Ledger(empty)
    usage = Usage(prompt_tokens=1, completion_tokens=1)
    ledger.count(0.0, "m", Meta(), usage, 0.0, estimated=False, failed=False)
    anyio.run(ledger.aclose)
    assert f"Nothing was spent since {day(29)}" in fluence("usage", "--ledger", str(empty)).stdout
