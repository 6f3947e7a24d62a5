"""As much of a terminal as `fluence` draws on: bytes go in, lines come out."""

from __future__ import annotations

import re

__all__ = ["WIDER", "Screen"]

CSI = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])")
WIDER = "Ⅷ"  # of ambiguous width: one column to rich, two to this screen


class Screen:
    """Takes the sequences that the program uses and no others. What has scrolled off stays."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.lines = [""]
        self.row = self.column = 0
        self.wraps = True

    def write(self, text: str) -> None:
        position = 0
        while position < len(text):
            if match := CSI.match(text, position):
                self.control(match[3], match[2])
                position = match.end()
            else:
                self.put(text[position])
                position += 1

    def put(self, character: str) -> None:
        assert character in "\r\n" or character.isprintable(), repr(character)
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self.feed_line()
        else:
            cell = character + " " * (character == WIDER)
            if self.column + len(cell) > self.width:
                if self.wraps:
                    self.feed_line()
                self.column = min(self.column, self.width - len(cell))
            line = self.lines[self.row]
            self.lines[self.row] = line[: self.column] + cell + line[self.column + len(cell) :]
            self.column += len(cell)

    def feed_line(self) -> None:
        self.row, self.column = self.row + 1, 0
        if self.row == len(self.lines):
            self.lines.append("")

    def control(self, letter: str, argument: str) -> None:
        assert argument.isdigit() if letter == "A" else argument in {"", "7"} or letter == "m"
        self.column = min(self.column, self.width - 1)  # as real ones do: the last column is lost
        if letter == "A":
            self.row -= int(argument)
            assert self.row >= max(0, len(self.lines) - self.height), "above the window's top"
        elif letter == "K":
            self.lines[self.row] = self.lines[self.row][: self.column]
        elif letter == "J":
            self.lines[self.row] = self.lines[self.row][: self.column]
            del self.lines[self.row + 1 :]
        elif letter in "hl":
            self.wraps = letter == "h"
        else:
            assert letter == "m", letter
