"""The API key, kept out of every text.

Law: the key goes to one origin and into no repr, log, exception, traceback or pickle. The raw
value leaves this module in one form only: a header value whose own repr is redacted, so that
the reprs of an HTTP library's requests and errors are safe as well.
"""

from __future__ import annotations

import base64
import re
from typing import NoReturn

__all__ = ["ApiKey", "RedactedHeader"]

_MASK = "***"
_SHORTEST_SCRUBBED = 4
"""A shorter key is no secret, and scrubbing it would make every text unreadable."""
_BEGINNING = 8
_SURELY = 24
"""So many first characters of a key are scrubbed whatever follows; fewer might begin another word,
as "fluence-" does "fluence-chat"."""


class RedactedHeader(str):
    """A header value that goes out as it is and shows itself as `'***'`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(_MASK)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a header that holds an API key cannot be pickled")


class ApiKey:
    """An API key that can be sent and scrubbed, and nothing else.

    Args:
        value: The key: printable ASCII without spaces.

    Raises:
        ValueError: `value` is empty or could not stand in a header; the message does not show it.
    """

    __slots__ = ("_pattern", "_value", "authorization")

    authorization: RedactedHeader

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            kind = type(value).__name__
            del value  # a traceback may show the variables of every frame
            raise TypeError(f"api_key must be a str, not {kind}")
        problem = _problem(value)
        if problem:
            del value
            raise ValueError(problem)
        self._value = RedactedHeader(value)
        self.authorization = RedactedHeader("Bearer " + value)
        self._pattern = _pattern(value)

    def reveal(self) -> str:
        """The key itself, still with a redacted repr: for keyed hashes only."""
        return self._value

    def scrub(self, text: str) -> str:
        """`text` without the key in any form it might have taken on the way: as it is, in base64
        (alone or within more), or cut short (8 characters or more, `sk-12345…` or `sk-12345xxx`);
        each as URLs and JSON write it, too."""
        if self._pattern is None:
            return text
        return self._pattern.sub(_MASK, text)

    def __repr__(self) -> str:
        return "ApiKey('***')"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an API key cannot be pickled; open a session where it is used")


def _problem(value: str) -> str:
    """Why `value` can be no key; "" if it can."""
    if not value:
        return "api_key is empty: pass the key itself, or set FLUENCE_API_KEY"
    for position, character in enumerate(value):
        if not "!" <= character <= "~":
            kind = "a space or line break" if character.isspace() else "a character"
            return (
                f"api_key has {kind} at position {position} (U+{ord(character):04X}) that "
                "no header may hold: was a line break copied along? Use key.strip()"
            )
    return ""


def _pattern(value: str) -> re.Pattern[str] | None:
    if len(value) < _SHORTEST_SCRUBBED:
        return None
    forms = {value, value[:_SURELY]}
    for offset in range(3):
        form = _base64_within(value, offset)
        forms |= {form, form.translate(_URL_SAFE)}
    cut_short: list[str] = []
    if len(value) >= 2 * _BEGINNING:
        lengths = range(min(_SURELY, len(value)) - 1, _BEGINNING - 1, -1)
        cut_short = [_as_written(value[:length]) + r"(?=[xX]*(?![\w-]))" for length in lengths]
    # Longest first: a beginning must not be masked before the whole. What follows a masked form
    # may be more of the key, so the rest of the word goes with it.
    whole = map(_as_written, sorted(forms, key=len, reverse=True))
    return re.compile(f"(?:{'|'.join([*whole, *cut_short])})" + r"[\w\-+/=%.*]*")


_URL_SAFE = str.maketrans("+/", "-_")


def _base64_within(value: str, offset: int) -> str:
    """The characters that stand for `value` alone, where base64 encodes it within more (as in
    `Bearer …`), `offset` bytes after a multiple of three."""
    encoded = base64.b64encode(b"\0" * offset + value.encode()).decode()
    return encoded[-(-offset * 8 // 6) : (offset + len(value)) * 8 // 6]


def _as_written(text: str) -> str:
    """A pattern for `text` as it is, URL-encoded or escaped in JSON, character by character."""
    return "".join(
        character
        if character.isalnum()
        else rf"(?:\\?{re.escape(character)}|(?i:%{ord(character):02x}|\\u{ord(character):04x}))"
        for character in text
    )
