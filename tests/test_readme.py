"""README.md and examples/ do what they say: every block is run, and prints what it shows.

A ```python block runs as a program of its own, against the local server; one with a bare `await`
runs as it does in `python -m asyncio`. Of a ```console block each line after `$ ` is run. What
stands in a ```text block below either must be what it printed. The ```bash blocks are the two
set-up commands: `.ci/run` runs those, and the test here holds that it finds them.
"""

from __future__ import annotations

import builtins
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import fluence_async
from fluence_async import Timeout
from fluence_async.testing import FluenceServer

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
RUN = """
import ast, asyncio, inspect, sys
code = compile(sys.stdin.read(), "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
names = {"__name__": "__main__"}
if code.co_flags & inspect.CO_COROUTINE:
    asyncio.run(eval(code, names))
else:
    exec(code, names)
"""


class Block(NamedTuple):
    """A fenced block, the line it starts at, and what is shown as its output."""

    language: str
    code: str
    output: str | None
    line: int


def blocks(*languages: str) -> list[Block]:
    fence = re.compile(
        r"^```(\w+)\n(.*?)^```\n(?:\n?```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL
    )
    found = [
        Block(match[1], match[2], match[3], README.count("\n", 0, match.start()) + 1)
        for match in fence.finditer(README)
    ]
    return [block for block in found if block.language in languages]


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user who has a key for the local server and our Python on PATH."""
    for name, module in {"python3": "", "fluence": "-m fluence_async"}.items():
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -W error {module} "$@"\n')
        script.chmod(0o755)
    with FluenceServer(control=True) as server:
        yield {
            **os.environ,
            "FLUENCE_API_KEY": server.api_key,
            "FLUENCE_BASE_URL": server.base_url,
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "TERM": "dumb",
        }


def run(command: list[str], environment: dict[str, str], stdin: str = "") -> str:
    done = subprocess.run(
        command,
        input=stdin,
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: f"line {block.line}")
def test_a_python_block_runs_and_prints_what_it_shows(
    block: Block, environment: dict[str, str]
) -> None:
    printed = run([sys.executable, "-W", "error", "-c", RUN], environment, block.code)
    if block.output is not None:
        assert printed.rstrip() == block.output.rstrip()


@pytest.mark.parametrize("block", blocks("console"), ids=lambda block: f"line {block.line}")
def test_a_console_block_runs_and_prints_what_it_shows(
    block: Block, environment: dict[str, str]
) -> None:
    commands = [line.removeprefix("$ ") for line in block.code.splitlines()]
    printed = "".join(run(["bash", "-c", command], environment) for command in commands)
    assert printed
    if block.output is not None:
        assert printed.rstrip() == block.output.rstrip()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(path: Path, environment: dict[str, str]) -> None:
    assert run([sys.executable, "-W", "error", str(path)], environment)


def test_the_two_set_up_commands_are_those_that_ci_runs() -> None:
    searched = re.findall(r"^run_from_readme '(.*?)'", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    found = [
        [line for line in README.splitlines() if re.fullmatch(pattern, line)]
        for pattern in searched
    ]
    assert [len(lines) for lines in found] == [1, 1]
    assert [block.code.strip() for block in blocks("bash")] == [lines[0] for lines in found]


def test_the_table_of_clocks_shows_their_defaults() -> None:
    section = README.partition("## Timeouts")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\S+) ", section, re.MULTILINE)
    shown = {name: None if value == "none" else float(value.rstrip("s")) for name, value in rows}
    assert shown == {name: getattr(Timeout(), name) for name in Timeout.__struct_fields__}


def test_every_error_that_is_named_exists() -> None:
    named = set(re.findall(r"`([A-Z]\w+Error)`", README)) - set(dir(builtins))
    assert named <= set(fluence_async.__all__)


def test_every_block_is_of_a_kind_that_is_run() -> None:
    languages = set(re.findall(r"^```(\w+)$", README, re.MULTILINE))
    assert languages <= {"bash", "console", "python", "text"}
