"""`fluence serve`: passing on, recording, replaying, chaos and scripts, as a user starts them."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest

from fluence_async.testing import FluenceServer
from tests.programs.cli import environment, fluence, started


@contextmanager
def serving(
    *arguments: str, server: FluenceServer | None = None
) -> Iterator[tuple[Popen[bytes], dict[str, str], str]]:
    """`fluence serve` at work: its process, the environment of its clients, and what it said."""
    with started("serve", "--port", "0", *arguments, env=environment(server)) as process:
        assert process.stdout is not None
        said = ""
        while "Ctrl-C stops it" not in said:
            line = process.stdout.readline().decode()
            assert line, said
            said += line
        exports = dict(re.findall(r"export (FLUENCE_\w+)=(\S+)", said))
        yield process, environment(**exports), said


def post(env: dict[str, str], path: str, body: Any) -> Any:
    request = urllib.request.Request(
        env["FLUENCE_BASE_URL"].removesuffix("/v1") + path,
        data=None if body is None else json.dumps(body).encode(),
        headers={
            "authorization": f"Bearer {env['FLUENCE_API_KEY']}",
            "content-type": "application/json",
        },
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def test_what_another_server_says_is_recorded_and_replayed(tmp_path: Path) -> None:
    path = tmp_path / "it.jsonl"
    with FluenceServer(api_keys=["the-key-of-the-other"]) as real:
        real.script("From afar.")
        with serving("--upstream", real.base_url, "--record", str(path), server=real) as (
            _,
            env,
            said,
        ):
            assert f"Its answers are those of {real.base_url}. They are recorded in" in said
            assert "the-key-of-the-other" not in said
            assert fluence("chat", "Hello", env=env).stdout == "From afar.\n"
        real.assert_requested(1, text="Hello")
    assert "the-key-of-the-other" not in path.read_text()
    with serving("--replay", str(path)) as (_, env, said):
        assert "Its answers are the 1 that are recorded in" in said
        for _ in range(2):
            assert fluence("chat", "Hello", env=env).stdout == "From afar.\n"


def test_chaos_tells_each_request_and_can_be_had_again() -> None:
    fates = []
    for _ in range(2):
        with serving("--chaos", "--chaos-rate", "1", "--seed", "11") as (process, env, said):
            assert "Chaos spoils 100% of them; the same again with --seed 11." in said
            assert process.stdout is not None
            fluence("chat", "--no-stream", "Hello \x1b[31m", env=env)
            fates.append(process.stdout.readline().decode())
    assert fates[0] == fates[1]
    assert re.fullmatch(r"    1  \S.{29}  'Hello .*'\n", fates[0])
    assert "\x1b" not in fates[0]


def test_scripts_are_taken_if_that_was_asked_for() -> None:
    with serving("--control") as (_, env, said):
        assert "/_fluence/script" in said
        assert post(env, "/_fluence/script", {"lines": ["Scripted."]}) == {"lines": 1}
        assert fluence("chat", "Hello", env=env).stdout == "Scripted.\n"
        assert post(env, "/_fluence/requests", None)["requests"][0]["status"] == 200
    with serving() as (_, env, said):
        assert "_fluence" not in said
        with pytest.raises(urllib.error.HTTPError, match="404") as refused:
            post(env, "/_fluence/requests", None)
        refused.value.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--record", "x.jsonl"], "--upstream"),
        (["--replay", "none.jsonl"], "--replay none.jsonl: No such file"),
        (["--upstream", "http://example.com/v1"], "must be https"),
        (["--upstream", "https://example.com/v1", "--replay", "y"], "one of them"),
        (["--chaos", "--chaos-rate", "2"], "chaos-rate"),
    ],
    ids=" ".join,
)
def test_options_that_cannot_work_are_told_in_a_line(arguments: list[str], said: str) -> None:
    done = fluence("serve", "--port", "0", *arguments, env=environment())
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
