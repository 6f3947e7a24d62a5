"""A mistake in a script is an error where it is written, in words that name it."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fluence_async import FluenceSession, InternalServerError
from fluence_async.testing import (
    BOMBS,
    FAULTS,
    Answer,
    Corrupt,
    FluenceServer,
    Pause,
    Repeat,
    Reply,
    Reset,
    Shuffle,
    Stall,
    Status,
    Stream,
    Trickle,
)
from tests.programs.raw_http import HELLO, ask

pytestmark = pytest.mark.anyio
WRONG: Any = 42

MISTAKES = {
    "script(42)": (lambda: FluenceServer().script(WRONG), "42 is no reply"),
    "script(['a', 42])": (lambda: FluenceServer().script(["a", WRONG]), "42 is no reply"),
    "script(Pause(1))": (lambda: FluenceServer().script(Pause(1)), "never answers: write"),
    "script([Pause(1)])": (lambda: FluenceServer().script([Pause(1)]), "never answers"),
    "script([])": (lambda: FluenceServer().script([]), "never answers"),
    "when().script(42)": (lambda: FluenceServer().when(text="a").script(WRONG), "42 is no reply"),
    "when(txt=)": (lambda: FluenceServer().when(txt="a"), "'txt' is no field .* extra_body"),
    "assert_requested(txt=)": (lambda: FluenceServer().assert_requested(txt="a"), "'txt' is no"),
    "Stream(42)": (lambda: Stream("a", WRONG), "42 is no reply"),
    "Stream(Reset)": (lambda: Stream("a", Reset), r"write Reset\(\)"),  # type: ignore[arg-type]
    "Stream(status='200')": (lambda: Stream("a", status="200"), "Stream: the status '200'"),  # type: ignore[arg-type]
    "Status(42)": (lambda: Status(42), "Status: the status 42 must be from 400 to 599"),
    "Status('429')": (lambda: Status("429"), "'429' must be a whole number"),  # type: ignore[arg-type]
    "Status(True)": (lambda: Status(True), "True must be a whole number"),
    "Reply(42)": (lambda: Reply(42), "Reply: the status 42 must be from 100 to 999"),
    "Answer(42)": (lambda: Answer("a", WRONG), r"Answer\(42\)"),
    "Pause('1')": (lambda: Pause("1"), r"Pause\('1'\): must be a number"),  # type: ignore[arg-type]
    "Trickle(42)": (lambda: Trickle(WRONG), "42 is no reply"),
    "Repeat(42)": (lambda: Repeat(WRONG), "42 is no reply"),
    "Corrupt(42)": (lambda: Corrupt(WRONG), "42 is no reply"),
    "Shuffle(42)": (lambda: Shuffle("a", WRONG), "42 is no reply"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_an_error_where_it_is_written(name: str) -> None:
    write, said = MISTAKES[name]
    with pytest.raises((TypeError, ValueError), match=said):
        write()


@pytest.mark.parametrize("returned", [42, Pause(1), Status], ids=repr)
async def test_what_a_function_returns_wrongly_is_told_and_not_asked_for_again(
    returned: Any,
) -> None:
    def reply(_: object) -> Any:
        return returned

    async with FluenceServer() as server:
        server.script(reply)
        async with FluenceSession(
            api_key=server.api_key, base_url=server.base_url, timeout=5
        ) as fluence:
            with pytest.raises(
                InternalServerError, match=r"reply returned what is wrong: .*(42|P|S)"
            ):
                await fluence.chat.completions.create(model="fluence-chat", messages="hi")
        server.assert_requested(1)


async def test_what_only_a_server_knows_can_be_asked_for() -> None:
    async with FluenceServer() as server:
        server.when(extra_body={"top_k": 1}).script("known")
        assert "known" in (await ask(server, {**HELLO, "top_k": 1})).body.decode()
        assert "known" not in (await ask(server)).body.decode()
        server.assert_requested(1, extra_body={"top_k": 1})


def test_what_is_right_is_let_through() -> None:
    FluenceServer().script(
        "a", b"b", {"c": 1}, ["d", Pause(0.1)], Stall(), Status(599), Reply(999), lambda _: None
    )


def test_a_fault_is_shown_by_its_name() -> None:
    assert all(re.fullmatch(r"<Fault: [^\n]{1,80}>", repr(fault)) for fault in (*FAULTS, *BOMBS))
