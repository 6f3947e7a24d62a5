"""Text → what is found in it that could fill a field: numbers, names, dates, quotations.

Each is given once, in the order of the text, so that two fields do not get the same number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from . import arithmetic

__all__ = ["Findings"]

_I = re.IGNORECASE
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@[\w-]+(?:\.[\w-]+)+")
_URL = re.compile(r"https?://[^\s\"'<>]+[^\s\"'<>.,;:!?)]")
_DATE = re.compile(r"\b\d{4}-\d\d-\d\d\b")
_TIME = re.compile(r"\b\d\d:\d\d(?::\d\d)?\b")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w])")
_QUOTED = re.compile(r"[\"“]([^\"”]+)[\"”]|(?<!\w)'([^']+)'(?!\w)")
_NAME = re.compile(
    r"(?:(?<![.!?]\s)(?<!^)\b|(?=[A-Z]\w*(?:\s+[A-Z]\w*)*\s+(?:is|was|has|lives|works)\b))"
    r"[A-Z][\w'’-]*(?:\s+[A-Z][\w'’-]*)*"
)
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
        for pattern in (re.compile(label, _I), re.compile(after, _I), _NUMBER):
            found = self._first(pattern)
            if found is not None:
                return float(found) if "." in found else int(found)
        return None

    def boolean(self, name: str) -> bool | None:
        """Whether `name` is said to be, or not to be; None if it is not mentioned."""
        match = re.search(rf"(\bnot\b|\bno\b|n't|\bwithout\b)?\s*\b{_words(name)}\b", self.text, _I)
        return None if match is None else match[1] is None

    def string(self, name: str, form: str | None = None) -> str | None:
        """The text that fits a field of this name and `format`; None if none does."""
        if form in _FORMATS:
            return self._first(_FORMATS[form])
        if "email" in name:
            return self._first(_EMAIL)
        if name in {"expression", "formula", "equation"}:
            return arithmetic.find(self.text) or self.text
        labelled = re.compile(
            rf"\b{_words(name)}\b(?:\s+(?:is|are|of)\b|\s*[:=])\s*([^.,;!?\n]+)", _I
        )
        found = self._first(labelled) or self._first(_QUOTED)
        if found is not None:
            return found.strip()
        if name in _WHOLE_TEXT:
            return self.text
        return self._first(_NAME) or self._first(_AFTER)

    def names(self) -> list[str]:
        """The proper names that are still to be given."""
        return [match[0] for match in self._left(_NAME)]

    def count(self, kind: str) -> int:
        """How many values of a JSON type are still to be given."""
        patterns = {"string": [_NAME, _QUOTED], "number": [_NUMBER], "integer": [_NUMBER]}
        return max((len(list(self._left(p))) for p in patterns.get(kind, [])), default=0)

    def among(self, values: list[str]) -> str | None:
        """The first of `values` that the text mentions."""
        return next((v for v in values if re.search(rf"\b{_words(v)}\b", self.text, _I)), None)

    def _left(self, pattern: re.Pattern[str]) -> Iterator[re.Match[str]]:
        for match in pattern.finditer(self.text):
            if match[0] not in _NO_NAME and _span(match) not in self._given:
                yield match

    def _first(self, pattern: re.Pattern[str]) -> str | None:
        match = next(self._left(pattern), None)
        if match is None:
            return None
        self._given.add(_span(match))
        return match[match.lastindex or 0]


def _span(match: re.Match[str]) -> tuple[int, int]:
    """Where the value is: the group that took part, or all of it."""
    return match.span(match.lastindex or 0)


def _words(name: str) -> str:
    """A field's name as a pattern: `first_name` and `firstName` are found as `first name`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])|[_-]", " ", name).split()
    return r"[\s_-]*".join(re.escape(word) for word in words) or r"(?!)"
