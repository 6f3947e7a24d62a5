"""A block of markdown goes in, lines for the terminal come out.

Law: all of the text is shown, but for what is nested more than 20 deep. rich leaves out HTML,
the targets of links and images, and line breaks; here the parser is told to take the first for
text, and the tokens are mended for the rest. Whatever the parser decodes (`&#27;`, `%1b` in an
address) is made printable again.

Code is set off by rules and not indented, so that it can be copied.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markdown import CodeBlock, Heading, HorizontalRule, Markdown
from rich.style import Style
from rich.syntax import ANSI_DARK, ANSISyntaxTheme, Syntax
from rich.text import Text
from rich.theme import Theme

from .blocks import Block
from .terminal import printable

__all__ = ["THEME", "render"]

_WIDTH = 100  # longer lines of prose are hard to read
_RULE = 40
# The terminal's own colours on its own background; and rich underlines every module.
_COLOURS = ANSISyntaxTheme(
    {kind: style + Style(underline=False) for kind, style in ANSI_DARK.items()}
)

_BLANK = re.compile(r"(?:\x1b\[[\d;]*m|\s)*")

THEME = Theme(
    {
        "markdown.h1": "bold underline",
        "markdown.h2": "bold underline",
        "markdown.h3": "bold",
        "markdown.h4": "bold",
        "markdown.code": "cyan",
        "markdown.a": "blue underline",
        "markdown.block_quote": "italic",
        "markdown.hr": "dim",
        "markdown.table.border": "dim",
        "markdown.table.header": "bold",
        "markdown.item.bullet": "bold",
        "markdown.item.number": "bold",
    }
)

_PARSER = (
    MarkdownIt("commonmark", {"html": False})
    .enable(["strikethrough", "table"])
    .disable(["reference", "image"])
)


def render(block: Block, console: Console) -> list[str]:
    """The lines that show `block`, coloured as `console` can, all narrower than it is."""
    width = max(console.width - 1, 1)  # in the last column a terminal erases what it has just got
    if block.language is not None:
        return _lines(_code(block), console, width)
    lines = _lines(_Prose(block.source), console, min(width, _WIDTH))
    while lines and _BLANK.fullmatch(lines[0]):  # rich begins a list, a quote, a table with one
        del lines[0]
    while lines and _BLANK.fullmatch(lines[-1]):
        del lines[-1]
    return lines


def _lines(shown: RenderableType, console: Console, width: int) -> list[str]:
    with console.capture() as capture:
        console.print(shown, width=width)
    return [line.rstrip(" ") for line in capture.get().removesuffix("\n").split("\n")]


# ─── prose ────────────────────────────────────────────────────────────────────────────────


def _mended(tokens: Iterable[Token]) -> Iterator[Token]:
    """Line breaks as they were written; links with their target, where it is not their text."""
    text, targets = "", []
    for token in tokens:
        token.content = printable(token.content)
        if token.children:
            token.children = list(_mended(token.children))
        if token.type == "softbreak":
            token.type = "hardbreak"
        if token.type == "link_open":
            targets.append(printable(str(token.attrs.get("href", ""))))
            text = ""
            continue
        if token.type == "link_close":
            target = targets.pop()
            if target not in (text, f"mailto:{text}"):
                yield Token("text", "", 0, content=" (")
                yield Token("link_target", "a", 0, content=target)
                yield Token("text", "", 0, content=")")
            continue
        text += token.content
        yield token


class _Heading(Heading):
    """On the left, without a frame."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.text


class _HorizontalRule(HorizontalRule):
    new_line = True

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text("─" * min(_RULE, options.max_width), style="markdown.hr")


class _CodeBlock(CodeBlock):
    """Code within an item of a list, or indented."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        language = "" if self.lexer_name == "text" else self.lexer_name
        yield _code(Block(str(self.text), language=language))


class _Prose(Markdown):
    elements = {  # noqa: RUF012  # so it is declared above
        **Markdown.elements,
        "heading_open": _Heading,
        "hr": _HorizontalRule,
        "fence": _CodeBlock,
        "code_block": _CodeBlock,
    }
    inlines = {*Markdown.inlines, "a"}  # noqa: RUF012

    def __init__(self, source: str) -> None:
        super().__init__("")
        self.parsed = list(_mended(_PARSER.parse(source)))


# ─── code ─────────────────────────────────────────────────────────────────────────────────


def _code(block: Block) -> Group:
    """The code between two rules; without them, where a piece before or after has them."""
    shown: list[RenderableType] = []
    if not block.glued:
        name = f" {block.language} " if block.language else ""
        shown.append(Text(f"──{name}".ljust(_RULE, "─"), style="markdown.hr"))
    shown += _highlighted(block)
    if block.ended:
        shown.append(Text("─" * _RULE, style="markdown.hr"))
    return Group(*shown)


def _highlighted(block: Block) -> Iterator[Text]:
    lexer = (block.language or "").partition(" ")[0] or "text"
    syntax = Syntax("", lexer, theme=_COLOURS, word_wrap=True)
    skipped = block.context.count("\n")
    lines = syntax.highlight(block.context + block.source.rstrip("\n")).split("\n")
    for line in lines[skipped:]:
        line.overflow = "fold"
        yield line
