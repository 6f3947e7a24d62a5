"""`fluence` with pipes: what goes in, what comes out where, and with which exit code."""

from __future__ import annotations

import io
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fluence_async import Limiter
from fluence_async.cli import main
from fluence_async.testing import Answer, Call, FluenceServer, Repeat, Reset, Stall, Status, Stream

from .cli import COMMAND, environment, fluence, started

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals as Unix has them")


@pytest.fixture
def server() -> Iterator[FluenceServer]:
    with FluenceServer() as server:
        yield server


def asked(server: FluenceServer) -> list[dict[str, str]]:
    """The messages of the last request."""
    messages: list[dict[str, str]] = server.requests[-1].json["messages"]
    return messages


# ─── the question ─────────────────────────────────────────────────────────────────────────


def test_a_question_is_answered_on_stdout_and_nothing_else_is_said(server: FluenceServer) -> None:
    server.script("Fine, thank you.")
    done = fluence("chat", "Hello, how are you?", server=server)
    assert (done.stdout, done.stderr, done.returncode) == ("Fine, thank you.\n", "", 0)
    assert asked(server) == [{"role": "user", "content": "Hello, how are you?"}]


@pytest.mark.parametrize(
    ("arguments", "stdin", "content"),
    [
        (["two", "words"], "", "two words"),
        ([], "piped\n", "piped"),
        (["Summarise this"], "line\n  line\n", "Summarise this\n\nline\n  line"),
        ([], b"caf\xe9 \xff", "caf\ufffd \ufffd"),
        (["caf\udce9"], "", "caf\ufffd"),
    ],
)
def test_the_question_is_the_words_and_then_what_is_piped_in(
    server: FluenceServer, arguments: list[str], stdin: str | bytes, content: str
) -> None:
    assert fluence("chat", *arguments, server=server, stdin=stdin).returncode == 0
    assert asked(server)[-1]["content"] == content


def test_options_go_into_the_request(server: FluenceServer) -> None:
    options = ["-m", "fluence-local", "-s", "Be brief.", "-t", "0.5", "--max-tokens", "7"]
    assert fluence("chat", *options, "hi", server=server).returncode == 0
    body = server.requests[-1].json
    assert body["model"] == "fluence-local"
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (body["temperature"], body["max_tokens"], body["stream"]) == (0.5, 7, True)


def test_no_stream_asks_for_the_whole_answer(server: FluenceServer) -> None:
    server.script("whole")
    assert fluence("chat", "--no-stream", "hi", server=server).stdout == "whole\n"
    assert not server.requests[-1].json.get("stream")


@pytest.mark.parametrize("closed", ["<&-", ">&-"])
def test_closed_streams_are_done_without(server: FluenceServer, closed: str) -> None:
    process = subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *COMMAND, "chat", "hi"],
        stdin=subprocess.DEVNULL,
        env=environment(server),
        capture_output=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert asked(server)[-1]["content"] == "hi"


# ─── the answer ───────────────────────────────────────────────────────────────────────────


def test_the_answer_is_shown_as_it_comes_and_ctrl_c_ends_it(server: FluenceServer) -> None:
    server.script(Stream("so far", Stall()))
    with started("chat", "hi", env=environment(server)) as process:
        assert process.stdout is not None
        assert process.stdout.read(6) == b"so far"
        process.send_signal(signal.SIGINT)
        assert process.communicate() == (b"\n", b"")
        assert process.returncode == 130


def test_a_broken_stream_leaves_what_had_come_and_fails(server: FluenceServer) -> None:
    server.script(Stream("so far", Reset()))
    done = fluence("chat", "hi", server=server)
    assert (done.stdout, done.returncode) == ("so far\n", 1)
    assert re.fullmatch(r"fluence: .+\n  StreamInterruptedError.*\n", done.stderr)


def test_a_reader_that_leaves_ends_the_answer_quietly(server: FluenceServer) -> None:
    server.script(Stream("first line\n", Repeat("more and more\n" * 100)))
    with started("chat", "hi", env=environment(server)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"first line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_named_as_the_cause(server: FluenceServer) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "chat", "hi"],
            env=environment(server),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"No space left on device" in done.stderr


def test_an_answer_without_text_says_why(server: FluenceServer) -> None:
    server.script(Answer(Call("weather", {"city": "Ulm"})))
    done = fluence("chat", "hi", server=server)
    assert (done.stdout, done.returncode) == ("", 0)
    assert "tool_calls" in done.stderr


# ─── --json ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["--stream", "--no-stream"])
def test_json_is_one_object(server: FluenceServer, how: str) -> None:
    server.script("Grüße \x1b[31m\x9b")
    done = fluence("chat", "--json", how, "hi", server=server)
    answer = json.loads(done.stdout)
    assert list(answer) == ["text", "model", "finish_reason", "usage", "meta"]
    assert (answer["text"], answer["finish_reason"]) == ("Grüße \x1b[31m\x9b", "stop")
    assert answer["usage"]["total_tokens"] > 0
    assert answer["meta"]["attempts"] == 1
    assert "Grüße" in done.stdout
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f]", done.stdout)
    assert (done.stderr, done.returncode) == ("", 0)


def test_json_of_a_failure_has_what_had_come_and_the_error(server: FluenceServer) -> None:
    server.script(Stream("so far", Reset()), Status(400, "no such thing"))
    broken = fluence("chat", "--json", "hi", server=server)
    refused = fluence("chat", "--json", "hi", server=server)
    assert json.loads(broken.stdout)["text"] == "so far"
    assert json.loads(broken.stdout)["error"]["type"] == "StreamInterruptedError"
    assert json.loads(refused.stdout)["text"] == ""
    assert json.loads(refused.stdout)["error"]["type"] == "BadRequestError"
    assert "no such thing" in refused.stderr
    assert broken.returncode == refused.returncode == 1


# ─── errors ───────────────────────────────────────────────────────────────────────────────


def test_a_wrong_key_is_named_as_the_cause_and_not_shown(server: FluenceServer) -> None:
    env = environment(server, FLUENCE_API_KEY="sk-very-secret-0123456789")
    done = fluence("chat", "hi", env=env)
    assert (done.stdout, done.returncode) == ("", 1)
    assert "API key" in done.stderr
    assert "AuthenticationError · status 401" in done.stderr
    assert "secret" not in done.stderr
    assert len(server.requests) == 1


def test_no_server_names_host_and_port() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}/v1"
    done = fluence("chat", "--base-url", address, "hi", env=environment(FLUENCE_API_KEY="any"))
    assert (done.stdout, done.returncode) == ("", 1)
    assert f"127.0.0.1:{port}" in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_what_a_server_says_reaches_stderr_without_control_characters(
    server: FluenceServer,
) -> None:
    server.script(Status(400, "bad\n\x1b[2J\x9bthing"))
    done = fluence("chat", "hi", server=server)
    assert "bad [2Jthing" in done.stderr
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ["chat"],
        ["chat", ""],
        ["chat", "--json"],
        ["chat", "-t", "3", "hi"],
        ["chat", "--max-tokens", "0", "hi"],
        ["chat", "--base-url", "ftp://x", "hi"],
        ["chat", "--base-url", "http://example.com/v1", "hi"],
        ["chat", "-m", "a\x1bb", "hi"],
        ["chat", "--api-key", "k", "hi"],
        ["serve", "--port", "65536"],
        ["nonsense"],
    ],
)
def test_a_mistake_in_the_command_line_exits_2(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLUENCE_API_KEY", "any")
    monkeypatch.delenv("FLUENCE_BASE_URL", raising=False)
    monkeypatch.setattr(sys, "argv", ["fluence", *arguments])
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(SystemExit) as exit_:
        main()
    said = capsys.readouterr()
    assert (said.out, exit_.value.code) == ("", 2)
    assert said.err.strip()
    assert "\x1b" not in said.err


def test_an_address_without_a_key_says_what_to_set() -> None:
    done = fluence("chat", "hi", env=environment(FLUENCE_BASE_URL="http://127.0.0.1:1/v1"))
    assert done.returncode == 2
    assert "set FLUENCE_API_KEY" in done.stderr


# ─── the limits ───────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(sys.platform != "linux", reason="a limiter's file needs Linux")
def test_calls_of_one_key_are_remembered_from_run_to_run_unless_told_otherwise(
    server: FluenceServer, tmp_path: Path
) -> None:
    env = environment(server, XDG_STATE_HOME=str(tmp_path))
    assert fluence("chat", "hi", env={**env, "FLUENCE_LIMITER": "memory"}).returncode == 0
    assert fluence("chat", "hi", env=environment(XDG_STATE_HOME=str(tmp_path))).returncode == 0
    assert list(tmp_path.rglob("*.limits")) == []
    for _ in range(2):
        assert fluence("chat", "hi", env=env).returncode == 0
    (path,) = tmp_path.rglob("*.limits")
    window, _ = Limiter(path=path).snapshot().windows
    assert window.used == 2


# ─── the local server ─────────────────────────────────────────────────────────────────────


def test_without_key_and_address_the_local_server_answers_and_says_so_in_a_line() -> None:
    done = fluence("chat", "What is 6 times 7?", env=environment())
    assert "42" in done.stdout
    assert re.fullmatch(r"local server, no language model .*FLUENCE_API_KEY.*\n", done.stderr)
    assert done.returncode == 0


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_serve_says_how_to_be_reached_and_answers(number: int, status: int) -> None:
    serve = ["serve", "--port", "0", "--pace", "0", "--no-limits"]
    with started(*serve, env=environment()) as process:
        assert process.stdout is not None
        said = ""
        while "Limits: none" not in said:
            line = process.stdout.readline().decode()
            assert line, said
            said += line
        exports = dict(re.findall(r"export (FLUENCE_\w+)=(\S+)", said))
        assert set(exports) == {"FLUENCE_BASE_URL", "FLUENCE_API_KEY"}
        assert 'curl "$FLUENCE_BASE_URL/chat/completions"' in said
        assert f'openai.OpenAI(base_url="{exports["FLUENCE_BASE_URL"]}"' in said
        assert "42" in fluence("chat", "What is 6 times 7?", env=environment(**exports)).stdout
        process.send_signal(number)
        assert process.communicate() == (b"", b"")
        assert process.returncode == status


def test_serve_says_that_a_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = fluence("serve", "--port", str(port), env=environment())
    assert (done.stdout, done.returncode) == ("", 1)
    assert f"cannot listen on 127.0.0.1:{port}" in done.stderr


# ─── the program ──────────────────────────────────────────────────────────────────────────


def test_help_and_version() -> None:
    version = fluence("--version")
    help_ = fluence("chat", "--help")
    assert re.fullmatch(r"fluence \d+\.\d+\.\d+\S*\n", version.stdout)
    assert version.returncode == help_.returncode == 0
    assert "--api-key" not in help_.stdout
    assert "FLUENCE_API_KEY" in fluence("--help").stdout


@pytest.mark.parametrize(
    ("missing", "arguments"), [("typer", ["--version"]), ("fluence_async.server", ["serve"])]
)
def test_without_the_extra_it_says_what_to_install(missing: str, arguments: list[str]) -> None:
    program = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv[1:] = {arguments}\n"
        "from fluence_async.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, check=False
    )
    if missing == "typer":
        assert done.returncode == 2
        assert done.stderr == (
            b"fluence: the command line needs typer: pip install 'fluence-async[cli]'\n"
        )
    else:  # not of the extra: a defect, which must not be explained away
        assert b"ModuleNotFoundError: import of fluence_async.server" in done.stderr


def test_ctrl_c_while_the_imports_run_shows_no_traceback() -> None:
    program = (
        "import sys\n"
        "class Impatient:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Impatient())\n"
        "from fluence_async.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, b"")


def test_the_entry_point_costs_nothing_until_it_is_called() -> None:
    program = (
        "import sys, fluence_async.cli; "
        "print([m for m in ('typer', 'rich', 'prompt_toolkit', 'aiohttp') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, check=True
    )
    assert done.stdout == b"[]\n"


def test_a_pipe_is_spared_what_only_a_terminal_needs(server: FluenceServer) -> None:
    env = environment(server, PYTHONPROFILEIMPORTTIME="1")
    done = fluence("chat", "hi", env=env)
    assert "fluence_async.cli.render" in done.stderr
    assert not re.search(
        r"\| +(fluence_async\.cli\.drawn|prompt_toolkit|aiohttp\.web)\n", done.stderr
    )
