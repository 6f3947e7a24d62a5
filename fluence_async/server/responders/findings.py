"""Text → what is found in it that could fill a field: numbers, names, dates, quotations.

Each is given once, in the order of the text, so that two fields do not get the same number.
"""

from __future__ import annotations

import re

from . import arithmetic

__all__ = ["Findings"]

_EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
_URL = re.compile(r"https?://[^\s\"'<>]+[^\s\"'<>.,;:!?)]")
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")
_TIME = re.compile(r"\b\d\d:\d\d(?::\d\d)?\b")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_QUOTED = re.compile(r"[\"“]([^\"”]+)[\"”]|(?<!\w)'([^']+)'(?!\w)")
_NAME = re.compile(r"(?<![.!?]\s)(?<!^)\b[A-Z][\w'’-]*(?:\s+[A-Z][\w'’-]*)*")
_NAMES_FIRST = re.compile(r"^[A-Z][\w'’-]*(?=\s+(?:is|and|was|has|lives|works)\b|,)")
_NO_NAME = {"I", "I'm", "JSON", "The", "A", "An", "What", "Please", "Celsius", "Fahrenheit"}
_AFTER = re.compile(
    r"\b(?:in|for|at|to|about|of|from|named|called)\s+(?:the\s+)?"
    r"([^\W\d_][\w'’-]*(?:\s+[^\W\d_][\w'’-]*){0,2}?)"
    r"(?=\s*(?:[?.!,;:]|$|\b(?:and|or|today|tomorrow|now|right|please|in|for|at|on|with)\b))"
)
_WHOLE_TEXT = {"text", "query", "question", "prompt", "input", "message", "content", "q"}
_FORMATS = {"email": _EMAIL, "uri": _URL, "url": _URL, "date": _DATE, "time": _TIME}


class Findings:
    """What there is in `text` to be found.

    Args:
        text: Where to look.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._given: set[tuple[int, int]] = set()

    def number(self, name: str) -> float | None:
        """The number beside `name`, else the next one."""
        label = rf"\b{_words(name)}\b[^\d.!?,;]{{0,16}}?(-?\d+(?:\.\d+)?)"
        after = rf"(-?\d+(?:\.\d+)?)\s*-?{_words(name)}\b"
        for pattern in (re.compile(label, re.I), re.compile(after, re.I), _NUMBER):
            found = self._first(pattern)
            if found is not None:
                return float(found)
        return None

    def boolean(self, name: str) -> bool | None:
        """Whether `name` is said to be, or not to be; None if it is not mentioned."""
        match = re.search(rf"(\bnot\b|\bno\b|n't|\bwithout\b)?\s*\b{_words(name)}\b", self.text, re.I)
        return None if match is None else match[1] is None

    def string(self, name: str, form: str | None = None) -> str | None:
        """The text that fits a field of this name and `format`; None if none does."""
        if form in _FORMATS:
            return self._first(_FORMATS[form])
        if "email" in name:
            return self._first(_EMAIL)
        if name in {"expression", "formula", "equation"}:
            return arithmetic.find(self.text) or self.text
        labelled = re.compile(rf"\b{_words(name)}\b(?:\s+(?:is|are|of)\b|\s*[:=])\s*([^.,;!?\n]+)", re.I)
        found = self._first(labelled) or self._first(_QUOTED)
        if found is not None:
            return found.strip()
        if name in _WHOLE_TEXT:
            return self.text
        return next(iter(self.names(take=True)), None) or self._first(_AFTER)

    def names(self, *, take: bool = False) -> list[str]:
        """The proper names; with `take`, only the next one, and it is given."""
        matches = [*_NAMES_FIRST.finditer(self.text), *_NAME.finditer(self.text)]
        for match in matches:
            if take and match.span() not in self._given and match[0] not in _NO_NAME:
                self._given.add(match.span())
                return [match[0]]
        return [] if take else [m[0] for m in matches if m[0] not in _NO_NAME]

    def among(self, values: list[str]) -> str | None:
        """The first of `values` that the text mentions."""
        return next((v for v in values if re.search(rf"\b{_words(v)}\b", self.text, re.I)), None)

    def _first(self, pattern: re.Pattern[str]) -> str | None:
        for match in pattern.finditer(self.text):
            group = match.lastindex or 0
            if match.span(group) not in self._given:
                self._given.add(match.span(group))
                return match[group]
        return None


def _words(name: str) -> str:
    """A field's name as a pattern: `first_name` and `firstName` are found as `first name`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]", " ", name).split()
    return r"[\s_-]*".join(re.escape(word) for word in words) or r"(?!)"
