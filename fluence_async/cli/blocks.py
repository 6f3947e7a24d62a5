"""Markdown goes in as it comes, and comes out as blocks that no later text can change.

A block is a paragraph, a table, a heading, one item of a list, or a piece of fenced code. What
has come out is printed once and for good; only the open rest is drawn again and again. So an
answer of any length costs time in proportion to it, and scrolls like any other output.

Law: the sources of all blocks, joined, are the text (less blank lines between blocks, the
fences of code, and the numbers of ordered items, which are counted here).

https://spec.commonmark.org/0.31.2/#blocks-and-inlines is followed as far as it decides where a
block ends. Rejected: parsing the whole answer again at each token (quadratic), and holding a
list back until its end (a long one would be taller than the screen).
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["Block", "BlockSplitter"]

_FENCE = re.compile(r"( *)(`{3,}|~{3,})([^\n]*)")
_ITEM = re.compile(r"( *)(?:([-*+])|(\d{1,9})([.)]))( +|(?=\n)|$)")
_MARKS = "-=*_+#>|`~: "  # a line of these alone does not yet say what it will be
_CONTEXT_LINES = 50


class Block(NamedTuple):
    """A finished block, or what there is of the open one.

    Attributes:
        source: Markdown; of fenced code the code alone.
        glued: It continues the block before: no blank line between them.
        language: The info string of fenced code; None for anything else.
        context: The code before it in the same fence, for the highlighter's sake.
        ended: False for code whose fence has not been closed yet.
    """

    source: str
    glued: bool = False
    language: str | None = None
    context: str = ""
    ended: bool = True


class _Fence(NamedTuple):
    indent: int
    marker: str
    language: str

    @classmethod
    def opened_by(cls, line: str) -> _Fence | None:
        match = _FENCE.match(line)
        if match is None or ("`" in match[2] and "`" in match[3]):
            return None
        return cls(len(match[1]), match[2], match[3].strip())

    def closed_by(self, line: str) -> bool:
        bare = line.strip()
        return bare.startswith(self.marker) and not bare.strip(self.marker[0])


class _Item(NamedTuple):
    indent: int
    offset: int  # where the item's text begins: what is indented as far belongs to it
    style: str  # the bullet, or what follows the number: another one is another list
    number: int | None

    @classmethod
    def begun_by(cls, line: str) -> _Item | None:
        match = _ITEM.match(line)
        if match is None:
            return None
        indent, bullet, number, style, _ = match.groups()
        marker = len(bullet or number + style)
        spaces = len(match[5])
        offset = len(indent) + marker + (spaces if 1 <= spaces <= 4 else 1)
        return cls(len(indent), offset, bullet or style, int(number) if number else None)


class BlockSplitter:
    """Cuts markdown into blocks while it arrives."""

    def __init__(self) -> None:
        self._lines: list[str] = []  # of the open block, each with its line end
        self._line = ""  # the one that has not ended yet
        self._blank = False  # the last of `_lines` is blank
        self._glued = False
        self._fence: _Fence | None = None
        self._item: _Item | None = None
        self._context: list[str] = []
        self._finished: list[Block] = []

    def feed(self, text: str) -> list[Block]:
        """Take a piece of the text; return the blocks that it finished."""
        *lines, rest = text.split("\n")
        if lines:
            lines[0] = self._line + lines[0]
            for line in lines:
                self._add(line + "\n")
            self._line = rest
        else:
            self._line += rest
        finished, self._finished = self._finished, []
        return finished

    def finish(self) -> list[Block]:
        """Take the end of the text; return what was still open."""
        finished = self.feed("\n") if self._line else []
        self._close()
        finished += self._finished
        self._finished = []
        return finished

    @property
    def open(self) -> Block | None:
        """The block that more text may still change; None where there is none."""
        line = self._line if self._line.strip(_MARKS) else ""
        if self._in_code:
            return self._code("".join(self._lines) + line, ended=False)
        if self._opens_fence(line) is not None:
            line = ""  # its info string may not be whole yet
        source = "".join(self._lines) + line
        return Block(source, self._glued) if source else None

    def cut(self) -> Block | None:
        """Finish the open block before its end, where it may be cut: it is too tall.

        Code is cut after any line, a paragraph too; a table and an item of a list are not.
        """
        uncuttable = self._item is not None or any(line[0] == "|" for line in self._lines)
        if not self._lines or (uncuttable and not self._in_code):
            return None
        if self._in_code:
            self._close_code(ended=False)
        else:
            blank = self._blank
            self._close()
            self._glued = not blank
        return self._finished.pop()

    # ─── line by line ─────────────────────────────────────────────────────────────────────

    def _add(self, line: str) -> None:
        if self._fence is not None:
            self._add_to_fence(self._fence, line)
        elif not line.strip():
            self._blank = bool(self._lines)
            if self._lines:
                self._lines.append(line)
            else:
                self._glued = False
        else:
            self._add_to_block(line)

    def _add_to_block(self, line: str) -> None:
        item = _Item.begun_by(line)
        fence = self._opens_fence(line)
        if self._ends_before(line, item, fence):
            self._close()
        if not self._lines:
            self._glued = self._glued and fence is None
            line = self._begin(line, item)
        self._fence = fence
        self._blank = False
        if not self._in_code:
            self._lines.append(line)

    def _add_to_fence(self, fence: _Fence, line: str) -> None:
        closed = fence.closed_by(line)
        if self._in_code and closed:
            self._close_code(ended=True)
        elif self._in_code:
            self._lines.append(line.removeprefix(" " * fence.indent))
        else:
            self._lines.append(line)
            if closed:
                self._fence = None

    def _opens_fence(self, line: str) -> _Fence | None:
        fence = _Fence.opened_by(line)
        offset = self._item.offset if self._item is not None else 0
        return fence if fence is not None and fence.indent <= offset + 3 else None

    @property
    def _in_code(self) -> bool:
        """In a fence of its own, not in one within a list's item."""
        return self._fence is not None and self._item is None

    def _ends_before(self, line: str, item: _Item | None, fence: _Fence | None) -> bool:
        """Whether the open block ends before `line`, which is not blank."""
        if not self._lines:
            return False
        indent = len(line) - len(line.lstrip(" "))
        if self._item is not None:
            outside = indent < self._item.offset
            return outside and (self._blank or item is not None or fence is not None)
        if self._blank or fence is not None:
            return True
        return item is not None and item.number in (None, 1)  # may interrupt a paragraph

    def _begin(self, line: str, item: _Item | None) -> str:
        """Begin a block with `line`; an ordered item gets its number by counting."""
        before, self._item = self._item, item
        if item is None or before is None or item.style != before.style:
            self._glued = self._glued and item is None
            return line
        self._glued = True
        if item.number is None or before.number is None:
            return line
        self._item = item._replace(number=before.number + 1)
        return line.replace(str(item.number), str(self._item.number), 1)

    # ─── ending ───────────────────────────────────────────────────────────────────────────

    def _close(self) -> None:
        if self._in_code:
            self._close_code(ended=True)
        elif self._lines:
            self._finished.append(Block("".join(self._lines).rstrip() + "\n", self._glued))
            self._lines = []
            self._glued = False
            self._blank = False

    def _close_code(self, *, ended: bool) -> None:
        self._finished.append(self._code("".join(self._lines), ended=ended))
        self._context = [] if ended else (self._context + self._lines)[-_CONTEXT_LINES:]
        self._lines = []
        self._glued = not ended
        self._fence = None if ended else self._fence

    def _code(self, source: str, *, ended: bool) -> Block:
        language = self._fence.language if self._fence is not None else ""
        return Block(source, self._glued, language, "".join(self._context), ended)
