"""Scripts of a broken or hostile server, and replies to some requests only."""

from __future__ import annotations

import re
import zlib
from typing import Any

import pytest

from fluence_async.testing import (
    Bomb,
    Corrupt,
    Done,
    Finish,
    FluenceServer,
    Redirect,
    Reply,
    ReplyLike,
    Shuffle,
    Status,
    Stream,
    Truncate,
)
from tests.programs.raw_http import HELLO, ask, exchange, parse, request

pytestmark = pytest.mark.anyio
STREAMED = {**HELLO, "stream": True}


async def play(line: ReplyLike, body: Any = STREAMED) -> bytes:
    async with FluenceServer() as server:
        server.script(line)
        received = await exchange(server, request(server, body))
        await server.wait_until_idle()
        return received


def text(answer: Any) -> str:
    return str(answer.json["choices"][0]["message"]["content"])


# ─── spoilt answers ───────────────────────────────────────────────────────────────────────


async def test_a_truncated_answer_has_a_proper_end() -> None:
    whole = parse(await play(Reply(text="0123456789"), HELLO))
    cut = parse(await play(Truncate(Reply(text="0123456789"), 4), HELLO))
    assert (whole.headers["content-length"], cut.headers["content-length"]) == ("10", "4")
    assert cut.body == b"0123"
    stream = parse(await play(Truncate(Stream("Hello", "world"), 50)))
    assert len(stream.body) == 50


async def test_corruption_changes_some_bits_and_always_the_same() -> None:
    original = parse(await play(Reply(body=b"x" * 1000), HELLO)).body
    once, again, other = [
        parse(await play(Corrupt(Reply(body=b"x" * 1000), seed=seed), HELLO)).body
        for seed in (1, 1, 2)
    ]
    assert once == again != other
    changed = [a ^ b for a, b in zip(original, once, strict=True) if a != b]
    assert 5 <= len(changed) <= 60
    assert {bits.bit_count() for bits in changed} == {1}


async def test_shuffled_steps_come_in_another_order_and_always_the_same() -> None:
    steps = ["a", "b", "c", Finish(), Done()]
    orders = [parse(await play(Stream(Shuffle(*steps, seed=3), end=False))).body for _ in range(2)]
    events = parse(await play(Stream(Shuffle(*steps, seed=3), end=False))).events
    assert [len(order) for order in orders] == [len(orders[0])] * 2
    said = [
        event if event == "[DONE]" else event["choices"][0]["delta"].get("content", "end")
        for event in events
    ]
    assert sorted(said) == ["[DONE]", "a", "b", "c", "end"]
    assert said != ["a", "b", "c", "end", "[DONE]"]


async def test_a_redirect_names_its_place() -> None:
    moved = parse(await play(Redirect("https://elsewhere.example/v1")))
    assert (moved.status, moved.headers["location"]) == (307, "https://elsewhere.example/v1")
    assert parse(await play(Redirect("/v1", 302))).status == 302


# ─── bombs ────────────────────────────────────────────────────────────────────────────────


async def test_bombs_are_as_large_as_they_are_told_to_be() -> None:
    packed = parse(await play(Bomb("gzip", 3_000_000)))
    assert len(packed.body) < 10_000
    assert zlib.decompress(packed.body, wbits=31) == b" " * 3_000_000
    error = parse(await play(Bomb("body", 300_000)))
    assert (error.status, error.body) == (500, b"x" * 300_000)
    line = parse(await play(Bomb("line", 300_000)))
    assert line.body == b"data: " + b"x" * 300_000
    head = await play(Bomb("headers", 100_000))
    assert len(head) >= 100_000
    assert b"\r\n\r\n" not in head
    call = parse(await play(Bomb("tool_index"))).body
    assert b'"index":2000000000' in call


def test_a_bomb_of_no_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match="one of gzip, body, line, headers, tool_index"):
        Bomb("nuclear")  # type: ignore[arg-type]


# ─── replies to some requests ─────────────────────────────────────────────────────────────


def about(topic: str, **fields: Any) -> dict[str, Any]:
    return {**HELLO, "messages": [{"role": "user", "content": f"Tell me of {topic}."}], **fields}


async def test_each_request_gets_the_lines_that_are_for_it() -> None:
    async with FluenceServer() as server:
        server.when(text="dragons").script(Status(503), "Fire!")
        server.when(text=re.compile(r"knights?\b")).script("Armour!", repeat=True)
        server.when(headers={"X-Test": "1"}).script("tested")
        server.when(temperature=2).script("hot")
        server.script("anything")
        assert (await ask(server, about("dragons"))).status == 503
        assert text(await ask(server, about("knights"))) == "Armour!"
        assert text(await ask(server, about("a knight"))) == "Armour!"
        assert text(await ask(server, about("dragons"))) == "Fire!"
        assert text(await ask(server, about("ships", temperature=2))) == "hot"
        assert text(await ask(server, about("ships"), headers={"x-test": "1"})) == "tested"
        assert text(await ask(server, about("dragons"))) == "anything"
        assert "ships" in text(await ask(server, about("ships")))


async def test_of_two_that_fit_the_later_answers_first() -> None:
    async with FluenceServer() as server:
        server.when(text="dragons").script("earlier")
        server.when(text="dragon").script("later")
        server.when(text="dragons").script("rewritten")
        said = [text(await ask(server, about("dragons"))) for _ in range(2)]
    assert said == ["later", "rewritten"]


async def test_the_text_may_be_in_parts_and_a_body_may_be_anything() -> None:
    parts = [{"type": "text", "text": "drag"}, {"type": "text", "text": "ons"}]
    async with FluenceServer() as server:
        server.when(text="dragons").script("Fire!")
        body = {**HELLO, "messages": [{"role": "user", "content": parts}]}
        assert text(await ask(server, body)) == "Fire!"
        for strange in (b"", b"{", b"[]", b'{"messages": 7}', b'{"messages": [7, {"role": 1}]}'):
            await ask(server, strange)
        assert len(server.assert_requested(text="")) == 3
        assert server.requests[0].text == "dragons"


# ─── what came, asserted ──────────────────────────────────────────────────────────────────


async def test_a_person_can_read_which_requests_came() -> None:
    async with FluenceServer() as server:
        server.script(Status(429), "Fire!", Stream("x"))
        await ask(server, about("dragons", temperature=0.5), headers={"x-test": "1"})
        await ask(server, about("dragons"))
        await ask(server, about("k" * 100, stream=True))
        await ask(server, b"{")
        first, second = server.assert_requested(2, text="dragons")
        assert (first.status, second.status) == (429, 200)
        assert server.assert_requested(1, temperature=0.5, headers={"x-test": "1"}) == [first]
        server.assert_requested(0, text="ships")
        with pytest.raises(AssertionError) as failed:
            server.assert_requested(2, text="dragons", temperature=0.7)
        with pytest.raises(AssertionError, match=r"requests: expected exactly 1, and of 4 that"):
            server.assert_requested(1)
        with pytest.raises(AssertionError, match=r"with x-test: 2: expected at least 1, and of 4"):
            server.assert_requested(headers={"x-test": "2"})
    first_line, *shown = re.sub(r"\d\.\d{3} s", "0.000 s", str(failed.value)).splitlines()
    assert first_line.endswith("temperature=0.7: expected exactly 2, and of 4 that came 1 fit:")
    told = f"'Tell me of {'k' * 49}…'"
    assert shown == [
        "    1.    +0.000 s  429  'Tell me of dragons.'  model='fluence-chat'  temperature=0.5",
        "*   2.    +0.000 s  200  'Tell me of dragons.'  model='fluence-chat'  temperature=0.7",
        f"    3.    +0.000 s  200  {told}  model='fluence-chat'  temperature=0.7  stream",
        "    4.    +0.000 s  400  POST /v1/chat/completions, 1 bytes",
    ]


async def test_no_request_is_said_to_be_none() -> None:
    async with FluenceServer() as server:
        with pytest.raises(AssertionError, match=r"\(none came\)"):
            server.assert_requested()
