"""Requests for prose that a rule can write: summaries, stories, verses, lists.

The same text gives the same prose. What seems chosen is chosen by the request's own bytes.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence

__all__ = ["items", "story", "summary"]

_I = re.IGNORECASE
_NUMBERS = re.findall(r"\w+", "zero one two three four five six seven eight nine ten eleven twelve")
_STOP = frozenset(
    re.findall(
        r"\w+",
        "a about after all also an and any are as at be because been but by can could did do "
        "does for from had has have he her his how i if in into is it its just me more most my "
        "no not of on or our out over she so some such than that the their them then there "
        "these they this to up us was we were what when which who will with would you your "
        "please",
    )
)


def _choose(options: Sequence[str], *seed: str) -> str:
    return options[zlib.crc32("\0".join(seed).encode("utf-8", "replace")) % len(options)]


def _number(text: str) -> int | None:
    words = "|".join(_NUMBERS)
    match = re.search(rf"\b(\d{{1,3}}|{words})\b", text, _I)
    if match is None:
        return None
    return int(match[1]) if match[1].isdigit() else _NUMBERS.index(match[1].lower())


# ─── summary ──────────────────────────────────────────────────────────────────────────────

_SUMMARY = re.compile(r"\b(summar(?:y|i[sz]e\w*)|tl;?dr|key points?|in short)\b", _I)
_SENTENCE = re.compile(r"[^.!?\n]+(?:[.!?]+(?=\s|$)|\n|$|[.!?])")


def summary(text: str, earlier: Sequence[str]) -> str | None:
    """The weightiest sentences of what is to be summarised, in their order; None if nothing is.

    Args:
        text: The request, which may bring its text along after a colon or a line break.
        earlier: What was said before it, oldest first.
    """
    if not _SUMMARY.search(text):
        return None
    order, _, source = text.partition("\n") if "\n" in text.strip() else text.partition(":")
    if len(source.split()) < 8:
        source = next((said for said in reversed(earlier) if len(said.split()) >= 8), "")
    if not source:
        return "Give me the text after a colon, and I will pick its weightiest sentences."
    sentences = [s.strip() for s in _SENTENCE.findall(source.replace("\n", " ")) if s.strip()]
    weights = Counter(word for word in _words(source) if word not in _STOP)
    wanted = _number(order) or max(1, min(3, len(sentences) // 3))

    def weight(i: int) -> float:
        words = _words(sentences[i])
        return sum(weights[word] for word in set(words)) / (len(words) + 4)

    chosen = sorted(sorted(range(len(sentences)), key=lambda i: (-weight(i), i))[:wanted])
    return " ".join(sentences[i] for i in chosen)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{2,}", text.lower())


# ─── story, verse, joke ───────────────────────────────────────────────────────────────────

_ABOUT = re.compile(r"\b(?:about|of|on)\s+([^.,;!?\n]{2,40})", _I)
_NAMES = ("Mira", "Tomas", "Ada", "Jonas", "Lin", "Sefa", "Oskar", "Noor")
_PLACES = (
    "a harbour town",
    "a village under the hills",
    "a city of bridges",
    "an island with one lamp",
)
_FINDS = (
    "a letter without a name",
    "a key of green brass",
    "an old map",
    "a clock that ran backwards",
)
_LESSONS = (
    "what is shared is not used up",
    "a small light is enough to begin with",
    "whoever asks has half arrived",
    "the long way round has the better view",
)
_JOKES = (
    "Why did the packet cross the network twice? Nobody had acknowledged it the first time.",
    "There are two hard things in computing: naming, cache invalidation, and counting to two.",
    "I would tell you a joke about UDP, but I would never know whether you got it.",
)


def story(text: str) -> str | None:
    """A short story, a verse or a joke, if one is asked for."""
    kind = re.search(r"\b(story|tale|poem|verse|haiku|limerick|joke)\b", text, _I)
    if kind is None or not re.search(r"\b(tell|write|make|give|compose|another|a|an)\b", text, _I):
        return None
    found = _ABOUT.search(text)
    about = found[1].strip() if found else _choose(("the sea", "a lighthouse", "winter"), text)
    if kind[1].lower() == "joke":
        return _choose(_JOKES, text)
    if kind[1].lower() in {"poem", "verse", "haiku", "limerick"}:
        return (
            f"All day long I thought of {about},\n"
            "and it was quiet, and it was near;\n"
            f"by night I had forgotten {about},\n"
            "and in the morning it was here."
        )
    name, place = _choose(_NAMES, text, "name"), _choose(_PLACES, text, "place")
    find, lesson = _choose(_FINDS, text, "find"), _choose(_LESSONS, text, "lesson")
    return (
        f"Once, in {place}, there lived a girl called {name}, who thought of nothing but {about}."
        "\n\n"
        f"One morning {name} found {find}. She turned it over three times, and on the third she "
        f"understood that it had to do with {about}. So she packed bread and a lamp, and went.\n\n"
        f"The road was longer than it looked. Whoever she met, she asked about {about}; some "
        "laughed, some shrugged, and one old woman walked with her for a while. When the lamp was "
        "low they shared the bread.\n\n"
        f"{name} came home in the first snow. She never said what she had found, except this: "
        f"{lesson}."
    )


# ─── lists ────────────────────────────────────────────────────────────────────────────────

_KINDS: dict[str, str] = {
    "colou?rs?": "red orange yellow green blue indigo violet black white grey brown pink",
    "days?": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday",
    "months?": "January February March April May June July August September October November "
    "December",
    "planets?": "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune",
    "seasons?": "spring summer autumn winter",
    "fruits?": "apple pear plum cherry grape orange banana mango peach fig lemon melon",
    "vegetables?": "carrot potato onion leek cabbage spinach pea bean tomato beetroot",
    "animals?": "cat dog horse cow owl fox whale otter bear hare wolf seal",
    "primes?|prime numbers?": "2 3 5 7 11 13 17 19 23 29 31 37",
    "programming languages?": "Python C Rust Go Java Ruby Haskell Erlang Lisp Smalltalk Ada APL",
}
_LIST = re.compile(r"\b(list|name|give me|tell me|what are|enumerate|write)\b", _I)
_COUNT = re.compile(r"\bcount (?:from (\d+) )?(?:up )?to (\w+)", _I)


def items(text: str) -> str | None:
    """A list of what is asked for, one to a line, if it is of a kind that is known here."""
    counting = _COUNT.search(text)
    if counting and (last := _number(counting[2])):
        return "\n".join(str(n) for n in range(int(counting[1] or 1), last + 1))
    if not _LIST.search(text):
        return None
    for kind, known in _KINDS.items():
        if re.search(rf"\b(?:{kind})\b", text, _I):
            names = known.split()
            wanted = _number(text) or (5 if len(names) > 9 else None)
            return "\n".join(f"{i}. {name}" for i, name in enumerate(names[:wanted], 1))
    return None
