"""Pieces of a JSON text go in, its top-level members come out, each once, as soon as it is closed.

Law: linear in the text, however it is cut. No character is looked at twice by Python, and most are
not at all: a value can only be closed by one certain character (a string by `"`, an object by `}`),
and a piece without it is set aside unread. What is set aside is scanned in one go, by regular
expressions that cannot backtrack.

It finds where members end and judges nothing else: whether the text is JSON, and whether it fits
a type, is for the decoder of the whole. Of a text that is not the expected container it finds none.

Rejected, as measured: jiter's partial mode and the like read from the start again at every piece,
so that twice the text takes four times the time; ijson (yajl, in C) is linear, and needs nine times
what this does.

Spec: https://www.rfc-editor.org/rfc/rfc8259
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeAlias

__all__ = ["Member", "MemberReader"]

Member: TypeAlias = tuple[str, str]
"""A member's name as JSON text with its quotes ("" in an array), and its value as JSON text."""

_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRING_END = re.compile(r'[^"\\]*+(?:\\.[^"\\]*+)*+(")?', re.DOTALL)
_SKIP = re.compile(r"[\s,]*+")
_COLON = re.compile(r"[\s:]*+")
_SCALAR = re.compile(r"[^\s,\]}]*+")
# To the next bracket of one kind, strings passed over whole; or to a string that is not closed.
_NEXT = {
    bracket: re.compile(rf'(?:[^"{bracket}]++|{_STRING})*+([{bracket}"])?', re.DOTALL)
    for bracket in (r"{}", r"\[\]")
}
# A member that is there as a whole and holds no others: the short way through a long piece.
_PLAIN = rf'({_STRING}|[^\s,\]}}"\[{{]++(?=[\s,\]}}]))'
_WHOLE = {
    "}": re.compile(rf"[\s,]*+({_STRING})\s*+:\s*+{_PLAIN}", re.DOTALL),
    "]": re.compile(rf"[\s,]*+(){_PLAIN}", re.DOTALL),
}
_BRACKETS = {"{": ("}", _NEXT[r"{}"]), "[": ("]", _NEXT[r"\[\]"])}
_PAIR = {"}": b"{}", "]": b"[]"}
_UNMARKED = {
    closer: bytes(byte for byte in range(256) if byte not in b'"' + pair)
    for closer, pair in _PAIR.items()
}
_SKIMMED, _PASSES = 64, 8

_ANY = ""
"""In every piece: whatever comes must be looked at."""


class MemberReader:
    """Finds the members of one container while its text comes in.

    Args:
        opening: What the text begins with, up to the members: `{`, or as much as
            `{"value":[` for the items of an array inside. White space does not matter.

    Example:
        ```python
        reader = MemberReader()
        assert reader.feed('{"title": "Tomato so') == ()
        assert reader.feed('up", "serves": 4') == [('"title"', '"Tomato soup"')]
        assert reader.feed("}") == [('"serves"', "4")]
        ```
    """

    __slots__ = (
        "_closer",
        "_depth",
        "_end",
        "_found",
        "_in_string",
        "_name",
        "_next",
        "_pending",
        "_state",
        "_value",
        "_wanted",
        "_whole",
    )

    def __init__(self, opening: str = "{") -> None:
        self._wanted = opening
        self._end = "]" if opening.endswith("[") else "}"
        self._whole = _WHOLE[self._end]
        self._pending: list[str] = []
        self._closer = _ANY
        self._state: Callable[[str, int], int] = self._in_opening
        self._found: list[Member] = []
        self._name = ""
        self._value: list[str] = []
        self._depth = 0
        self._in_string = False
        self._next = _NEXT[r"{}"]

    def feed(self, text: str) -> Sequence[Member]:
        """Take the next piece: the members that it closes."""
        self._pending.append(text)
        if self._closer not in text:
            return ()
        return self._scan()

    def _scan(self) -> Sequence[Member]:
        text = "".join(self._pending)
        self._pending.clear()
        at, end = 0, len(text)
        while at < end:
            at = self._state(text, at)
        found, self._found = self._found, []
        return found or ()

    # ─── the states: each reads from `at` on and says how far it came ─────────────────────

    def _in_opening(self, text: str, at: int) -> int:
        if not text[at].isspace():
            if text[at] != self._wanted[0]:
                return self._over(text)
            self._wanted = self._wanted[1:]
            if not self._wanted:
                self._state = self._between
        return at + 1

    def _between(self, text: str, at: int) -> int:
        while match := self._whole.match(text, at):
            self._found.append((match[1], match[2]))
            at = match.end()
        at = _end_of(_SKIP, text, at)
        if at == len(text):
            return at
        if text[at] == self._end:
            return self._over(text)
        if self._end == "]":
            return self._begin_value(text, at)
        if text[at] != '"':
            return self._over(text)
        self._value = ['"']
        self._state, self._closer = self._in_name, '"'
        return at + 1

    def _in_name(self, text: str, at: int) -> int:
        at, closed = self._string_end(text, at)
        if closed:
            self._name = "".join(self._value)
            self._state, self._closer = self._after_name, _ANY
        return at

    def _after_name(self, text: str, at: int) -> int:
        at = _end_of(_COLON, text, at)
        return self._begin_value(text, at) if at < len(text) else at

    def _begin_value(self, text: str, at: int) -> int:
        first = text[at]
        self._value = []
        if first == '"':
            self._value.append(first)
            self._state, self._closer = self._in_text, '"'
            return at + 1
        if first in _BRACKETS:
            self._closer, self._next = _BRACKETS[first]
            self._state, self._depth, self._in_string = self._in_brackets, 0, False
            return at
        if first in ",]}":
            return self._over(text)
        self._state, self._closer = self._in_scalar, _ANY
        return at

    def _in_text(self, text: str, at: int) -> int:
        at, closed = self._string_end(text, at)
        if closed:
            self._close()
        return at

    def _in_scalar(self, text: str, at: int) -> int:
        end = _end_of(_SCALAR, text, at)
        self._value.append(text[at:end])
        if end < len(text):
            self._close()
        return end

    def _in_brackets(self, text: str, at: int) -> int:
        if self._in_string:
            at, closed = self._string_end(text, at)
            self._in_string = not closed
            return at
        if self._depth and len(text) - at > _SKIMMED and self._skim(text[at:]):
            return len(text)
        start, end, depth = at, len(text), self._depth
        while at < end:
            match = self._next.match(text, at)
            assert match is not None
            at = match.end()
            bracket = match[1]
            if bracket is None:
                continue  # nothing but what is inside
            if bracket == '"':
                self._in_string = True
                break
            depth += 1 if bracket in "{[" else -1
            if not depth:
                break
        self._value.append(text[start:at])
        self._depth = depth
        if not depth:
            self._close()
        return at

    def _skim(self, text: str) -> bool:
        """The short way over a text in which the value is not closed: count, do not walk.

        Of the text its quotes and brackets are kept. Two quotes with nothing between them then
        are a string without brackets, or the end of one and the beginning of the next; taken away,
        they leave every bracket inside of a string, or outside, as it was. With no quote left, all
        are outside. Where that does not settle it, nothing has changed, and the text is walked.
        """
        if "\\" in text:
            return False
        in_string = text.count('"') % 2 == 1
        outside = text[: text.rfind('"')] if in_string else text
        marks = outside.encode("utf-8", "surrogatepass").translate(None, _UNMARKED[self._closer])
        marks = marks.replace(b'""', b"")
        pair = _PAIR[self._closer]
        for _ in range(_PASSES):
            if pair not in marks:
                break
            marks = marks.replace(pair, b"")
        closed = marks.count(pair[1:])
        if b'"' in marks or pair in marks or closed >= self._depth:
            return False
        self._value.append(text)
        self._depth += len(marks) - 2 * closed
        self._in_string = in_string
        return True

    # ─── what they share ──────────────────────────────────────────────────────────────────

    def _string_end(self, text: str, at: int) -> tuple[int, bool]:
        """Read a string to its closing quote, or to the end of the text."""
        end = text.find('"', at) + 1
        escape = text.find("\\", at, end or len(text))
        closed = bool(end)
        if escape >= 0:
            match = _STRING_END.match(text, escape)
            assert match is not None
            end, closed = match.end(), match[1] is not None
            if not closed and end < len(text):
                # A backslash whose other half is still to come: it is read again with that.
                self._pending.append(text[end:])
        elif not closed:
            end = len(text)
        self._value.append(text[at:end])
        return (end, True) if closed else (len(text), False)

    def _close(self) -> None:
        self._found.append((self._name, "".join(self._value)))
        self._state, self._closer = self._between, _ANY

    def _over(self, text: str) -> int:
        """The container is closed, or was not the expected one: nothing more is found."""
        self._state, self._closer = self._ignore, _ANY
        return len(text)

    def _ignore(self, text: str, _at: int) -> int:
        return len(text)

    def __repr__(self) -> str:
        return f"<MemberReader {self._state.__name__.strip('_')}>"


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    assert match is not None
    return match.end()
