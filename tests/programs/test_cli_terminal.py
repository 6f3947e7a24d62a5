"""`fluence` at a terminal: the conversation, Ctrl-C, and how the terminal is left."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterator

import pytest

from fluence_async.testing import Answer, FluenceServer, Pause, Reset, Stall, Status, Stream

if sys.platform == "win32":
    pytest.skip("terminals as Unix has them", allow_module_level=True)

from .cli import Terminal, environment, until
from .screen import Screen
from .test_cli_render import DOCUMENT, HOSTILE, lines_of


@pytest.fixture
def server() -> Iterator[FluenceServer]:
    with FluenceServer() as server:
        yield server


def asked(server: FluenceServer) -> list[tuple[str, str]]:
    """The messages of the last request."""
    return [(m["role"], m["content"]) for m in server.requests[-1].json["messages"]]


# ─── one question ─────────────────────────────────────────────────────────────────────────


def test_an_answer_is_drawn_and_what_it_cost_is_said(server: FluenceServer) -> None:
    server.script(Answer(*re.findall(r"\s*\S+|\s+$", DOCUMENT)))
    with Terminal(["chat", "hi"], environment(server)) as terminal:
        assert terminal.wait() == 0
        terminal.assert_as_found()
    screen = Screen(80, 24)
    screen.write(terminal.output)
    shown = [line.rstrip() for line in screen.lines]
    assert shown[:-2] == lines_of(DOCUMENT)
    assert re.fullmatch(
        r"\d+ tokens \(\d+ in, \d+ out\) · first after \S+ s · all after \S+ s", shown[-2]
    )


@pytest.mark.parametrize(
    ("changes", "sequences"),
    [({"NO_COLOR": "1"}, {"A", "J", "K", "h", "l", "m"}), ({"TERM": "dumb"}, set())],
)
def test_colours_and_drawing_can_be_had_without(
    server: FluenceServer, changes: dict[str, str], sequences: set[str]
) -> None:
    server.script(DOCUMENT)
    with Terminal(["chat", "hi"], environment(server, **changes)) as terminal:
        assert terminal.wait() == 0
    assert set(re.findall(r"\x1b\[[?\d;]*([A-Za-z])", terminal.output)) <= sequences
    assert not re.search(r"\x1b\[[\d;]*(?:3|4|9)\d", terminal.output)
    assert "return" in terminal.text


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_no_control_character_of_an_answer_reaches_the_terminal(
    server: FluenceServer, term: str
) -> None:
    server.script(Answer(*[f"{text}\n\n" for text in HOSTILE]))
    with Terminal(["chat", "hi"], environment(server, TERM=term)) as terminal:
        assert terminal.wait() == 0
    Screen(80, 24).write(terminal.output)  # it takes no other sequences than the program's own


def test_ctrl_c_ends_a_question_and_leaves_what_had_come(server: FluenceServer) -> None:
    server.script(Stream("so far", Stall()))
    with Terminal(["chat", "hi"], environment(server)) as terminal:
        terminal.expect("so far")
        assert not terminal.echoes
        terminal.type("\x03")
        assert terminal.wait() == 130
        terminal.assert_as_found()
    assert "Traceback" not in terminal.text


# ─── a conversation ───────────────────────────────────────────────────────────────────────


@pytest.fixture
def terminal(server: FluenceServer) -> Iterator[Terminal]:
    """A conversation that waits for its first question."""
    with Terminal(["chat", "-s", "Be brief."], environment(server)) as terminal:
        terminal.expect("fluence-chat · /help")
        terminal.expect("› ")
        yield terminal


def say(terminal: Terminal, text: str, answer: str) -> None:
    terminal.type(f"{text}\r")
    terminal.expect(answer)
    terminal.expect("› ")


def test_it_remembers_its_turns(server: FluenceServer, terminal: Terminal) -> None:
    server.script("I am *well*.", "You asked how.")
    say(terminal, "How are you?", "I am well.")
    say(terminal, "What did I ask?", "You asked how.")
    assert asked(server) == [
        ("system", "Be brief."),
        ("user", "How are you?"),
        ("assistant", "I am *well*."),
        ("user", "What did I ask?"),
    ]
    assert len(re.findall(r"\d+ tokens \(", terminal.text)) == 2
    terminal.type("\x04")
    assert terminal.wait() == 0
    terminal.assert_as_found()


def test_ctrl_c_stops_the_answer_and_not_the_program(
    server: FluenceServer, terminal: Terminal
) -> None:
    server.script(Stream("so far", Stall()), "And on.")
    terminal.type("Tell me\r")
    terminal.expect("so far")
    assert not terminal.echoes
    terminal.type("\x03")
    terminal.expect("stopped")
    terminal.expect("› ")
    until(lambda: not server.answering)
    say(terminal, "Go on", "And on.")
    assert asked(server)[1:] == [
        ("user", "Tell me"),
        ("assistant", "so far\n\n[stopped by the user]"),
        ("user", "Go on"),
    ]
    terminal.type("\x03")  # at the empty prompt
    assert terminal.wait() == 0
    terminal.assert_as_found()


def test_a_question_that_is_stopped_before_its_answer_is_taken_back(
    server: FluenceServer, terminal: Terminal
) -> None:
    server.script(Stall(), "yes")
    terminal.type("Nothing comes\r")
    until(lambda: bool(server.answering))
    terminal.type("\x03")
    terminal.expect("stopped")
    terminal.expect("› ")
    say(terminal, "Are you there?", "yes")
    assert asked(server)[1:] == [("user", "Are you there?")]


def test_an_error_ends_the_turn_and_not_the_conversation(
    server: FluenceServer, terminal: Terminal
) -> None:
    server.script(Status(400, "not like this"), Stream("so far", Reset()), "yes")
    say(terminal, "first", "not like this")
    say(terminal, "second", "StreamInterruptedError")
    say(terminal, "third", "yes")
    assert asked(server)[1:] == [
        ("user", "second"),
        ("assistant", "so far\n\n[the connection broke here]"),
        ("user", "third"),
    ]


def test_what_is_typed_during_an_answer_is_the_next_question(
    server: FluenceServer, terminal: Terminal
) -> None:
    server.script(Stream("so far", Pause(0.3), " and on"), "second answer")
    terminal.type("first\r")
    terminal.expect("so far")
    terminal.type("second\r")
    terminal.expect("and on")
    terminal.expect("second answer")
    assert asked(server)[-1] == ("user", "second")


def test_commands(server: FluenceServer, terminal: Terminal) -> None:
    server.script("one", "two")
    say(terminal, "first", "one")
    say(terminal, "/help", "/reset")
    say(terminal, "/nonsense", "there is no command /nonsense")
    say(terminal, "/reset", "a new conversation")
    say(terminal, "/etc/hosts is what?", "two")
    assert asked(server)[1:] == [("user", "/etc/hosts is what?")]
    terminal.type("/quit\r")
    assert terminal.wait() == 0


def test_lines_can_be_pasted_begun_and_emptied(server: FluenceServer, terminal: Terminal) -> None:
    server.script("pasted", "begun")
    terminal.type("never mind")
    terminal.expect("mind")
    terminal.type("\x03")
    say(terminal, "\x1b[200~one\ntwo\r\nthree\x1b[201~", "pasted")
    assert asked(server)[-1] == ("user", "one\ntwo\nthree")
    say(terminal, "one\x1b\rtwo", "begun")
    assert asked(server)[-1] == ("user", "one\ntwo")


@pytest.mark.parametrize("during", ["answer", "prompt"])
def test_sigterm_leaves_the_terminal_as_it_was(
    server: FluenceServer, terminal: Terminal, during: str
) -> None:
    server.script(Stream("so far", Stall()))
    if during == "answer":
        terminal.type("hi\r")
        terminal.expect("so far")
    terminal.signal(signal.SIGTERM)
    assert terminal.wait() == 143
    terminal.assert_as_found()
    assert "Traceback" not in terminal.text


def test_the_local_server_holds_a_conversation_too() -> None:
    with Terminal(["chat"], environment()) as terminal:
        terminal.expect("local server, no language model")
        terminal.expect("› ")
        say(terminal, "What is 6 times 7?", "42")
        terminal.type("\x04")
        assert terminal.wait() == 0
        terminal.assert_as_found()
