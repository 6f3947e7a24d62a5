r"""Chunks in, the same chunks with whole characters out.

Law: a server that cuts its text between UTF-16 units sends half an emoji as a lone `\ud83d`
escape and the other half in the next chunk. The first half is held back until the second comes;
a half that is alone when its choice ends is U+FFFD. No text with a lone surrogate leaves here,
because it could be neither printed nor encoded.
"""

from __future__ import annotations

from ..types import ChatCompletionChunk, ChunkChoice, Delta, FunctionCallDelta, ToolCallDelta

__all__ = ["TEXT_FIELDS", "SurrogateJoiner", "whole_text"]

TEXT_FIELDS = ("content", "refusal", "reasoning_content", "reasoning")
"""The texts of a delta."""

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
        delta = choice.delta
        if delta is not None:
            for field in TEXT_FIELDS:
                text = self._whole((choice.index, field, None), getattr(delta, field))
                setattr(delta, field, text)
            for call in delta.tool_calls or ():
                if call.function is not None:
                    place = (choice.index, "arguments", call.index)
                    call.function.arguments = self._whole(place, call.function.arguments)
        if choice.finish_reason and self._halves:
            self._let_go(choice)

    def _whole(self, place: _Place, text: str | None) -> str | None:
        if not text:
            return text
        text = self._halves.pop(place, "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._halves[place] = text[-1]
            text = text[:-1]
        return whole_text(text)

    def _let_go(self, choice: ChunkChoice) -> None:
        """The choice has ended: halves of it that stayed alone close its texts as U+FFFD."""
        for place in [place for place in self._halves if place[0] == choice.index]:
            _, field, call = place
            lone = whole_text(self._halves.pop(place))
            delta = choice.delta = choice.delta or Delta()
            if field == "arguments":
                rest = ToolCallDelta(index=call, function=FunctionCallDelta(arguments=lone))
                delta.tool_calls = [*(delta.tool_calls or ()), rest]
            else:
                setattr(delta, field, (getattr(delta, field) or "") + lone)


def whole_text(text: str) -> str:
    """`text` with surrogate pairs joined and lone halves replaced by U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
