"""How an answer is drawn: blocks, lines, frames, and what must never reach a terminal."""

from __future__ import annotations

import asyncio
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from fluence_async.cli.blocks import Block, BlockSplitter
from fluence_async.cli.drawn import DrawnView
from fluence_async.cli.markdown import THEME, render
from fluence_async.cli.render import PlainView
from fluence_async.cli.terminal import printable
from tests.virtual import VirtualLoop

from .screen import WIDER, Screen

DOCUMENT = """\
# Title

A paragraph with **bold** and `code`,
in two lines.

- one
  - nested
- two

1. first
1. second

   ```sh
   - no item
   ```

3. third

| n | square |
|---|-------:|
| 2 | 4 |

```python
def f():
    return '''
- text
'''

```
> a quote
"""
MARKS = [
    "- ",
    "1. ",
    "  ",
    "\n",
    "\n\n",
    "```",
    "~~~py",
    "`",
    "**",
    "[a](b)",
    "|",
    "|-|",
    "> ",
    "x",
]


def blocks_of(text: str, *, size: int = 1 << 30) -> list[Block]:
    splitter = BlockSplitter()
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    return [block for piece in pieces for block in splitter.feed(piece)] + splitter.finish()


def console_of(width: int = 80, height: int = 24, *, colours: bool = False) -> Console:
    return Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="256" if colours else None,
        theme=THEME,
        width=width,
        height=height,
        highlight=False,
    )


def lines_of(text: str) -> list[str]:
    lines: list[str] = []
    for block in blocks_of(text):
        lines += ([""] if lines and not block.glued else []) + render(block, console_of())
    return lines


def drawn(text: str, *, width: int = 80, height: int = 24, size: int = 7) -> tuple[Screen, int]:
    """What stands on a screen when all was shown in pieces, one a frame; and bytes written."""
    console = console_of(width, height)

    async def draw() -> None:
        with DrawnView(console) as view:
            for i in range(0, len(text), size):
                view.show(text[i : i + size])
                await asyncio.sleep(0.5)

    with (
        asyncio.Runner(loop_factory=VirtualLoop) as runner,
        pytest.MonkeyPatch.context() as patch,
    ):
        # A frame that took long is followed by a longer pause: here none takes any time.
        patch.setattr("fluence_async.cli.drawn.time.perf_counter", lambda: 0.0)
        runner.run(draw())
    assert isinstance(console.file, io.StringIO)
    written = console.file.getvalue()
    screen = Screen(width, height)
    screen.write(written)
    return screen, len(written)


# ─── blocks ───────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("", []),
        ("\n\n \n", []),
        ("one", ["one\n"]),
        ("one\ntwo\n\nthree", ["one\ntwo\n", "three\n"]),
        ("- a\n- b", ["- a\n", "- b\n"]),
        ("- a\n\n- b\n  c\n\n  d\n\ne", ["- a\n", "- b\n  c\n\n  d\n", "e\n"]),
        ("- a\n  - b\n    - c\n- d", ["- a\n  - b\n    - c\n", "- d\n"]),
        ("1. a\n1. b\n1. c", ["1. a\n", "2. b\n", "3. c\n"]),
        ("7) a\n8) b", ["7) a\n", "8) b\n"]),
        ("text:\n- a", ["text:\n", "- a\n"]),
        ("in\n1986. Not a list", ["in\n1986. Not a list\n"]),
        ("text\n```\n# code\n\n- code\n```\ntext", ["text\n", "# code\n\n- code\n", "text\n"]),
        ("~~~~\n```\n~~~\n~~~~", ["```\n~~~\n"]),
        ("``` `no fence` ```", ["``` `no fence` ```\n"]),
        (
            "1. a\n   ```\n- code\n\n- code\n   ```\n2. b",
            ["1. a\n   ```\n- code\n\n- code\n   ```\n", "2. b\n"],
        ),
        ("    ```\n\ntext", ["    ```\n", "text\n"]),
    ],
)
def test_a_block_ends_where_nothing_can_change_it(text: str, sources: list[str]) -> None:
    assert [block.source for block in blocks_of(text)] == sources


@pytest.mark.parametrize("size", range(1, 30))
def test_any_cutting_gives_the_same_blocks(size: int) -> None:
    assert blocks_of(DOCUMENT, size=size) == blocks_of(DOCUMENT)


@given(st.lists(st.sampled_from(MARKS), max_size=30).map("".join), st.integers(1, 5))
def test_any_cutting_of_any_marks_gives_the_same_blocks(text: str, size: int) -> None:
    assert blocks_of(text, size=size) == blocks_of(text)


def test_items_of_one_list_are_glued_and_paragraphs_are_not() -> None:
    glued = [
        block.glued for block in blocks_of("a\n\nb\n\n- c\n- d\n\n- e\n\n* other\n\n1. f\n2. g")
    ]
    assert glued == [False, False, False, True, True, False, False, True]


def test_code_that_is_cut_keeps_its_context_for_the_highlighter() -> None:
    splitter = BlockSplitter()
    splitter.feed("```python\n'''\nlong\n")
    first = splitter.cut()
    second = splitter.feed("text'''\n```\n")[0]
    assert first == Block("'''\nlong\n", False, "python", "", ended=False)
    assert second == Block("text'''\n", True, "python", "'''\nlong\n", ended=True)


def test_a_table_is_not_cut() -> None:
    splitter = BlockSplitter()
    splitter.feed("| a |\n|---|\n| 1 |\n")
    assert splitter.cut() is None


# ─── lines ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("a <think>b</think> <kbd>c</kbd>", "a <think>b</think> <kbd>c</kbd>"),
        ("<div>\nb\n</div>", "<div>\nb\n</div>"),
        ("one\ntwo", "one\ntwo"),
        ("[name](https://a.b/c)", "name (https://a.b/c)"),
        ("<https://a.b> [https://a.b](https://a.b)", "https://a.b https://a.b"),
        ("![name](https://a.b/c)", "!name (https://a.b/c)"),
        ("[1]: https://a.b", "[1]: https://a.b"),
        ("# Title", "Title"),
        ("[red]no markup[/red] :smile:", "[red]no markup[/red] :smile:"),
    ],
)
def test_all_of_the_text_is_shown(source: str, shown: str) -> None:
    assert "\n".join(lines_of(source)) == shown


def test_code_can_be_copied_as_it_is() -> None:
    lines = lines_of("```python\nif x:\n\n    y = '" + "z" * 69 + "'\n```")
    assert lines[0].startswith("── python ──")
    assert lines[1:-1] == ["if x:", "", "    y = '" + "z" * 69 + "'"]


@pytest.mark.parametrize("text", [DOCUMENT, "> " * 30 + "x", "|a|b|\n|-|-|\n|1|2|3|"])
@pytest.mark.parametrize("width", [1, 2, 5, 20])
def test_a_narrow_window_breaks_nothing(text: str, width: int) -> None:
    for block in blocks_of(text):
        render(block, console_of(width))


# ─── frames ───────────────────────────────────────────────────────────────────────────────

TALL = {
    "code": "```python\n" + "".join(f"line_{i} = {i}\n" for i in range(60)) + "```",
    "verse": "".join(f"verse {i}\n" for i in range(60)),
    "list": "".join(f"{i}. item\n" for i in range(1, 60)),
    "item": "- item\n" + "".join(f"  - nested {i}\n" for i in range(60)),
    "table": "| n |\n|---|\n" + "".join(f"| {i} |\n" for i in range(60)),
    "line": "word " * 400,
    "widest": f"{'x' * 80} {'y' * 79} {'z' * 81}\n\n```\n{'x' * 80}\n{'y' * 79}\n```",
    "document": DOCUMENT,
}


@pytest.mark.parametrize("text", TALL.values(), ids=TALL)
@pytest.mark.parametrize("height", [1, 2, 10, 24])
def test_what_stands_at_the_end_is_what_would_have_been_printed_at_once(
    text: str, height: int
) -> None:
    screen, _ = drawn(text, height=height)
    assert [line.rstrip() for line in screen.lines] == [*lines_of(text), ""]


@pytest.mark.parametrize("kind", ["code", "verse", "list"])
def test_cost_is_linear_in_the_length(kind: str) -> None:
    _, short = drawn(TALL[kind], size=11)
    _, long = drawn(TALL[kind].replace("```", "") * 4, size=11)
    assert long < 6 * short


def test_a_character_that_is_wider_than_rich_knows_leaves_nothing_behind() -> None:
    text = f"{WIDER * 70} end"
    screen, _ = drawn(text)
    assert "".join(screen.lines).replace(" ", "") == text.replace(" ", "")


@pytest.mark.parametrize("kind", ["code", "verse", "list"])
def test_the_top_of_what_is_taller_than_the_window_is_printed_before_its_end(kind: str) -> None:
    whole, _ = drawn(TALL[kind])
    console = console_of()

    async def draw() -> str:
        with DrawnView(console) as view:
            for line in TALL[kind].removesuffix("```").splitlines(keepends=True):
                view.show(line)
                await asyncio.sleep(0.5)
            assert isinstance(console.file, io.StringIO)
            return console.file.getvalue()

    screen = Screen(80, 24)
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        screen.write(runner.run(draw()))
    assert screen.lines[:35] == whole.lines[:35]


def test_the_open_block_is_shown_before_it_ends() -> None:
    console = console_of()

    async def draw() -> str:
        with DrawnView(console) as view:
            view.show("half a sent")
            await asyncio.sleep(0.5)
            assert isinstance(console.file, io.StringIO)
            return console.file.getvalue()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert "half a sent" in runner.run(draw())


# ─── what must not reach a terminal ───────────────────────────────────────────────────────

HOSTILE = [
    "\x1b]0;title\x07\x1b[2J\x1b[31mred",
    "\x9b31m\x9d0;title\x9c\x85\x7f\x08\r\x0b\x0c\x00",
    "&#27;[2J &#155;2J &#13; &#8; &#12; &#x1b;",
    "<http://a/%1b[2J%9b> [x](http://a/%1b) ![\x1b](\x1b)",
    "```\x1b[2J\n\x1b[2J\n&#27;\n```",
    "- `\x1b[2J`\n\n| \x1b |\n|---|\n| \x1b |",
    "> \x1bP$q\x1b\\\n\n# \x1bc",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_control_character_of_an_answer_is_drawn(text: str) -> None:
    drawn(text)  # the screen takes no other sequences than the view's own
    drawn(text, size=1)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_control_character_of_an_answer_is_written_plainly(text: str) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    out = Terminal()
    with PlainView(out) as view:
        view.show(text)
    assert all(character in "\n\t" or character >= " " for character in out.getvalue())
    assert not re.search("[\x7f-\x9f]", out.getvalue())


def test_a_file_gets_the_answer_as_it_is() -> None:
    out = io.StringIO()
    with PlainView(out) as view:
        view.show("\x1b[31m")
        view.show("red\r\n\tend")
    assert out.getvalue() == "\x1b[31mred\r\n\tend\n"


def test_printable_keeps_all_but_control_characters() -> None:
    text = "".join(map(chr, range(0x300))) + "日本 👩‍👩‍👧"
    assert printable(text) == re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", "", text)
