"""Chunks in, the same chunks with whole characters out.

Law: a server that cuts its text between UTF-16 units sends half an emoji as a lone `\\ud83d`
escape and the other half in the next chunk. The first half is held back until the second comes;
a half that stays alone is U+FFFD. No text with a lone surrogate leaves here, because it could
be neither printed nor encoded.
"""

from __future__ import annotations

from ..types import ChatCompletionChunk, ChunkChoice, Delta

__all__ = ["SurrogateJoiner", "whole_text"]

_Place = tuple[int, str, int | None]
"""A choice, a field, and the tool call where the field is one of a tool call's."""


class SurrogateJoiner:
    """Holds half characters back, for each text of each choice."""

    __slots__ = ("_halves",)

    def __init__(self) -> None:
        self._halves: dict[_Place, str] = {}

    @property
    def pending(self) -> bool:
        """A half character waits for its other half."""
        return bool(self._halves)

    def join(self, chunk: ChatCompletionChunk) -> None:
        """Make the texts of `chunk` whole, in place."""
        for choice in chunk.choices:
            self._join_choice(choice)

    def _join_choice(self, choice: ChunkChoice) -> None:
        last = choice.finish_reason is not None
        delta = choice.delta
        if delta is None:
            if not last:
                return
            delta = choice.delta = Delta()  # a place for a half that stays alone
        for field in ("content", "refusal", "reasoning_content"):
            text = self._whole((choice.index, field, None), getattr(delta, field), last)
            setattr(delta, field, text)
        for call in delta.tool_calls or ():
            if call.function is not None:
                place = (choice.index, "arguments", call.index)
                call.function.arguments = self._whole(place, call.function.arguments, last)

    def _whole(self, place: _Place, text: str | None, last: bool) -> str | None:
        half = self._halves.pop(place, "")
        if not text and not last:
            if half:
                self._halves[place] = half
            return text
        text = half + (text or "")
        if not text:
            return None
        if not last and "\ud800" <= text[-1] <= "\udbff":
            self._halves[place] = text[-1]
            text = text[:-1]
        return whole_text(text)


def whole_text(text: str) -> str:
    """`text` with surrogate pairs joined and lone halves replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
