"""What people say to find out who is there: greetings, thanks, names, and whether it thinks."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["WHO", "fallback", "reply"]

_I = re.IGNORECASE
WHO = (
    "I am fluence-local, the small rule-based server that comes with fluence_async. I am no "
    "language model: I compute my answers from your words, and the same words get the same answer."
)
_CAN = (
    "I can do sums, pick the weightiest sentences of a text, tell a short story, write short "
    "lists, repeat what you say, remember your name, fill JSON schemas and call tools."
)
_NAME = re.compile(
    r"\b(?:my name(?: is|'s|’s)|call me|(?-i:I am|I'm|I’m)(?= [A-Z]))\s+([^\W\d_][\w'’-]*)", _I
)
_ASKED_WHO = (
    r"\b(are you|you're|is this) .*\b(ai|human|real|model|llm|gpt|chatgpt|bot|robot|machine)\b"
    r"|\b(who|what) are you\b|\bwhat('s| is) your name\b|\b(what|which) (language )?model\b"
    r"|\blanguage model\b"
)
_TALK = [
    (_ASKED_WHO, WHO),
    (r"\b(what can you do|help me|how do you work)\b|^\W*help\W*$", f"{WHO} {_CAN}"),
    (
        r"\bhow are you\b|\bhow('s| is) it going\b|\bhow do you do\b",
        "I'm doing well, thank you for asking! How can I help you today?",
    ),
    (r"\bthank(s| you)\b|\bcheers\b", "You're welcome!"),
    (r"\b(good ?bye|bye|see you|good night)\b", "Goodbye!"),
    (r"^\W*ping\W*$", "pong"),
    (
        r"^\W*(hello|hi|hey|good (morning|afternoon|evening)|greetings)\b",
        "Hello! How can I help you today?",
    ),
]
_ECHO = re.compile(
    r"^\W*(?:please )?(?:repeat after me|repeat|echo|say)\b\s*:?\s*(.+)$", _I | re.DOTALL
)


def reply(text: str, said: Sequence[str]) -> str | None:
    """The answer to small talk; None if `text` is none.

    Args:
        text: What the user says now.
        said: All that the user said, this included, oldest first.
    """
    names = [match[1] for turn in said for match in _NAME.finditer(turn)]
    if re.search(r"\b(what('s| is) my name|who am i|remember my name)\b", text, _I):
        return f"Your name is {names[-1]}." if names else "You have not told me your name yet."
    if echo := _ECHO.search(text):
        quoted = re.match(r"[\"“'](.+?)[\"”']", echo[1])
        return quoted[1] if quoted else echo[1].strip()
    for pattern, answer in _TALK:
        if len(text.split()) <= 16 and re.search(pattern, text, _I):
            return answer
    if own := _NAME.search(text):
        return f"Nice to meet you, {own[1]}! How can I help you today?"
    return None


def fallback(text: str) -> str:
    """What is said when no rule fits: honestly that."""
    words = text.split()
    start = " ".join(words[:12]) + (" …" if len(words) > 12 else "")
    counted = f"{len(words)} word{'' if len(words) == 1 else 's'}"
    return f"You wrote “{start}” ({counted}), and none of my rules fits it. {WHO} {_CAN}"
