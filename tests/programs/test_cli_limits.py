"""`fluence limits`: how the limits stand that programs share, live and once."""

from __future__ import annotations

import fcntl
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluence_async import RateLimit
from fluence_async._sansio.lessons import Lessons
from fluence_async._sansio.limits_file import LESSONS_AT, VERSION
from fluence_async.cli.gauge import lesson
from fluence_async.limiter import Learnt, Limiter, WindowSnapshot, limiter_name

from .cli import Terminal, environment, fluence
from .screen import Screen

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a limiter's file needs Linux")

KEY = "sk-a-key-of-the-test"
NAME = limiter_name(KEY, "https://api.fluence.ai:443")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fluence" / f"{NAME}.{VERSION}.limits"


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(FLUENCE_API_KEY=KEY, XDG_STATE_HOME=str(tmp_path))


@pytest.fixture
def limiter(path: Path) -> Iterator[Limiter]:
    """Another program's, which has used 40 units and waits for the answers to 3 of them."""
    limiter = Limiter(path=path)
    held = [limiter.acquire_nowait() for _ in range(40)]
    for permit in held:
        permit.sent()
    while len(held) > 3:
        held.pop().settle()
    yield limiter
    for permit in held:
        permit.settle()


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


def test_it_is_shown_once_where_there_is_no_terminal(
    env: dict[str, str], path: Path, limiter: Limiter
) -> None:
    done = fluence("limits", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    where, head, minute, hour, state, more, ten, hundred = rows(done.stdout)
    assert where == [str(path)]
    assert head == ["limit", "used", "in", "flight", "left", "next", "free"]
    assert minute[0] == "100/minute"
    assert minute[2:] == ["40", "3", "60", "now"]
    assert minute[1].count("█") == 12
    assert hour[2:] == ["40", "3", "960", "now"]
    assert state == ["nobody", "waits"]
    assert more == ["more", "calls", "interactive", "batch"]
    assert ten == ["10", "now", "now"]
    assert hundred == ["100", "1m", "01s", "1m", "01s"]
    assert max(map(len, done.stdout.splitlines()[1:])) <= 80
    assert "\x1b" not in done.stdout


def test_json_is_one_object(env: dict[str, str], path: Path, limiter: Limiter) -> None:
    limiter.pause(30)
    found = json.loads(fluence("limits", "--json", env=env).stdout)
    assert found["where"] == str(path)
    minute, hour = found["windows"]
    assert minute == {
        "limit": "100/minute",
        "used": 40,
        "in_flight": 3,
        "left": 60,
        "next_free_s": 0.0,
        "learnt": None,
    }
    assert (hour["limit"], hour["left"]) == ("1000/hour", 960)
    assert (found["waiting"], found["waiting_batch"]) == (0, 0)
    assert 20 < found["paused_s"] < 31
    eta = found["eta_s"]
    assert eta["interactive"]["10"] == found["paused_s"] == eta["batch"]["10"]
    assert 50 < eta["interactive"]["100"] < 61


def test_what_the_programs_have_learnt_is_said_in_words(
    env: dict[str, str], path: Path, limiter: Limiter
) -> None:
    known = Learnt(burst=10, proven=10, ended=True, counter=True, withheld=5)
    lessons = Lessons(windows={"100/minute": known, "1000/hour": Learnt(burst=1000)})
    with path.open("rb+") as file:
        file.seek(LESSONS_AT)
        file.write(lessons.pack(0, ()))
    lines = fluence("limits", "--limiter", "file:any", env=env).stdout.splitlines()
    at = lines.index("nobody waits") + 1
    assert lines[at : at + 3] == [
        "100/minute: the server takes bursts of 10, keeps a sliding counter; 5 units",
        "withheld",
        "1000/hour: the server takes all 1,000 at once",
    ]
    assert rows("\n".join(lines))[2][2:] == ["40", "3", "55", "now"]
    done = fluence("limits", "--json", env=env | {"FLUENCE_LIMITER": "file:any"})
    minute = json.loads(done.stdout)["windows"][0]
    assert (minute["learnt"]["burst"], minute["learnt"]["withheld"]) == (10, 5)


@pytest.mark.parametrize(
    ("learnt", "said"),
    [
        (Learnt(), "takes bursts of 1 (more is tried)"),
        (Learnt(burst=24, proven=12), "takes bursts of 12 (more is tried)"),
        (Learnt(burst=200, stated=200), "takes all 200 at once, states this limit itself"),
        (
            Learnt(burst=9, proven=9, ended=True, reported=True),
            "takes bursts of 9, tells what remains",
        ),
    ],
)
def test_every_lesson_has_its_words(learnt: Learnt, said: str) -> None:
    window = WindowSnapshot(
        limit=RateLimit(learnt.stated or 100, 60.0), used=0, left=1, next_free_s=0, learnt=learnt
    )
    assert lesson(window) == f"{window.limit}: the server {said}"


def test_looking_creates_nothing_and_a_file_that_is_not_there_was_never_used(
    env: dict[str, str], tmp_path: Path
) -> None:
    done = fluence("limits", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing is used" in done.stdout
    assert "100/minute" in done.stdout
    assert [*tmp_path.iterdir()] == []


def test_looking_changes_nothing_and_waits_for_nobody(
    env: dict[str, str], path: Path, limiter: Limiter
) -> None:
    before, status = path.read_bytes(), path.stat()
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # a program that stands still amid its work
        assert rows(fluence("limits", env=env).stdout)[2][2] == "40"
    assert (path.read_bytes(), path.stat().st_mtime_ns) == (before, status.st_mtime_ns)
    assert [*path.parent.iterdir()] == [path]


def test_other_limits_can_be_named(env: dict[str, str], limiter: Limiter) -> None:
    done = fluence("limits", "--limits", "50/minute", "--limits", "2000/day", env=env)
    assert [row[0] for row in rows(done.stdout)[2:4]] == ["50/minute", "2000/day"]
    assert rows(done.stdout)[2][2:] == ["40", "3", "10", "now"]
    assert fluence("limits", "--limits", "many", env=env).returncode == 2


def test_without_a_key_it_says_what_is_missing() -> None:
    done = fluence("limits", env=environment())
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("fluence: no API key")
    assert "FLUENCE_API_KEY" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--limiter", "file:some"], 2, "policy='some'"),
        (["--limiter", "memory"], 2, "limiter='memory': only limits in a file or a Redis"),
        (["--base-url", "nowhere"], 2, "base_url='nowhere'"),
    ],
)
def test_what_cannot_be_seen_is_said(
    env: dict[str, str], arguments: list[str], code: int, said: str
) -> None:
    done = fluence("limits", *arguments, env=env)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_another_programs_file_is_named(env: dict[str, str], path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"#!/bin/sh\n" * 100)
    done = fluence("limits", env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{path} is no limiter's file" in done.stderr


@pytest.mark.parametrize("columns", [80, 40])
def test_a_terminal_shows_it_live_until_ctrl_c_and_is_left_as_it_was(
    env: dict[str, str], limiter: Limiter, columns: int
) -> None:
    with Terminal(["limits"], env | {"COLUMNS": str(columns)}) as terminal:
        terminal.expect("100/minute")
        terminal.expect(" 60 ")
        while limiter.snapshot().windows[0].left:
            limiter.acquire_nowait().settle()
        terminal.expect("100/minute")
        terminal.expect(" 0  ")
        terminal.expect("batch")
        terminal.type("\x03")
        assert terminal.wait() == 0
        terminal.assert_as_found()
        assert "\x1b[31m" in terminal.output  # the full bar
        assert "^C" not in terminal.text
    screen = Screen(columns, 24)
    screen.write(terminal.output)
    shown = [line.rstrip() for line in screen.lines]
    assert max(map(len, shown)) < columns
    assert len(shown) == 12  # one frame, and the cursor's line after it
    assert shown[-1] == ""
    assert re.search(r"█{4} +100 .* (5\d s|1m 0\ds)$", shown[3])
    assert re.fullmatch(r"more calls  interactive +batch", shown[8])


def test_no_colour_where_none_is_wanted(env: dict[str, str], limiter: Limiter) -> None:
    with Terminal(["limits"], env | {"NO_COLOR": "1"}) as terminal:
        terminal.expect("batch")
        terminal.type("\x03")
        assert terminal.wait() == 0
    assert not re.search(r"\x1b\[[\d;]*3\dm", terminal.output)
